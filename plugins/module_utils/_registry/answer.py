# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bodies of answers that are kept in memory, and what registries say in those of errors."""

from __future__ import annotations

import contextlib
import json
import typing as t

from .._errors import visible
from .._remote.exchange import Exchange, PassingError, Request

_LONGEST_CODE = 60
_LONGEST_MESSAGE = 300
_PIECE = 64 * 1024


def read_bounded(exchange: Exchange, request: Request, limit: int) -> tuple[t.Any, bytes]:
    """Return headers and body of one answer. Raises ``PassingError``, ``RefusedError``, ``SourceError``."""
    response = exchange.open(request)
    with contextlib.closing(response):
        if response.status != 200:
            # a part, for example, of which nothing was asked for
            raise exchange.problem(f"the server answered {response.status}", "check the server")
        pieces, size = [], 0
        while piece := response.read(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise exchange.problem(f"the server sent more than {limit} bytes, a fixed limit", "check the server")
        # one copy, however small the pieces were
        data = b"".join(pieces)
        if request.method != "HEAD" and len(data) < (response.length or 0):
            raise PassingError("it broke off too early")
        if response.encoding is not None:
            raise exchange.problem("the server encodes it although it was asked for as it is", "switch that off there")
        return response.headers, data


def said_by_registry(body: bytes) -> str:
    """Return the code and message of a registry's error as a part of a sentence, empty if it does not give any."""
    try:
        value = json.loads(body)
        # a list by the specification, an object by token servers
        errors = value.get("errors") or [
            {"message": value.get("details") or value.get("error") or value.get("message")}
        ]
        first = errors[0]
        code, message = first.get("code") or "", first.get("message") or ""
    except (ValueError, RecursionError, AttributeError, IndexError, KeyError, TypeError):
        return ""
    words = [visible(str(code), _LONGEST_CODE), visible(str(message), _LONGEST_MESSAGE)]
    words = [word for word in words if word]
    return f" ({': '.join(words)})" if words else ""

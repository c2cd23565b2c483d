# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a server is spoken to, and what is told to the user meanwhile (docs/behaviour.md, section 1)."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from .._errors import SourceError, os_phrase, show

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_OURS = ("accept-encoding", "if-range", "range", "content-length", "transfer-encoding")
# How many notes are kept of one run.
_MOST_NOTES = 20


class Notes:
    """Sentences for the user about requests that went well in the end, each once; ``tell`` gets each one at once."""

    def __init__(self, tell: t.Callable[[str], None] = lambda _text: None) -> None:
        self.texts: list[str] = []
        self._tell = tell

    def add(self, text: str) -> None:
        """Add a sentence."""
        if text not in self.texts and len(self.texts) < _MOST_NOTES:
            self.texts.append(text)
            self._tell(text)


def is_header_value(text: str) -> bool:
    """Return whether a text can be the value of a header."""
    return _HEADER_VALUE.match(text) is not None


@dataclass(frozen=True)
class HttpOptions:
    """Options for requests to a server.

    ``timeout`` is in seconds, see ``Clock``; ``retries`` is how often a request that failed is tried again.
    ``ca_path``, ``client_cert`` and ``client_key`` are paths of PEM files. ``notes`` collect what the user should know.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    force_basic_auth: bool = False
    client_cert: str | None = None
    client_key: str | None = None
    ca_path: str | None = None
    validate_certs: bool = True
    use_proxy: bool = True
    agent: str = "ansible-httpget"
    headers: t.Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 30.0
    retries: int = 5
    notes: Notes = field(default_factory=Notes, repr=False, compare=False)

    def check(self) -> None:
        """Require that all options are valid. Raises ``SourceError``, which names the option."""
        for name, value in self.headers.items():
            if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(value):
                raise SourceError(
                    f"the option headers holds {show(name)}, whose name or value cannot stand in a request; correct it"
                )
            if name.lower() in _OURS:
                raise SourceError(f"the option headers holds {show(name)}, which the module sets itself; leave it out")
        if self.timeout <= 0 or self.retries < 0:
            raise SourceError("the options timeout and url_retries are more than 0, and 0 or more; correct them")
        if not _HEADER_VALUE.match(self.agent):
            raise SourceError("the option http_agent cannot stand in a request; correct it")
        for option in ("ca_path", "client_cert", "client_key"):
            path = getattr(self, option)
            if path is None:
                continue
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise SourceError(
                    f"the option {option}: {show(path)} cannot be read: {os_phrase(error)}; check the path"
                ) from error

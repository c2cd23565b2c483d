# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image names, expanded by Docker's rules (docs/behaviour.md, section 2)."""

from __future__ import annotations

import re
import typing as t

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")


def normalise_name(name: str) -> str:
    """Return the full name: ``docker.io/library/alpine:latest`` for ``alpine``."""
    name, at, digest = name.partition("@")
    first, slash, rest = name.partition("/")
    # repository paths are lower case, so anything else is a host
    is_host = first == "localhost" or first != first.lower() or {".", ":"} & {*first}
    if slash and is_host:
        domain, path = first, rest
    else:
        domain, path = "docker.io", name
    if domain == "index.docker.io":
        domain = "docker.io"
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    if ":" not in path.rpartition("/")[2] and not at:
        path += ":latest"
    return f"{domain}/{path}{at}{digest}"


def matches(ref: str, names: t.Iterable[str], loosely: bool) -> bool:
    """Return whether one of an image's names is the requested one.

    With ``loosely``, a bare tag on one side also matches a full name with that tag on the other.
    """
    wanted = normalise_name(ref)
    for name in names:
        if normalise_name(name) == wanted:
            return True
        if loosely and (_is_tag_of(ref, name) or _is_tag_of(name, ref)):
            return True
    return False


def _is_tag_of(tag: str, name: str) -> bool:
    _path, colon, last = name.rpartition(":")
    return bool(colon and "/" not in last and _TAG.match(tag) and last == tag)

# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide which images may use which blobs of a cache (docs/behaviour.md, section 7).

A digest proves nothing: anybody who knows one can name it in a manifest, and would get a blob that they never had. So
the cache records which scopes have added all of a blob, and only these may use it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import typing as t

# The folder of proofs: one empty file for each, named after blob and scope.
PROOFS = "proofs"

_NAME = re.compile(r"([0-9a-f]{64}|[0-9a-f]{128})\.[0-9a-f]{64}\Z")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def scope_named(name: str) -> str:
    """Return the scope that the user names."""
    return scope_of_values("named", name)


def scope_of_path(path: str) -> str:
    """Return the scope of a file or directory on the node."""
    return scope_of_values("node", os.path.realpath(path))


def scope_of_offer(path: str) -> str:
    """Return the scope of a file or directory on the controller."""
    return scope_of_values("controller", path)


def scope_of_fetched(identity: str) -> str:
    """Return the scope of what the controller fetched; ``identity`` stands for the server and for the credentials."""
    return scope_of_values("fetched", identity)


def scope_of_values(*values: str) -> str:
    """Return the scope of what these values name together; the first one says what they are."""
    # a hash of JSON: unambiguous, and the name of a proof reveals nothing of a URL
    text = json.dumps(values, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Proofs:
    """The blobs that one scope has added, in the folder behind ``fd``, which the caller closes."""

    def __init__(self, fd: int, scope: str) -> None:
        self._fd = fd
        self._scope = scope

    def has(self, name: str) -> bool:
        """Return whether the scope has added the blob of this hexadecimal digest."""
        try:
            status = os.stat(self._of(name), dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()

    def add(self, name: str) -> None:
        """Record that the scope has added the blob. Raises ``OSError``."""
        os.close(os.open(self._of(name), _CREATE, 0o600, dir_fd=self._fd))

    def prune(self, is_there: t.Callable[[str], bool]) -> None:
        """Remove the proofs of blobs that the cache no longer holds. Raises ``OSError``."""
        for name in os.listdir(self._fd):
            match = _NAME.match(name)
            if match is not None and not is_there(match.group(1)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._fd)

    def _of(self, name: str) -> str:
        return f"{name}.{self._scope}"

# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths of tasks are UTF-8, as in all modules of Ansible, whatever the node's locale (docs/behaviour.md, section 7).

Python turns text into the bytes of a path by the locale. So a path gets another text for Python at the edge of a module,
and its own one in results.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

T = t.TypeVar("T")


def native_path(path: T) -> T:
    """Return the text that Python turns into the UTF-8 bytes of a task's path; of each text in a list or dictionary."""
    return _each(path, lambda text: os.fsdecode(text.encode("utf-8", "surrogateescape")))


def task_path(path: T) -> T:
    """Return the path as a task writes it; the inverse of ``native_path``."""
    return _each(path, lambda text: os.fsencode(text).decode("utf-8", "surrogateescape"))


def _each(value: t.Any, change: t.Callable[[str], str]) -> t.Any:
    if isinstance(value, str):
        # text that is not a path on any system stays as it is
        with contextlib.suppress(UnicodeError):
            return value if value.isascii() else change(value)
        return value
    if isinstance(value, dict):
        return {key: _each(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(item, change) for item in value]
    return value

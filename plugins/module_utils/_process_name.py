# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Progress of a run as the name of its process, for ``ps`` on the node and for the action plugin.

Ansible passes nothing of a module on before it ends (docs/behaviour.md, section 8).
"""

from __future__ import annotations

import contextlib
import re
import typing as t

_COMM = "/proc/self/comm"
_PROGRESS = re.compile(r"layer ([0-9]{1,4})/([0-9]{1,4})\n?\Z")


@contextlib.contextmanager
def named_after_progress() -> t.Iterator[t.Callable[[int, int], None]]:
    """Yield a function that names this process after the layer of so many; the name of before comes back at the end."""
    name = ""
    with contextlib.suppress(OSError), open(_COMM, encoding="utf-8", errors="surrogateescape") as file:
        name = file.read().rstrip("\n")
    try:
        # the kernel keeps 15 bytes of a name
        yield lambda number, total: _set_name(f"layer {number}/{total}")
    finally:
        if name:
            _set_name(name)


def parse_progress(name: str) -> tuple[int, int] | None:
    """Return the layer and the number of layers in a process's name, or ``None`` for any other name."""
    match = _PROGRESS.match(name)
    return None if match is None else (int(match.group(1)), int(match.group(2)))


def _set_name(name: str) -> None:
    with contextlib.suppress(OSError), open(_COMM, "r+", encoding="utf-8", errors="surrogateescape") as file:
        file.write(name)

# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""File descriptors in ``with`` statements."""

from __future__ import annotations

import os
import types


class opened:
    """Close a descriptor at the end of a ``with`` block: ``with opened(os.open(…)) as fd``.

    A class, because a generator costs three times as much for each file of an image.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        os.close(self._fd)


class closed_on_error(opened):
    """Close a descriptor when the block fails, and leave it open otherwise, for the function that returns it."""

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if error is not None:
            os.close(self._fd)


class opened_or_none:
    """Close a descriptor at the end of a ``with`` block; ``None`` stands for a missing file."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def __enter__(self) -> int | None:
        return self._fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.close(self._fd)

# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checked options of a task."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._dest.reach import FAIL
from .._unpack_options import UnpackOptions

if t.TYPE_CHECKING:
    from .._drift.options import Verifying
    from .._image.platform import Platform
    from .._inventory.policy import Policy
    from .._signed.signing import Signing
    from .origin import Origin

# The states that are made from an image; the others need no src.
IMAGE_STATES = ("present", "staged")


@dataclass(frozen=True)
class Options:
    """The options of one run.

    ``state`` is ``present``, ``staged``, ``previous`` or ``absent``; ``origin`` is where the image comes from; ``platform`` is
    ``None`` for the node's own. ``lock_timeout`` is in seconds; ``keep`` is the number of earlier trees to keep; ``mark_failed``
    keeps ``previous`` from bringing the replaced tree back. ``reachable`` is ``fail``, ``warn`` or ``allow``. ``cache_dir`` is
    empty without a cache; ``cache_max_size`` is in bytes, ``cache_max_age`` in days, 0 for no limit. Only images of one
    ``cache_scope`` share blobs; an empty scope stands for the source itself. ``signing`` is ``None`` if no signature is demanded,
    ``policy`` if no file is judged. ``store_dir`` is empty without a store; ``store_max_age`` is in days. ``verifying`` is
    ``None`` if the tree at dest is not compared with its image.
    """

    dest: str
    state: str
    unpack: UnpackOptions
    origin: Origin
    ref: str | None = None
    digest: str | None = None
    platform: Platform | None = None
    force: bool = False
    recreate: bool = False
    ignore_use: bool = False
    lock_timeout: float = 300.0
    keep: int = 1
    mark_failed: bool = False
    reachable: str = FAIL
    cache_dir: str = ""
    cache_max_size: int = 0
    cache_max_age: int = 0
    cache_scope: str = ""
    signing: Signing | None = None
    policy: Policy | None = None
    store_dir: str = ""
    store_max_age: float = 0
    verifying: Verifying | None = None

    @property
    def needs_image(self) -> bool:
        """Whether the state is made from an image; otherwise ``states`` has its plan."""
        return self.state in IMAGE_STATES

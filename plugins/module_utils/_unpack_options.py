# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of unpacking, without the code that unpacks, which unchanged runs do not need."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from ._errors import OciError, RootfsError
from ._rootfs.ids import IdMap, parse_id_maps

# What a module that unpacks takes besides ``max_size``.
UNPACK_ARGUMENTS: dict[str, t.Any] = {
    "devices": {"type": "str", "choices": ["safe", "create", "skip", "fail"]},
    "ownership": {"type": "str", "choices": ["preserve", "ignore"]},
    "uid_map": {"type": "list", "elements": "str", "default": []},
    "gid_map": {"type": "list", "elements": "str", "default": []},
    "xattrs": {"type": "list", "elements": "str", "default": []},
    "acl": {"type": "str", "choices": ["preserve", "drop"], "default": "preserve"},
    "keep_dirlinks": {"type": "bool", "default": False},
    "max_entries": {"type": "int", "default": 2000000},
}


@dataclass(frozen=True)
class UnpackOptions:
    """The options that change the tree of an image, and the limits for hostile images.

    ``devices`` is ``safe``, ``create``, ``skip`` or ``fail``. ``preserve`` is false if everything belongs to the caller.
    ``xattrs`` are further names to keep. ``drop_acls`` drops access ACLs that the file system cannot store.
    ``keep_dirlinks`` keeps a symlink to a directory when a layer has a directory of the same name.
    ``max_size`` is in bytes.
    """

    max_size: int
    max_entries: int
    devices: str = "safe"
    preserve: bool = True
    xattrs: tuple[str, ...] = ()
    drop_acls: bool = False
    keep_dirlinks: bool = False
    uids: IdMap = IdMap("uid")
    gids: IdMap = IdMap("gid")

    def to_fingerprint(self) -> dict[str, t.Any]:
        """Return the options that change the tree; limits do not."""
        return {
            "devices": self.devices,
            "preserve": self.preserve,
            "xattrs": sorted(self.xattrs),
            "drop_acls": self.drop_acls,
            "keep_dirlinks": self.keep_dirlinks,
            "uid_map": self.uids.to_list(),
            "gid_map": self.gids.to_list(),
        }


def unpack_options_from(params: dict[str, t.Any]) -> UnpackOptions:
    """Check the arguments, with defaults for root or an ordinary user. Raises ``OciError`` that names the option."""
    is_root = os.geteuid() == 0
    ownership = params["ownership"] or ("preserve" if is_root else "ignore")
    if ownership == "preserve" and not is_root:
        raise RootfsError("ownership: preserve needs root; run with become, or set ownership: ignore")
    uids, gids = parse_id_maps(params["uid_map"], params["gid_map"])
    if uids.ranges and ownership == "ignore":
        raise OciError(
            "uid_map and gid_map need ownership: preserve, which needs root; run with become, or leave them out"
        )
    devices = params["devices"]
    if devices is None:
        devices = "safe" if is_root and not uids.ranges else "skip"
    if ownership == "ignore" and devices != "fail":
        # without owners, a device would belong to the caller
        devices = "skip"
    return UnpackOptions(
        devices=devices,
        preserve=ownership == "preserve",
        xattrs=tuple(params["xattrs"]),
        drop_acls=params["acl"] == "drop",
        keep_dirlinks=params["keep_dirlinks"],
        max_size=params["max_size"],
        max_entries=params["max_entries"],
        uids=uids,
        gids=gids,
    )

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The options of unpacking, without the code that unpacks, which unchanged runs do not need."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ._rootfs.ids import IdMap


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

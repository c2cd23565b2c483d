# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resolve the path of ``dest`` and of the private folder that belongs to it (docs/behaviour.md, section 7).

The private folder ``.NAME.oci_rootfs`` lies beside dest and holds the record, the next tree and earlier trees. If dest is
a mount point, its folder lies elsewhere, because the container can change everything inside of the mount.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass

from .._errors import RootfsError, show
from .._fs.descriptors import opened, opened_or_none
from .._fs.directories import open_existing, open_or_none
from .._fs.syscalls import mount_id

# Directories of the system. Neither they nor anything below them can be a container's root.
_SYSTEM = (
    *(
        f"/{name}"
        for name in ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr"]
    ),
    *(f"/var/lib/{name}" for name in ["apt", "dpkg", "hypervisor.oci", "rpm", "systemd"]),
)
# Folders for any files in them: shared memory, and the root file systems of the role container.
_FREE = ("/dev/shm/", "/var/lib/hypervisor.oci/bundles/")
# Where the role predicts in check mode what an image would be in a volume that is not mounted.
_PROBE = re.compile(r"/var/lib/hypervisor\.oci/containers/[^/]+/probe/rootfs\Z")
# Directories that hold those of many programs or users.
_SHARED = (
    *("/", "/home", "/lost+found", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/var"),
    *(f"/var/{name}" for name in ["cache", "lib", "lib/lxc", "lib/machines", "log", "run", "spool", "tmp"]),
)

RECORD = b"record.json"
# Inode numbers of the stacks of a dest, a line each, for the script that starts its container.
STACKS = b"stacks"
_LONGEST_NAME = 230


@dataclass(frozen=True)
class DestPath:
    """A resolved dest: ``parent`` is the directory above it, which may be missing."""

    parent: str
    name: str
    is_mount: bool

    @property
    def path(self) -> str:
        """The resolved path."""
        return os.path.join(self.parent, self.name)

    @property
    def state_name(self) -> bytes:
        """The name of the private folder."""
        if self.is_mount:
            digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
            return b"%s-%s" % (os.fsencode(self.name)[:100], digest.encode())
        name = os.fsencode(self.name)
        if len(name) > _LONGEST_NAME:
            name = hashlib.sha256(name).hexdigest().encode()
        return b".%s.oci_rootfs" % name

    @property
    def state_parent(self) -> str:
        """The directory that holds the private folder."""
        if not self.is_mount:
            return self.parent
        if os.geteuid() == 0:
            return "/var/lib/hypervisor.oci"
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        return os.path.join(os.path.realpath(home), "hypervisor.oci")

    @property
    def state_path(self) -> str:
        """The path of the private folder."""
        return os.path.join(self.state_parent, os.fsdecode(self.state_name))


def resolve_dest(dest: str) -> DestPath:
    """Resolve ``dest``. Raises ``RootfsError`` for directories of the system."""
    if not dest.startswith("/") or "\0" in dest:
        raise RootfsError(f"dest {show(dest)} is not an absolute path; give one")
    path = dest.rstrip("/")
    name = os.path.basename(path)
    parent = os.path.realpath(os.path.dirname(path) or "/")
    resolved = os.path.join(parent, name)
    if name in ("", ".", "..") or resolved in _SHARED or _is_of_system(resolved):
        raise RootfsError(f"dest {show(dest)} is a directory of the system; choose one for the container alone")
    for path in (os.path.realpath(__file__), os.path.realpath(sys.prefix)):
        if path.startswith(resolved + "/"):
            raise RootfsError(
                f"dest {show(dest)} contains {show(path)}, which runs this module; choose one for the container alone"
            )
    above, missing = open_existing(os.fsencode(parent))
    with opened(above), opened_or_none(None if missing else open_or_none(above, os.fsencode(name))) as below:
        # by mount, because btrfs subvolumes have a device number of their own
        is_mount = below is not None and mount_id(below) != mount_id(above)
    if not is_mount:
        _require_never_mounted(DestPath(parent, name, True))
    return DestPath(parent, name, is_mount)


def _is_of_system(path: str) -> bool:
    if path.startswith(_FREE) or _PROBE.match(path):
        return False
    return any(path == folder or path.startswith(folder + "/") for folder in _SYSTEM)


def _require_never_mounted(mounted: DestPath) -> None:
    """Refuse to make a tree that filled a mount anew on the file system below the mount point."""
    if os.path.lexists(os.path.join(mounted.state_path, os.fsdecode(RECORD))):
        raise RootfsError(
            f"{show(mounted.path)} was provisioned as a mount point, and nothing is mounted there now;"
            f" mount it and run again, or remove {show(mounted.state_path)} if it is to be a plain directory"
        )

# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Map owner, mode, times and xattrs of entries to this host, and write them.

``Policy`` decides (docs/behaviour.md, section 6). ``Writer`` keeps the order of section 4: chown, chmod, xattrs
(a chown drops capabilities), times.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t

from .._errors import EntryError, show
from .._layer.entry import DIRECTORY, FILE, SYMLINK, Entry
from .._report import Report
from .._unpack_options import UnpackOptions
from .._fs.descriptors import opened
from .._fs.xattrs import read_xattrs
from . import acl, capability
from .ids import UnmappedError

_SET_IDS = stat.S_ISUID | stat.S_ISGID
_PERMISSIONS = 0o777
_NOTHING: dict[str, bytes] = {}


class Attributes(t.NamedTuple):
    """Metadata for this host: ids of the host, ``mtime`` in nanoseconds, and the ``xattrs`` to write."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: dict[str, bytes]


class CreationDefaults(t.NamedTuple):
    """What new files get: their owner, and whether they keep the mode that they are created with."""

    uid: int
    gid: int
    keeps_mode: bool


class Policy:
    """Decides which metadata on this host the metadata of an image becomes, and counts in ``report`` what is left out."""

    def __init__(self, report: Report, options: UnpackOptions) -> None:
        self.report = report
        self.preserve = options.preserve
        self.uids = options.uids
        self.gids = options.gids
        self.drop_acls = options.drop_acls
        self._extra = frozenset(options.xattrs)

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """Map a user and a group to the host. Raises ``EntryError``."""
        try:
            return self.uids.to_host(uid), self.gids.to_host(gid)
        except UnmappedError as error:
            raise EntryError(str(error), "add a range that contains it") from error

    def for_missing_parent(self) -> Attributes:
        """Return the attributes of a directory that no entry describes: 0755, the mapped root, the epoch."""
        uid, gid = self.owner(0, 0)
        return Attributes(0o755, uid, gid, 0, _NOTHING)

    def for_entry(self, entry: Entry) -> Attributes:
        """Return the attributes to write, and count what is left out. Raises ``EntryError``."""
        mode = entry.mode
        uid, gid = entry.uid, entry.gid
        if self.preserve:
            if self.uids.ranges or self.gids.ranges:
                uid, gid = self.owner(uid, gid)
        elif mode & _SET_IDS:
            mode &= ~_SET_IDS
            self.report.count("setid_bits_dropped")
        xattrs = _NOTHING
        if entry.xattrs or entry.acls:
            xattrs, group_limit = self._xattrs(entry)
            mode &= ~0o070 | group_limit << 3
        return Attributes(mode, uid, gid, entry.mtime, xattrs)

    def _xattrs(self, entry: Entry) -> tuple[dict[str, bytes], int]:
        """Return what is written, and the permissions that the group may have, fewer if an invalid ACL is dropped."""
        kept: dict[str, bytes] = {}
        limit = 7
        try:
            for raw_name, text in entry.acls.items():
                if raw_name not in entry.xattrs:
                    limit &= self._keep_acl(kept, entry, raw_name.decode(), text, acl.parse_text)
            for raw_name, value in entry.xattrs.items():
                name = os.fsdecode(raw_name)
                if name in (acl.ACCESS, acl.DEFAULT):
                    limit &= self._keep_acl(kept, entry, name, value, acl.parse_binary)
                else:
                    self._keep(kept, entry, name, value)
        except capability.CapabilityError as error:
            raise EntryError(str(error)) from error
        except UnmappedError as error:
            raise EntryError(str(error), "add a range that contains it") from error
        return kept, limit

    def _keep(self, kept: dict[str, bytes], entry: Entry, name: str, value: bytes) -> None:
        if name == capability.NAME:
            value = capability.for_host(value, self.uids)
            if self.preserve:
                kept[name] = value
                self.report.count("capabilities")
            else:
                self.report.count("capabilities_dropped")
        elif self._is_wanted(name):
            if name.startswith("user.") and entry.type not in (FILE, DIRECTORY):
                # the kernel refuses them on other files
                self.report.count("user_xattrs_forbidden")
            else:
                kept[name] = value
        else:
            self.report.count("xattrs_filtered")

    def _is_wanted(self, name: str) -> bool:
        return name in self._extra or (name.startswith("user.") and not name.startswith("user.overlay."))

    def keeps(self, name: str) -> bool:
        """Return whether an xattr on disk is one that images give their directories."""
        return name in (acl.ACCESS, acl.DEFAULT, capability.NAME) or self._is_wanted(name)

    def _keep_acl(
        self,
        kept: dict[str, bytes],
        entry: Entry,
        name: str,
        value: bytes,
        parse: t.Callable[[bytes], list[acl.AclEntry]],
    ) -> int:
        """Keep an ACL, and return the permissions that the group may have. Raises ``EntryError``, ``UnmappedError``."""
        # filtered before it is parsed, so that a malformed one is not an error
        if entry.type == SYMLINK or (name == acl.DEFAULT and entry.type != DIRECTORY):
            self.report.count("acls_filtered")
            return 7
        entries: list[acl.AclEntry] = []
        try:
            entries = parse(value)
            acl.require_valid(entries)
        except acl.AclError as error:
            kind = "access" if name == acl.ACCESS else "default"
            if not self.drop_acls:
                raise EntryError(
                    f"its {kind} ACL is invalid: {error}", "build the image without it, or set acl: drop"
                ) from error
            self.report.count("acls_dropped")
            return acl.group_limit_of(entries) if name == acl.ACCESS else 7
        kept[name] = acl.to_binary(entries, self.uids, self.gids)
        return 7


class Writer:
    """Writes attributes, except those that new files have already, according to ``defaults``."""

    def __init__(self, policy: Policy, defaults: CreationDefaults) -> None:
        self._policy = policy
        self._preserve = policy.preserve
        self._default_uid, self._default_gid, self._keeps_mode = defaults
        # kinds of xattrs that this file system is known to store
        self._stored: set[str] = set()

    def to_new_file(self, fd: int, attributes: Attributes) -> None:
        """Write to a file that was created with ``first_mode``. Raises ``EntryError`` and ``OSError``."""
        mode, uid, gid, mtime, xattrs = attributes
        if xattrs or mode > _PERMISSIONS or not self._keeps_mode:
            self.to_fd(fd, attributes)
            return
        if self._changes_owner(uid, gid):
            os.fchown(fd, uid, gid)
        os.utime(fd, ns=(mtime, mtime))

    def to_new_directory(self, fd: int, attributes: Attributes) -> None:
        """Write to a directory that this process made. Raises ``EntryError`` and ``OSError``."""
        mode, uid, gid, mtime, xattrs = attributes
        if xattrs or self._changes_owner(uid, gid):
            self.to_fd(fd, attributes)
            return
        os.fchmod(fd, mode)
        os.utime(fd, ns=(mtime, mtime))

    def _changes_owner(self, uid: int, gid: int) -> bool:
        return self._preserve and (uid != self._default_uid or gid != self._default_gid)

    def to_fd(self, fd: int, attributes: Attributes) -> None:
        """Write to an open file or directory. Raises ``EntryError`` and ``OSError``."""
        mode, uid, gid, mtime, xattrs = attributes
        if self._preserve:
            os.fchown(fd, uid, gid)
        elif xattrs:
            xattrs = self._before_mode(fd, xattrs)
        os.fchmod(fd, mode)
        if xattrs:
            for name, value in xattrs.items():
                if not self._set_xattr(fd, True, name, value):
                    os.fchmod(fd, acl.group_bits_without(value, mode))
        os.utime(fd, ns=(mtime, mtime))

    def _before_mode(self, fd: int, xattrs: dict[str, bytes]) -> dict[str, bytes]:
        """Write all but the ACLs while the mode still allows that to an ordinary user; return the ACLs."""
        acls = {}
        for name, value in xattrs.items():
            if name in (acl.ACCESS, acl.DEFAULT):
                acls[name] = value
            else:
                self._set_xattr(fd, True, name, value)
        return acls

    def to_node(self, parent: int, name: bytes, attributes: Attributes) -> None:
        """Write to a device or FIFO, which must not be opened, by an ``O_PATH`` descriptor."""
        mode, uid, gid, mtime, xattrs = attributes
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        with opened(os.open(name, flags, dir_fd=parent)) as fd:
            path = f"/proc/self/fd/{fd}"
            if self._preserve:
                os.chown(path, uid, gid)
            os.chmod(path, mode)
            for xattr, value in xattrs.items():
                if not self._set_xattr(path, True, xattr, value):
                    os.chmod(path, acl.group_bits_without(value, mode))
            os.utime(path, ns=(mtime, mtime))

    def to_symlink(self, parent: int, name: bytes, attributes: Attributes) -> None:
        """Write to a symlink, which has no mode."""
        _mode, uid, gid, mtime, xattrs = attributes
        if self._preserve:
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        for xattr, value in xattrs.items():
            path = b"/proc/self/fd/%d/%s" % (parent, name)
            self._set_xattr(path, False, xattr, value)
        os.utime(name, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)

    def stored(self, target: int | bytes, xattrs: t.Mapping[str, bytes]) -> dict[str, bytes]:
        """Return those of the xattrs that were written which are there. Raises ``OSError``."""
        sure = {
            name: value for name, value in xattrs.items() if name.startswith("user.") and _kind_of(name) in self._stored
        }
        # an ACL may only repeat the mode, and a security module may have values of its own
        return {**sure, **read_xattrs(target, [name for name in xattrs if name not in sure])}

    def _set_xattr(self, target: int | str | bytes, follow: bool, name: str, value: bytes) -> bool:
        """Write an xattr; return false if it is an access ACL that the file system cannot store and that may be dropped."""
        try:
            os.setxattr(target, os.fsencode(name), value, follow_symlinks=follow)
        except OSError as error:
            return self._without_xattr(error, name)
        if name == capability.NAME:
            if _read_back(target, follow, name) != value:
                raise EntryError(
                    "its file capability differs from what was written when read back",
                    "set uid_map to that of the container's user namespace",
                )
        elif _kind_of(name) not in self._stored:
            try:
                self._require_stored(target, follow, name, value)
            except OSError as error:
                return self._without_xattr(error, name)
        return True

    def _require_stored(self, target: int | str | bytes, follow: bool, name: str, value: bytes) -> None:
        """Read back the first xattr of its kind, since some file systems accept and forget them. Raises ``OSError``."""
        # the kernel does not store an ACL that only repeats the mode, and the value of a security module may be its own
        if name in (acl.ACCESS, acl.DEFAULT) and not acl.is_extended(value):
            return
        found = _read_back(target, follow, name)
        if found is None or (name.startswith("user.") and found != value):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        self._stored.add(_kind_of(name))

    def _without_xattr(self, error: OSError, name: str) -> bool:
        report = self._policy.report
        if error.errno in (errno.ENOTSUP, errno.EOPNOTSUPP):
            if name == capability.NAME:
                raise EntryError(
                    "the file system cannot store its file capability",
                    "choose a path on a file system with extended attributes",
                ) from error
            if name == acl.ACCESS:
                if self._policy.drop_acls:
                    report.count("acls_dropped")
                    return False
                raise EntryError(
                    "the file system cannot store its access ACL, without which others would get more rights",
                    "choose a file system with POSIX ACLs, or set acl: drop in oci_rootfs",
                ) from error
            report.count("xattrs_unsupported")
            return True
        if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EDQUOT):
            raise EntryError(
                f"the file system has no room for the extended attribute {show(name)}",
                "choose a file system with larger extended attributes",
            ) from error
        raise error


def _kind_of(name: str) -> str:
    """Return what file systems distinguish: each ACL, and the namespaces of other xattrs."""
    return name if name in (acl.ACCESS, acl.DEFAULT) else name.partition(".")[0]


def _read_back(target: int | str | bytes, follow: bool, name: str) -> bytes | None:
    try:
        return os.getxattr(target, os.fsencode(name), follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP):
            return None
        raise


def first_mode(attributes: Attributes) -> int:
    """Return the mode to create a file with; set-id bits must wait for its owner and content."""
    # an ordinary user can set xattrs only on files that he may write to
    return 0o600 if attributes.xattrs else attributes.mode & _PERMISSIONS

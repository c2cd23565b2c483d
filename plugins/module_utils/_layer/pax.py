# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pax records of one entry, which override its header (docs/behaviour.md, section 3)."""

from __future__ import annotations

import base64
import binascii
import re
import typing as t
from urllib.parse import unquote_to_bytes

from .._errors import show
from .._source.tar_header import HeaderError, pax_number

_TIME = re.compile(rb"(-?)0*([0-9]{1,19})(?:\.([0-9]*))?\Z")
_SECOND = 10**9

# Prefixes of keywords whose rest is a name; keywords that match neither these nor the set below are ignored.
_SCHILY_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."
_GNU_SPARSE = b"GNU.sparse."
_OPEN_ENDED = (_SCHILY_XATTR, _LIBARCHIVE_XATTR, _GNU_SPARSE)

_ACL_XATTRS = {b"SCHILY.acl.access": b"system.posix_acl_access", b"SCHILY.acl.default": b"system.posix_acl_default"}
# The label that GNU tar and star write with --selinux.
_SELINUX = b"RHT.security.selinux"
_KEYWORDS = frozenset([b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", _SELINUX, *_ACL_XATTRS])

# What a tree does not keep of any entry, so that nothing is lost: other times, names of owners, and facts about the archive.
_WITHOUT_EFFECT = frozenset(
    [b"atime", b"ctime", b"LIBARCHIVE.creationtime", b"uname", b"gname", b"comment", b"charset", b"hdrcharset"]
    + [
        b"SCHILY." + name
        for name in (b"dev", b"ino", b"nlink", b"filetype", b"realsize", b"offset", b"devmajor", b"devminor")
    ]
)
# How what is left out of an entry is counted; everything else as pax_records_ignored.
_COUNTED = {b"SCHILY.acl.ace": "acls_filtered", b"SCHILY.fflags": "file_flags_ignored"}


class PaxFields:
    """The records that change an entry; an attribute that is None leaves the header's value.

    ``left_out`` are the counts of the report to which each record that has no effect adds.
    """

    def __init__(self, records: t.Iterable[tuple[bytes, bytes]]) -> None:
        self.path: bytes | None = None
        self.linkpath: bytes | None = None
        self.size: int | None = None
        self.uid: int | None = None
        self.gid: int | None = None
        self.mtime: int | None = None
        self.xattrs: dict[bytes, bytes] = {}
        self.acls: dict[bytes, bytes] = {}
        self.sparse: list[tuple[bytes, bytes]] = []
        self.left_out: list[str] = []
        self.selinux: bytes | None = None
        libarchive: dict[bytes, bytes] = {}
        for key, value in records:
            if key in _KEYWORDS:
                # an empty value deletes an earlier record, so the header's field counts
                if value:
                    self._take(key, value)
            elif key.startswith(_OPEN_ENDED):
                self._take_named(key, value, libarchive)
            elif key not in _WITHOUT_EFFECT:
                self.left_out.append(_COUNTED.get(key, "pax_records_ignored"))
        # SCHILY's raw value wins over libarchive's encoded value of the same name, and over the label
        label: dict[bytes, bytes] = {} if self.selinux is None else {b"security.selinux": self.selinux}
        self.xattrs = {**label, **libarchive, **self.xattrs}

    def _take(self, key: bytes, value: bytes) -> None:
        if key == b"path":
            self.path = _text(value, "path")
        elif key == b"linkpath":
            self.linkpath = _text(value, "linkpath")
        elif key == b"size":
            self.size = pax_number(value, "size")
        elif key == b"uid":
            self.uid = pax_number(value, "uid")
        elif key == b"gid":
            self.gid = pax_number(value, "gid")
        elif key == b"mtime":
            self.mtime = _time(value)
        elif key == _SELINUX:
            self.selinux = value
        else:
            self.acls[_ACL_XATTRS[key]] = value

    def _take_named(self, key: bytes, value: bytes, libarchive: dict[bytes, bytes]) -> None:
        if key.startswith(_SCHILY_XATTR):
            self.xattrs[_xattr_name(key[13:])] = value
        elif key.startswith(_LIBARCHIVE_XATTR):
            name = _xattr_name(unquote_to_bytes(key[17:]))
            libarchive[name] = _from_base64(value, name)
        else:
            self.sparse.append((key[11:], value))


def _text(value: bytes, what: str) -> bytes:
    if b"\0" in value:
        raise HeaderError(f"the pax record {what} contains a NUL")
    return value


def _xattr_name(name: bytes) -> bytes:
    if not name or b"\0" in name or len(name) > 255:
        raise HeaderError("a pax record has an invalid name of an extended attribute")
    return name


def _from_base64(value: bytes, name: bytes) -> bytes:
    # libarchive omits the padding
    padded = value + b"=" * (-len(value) % 4)
    try:
        return base64.b64decode(padded, validate=True)
    except binascii.Error:
        raise HeaderError(f"the extended attribute {show(name)} is not valid base64") from None


def _time(value: bytes) -> int:
    match = _TIME.match(value)
    seconds = int(match.group(2)) if match else 2**63
    if match is None or seconds >= 2**63:
        raise HeaderError(f"the pax record mtime is not a valid time: {repr(value[:40])[1:]}")
    fraction = (match.group(3) or b"")[:9].ljust(9, b"0")
    nanoseconds = seconds * _SECOND + int(fraction)
    return -nanoseconds if match.group(1) else nanoseconds

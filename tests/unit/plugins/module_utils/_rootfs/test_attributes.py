# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Owners, xattrs, capabilities and ACLs as they land on disk (docs/behaviour.md, section 6)."""

from __future__ import annotations

import errno
import os
import stat
import struct
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError, RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.acl import AclError, parse_binary, require_valid
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Entry,
    char,
    directory,
    fifo,
    file,
    hardlink,
    symlink,
)
from ansible_collections.hypervisor.oci.tests.unit.support import (
    IS_ROOT,
    needs_root,
    owned,
    refused,
    set_xattr_or_skip,
    tree,
    unpack,
)

UIDS = [(0, 100000, 1000), (5000, 5000, 1)]
GIDS = [(0, 200000, 1000), (5000, 5000, 1)]
NONE = 0xFFFFFFFF
ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"
CAPABILITY = "security.capability"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """What the kernel takes."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


def full_acl(user: int, group: int) -> bytes:
    """An ACL with a named user and a named group."""
    return acl(
        (1, 6, NONE), (2, 4, user), (4, 4, NONE), (8, 6, group), (16, 6, NONE), (32, 0, NONE)
    )  # fmt: skip


def acl_text(user: int, group: int) -> str:
    """The same as tar programs write it."""
    return f"user::rw-,user:app:r--:{user},group::r--,group:staff:rw-:{group}," "mask::rw-,other::---"


def capability(root: int | None = None) -> bytes:
    """``cap_net_raw=ep``, of version 2 or with a root's id of version 3."""
    magic = 0x02000001 if root is None else 0x03000001
    value = struct.pack("<IIIII", magic, 1 << 13, 0, 0, 0)
    return value if root is None else value + struct.pack("<I", root)


@pytest.fixture
def user_xattrs(tmp_path: Path) -> None:
    """Skips where the file system of the tests has no user xattrs."""
    (tmp_path / "probe").touch()
    set_xattr_or_skip(tmp_path / "probe", "user.probe", b"")
    (tmp_path / "probe").unlink()


@pytest.fixture
def acls(tmp_path: Path) -> None:
    """Skips where it has no ACLs."""
    (tmp_path / "probe").touch()
    set_xattr_or_skip(tmp_path / "probe", ACCESS, full_acl(1, 1))
    (tmp_path / "probe").unlink()


@pytest.fixture
def capabilities(tmp_path: Path) -> None:
    """Skips where it has no file capabilities."""
    (tmp_path / "probe").touch()
    set_xattr_or_skip(tmp_path / "probe", CAPABILITY, capability())
    (tmp_path / "probe").unlink()


def forgets(monkeypatch: pytest.MonkeyPatch, prefix: str, found: bytes | None) -> list[str]:
    """A file system that accepts xattrs with this prefix and gives ``found``; returns the names that are read back."""
    read: list[str] = []
    real = os.getxattr

    def getxattr(path: t.Any, name: t.Any, **keywords: t.Any) -> bytes:
        read.append(os.fsdecode(name))
        if not os.fsdecode(name).startswith(prefix):
            return real(path, name, **keywords)
        if found is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return found

    monkeypatch.setattr(os, "setxattr", lambda *_arguments, **_more: None)
    monkeypatch.setattr(os, "getxattr", getxattr)
    return read


def answers(monkeypatch: pytest.MonkeyPatch, code: int, prefix: str) -> pytest.MonkeyPatch:
    """A file system that answers ``code`` to xattrs with this prefix."""
    real = os.setxattr

    def setxattr(path: t.Any, name: t.Any, value: bytes, **keywords: t.Any) -> None:
        if os.fsdecode(name).startswith(prefix):
            raise OSError(code, os.strerror(code))
        real(path, name, value, **keywords)

    monkeypatch.setattr(os, "setxattr", setxattr)
    return monkeypatch


# -- id maps


@needs_root
@pytest.mark.parametrize(
    ("uid", "gid", "owner"), [(0, 0, (100000, 200000)), (999, 1, (100999, 200001)), (5000, 5000, (5000, 5000))]
)
def test_owners_are_mapped(tmp_path: Path, uid: int, gid: int, owner: tuple[int, int]) -> None:
    unpack(
        tmp_path,
        [
            directory("d", uid=uid, gid=gid),
            file("d/f", uid=uid, gid=gid),
            symlink("d/s", "/x", uid=uid, gid=gid),
            fifo("d/p", uid=uid, gid=gid),
            directory(".", uid=uid, gid=gid),
        ],
        uids=UIDS,
        gids=GIDS,
    )
    assert {(node.uid, node.gid) for node in tree(tmp_path).values()} == {owner}


@pytest.mark.parametrize(("key", "number"), [("uid", 1000), ("gid", 5001), ("uid", 4294967294)])
@pytest.mark.parametrize(
    "make",
    [file, directory, fifo, lambda name, **k: symlink(name, "x", **k)],
    ids=["file", "directory", "fifo", "symlink"],
)
def test_an_id_outside_of_the_map(tmp_path: Path, make: t.Any, key: str, number: int) -> None:
    """Section 6: an error with the entry's name."""
    text = refused(tmp_path, [make("etc/x", **{key: number})], preserve=True, uids=UIDS, gids=GIDS)
    assert text.rstrip("/").replace("/'", "'") == (
        f"'etc/x': no range of {key}_map contains the {key} {number}; add a range that contains it"
    )


def test_a_hard_link_needs_no_owner_of_its_own(tmp_path: Path) -> None:
    """Section 4: its own metadata is not applied, and so need not be in the map."""
    options: dict[str, t.Any] = {"uids": UIDS, "gids": GIDS} if IS_ROOT else {}
    unpack(tmp_path, [file("f", uid=1), hardlink("h", "f", uid=70000)], **options)
    assert tree(tmp_path)["h"].links == 2


# -- which xattrs are written

WRITTEN = {
    "user.a": b"1",
    "user.b": b"\0\xff\n binary",
    "user.empty": b"",
    "user.größe": b"2",
    "user.overlay": b"3",
    "user.overlayfs": b"4",
}
FILTERED = {
    "user.overlay.opaque": b"y",
    "user.overlay.": b"y",
    "trusted.overlay.opaque": b"y",
    "trusted.hypervisor_oci": b"forged",
    "security.selinux": b"system_u:object_r:bin_t:s0",
    "security.ima": b"\1",
    "security.evm": b"\1",
    "system.nfs4_acl": b"\1",
    "com.apple.quarantine": b"x",
    "user": b"x",
    "nonsense": b"x",
}


@pytest.mark.usefixtures("user_xattrs")
@pytest.mark.parametrize("make", [file, directory], ids=["file", "directory"])
@pytest.mark.parametrize("key", ["xattrs", "libarchive_xattrs"])
def test_which_xattrs_are_written(tmp_path: Path, make: t.Any, key: str) -> None:
    """Section 6: user.* but user.overlay.*; the others are counted."""
    report = unpack(tmp_path / "top", [make("x", **{key: {**WRITTEN, **FILTERED}})])
    assert tree(tmp_path / "top")["x"].xattrs == WRITTEN
    assert report.to_dict()["counts"] == {"xattrs_filtered": len(FILTERED)}


@pytest.mark.usefixtures("user_xattrs")
def test_names_that_the_user_allows(tmp_path: Path) -> None:
    """Section 6: and the names in ``xattrs``."""
    xattrs: t.Any = {"user.overlay.opaque": "y", "user.overlay.origin": "o"}
    report = unpack(tmp_path / "top", [directory("d", xattrs=xattrs)], xattrs=["user.overlay.opaque"])
    assert tree(tmp_path / "top")["d"].xattrs == {"user.overlay.opaque": b"y"}
    assert report.to_dict()["counts"] == {"xattrs_filtered": 1}


@needs_root
def test_trusted_names_that_the_user_allows(tmp_path: Path) -> None:
    (tmp_path / "probe").touch()
    set_xattr_or_skip(tmp_path / "probe", "trusted.probe", b"")
    unpack(
        tmp_path / "top",
        [
            directory("d", xattrs={"trusted.overlay.opaque": "y"}),
            symlink("s", "x", xattrs={"trusted.overlay.opaque": "y"}),
            fifo("p", xattrs={"trusted.overlay.opaque": "y"}),
        ],
        xattrs=["trusted.overlay.opaque"],
    )
    found = tree(tmp_path / "top")
    for name in "dsp":
        assert found[name].xattrs == {"trusted.overlay.opaque": b"y"}


@pytest.mark.usefixtures("user_xattrs")
def test_a_later_entry_of_a_directory_clears_older_xattrs(tmp_path: Path) -> None:
    """Section 4: older xattrs are gone."""
    unpack(
        tmp_path / "top",
        [directory("d", xattrs={"user.old": "1", "user.both": "1"}), file("d/f")],
        [directory("d", xattrs={"user.both": "2"})],
    )
    assert tree(tmp_path / "top")["d"].xattrs == {"user.both": b"2"}


@pytest.mark.usefixtures("user_xattrs")
def test_what_is_closed_to_writing_has_its_xattrs(tmp_path: Path) -> None:
    """Section 6: also where the caller is no root."""
    xattrs: t.Any = {"user.a": "1"}
    unpack(
        tmp_path / "top",
        [file("f", b"x", 0o444, xattrs=xattrs), directory("d", 0o555, xattrs=xattrs),
         file("g", b"x", 0, xattrs=xattrs), directory("e", 0, xattrs=xattrs)],
    )  # fmt: skip
    found = tree(tmp_path / "top")
    for name, mode in (("f", 0o444), ("d", 0o555), ("g", 0), ("e", 0)):
        assert (found[name].mode, found[name].xattrs) == (mode, {"user.a": b"1"})


@pytest.mark.usefixtures("user_xattrs")
def test_the_roots_own_xattrs(tmp_path: Path) -> None:
    unpack(tmp_path / "top", [directory(".", xattrs={"user.a": "1"})])
    assert tree(tmp_path / "top")["."].xattrs == {"user.a": b"1"}


@pytest.mark.usefixtures("user_xattrs")
@pytest.mark.parametrize(
    "make",
    [
        lambda **k: symlink("x", "y", **k),
        lambda **k: fifo("x", **k),
        pytest.param(lambda **k: char("x", 1, 3, **k), marks=needs_root),
    ],
    ids=["symlink", "fifo", "device"],
)
def test_user_xattrs_that_the_kernel_refuses(tmp_path: Path, make: t.Any) -> None:
    """Section 6: on links and nodes; counted."""
    members = [make(xattrs={"user.a": "1", "user.b": "2"}, mtime=7)]
    report = unpack(tmp_path / "top", members)
    node = tree(tmp_path / "top")["x"]
    assert (node.xattrs, node.mtime) == ({}, 7 * 10**9)
    counts = report.to_dict()["counts"]
    counts.pop("devices_created", None)
    assert counts == {"user_xattrs_forbidden": 2}


@pytest.mark.usefixtures("user_xattrs")
def test_no_room_for_an_attribute(tmp_path: Path) -> None:
    """Section 6: an error."""
    member = file("d/f", xattrs={"user.large": b"x" * 70_000})
    assert refused(tmp_path / "top", [member]) == (
        "'d/f': the file system has no room for the extended attribute 'user.large';"
        " choose a file system with larger extended attributes"
    )


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EDQUOT])
def test_whatever_word_the_file_system_has_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    answers(monkeypatch, code, "user.")
    text = refused(tmp_path, [file("f", xattrs={"user.a": "1"})])
    assert "'f': the file system has no room for the extended attribute 'user.a';" in text


def test_no_room_for_an_attribute_of_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories get theirs at the very end, where no entry is at hand."""
    answers(monkeypatch, errno.ENOSPC, "user.")
    with pytest.raises(RootfsError) as caught:
        unpack(tmp_path, [directory("a/b", xattrs={"user.a": "1"})])
    assert caught.value.message == (
        "the directory '/a/b' of the image: the file system has no room for the extended attribute 'user.a';"
        " choose a file system with larger extended attributes"
    )


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_without_xattrs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Section 6: counted (the verb makes a warning of it)."""
    answers(monkeypatch, code, "")
    members = [
        file("f", xattrs={"user.a": "1", "user.b": "1"}),
        directory("d", xattrs={"user.a": "1"}),
        symlink("s", "x", xattrs={"user.a": "1"}),
    ]
    report = unpack(tmp_path, members)
    assert report.to_dict()["counts"] == {"xattrs_unsupported": 3, "user_xattrs_forbidden": 1}
    assert {len(node.xattrs) for node in tree(tmp_path).values()} == {0}


def test_an_answer_that_is_none_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, errno.EIO, "user.")
    text = refused(tmp_path, [file("f", xattrs={"user.a": "1"})])
    assert text.startswith("'f': cannot be written: input/output error; the disk")


# -- capabilities


@needs_root
@pytest.mark.usefixtures("capabilities")
@pytest.mark.parametrize("brought", [capability(), capability(0), capability(1000)])
def test_a_capability_without_a_map(tmp_path: Path, brought: bytes) -> None:
    """Section 6: version 2; a change of owner would drop it, so it comes after."""
    member = file("f", b"x", 0o755, uid=7, gid=8, xattrs={CAPABILITY: brought})
    report = unpack(tmp_path / "top", [member])
    node = tree(tmp_path / "top")["f"]
    assert node.xattrs == {CAPABILITY: capability()}
    assert (node.mode, node.uid, node.gid) == (0o755, 7, 8)
    assert report.to_dict()["counts"] == {"capabilities": 1}


@needs_root
@pytest.mark.usefixtures("capabilities")
@pytest.mark.parametrize(
    ("brought", "root"), [(capability(), 100000), (capability(0), 100000), (capability(5000), 5000)]
)
def test_a_capability_with_a_map(tmp_path: Path, brought: bytes, root: int) -> None:
    """Section 6: version 3, its root id is the host's id of the container's."""
    member = file("f", xattrs={CAPABILITY: brought})
    unpack(tmp_path / "top", [member], uids=UIDS, gids=GIDS)
    assert tree(tmp_path / "top")["f"].xattrs == {CAPABILITY: capability(root)}


@pytest.mark.parametrize("preserve", [True, False])
def test_a_capability_whose_root_is_in_no_range(tmp_path: Path, preserve: bool) -> None:
    """Section 6: an error."""
    text = refused(
        tmp_path, [file("f", xattrs={CAPABILITY: capability(3000)})], uids=UIDS, gids=GIDS,
        preserve=preserve,
    )  # fmt: skip
    assert text == "'f': no range of uid_map contains the uid 3000; add a range that contains it"


@pytest.mark.parametrize("value", [b"", b"nonsense", capability()[:-1], capability(0) + b"\0"])
def test_a_capability_that_is_none(tmp_path: Path, value: bytes) -> None:
    """Section 6."""
    text = refused(tmp_path, [file("f", xattrs={CAPABILITY: value})])
    assert text == (
        "'f': its security.capability has neither version 2 nor version 3"
        f" ({len(value)} bytes); do not use this image, or build it without"
    )


@needs_root
@pytest.mark.usefixtures("capabilities")
def test_what_was_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 6."""
    monkeypatch.setattr(os, "getxattr", lambda *_args, **_keywords: b"other")
    text = refused(tmp_path / "top", [file("f", xattrs={CAPABILITY: capability()})])
    assert text == (
        "'f': its file capability differs from what was written when read back;"
        " set uid_map to that of the container's user namespace"
    )


def test_a_file_system_without_capabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 6: an error."""
    answers(monkeypatch, errno.ENOTSUP, "security.")
    members = [file("f", xattrs={CAPABILITY: capability()})]
    monkeypatch.setattr(os, "fchown", lambda *_args: None)
    text = refused(tmp_path, members, preserve=True)
    assert text == (
        "'f': the file system cannot store its file capability;"
        " choose a path on a file system with extended attributes"
    )


# -- ACLs


@pytest.mark.usefixtures("acls")
@pytest.mark.parametrize(
    "attributes", [{"acl_access": acl_text(1000, 50)}, {"xattrs": {ACCESS: full_acl(1000, 50)}}], ids=["text", "xattr"]
)
def test_an_access_acl(tmp_path: Path, attributes: t.Any) -> None:
    """Section 6: as an xattr or as text; the xattr wins where both come."""
    both = {**attributes, "acl_access": acl_text(1000, 50)}
    for number, given in enumerate((attributes, both)):
        top = tmp_path / str(number)
        members = [file("f", mode=0o660, **given), directory("d", 0o770, **given)]
        unpack(top, [*members, fifo("p", 0o660, **given)])
        found = tree(top)
        for name in "fdp":
            assert found[name].xattrs == {ACCESS: full_acl(1000, 50)}
        assert found["f"].mode == 0o660


@needs_root
@pytest.mark.usefixtures("acls")
@pytest.mark.parametrize(
    "attributes",
    [
        {"acl_access": acl_text(7, 8), "acl_default": acl_text(7, 8)},
        {"xattrs": {ACCESS: full_acl(7, 8), DEFAULT: full_acl(7, 8)}},
    ],
    ids=["text", "xattr"],
)
def test_ids_in_acls_are_mapped(tmp_path: Path, attributes: t.Any) -> None:
    """Section 6."""
    members = [directory("d", **attributes)]
    unpack(tmp_path / "top", members, uids=UIDS, gids=GIDS)
    expected = full_acl(100007, 200008)
    assert tree(tmp_path / "top")["d"].xattrs == {ACCESS: expected, DEFAULT: expected}


@pytest.mark.parametrize(
    "attributes",
    [{"acl_access": acl_text(3000, 8)}, {"acl_default": acl_text(3000, 8)}, {"xattrs": {ACCESS: full_acl(3000, 8)}}],
    ids=["access", "default", "xattr"],
)
def test_an_id_of_an_acl_outside_of_the_map(tmp_path: Path, attributes: t.Any) -> None:
    text = refused(tmp_path, [directory("d", **attributes)], preserve=True, uids=UIDS, gids=GIDS)
    assert text == "'d/': no range of uid_map contains the uid 3000; add a range that contains it"


@pytest.mark.usefixtures("acls")
def test_a_default_acl_reaches_no_child(tmp_path: Path) -> None:
    """Section 6: nothing that is made in the tree inherits; defaults come at the very end."""
    unpack(
        tmp_path / "top",
        [directory("d", 0o750, acl_default=acl_text(1000, 50)), file("d/f", mode=0o644), directory("d/e", 0o755)],
        [file("d/g", mode=0o640)],
        umask=0o022,
    )
    found = tree(tmp_path / "top")
    assert found["d"].xattrs == {DEFAULT: full_acl(1000, 50)}
    assert [found[name].mode for name in ("d", "d/f", "d/e", "d/g")] == [
        0o750, 0o644, 0o755, 0o640,
    ]  # fmt: skip
    for name in ("d/f", "d/e", "d/g"):
        assert found[name].xattrs == {}


@pytest.mark.parametrize(
    "member",
    [
        symlink("x", "y", acl_access=acl_text(1, 1)),
        symlink("x", "y", xattrs={ACCESS: full_acl(1, 1)}),
        file("x", acl_default=acl_text(1, 1)),
        fifo("x", acl_default=acl_text(1, 1)),
        file("x", xattrs={DEFAULT: full_acl(1, 1)}),
    ],
)
def test_acls_that_have_no_meaning(tmp_path: Path, member: Entry) -> None:
    """Section 6: of symlinks, and default ACLs of non-directories."""
    report = unpack(tmp_path, [member])
    assert tree(tmp_path)["x"].xattrs == {}
    assert report.to_dict()["counts"] == {"acls_filtered": 1}


@pytest.mark.parametrize(
    "member",
    [symlink("x", "y", acl_access="nonsense"), file("x", acl_default="nonsense"), fifo("x", acl_default="nonsense")],
)
def test_acls_that_have_no_meaning_are_not_parsed(tmp_path: Path, member: Entry) -> None:
    """Section 6: parsing is what they would cost."""
    report = unpack(tmp_path, [member])
    assert report.to_dict()["counts"] == {"acls_filtered": 1}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"acl_access": "user::rw-,user:app:r--,group::r--,other::r--"},
            "the ACL line 'user:app:r--' has no valid id, and names are not looked up",
        ),
        ({"acl_access": "nonsense"}, "the ACL line 'nonsense' is malformed"),
        ({"xattrs": {ACCESS: b"\2\0\0"}}, "the ACL has an invalid length"),
        ({"xattrs": {ACCESS: b"\1\0\0\0"}}, "the ACL does not have version 2"),
    ],
)
def test_acls_that_are_none(tmp_path: Path, attributes: t.Any, message: str) -> None:
    """Section 6."""
    text = refused(tmp_path / "error", [file("f", **attributes)])
    assert text == f"'f': its access ACL is invalid: {message}; build the image without it, or set acl: drop"
    # nothing says what the group might do
    report = unpack(tmp_path / "drop", [file("f", mode=0o664, **attributes)], drop_acls=True)
    assert tree(tmp_path / "drop")["f"].mode == 0o604
    assert report.to_dict()["counts"] == {"acls_dropped": 1}


@pytest.mark.parametrize(
    ("text", "message", "mode"),
    [
        (
            "user::rw-,user:1000:rw-,group::r--,other::r--",
            "it names users or groups, but does not have the mask",
            0o644,
        ),
        ("user::rw-,group::rw-,group:50:r--,other::r--", "it names users or groups, but does not have the mask", 0o664),
        ("user::rwx", "it has 0 entries group:: instead of one", 0o604),
        ("user::rw-,user::r--,group::r--,other::r--", "it has 2 entries user:: instead of one", 0o644),
        ("user::rw-,group::r--", "it has 0 entries other:: instead of one", 0o644),
        ("user::rw-,group::rw-,mask::r--,mask::rw-,other::r--", "it has more than one mask", 0o644),
    ],
)
def test_an_acl_that_the_kernel_refuses(tmp_path: Path, text: str, message: str, mode: int) -> None:
    """Section 6: the message names the ACL, and ``acl: drop`` is a way out that widens nothing."""
    said = refused(tmp_path / "error", [file("f", mode=0o664, acl_access=text)])
    assert said.startswith(f"'f': its access ACL is invalid: {message}")
    report = unpack(tmp_path / "drop", [file("f", mode=0o664, acl_access=text)], drop_acls=True)
    assert tree(tmp_path / "drop")["f"].mode == mode
    assert report.to_dict()["counts"] == {"acls_dropped": 1}


def test_a_default_acl_that_the_kernel_refuses(tmp_path: Path) -> None:
    wrong = directory("d", 0o775, acl_default="user::rwx,user:1:rwx,group::r-x,other::r-x")
    said = refused(tmp_path / "error", [wrong])
    assert "its default ACL is invalid: it names users or groups, but does not have the mask" in said
    report = unpack(tmp_path / "drop", [wrong], drop_acls=True)
    assert tree(tmp_path / "drop")["d"].mode == 0o775
    assert report.to_dict()["counts"] == {"acls_dropped": 1}


@pytest.mark.usefixtures("acls")
@pytest.mark.parametrize(
    "entries",
    [
        [],
        [(1, 6), (4, 4), (32, 4)],
        [(1, 6), (2, 6, 1000), (4, 4), (16, 6), (32, 4)],
        [(1, 6), (2, 6, 1000), (4, 4), (32, 4)],
        [(1, 6), (4, 4), (16, 4)],
        [(4, 4), (1, 6), (32, 4)],
        [(1, 8), (4, 4), (32, 4)],
        [(1, 6), (4, 4), (16, 4), (16, 4), (32, 4)],
        [(1, 6), (4, 4), (32, 4), (64, 4)],
    ],
)
def test_the_kernel_judges_alike(tmp_path: Path, entries: list[t.Any]) -> None:
    """What is refused here is what the kernel refuses."""
    value = acl(*((*entry, NONE)[:3] for entry in entries))
    (tmp_path / "f").touch()
    try:
        os.setxattr(tmp_path / "f", ACCESS, value)
    except OSError as error:
        assert error.errno == errno.EINVAL
        with pytest.raises(AclError):
            require_valid(parse_binary(value))
    else:
        require_valid(parse_binary(value))


NO_ACL = (
    "the file system cannot store its access ACL, without which others would get more rights;"
    " choose a file system with POSIX ACLs, or set acl: drop in oci_rootfs"
)


@pytest.mark.parametrize("make", [file, fifo, directory], ids=["file", "fifo", "directory"])
def test_a_file_system_without_acls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: t.Any) -> None:
    """Section 6: an error, or with ``acl: drop`` the group's bits become group:: and mask."""
    answers(monkeypatch, errno.ENOTSUP, "system.")
    members = [make("x", mode=0o660, acl_access=acl_text(1000, 50))]
    with pytest.raises((LayerError, RootfsError)) as caught:
        unpack(tmp_path / "error", members)
    assert caught.value.message.endswith(NO_ACL)
    assert "x'" in caught.value.message or "x/'" in caught.value.message
    report = unpack(tmp_path / "drop", members, drop_acls=True)
    assert tree(tmp_path / "drop")["x"].mode == 0o640
    assert report.to_dict()["counts"] == {"acls_dropped": 1}


@pytest.mark.parametrize("found", [None, b"", b"2"])
def test_a_file_system_that_forgets_xattrs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: bytes | None
) -> None:
    """Section 6: it counts as one without them."""
    forgets(monkeypatch, "user.", found)
    report = unpack(tmp_path, [file("f", xattrs={"user.a": "1"}), directory("d", xattrs={"user.a": "1"})])
    assert report.to_dict()["counts"] == {"xattrs_unsupported": 2}


def test_a_file_system_that_forgets_acls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group's bits would stay those of the mask."""
    forgets(monkeypatch, "system.", None)
    members = [file("x", mode=0o660, acl_access=acl_text(1000, 50))]
    assert refused(tmp_path / "error", members).endswith(NO_ACL)
    report = unpack(tmp_path / "drop", members, drop_acls=True)
    assert stat.S_IMODE((tmp_path / "drop/x").stat().st_mode) == 0o640
    assert report.to_dict()["counts"] == {"acls_dropped": 1}


def test_one_xattr_of_a_kind_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ACL that a mode can express is never stored, which tells nothing; it is read once more for the journal."""
    read = forgets(monkeypatch, "user.", b"1")
    plain = "user::rw-,group::r--,other::---"
    files = [file(str(number), xattrs={"user.a": "1", "user.b": "1"}) for number in range(9)]
    report = unpack(tmp_path, [*files, file("plain", acl_access=plain)])
    assert report.to_dict()["counts"] == {}
    assert read == ["user.a", "system.posix_acl_access"]


def test_a_default_acl_that_is_lost_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it rights do not widen for what is there."""
    answers(monkeypatch, errno.ENOTSUP, "system.")
    report = unpack(tmp_path, [directory("d", acl_default=acl_text(1, 1))])
    assert report.to_dict()["counts"] == {"xattrs_unsupported": 1}


# -- ownership: ignore


@pytest.mark.usefixtures("user_xattrs")
def test_everything_belongs_to_the_caller(tmp_path: Path) -> None:
    """Section 6, ``ownership: ignore``: devices, capabilities and setid bits are dropped and counted."""
    report = unpack(
        tmp_path / "top",
        [
            file("f", b"x", 0o4755, uid=1, gid=2, xattrs={CAPABILITY: capability()}),
            file("g", b"x", 0o6755, uid=1, gid=2, xattrs={"user.a": "1"}),
            directory("d", 0o2775, uid=3),
            symlink("s", "f", uid=3),
            fifo("p", 0o2600, uid=3),
            char("null", 1, 3),
        ],
        preserve=False,
        devices="skip",
    )
    found = tree(tmp_path / "top")
    own = (os.geteuid(), os.getegid())
    assert {(node.uid, node.gid) for node in found.values()} == {own}
    modes = {name: found[name].mode for name in ("f", "g", "d", "p")}
    assert modes == {"f": 0o755, "g": 0o755, "d": 0o775, "p": 0o600}
    assert (found["f"].xattrs, found["g"].xattrs) == ({}, {"user.a": b"1"})
    assert report.to_dict()["counts"] == {"capabilities_dropped": 1, "devices_skipped": 1, "setid_bits_dropped": 4}


def test_owned_is_what_the_caller_can_give() -> None:
    expected = (1, 2) if IS_ROOT else (os.geteuid(), os.getegid())
    assert owned(1, 2) == expected


# -- what a new file has already


def calls_of(
    monkeypatch: pytest.MonkeyPatch, *functions: str, of: t.Callable[[int], bool] = stat.S_ISREG
) -> list[tuple[str, tuple[int, ...]]]:
    """What is asked of the kernel from now on, of files or of what ``of`` is true of."""
    asked: list[tuple[str, tuple[int, ...]]] = []

    def noting(name: str) -> t.Callable[..., None]:
        real = getattr(os, name)

        def note(fd: int, *arguments: int) -> None:
            if of(os.fstat(fd).st_mode):
                asked.append((name, arguments))
            real(fd, *arguments)

        return note

    for name in functions:
        monkeypatch.setattr(os, name, noting(name))
    return asked


def test_a_new_file_is_not_given_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls fewer for nearly every file of an image."""
    uid, gid = os.geteuid(), os.getegid()
    asked = calls_of(monkeypatch, "fchown", "fchmod")
    unpack(
        tmp_path,
        [
            file("plain", mode=0o644, uid=uid, gid=gid),
            file("none", mode=0, uid=uid, gid=gid),
            file("all", mode=0o777, uid=uid, gid=gid),
            file("set-uid", mode=0o4755, uid=uid, gid=gid),
            file("sticky", mode=0o1644, uid=uid, gid=gid),
        ],
    )
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}  # fmt: skip
    assert modes == {"plain": 0o644, "none": 0, "all": 0o777, "set-uid": 0o4755, "sticky": 0o1644}  # fmt: skip
    assert [call for call in asked if call[0] == "fchmod"] == [("fchmod", (0o4755,)), ("fchmod", (0o1644,))]


@needs_root
def test_a_new_directory_is_not_given_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But the top, which may have been there before."""
    os.chown(tmp_path, 7, 7)
    asked = calls_of(monkeypatch, "fchown", of=stat.S_ISDIR)
    unpack(tmp_path, [directory("."), directory("d"), directory("d/e"), file("i/f")])
    assert asked == [("fchown", (0, 0))]
    owners = [path.stat().st_uid for path in (tmp_path, *tmp_path.rglob("*"))]
    assert owners == [0] * 5


@needs_root
def test_a_new_directory_is_given_another_owner(tmp_path: Path) -> None:
    """The group of a directory that gives its own to what is made in it, too."""
    os.chown(tmp_path, 0, 4321)
    tmp_path.chmod(0o2700)
    unpack(
        tmp_path,
        [
            directory("root"),
            directory("uid", uid=5),
            directory("gid", gid=6, mode=0o2755),
            directory("same", gid=4321),
            file("implied/f"),
        ],
    )
    found = {path.name: (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.iterdir()}  # fmt: skip
    assert found == {
        "root": (0, 0, 0o755),
        "uid": (5, 0, 0o755),
        "gid": (0, 6, 0o2755),
        "same": (0, 4321, 0o755),
        "implied": (0, 0, 0o755),
    }


@needs_root
def test_a_new_file_is_given_another_owner(tmp_path: Path) -> None:
    """The group of a directory that gives its own to what is made in it, too."""
    os.chown(tmp_path, 0, 4321)
    tmp_path.chmod(0o2700)
    unpack(
        tmp_path,
        [
            directory("d"),
            file("d/root"),
            file("d/uid", uid=5),
            file("d/gid", gid=6),
            file("d/both", uid=5, gid=6, mode=0o4711),
        ],
    )
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (tmp_path / "d").iterdir()}  # fmt: skip
    assert owners == {"root": (0, 0), "uid": (5, 0), "gid": (0, 6), "both": (5, 6)}
    assert stat.S_IMODE((tmp_path / "d" / "both").stat().st_mode) == 0o4711


@pytest.mark.parametrize("umask", [0o077, 0o777])
def test_a_umask_takes_nothing_away(tmp_path: Path, umask: int) -> None:
    unpack(tmp_path, [file("f", mode=0o666)], umask=umask)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o666


def test_a_default_acl_takes_nothing_away(tmp_path: Path, acls: None) -> None:
    default = acl((1, 7, NONE), (4, 5, NONE), (32, 0, NONE))
    os.setxattr(tmp_path, DEFAULT, default)
    unpack(tmp_path, [directory("d"), file("d/f", mode=0o666)])
    assert stat.S_IMODE((tmp_path / "d" / "f").stat().st_mode) == 0o666


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    unpack(tmp_path, [])
    assert list(tmp_path.iterdir()) == []

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image's user as numbers (docs/behaviour.md, section 8)."""

from __future__ import annotations

import contextlib
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import Applier
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Policy
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.root import Root
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.users import ResolvedUser, resolve_user
from ansible_collections.hypervisor.oci.tests.images.builder import (
    directory,
    fifo,
    file,
    hardlink,
    sparse,
    symlink,
    tar,
)
from ansible_collections.hypervisor.oci.tests.unit.support import IS_ROOT, Members
from ansible_collections.hypervisor.oci.plugins.module_utils._unpack_options import UnpackOptions

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# comment:x:99:99::/:
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
app:x:1000:1000:,,,:/app:/bin/sh
twin:x:1000:2000::/:
1234:x:77:77:a name of digits:/:
large:x:4294967294:4294967294::/:
toolarge:x:4294967295:0::/:
letters:x:abc:0::/:
short:x:5
nogid:x:6:
lonely:x:55:5500::/:
"""
GROUP = """\
root:x:0:
daemon:x:1:app
staff:x:50:app,daemon
wheel:x:10:daemon,app,app
app:x:1000:app
twins:x:2000:
99:x:33:app
odd:x:abc:app
short:x:60
"""


@contextlib.contextmanager
def root_of(top: Path, members: Members) -> t.Iterator[Root]:
    """A tree under construction."""
    top.mkdir(0o700, exist_ok=True)
    report = Report()
    options = UnpackOptions(2**40, 10**6, devices="skip", preserve=False)
    policy = Policy(report, options)
    budget = Budget(2**40, 10**6)
    fd = os.open(top, os.O_RDONLY)
    root = Root(fd, policy.for_missing_parent())
    try:
        applier = Applier(root, policy, budget, options)
        applier.apply_layer(iter([tar(members)]), "sha256:1")
        yield root
    finally:
        root.close()
        os.close(fd)


def resolve(top: Path, user: str, *members: t.Any) -> ResolvedUser:
    """The user in a tree of these entries."""
    with root_of(top, members) as root:
        return resolve_user(user, root)


FILES = (file("etc/passwd", PASSWD), file("etc/group", GROUP))


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        # empty is 0:0
        ("", 0, 0, ()),
        # a name: its group, and supplementary groups
        ("root", 0, 0, ()),
        ("daemon", 1, 1, (10, 50)),
        ("app", 1000, 1000, (1, 10, 33, 50)),
        ("lonely", 55, 5500, ()),
        ("large", 4294967294, 4294967294, ()),
        # a number is taken as it is, with its account's groups where it has one
        ("1000", 1000, 1000, (1, 10, 33, 50)),
        ("1", 1, 1, (10, 50)),
        ("0", 0, 0, ()),
        ("0001000", 1000, 1000, (1, 10, 33, 50)),
        ("4242", 4242, 0, ()),
        ("4294967294", 4294967294, 4294967294, ()),
        # a number is an id, whatever accounts may be called
        ("1234", 1234, 0, ()),
        # a group that is given leaves no supplementary ones
        ("app:staff", 1000, 50, ()),
        ("app:app", 1000, 1000, ()),
        ("app:0", 1000, 0, ()),
        ("1000:50", 1000, 50, ()),
        ("4242:4343", 4242, 4343, ()),
        ("4242:staff", 4242, 50, ()),
        (":staff", 0, 50, ()),
        (":0", 0, 0, ()),
        ("app:99", 1000, 99, ()),
        # an empty group counts as not given
        ("app:", 1000, 1000, (1, 10, 33, 50)),
        (":", 0, 0, ()),
    ],
)
def test_users(tmp_path: Path, user: str, uid: int, gid: int, groups: t.Any) -> None:
    found = resolve(tmp_path, user, *FILES)
    assert (found.uid, found.gid, found.groups, found.warning) == (uid, gid, groups, None)  # fmt: skip


@pytest.mark.parametrize(
    ("user", "home"),
    [
        ("", "/root"),
        ("root", "/root"),
        ("0", "/root"),
        ("app", "/app"),
        ("1000", "/app"),
        # a group changes nothing about it
        ("app:staff", "/app"),
        (":staff", "/root"),
        ("1234", None),
        ("4242", None),
        ("4242:staff", None),
        ("nobody", None),
        ("relative", None),
        ("empty", None),
        ("bytes", None),
        ("cut", None),
    ],
)
def test_homes(tmp_path: Path, user: str, home: str | None) -> None:
    """Section 8: null without an account, or where the account's is no absolute path."""
    more = "relative:x:60:60::home:\nempty:x:61:61:::\ncut:x:62:62:\n"
    passwd = (PASSWD + more).encode() + b"bytes:x:63:63::/\xff:\n"
    found = resolve(tmp_path, user, file("etc/passwd", passwd), FILES[1])
    assert found.home == home
    assert found.to_facts()["home"] == home


@pytest.mark.parametrize(
    ("user", "what"),
    [
        ("nobody", "user 'nobody' is not in its /etc/passwd"),
        ("ROOT", "user 'ROOT' is not in its /etc/passwd"),
        ("# comment", "user '# comment' is not in its /etc/passwd"),
        ("short", "user 'short' is not in its /etc/passwd"),
        ("nogid", "user 'nogid' is not in its /etc/passwd"),
        ("letters", "user 'letters' is not in its /etc/passwd"),
        ("toolarge", "user 'toolarge' is not in its /etc/passwd"),
        ("-1", "user '-1' is not in its /etc/passwd"),
        ("+1", "user '+1' is not in its /etc/passwd"),
        (" 1", "user ' 1' is not in its /etc/passwd"),
        ("٣", "user '٣' is not in its /etc/passwd"),
        ("4294967295", "user '4294967295' is not in its /etc/passwd"),
        ("99999999999", "user '99999999999' is not in its /etc/passwd"),
        ("nobody:staff", "user 'nobody:staff' is not in its /etc/passwd"),
        ("app:nothing", "group 'nothing' is not in its /etc/group"),
        ("app:odd", "group 'odd' is not in its /etc/group"),
        ("app:4294967295", "group '4294967295' is not in its /etc/group"),
        ("app:staff:more", "group 'staff:more' is not in its /etc/group"),
    ],
)
def test_names_that_are_not_there(tmp_path: Path, user: str, what: str) -> None:
    """Section 8: null with a warning, never root."""
    found = resolve(tmp_path, user, *FILES)
    assert (found.uid, found.gid, found.groups) == (None, None, ())
    assert found.to_facts() == {"uid": None, "gid": None, "groups": None, "home": None}
    assert found.warning == (f"the image's {what}; choose another user before you start a container")


def test_facts(tmp_path: Path) -> None:
    found = resolve(tmp_path, "daemon", *FILES)
    assert found.to_facts() == {"uid": 1, "gid": 1, "groups": [10, 50], "home": "/usr/sbin"}


# -- the files, inside the root

LARGE = PASSWD + "#" * (1024 * 1024 - len(PASSWD))
USED: list[t.Any] = [
    [file("etc/passwd", PASSWD)],
    [file("p", PASSWD), symlink("etc/passwd", "/p")],
    [file("p", PASSWD), symlink("etc/passwd", "../../../p")],
    [file("usr/etc/passwd", PASSWD), symlink("etc", "usr/etc")],
    [file("p", PASSWD), hardlink("etc/passwd", "p")],
    [file("p", PASSWD), symlink("q", "p"), symlink("etc/passwd", "../q")],
    [file("etc/passwd", LARGE)],
    [directory("etc", 0o000), file("etc/passwd", PASSWD)],
    [file("etc/passwd", PASSWD.replace("\n", "\r\n").replace("\r", ""))],
]
UNUSED: list[t.Any] = [
    [],
    [directory("etc/passwd")],
    [fifo("etc/passwd")],
    [symlink("etc/passwd", "/p")],
    [symlink("etc/passwd", "passwd")],
    [symlink("etc/passwd", "/etc/passwd/passwd")],
    [symlink("etc", "etc"), file("passwd", PASSWD)],
    [symlink("etc/passwd", "/")],
    [symlink("etc/passwd", "..")],
    [symlink("etc/passwd", "x" * 300)],
    [symlink("etc/passwd", "x" * 300 + "/y")],
    [file("etc/passwd", LARGE + "#")],
    [sparse("etc/passwd", [(0, PASSWD)], 2**40)],
    [file("etc", PASSWD)],
    [file("etc/passwd", b"\xff\xfe\0\0:::::\n:\n\n")],
]  # fmt: skip


@pytest.mark.parametrize("members", USED, ids=range(len(USED)))
def test_account_files_that_are_used(tmp_path: Path, members: Members) -> None:
    """Section 8: regular files of at most 1 MiB, links followed inside the root."""
    assert resolve(tmp_path, "app", *members).uid == 1000


@pytest.mark.parametrize("members", UNUSED, ids=range(len(UNUSED)))
def test_account_files_that_are_none(tmp_path: Path, members: Members) -> None:
    """Section 8: never waited for; a number is still taken, a name is null."""
    assert resolve(tmp_path / "a", "app", *members).uid is None
    assert resolve(tmp_path / "b", "1000", *members) == ResolvedUser(1000, 0, ())


def test_an_account_file_that_is_closed(tmp_path: Path) -> None:
    """An ordinary user cannot read what the image closed to its owner: as if it were not there."""
    found = resolve(tmp_path, "app", file("etc/passwd", PASSWD, 0o000))
    assert found.uid == (1000 if IS_ROOT else None)


def test_the_hosts_own_accounts_are_never_read(tmp_path: Path) -> None:
    """Section 8: as the finished tree's own files say, inside the root."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "passwd").write_text("app:x:1:1::/:\n")
    for number, link in enumerate((str(host / "passwd"), "../" * 30 + str(host)[1:] + "/passwd")):
        found = resolve(tmp_path / str(number), "app", symlink("etc/passwd", link))
        assert found.uid is None


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    found = resolve(tmp_path, "app", file("etc/passwd", b"\xff:x:1:1::/:\napp:x:2:3:\xfe::\n"))
    assert (found.uid, found.gid) == (2, 3)


def test_a_user_of_three_megabytes_makes_a_short_warning(tmp_path: Path) -> None:
    for name in ("\x1b]0;x\x07" * 500_000, "0:" + "g\x9b" * 10**6):
        found = resolve(tmp_path / str(len(name)), name)
        assert found.uid is None
        assert found.warning is not None
        assert found.warning.isprintable()
        assert len(found.warning) < 2000

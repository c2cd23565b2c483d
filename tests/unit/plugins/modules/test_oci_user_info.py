# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module from arguments to one result (docs/behaviour.md, sections 8 and 9)."""

from __future__ import annotations

import json
import os
import socket
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.modules import oci_user_info
from ansible_collections.hypervisor.oci.tests.unit.support import IS_ROOT, give

if t.TYPE_CHECKING:
    from pathlib import Path

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000::/home/app:/bin/sh
web:x:33:33::/var/www:/usr/sbin/nologin
none:x:65535:100::/:
77:x:78:78::/:
"""
GROUP = "root:x:0:app\nweb:x:33:\nstaff:x:50:web,app\napp:x:1000:app\nwheel:x:10:app\n"
ELF = b"\x7fELF and so on"


class Module:
    """Runs the module in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, **params: t.Any) -> dict[str, t.Any]:
        give(self._monkeypatch, params)
        with pytest.raises(SystemExit):
            oci_user_info.main()
        output = self._capfd.readouterr().out
        result: dict[str, t.Any] = json.loads(output, parse_constant=pytest.fail)
        json.dumps(result, ensure_ascii=False).encode("utf-8")
        return result


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Module:
    """See ``Module``."""
    return Module(monkeypatch, capfd)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A root file system with a getent of glibc's kind."""
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "etc" / "passwd").write_text(PASSWD)
    (root / "etc" / "group").write_text(GROUP)
    getent = root / "usr" / "bin" / "getent"
    getent.write_bytes(ELF)
    getent.chmod(0o755)
    return root


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home", "nspawn"),
    [
        ("app", 1000, 1000, [0, 10, 50], "/home/app", (1000, 1000, [0, 10, 50])),
        ("web", 33, 33, [50], "/var/www", (33, 33, [50])),
        ("", 0, 0, [], "/root", (0, 0, [])),
        ("root", 0, 0, [], "/root", (0, 0, [])),
        ("0:50", 0, 50, [], "/root", (0, 0, [])),
        # nspawn knows no group beside the user, and no supplementary ones of a number
        ("app:staff", 1000, 50, [], "/home/app", (1000, 1000, [0, 10, 50])),
        ("1000", 1000, 1000, [0, 10, 50], "/home/app", (1000, 1000, [])),
        ("4242", 4242, 0, [], None, (None, None, None)),
        ("4242:4343", 4242, 4343, [], None, (None, None, None)),
        # an id that systemd refuses
        ("none", 65535, 100, [], "/", (None, None, None)),
        # a number is an id, whatever accounts may be called
        ("77", 77, 0, [], None, (None, None, None)),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_users(
    rootfs: Path,
    module: Module,
    check: bool,
    user: str,
    uid: int,
    gid: int,
    groups: list[int],
    home: str | None,
    nspawn: tuple[t.Any, ...],
) -> None:
    """Section 8: the numbers by Docker's rules. Section 9: what nspawn's own look-up would give."""
    result = module(rootfs=str(rootfs), user=user, _ansible_check_mode=check)
    assert result["changed"] is False
    assert result["user"] == {"name": user, "uid": uid, "gid": gid, "groups": groups, "home": home}
    keys = ("uid", "gid", "groups")
    assert result["nspawn"] == {"getent": True, "systemd": False, **dict(zip(keys, nspawn))}


@pytest.mark.parametrize("user", ["nobody", "app:nothing", "ROOT", "-1", "4294967295"])
def test_users_that_are_not_there(rootfs: Path, module: Module, user: str) -> None:
    """Section 8: an error that names it, never root."""
    result = module(rootfs=str(rootfs), user=user)
    assert result["failed"] is True
    assert result["msg"] == (
        f"the root file system at '{rootfs}' has no user or group '{user}'; choose one of its /etc/passwd and /etc/group,"
        " or give numbers"
    )


def test_a_root_that_is_none(tmp_path: Path, module: Module) -> None:
    (tmp_path / "file").write_text("")
    for name, what in (("nothing", "does not exist"), ("file", "not a directory")):
        result = module(rootfs=str(tmp_path / name), user="0")
        assert result["failed"] is True
        assert what in result["msg"]


def test_the_hosts_own_accounts_are_never_read(tmp_path: Path, rootfs: Path, module: Module) -> None:
    """Section 8: inside the root; links lead nowhere else."""
    (tmp_path / "passwd").write_text("app:x:1:1::/:\n")
    passwd = rootfs / "etc" / "passwd"
    ways = [
        str(tmp_path / "passwd"),
        "../../passwd",
        "../" * 30 + str(tmp_path / "passwd")[1:],
        "/proc/1/root" + str(tmp_path / "passwd"),
        "/proc/self/cwd/passwd",
    ]
    os.chdir(tmp_path)
    for way in ways:
        passwd.unlink()
        passwd.symlink_to(way)
        assert "has no user" in module(rootfs=str(rootfs), user="app")["msg"]
    passwd.unlink()
    (rootfs / "p").write_text(PASSWD)
    # absolute links and links out of the root begin at the root
    for way in ("/p", "../../../../p", "/etc/../p"):
        passwd.symlink_to(way)
        assert module(rootfs=str(rootfs), user="app")["user"]["uid"] == 1000
        passwd.unlink()


@pytest.mark.parametrize(
    ("program", "link", "is_systemd"),
    [
        ("/usr/lib/systemd/systemd", None, True),
        ("/lib/systemd/systemd", None, True),
        ("/sbin/init", "/lib/systemd/systemd", True),
        ("/sbin/init", "../../../lib/systemd/systemd", True),
        ("/sbin/init", "/bin/busybox", False),
        ("/sbin/init", "/sbin/init", False),
        ("/sbin/init", "/usr/lib/systemd", False),
        ("/sbin/init", "/usr/lib/systemd/systemd/x", False),
        ("/sbin/init", None, False),
        ("systemd", None, False),
        ("", None, False),
    ],
)
def test_a_program_that_is_systemd(
    rootfs: Path, module: Module, program: str, link: str | None, is_systemd: bool
) -> None:
    """Section 15: found through links of the tree, and with D-Bus alone."""
    folder = rootfs / "usr/lib/systemd"
    (folder / "system").mkdir(parents=True)
    (rootfs / "lib").symlink_to("usr/lib")
    (rootfs / "sbin").mkdir()
    (folder / "systemd").touch()
    if link is not None:
        (rootfs / "sbin/init").symlink_to(link)
    assert module(rootfs=str(rootfs), user="", program=program)["nspawn"]["systemd"] is False
    (folder / "system/dbus.socket").touch()
    assert module(rootfs=str(rootfs), user="", program=program)["nspawn"]["systemd"] is is_systemd


def test_things_that_are_no_files(rootfs: Path, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 8: never waited for; a number is still taken."""
    passwd = rootfs / "etc" / "passwd"
    # the address of a socket is short
    monkeypatch.chdir(passwd.parent)

    def fifo() -> None:
        os.mkfifo(passwd)

    def unix() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("passwd")

    def loop() -> None:
        passwd.symlink_to("passwd")

    def large() -> None:
        with passwd.open("w") as file:
            file.write(PASSWD)
            file.truncate(2**40)

    for make in (fifo, unix, loop, large):
        passwd.unlink()
        make()
        assert "has no user" in module(rootfs=str(rootfs), user="app")["msg"]
        found = module(rootfs=str(rootfs), user="1000")["user"]
        assert (found["uid"], found["gid"], found["home"]) == (1000, 0, None)


@pytest.mark.parametrize(
    ("nsswitch", "judged"),
    [
        ("", True),
        ("passwd: files\ngroup: files\nshadow: sss\n", True),
        ("passwd:\tfiles systemd # sss\ngroup: files systemd\n", True),
        ("passwd: compat\ngroup: compat\n", True),
        ("#passwd: sss\n", True),
        ("hosts: files dns\n", True),
        ("passwd: files sss\n", False),
        ("group: files ldap\n", False),
        ("initgroups: files sss\n", False),
        ("passwd: files [SUCCESS=continue] systemd\n", False),
        ("passwd: systemd files\n", False),
        ("passwd: [files]\n", False),
        ("passwd:\n", False),
        ("passwd\n", False),
    ],
)
def test_other_name_services(rootfs: Path, module: Module, nsswitch: str, judged: bool) -> None:
    """Section 9: an answer that more than files could give is not known."""
    (rootfs / "etc" / "nsswitch.conf").write_text(nsswitch)
    result = module(rootfs=str(rootfs), user="app")
    assert result["user"]["uid"] == 1000
    assert result["nspawn"]["getent"] is judged
    assert result["nspawn"]["uid"] == (1000 if judged else None)


@pytest.mark.parametrize("line", ["+::::::\n", "-app::::::\n", "+@staff\n"])
def test_accounts_from_elsewhere(rootfs: Path, module: Module, line: str) -> None:
    """Section 9: what the ``compat`` service would add or take away is not known."""
    (rootfs / "etc" / "passwd").write_text(PASSWD + line)
    assert module(rootfs=str(rootfs), user="app")["nspawn"]["getent"] is False


def test_roots_without_a_getent(rootfs: Path, module: Module) -> None:
    """Section 9: a script, as Alpine's, is not judged; nothing of the root is ever run."""
    getent = rootfs / "usr" / "bin" / "getent"

    def judged() -> bool:
        result = module(rootfs=str(rootfs), user="app")
        assert result["user"]["uid"] == 1000
        return bool(result["nspawn"]["getent"])

    assert judged()
    getent.chmod(0o644)
    assert not judged()
    (rootfs / "bin").symlink_to("/usr/other")
    (rootfs / "usr" / "other").mkdir()
    other = rootfs / "usr" / "other" / "getent"
    other.write_bytes(ELF)
    other.chmod(0o755)
    assert judged()
    getent.chmod(0o755)
    getent.write_text(f"#!/bin/sh\ntouch {rootfs}/ran\n")
    assert not judged()
    getent.unlink()
    os.mkfifo(getent, 0o755)
    other.write_bytes(b"")
    assert not judged()
    other.unlink()
    assert not judged()
    assert not (rootfs / "ran").exists()


@pytest.mark.skipif(IS_ROOT, reason="root can read everything")
def test_files_that_are_closed(rootfs: Path, module: Module) -> None:
    """Not as if they were not there: the user may well be."""
    (rootfs / "etc").chmod(0o000)
    try:
        result = module(rootfs=str(rootfs), user="app")
    finally:
        (rootfs / "etc").chmod(0o700)
    assert result["failed"] is True
    assert "run as root" in result["msg"]

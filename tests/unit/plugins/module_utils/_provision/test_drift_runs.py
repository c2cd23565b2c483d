# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What containers change in their trees is found and put back (docs/behaviour.md, section 17)."""

from __future__ import annotations

import os
import stat
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._container.mount_points import (
    provide_directories,
    provide_mount_points,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.made import note_made
from ansible_collections.hypervisor.oci.plugins.module_utils._drift import compare as comparison
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.exclusions import EXTRA_DEFAULTS
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    char,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import beside_of, everything
from ansible_collections.hypervisor.oci.tests.unit.support import mounted, needs_root, run, set_xattr_or_skip, tree

CAPABILITY = "security.capability"
# CAP_NET_RAW, permitted and effective
NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
PASSWD = "root:x:0:0::/:\napp:x:1000:1000::/:\n"
TIME = 1_600_000_000


def _folder(top: str) -> list[t.Any]:
    """Everything of which a folder may have one, for the same changes in /etc, /usr and /var/lib."""
    return [
        directory(top, 0o755, mtime=TIME),
        *(file(f"{top}/{name}", f"{name} of {top}", mtime=TIME) for name in FILES),
        file(f"{top}/setuid", b"s", 0o4755, mtime=TIME),
        file(f"{top}/capable", b"c", 0o755, xattrs={CAPABILITY: NET_RAW}, mtime=TIME),
        file(f"{top}/attributed", b"a", xattrs={"user.kind": b"one"}, mtime=TIME),
        file(f"{top}/linked", b"several names", mtime=TIME),
        hardlink(f"{top}/linked-2", f"{top}/linked"),
        hardlink(f"{top}/linked-3", f"{top}/linked"),
        symlink(f"{top}/link", "linked", mtime=TIME),
        char(f"{top}/null", 1, 3),
        fifo(f"{top}/fifo"),
        directory(f"{top}/folder", 0o755, mtime=TIME),
        file(f"{top}/folder/inside", b"inside", mtime=TIME),
        directory(f"{top}/closed", 0o700, xattrs={"user.kind": b"closed"}, mtime=TIME),
    ]


FILES = (
    "rewritten",
    "edited",
    "put-back",
    "clock",
    "longer",
    "owned",
    "opened",
    "gains",
    "kept",
    "removed",
    "a-folder",
)
FOLDERS = ("etc", "usr/share/app", "var/lib/app")
PYC = "usr/lib/python3/__pycache__/os.pyc"
LOWER = [
    directory(".", 0o755, mtime=TIME),
    file("etc-passwd", PASSWD),
    *(entry for top in ("etc", "var/lib/app") for entry in _folder(top)),
    file("var/lib/app/below", b"another content below", mtime=1),
    directory("usr/share/app", 0o755),
    file("usr/share/app/gone", b"gone"),
    file("usr/share/app/kept", b"of the lower layer"),
]
UPPER = [
    opaque("usr/share/app"),
    *_folder("usr/share/app"),
    file(PYC, b"compiled", mtime=TIME),
    whiteout("var/lib/app/below"),
]
IMAGE = Image([Layer(*LOWER), Layer(*UPPER)], {"Volumes": {"/data": {}}}, ref="app:1")

pytestmark = needs_root


@pytest.fixture(name="src")
def fixture_src(tmp_path: Path) -> str:
    """The archive of the image."""
    return write_oci_archive(tmp_path / "image.tar", IMAGE)


@pytest.fixture(name="top")
def fixture_top(dest: Path, src: str) -> Path:
    """A tree of the image, unpacked a moment ago."""
    probe = dest.parent / "probe"
    probe.touch()
    set_xattr_or_skip(probe, "user.x", b"1")
    probe.unlink()
    run(dest, src=src)
    # times of change have the grain of the kernel's ticks
    time.sleep(0.02)
    return dest


def verify(top: Path, src: str, level: str = "metadata", check_mode: bool = False, **options: t.Any) -> t.Any:
    """What a run finds."""
    return run(top, check_mode, src=src, verify=level, **options)


def found(drift: dict[str, t.Any]) -> dict[str, list[str]]:
    """What differs, by path; missing and extra ones by these words."""
    shown = {item["path"]: item["differs"] for item in drift["changed"]["files"]}
    for kind in ("missing", "extra"):
        assert drift[kind]["count"] == len(drift[kind]["files"])
        shown.update({item["path"]: [kind] for item in drift[kind]["files"]})
    return shown


def put_time_back(path: Path) -> None:
    os.utime(path, (TIME, TIME))


def plant(top: Path, folder: str) -> dict[str, list[str]]:
    """Change everything that can be changed in a folder; return what must be found."""
    at = top / folder

    def rewrite(name: str, data: bytes) -> None:
        with open(at / name, "r+b") as opened:
            opened.write(data)

    rewrite("rewritten", b"REWRITT")
    put_time_back(at / "rewritten")
    (at / "edited").write_bytes(b"EDITED in place"[: len(f"edited of {folder}")].ljust(len(f"edited of {folder}")))
    rewrite("put-back", b"PUT")
    put_time_back(at / "put-back")
    (at / "longer").write_bytes(b"longer than it was, by far" * 3)
    os.chown(at / "owned", 1000, 1000)
    os.chmod(at / "opened", 0o666)
    os.setxattr(at / "gains", CAPABILITY, NET_RAW)
    os.setxattr(at / "attributed", "user.kind", b"two")
    os.removexattr(at / "capable", CAPABILITY)
    os.chmod(at / "kept", 0o4755)
    (at / "removed").unlink()
    (at / "a-folder").unlink()
    (at / "a-folder").mkdir()
    (at / "a-folder" / "in").write_bytes(b"in")
    (at / "link").unlink()
    (at / "link").symlink_to("/etc/shadow")
    mode = (at / "null").stat().st_mode
    (at / "null").unlink()
    os.mknod(at / "null", mode, os.makedev(1, 5))
    os.chmod(at / "null", stat.S_IMODE(mode))
    (at / "fifo").unlink()
    (at / "fifo").write_bytes(b"")
    (at / "linked-2").unlink()
    (at / "linked-2").write_bytes(b"several names")
    put_time_back(at / "linked-2")
    (at / "folder" / "inside").unlink()
    (at / "folder").rmdir()
    (at / "folder").write_bytes(b"a file for a directory")
    os.setxattr(at / "closed", "user.kind", b"open")
    (at / "extra").write_bytes(b"extra")
    return {
        f"/{folder}/{name}": differs
        for name, differs in {
            "rewritten": ["content"], "edited": ["content"], "put-back": ["content"], "longer": ["size"],
            "owned": ["owner"], "opened": ["mode"], "gains": ["capabilities"], "attributed": ["xattrs"],
            "capable": ["capabilities"], "kept": ["mode"], "removed": ["missing"], "a-folder": ["type"],
            "link": ["target"], "null": ["device"], "linked-2": ["links"], "folder": ["type"], "closed": ["xattrs"],
            "fifo": ["type"], "extra": ["extra"],
        }.items()
    }  # fmt: skip


def test_a_fresh_tree_is_clean(top: Path, src: str) -> None:
    for level in ("metadata", "content"):
        result = verify(top, src, level)
        assert result["changed"] is False
        assert result["warnings"] == []
        drift = result["drift"]
        assert (drift["verdict"], drift["verified"], found(drift)) == ("clean", level, {})
        assert drift["entries"] > 60
        assert drift["suspects"]["count"] == 0


def test_planted_changes_are_found(top: Path, src: str) -> None:
    """Three folders and a compiled file: 61 changes, of which 10 are of contents alone."""
    expected: dict[str, list[str]] = {}
    for folder in FOLDERS:
        expected.update(plant(top, folder))
    with open(top / PYC, "r+b") as opened:
        opened.write(b"C")
    put_time_back(top / PYC)
    expected[f"/{PYC}"] = ["content"]
    (top / "new").mkdir()
    (top / "new/a").write_bytes(b"")
    (top / "new/b").write_bytes(b"")
    (top / "new/b").chmod(0o4755)
    expected.update({"/new": ["extra"], "/new/b": ["extra"]})
    os.chmod(top / "var/lib", 0o777)
    expected["/var/lib"] = ["mode"]
    assert len(expected) == 61
    before = everything(top)
    contents = {path for path, differs in expected.items() if differs == ["content"]}
    drift = verify(top, src)["drift"]
    assert found(drift) == {path: differs for path, differs in expected.items() if path not in contents}
    # a name that goes changes the time of its file
    assert set(drift["suspects"]["paths"]) == contents | {f"/{folder}/linked" for folder in FOLDERS}
    for check_mode in (True, False):
        result = verify(top, src, "content", check_mode)
        assert result["changed"] is False
        assert found(result["drift"]) == expected
        assert (result["drift"]["verdict"], result["drift"]["suspects"]["count"]) == ("drifted", 0)
        assert len(result["diff"]["after"]["drift"]) == len(expected)
    assert everything(top) == before
    # what gives rights away comes first
    rights = [item.get("gives_rights", False) for item in drift["changed"]["files"]]
    assert rights == sorted(rights, reverse=True)
    assert {item["path"] for item in drift["changed"]["files"] if item.get("gives_rights")} == {
        f"/{folder}/{name}" for folder in FOLDERS for name in ("gains", "capable", "kept", "null")
    }


def plant_all(top: Path) -> None:
    for folder in FOLDERS:
        plant(top, folder)
    with open(top / PYC, "r+b") as opened:
        opened.write(b"C")
    os.chmod(top / "var/lib", 0o777)


def inodes(top: Path) -> dict[str, tuple[int, int, int]]:
    """Inode numbers and times of all in a tree but directories."""
    found_ = {}
    for folder, _folders, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            found_[os.path.relpath(path, top)] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    return found_


@pytest.mark.parametrize("level", ["metadata", "content"])
def test_paths_are_repaired(top: Path, src: str, level: str) -> None:
    """The tree equals a fresh one, and what was not in a finding keeps inode and times."""
    before = inodes(top)
    fresh = tree(top)
    plant_all(top)
    expected = found(verify(top, src, level)["drift"])
    predicted = verify(top, src, level, check_mode=True, repair="paths")
    planted = tree(top)
    result = verify(top, src, level, repair="paths")
    assert predicted["changed"] is result["changed"] is True
    assert found(predicted["drift"]) == found(result["drift"]) == expected
    assert result["diff"] == predicted["diff"]
    assert len(result["diff"]["before"]["drift"]) == len(expected)
    assert planted != tree(top)
    assert result["warnings"] == []
    # extras stay
    extras = {f"{folder}/extra" for folder in FOLDERS}
    after = tree(top)
    assert extras < after.keys()
    for path in extras:
        del after[path]
    of_contents = {f"{folder}/{name}" for folder in FOLDERS for name in ("rewritten", "edited", "put-back")}
    for path in {*of_contents, PYC} if level == "metadata" else ():
        del after[path], fresh[path]
    assert {path: (after.get(path), node) for path, node in fresh.items() if after.get(path) != node} == {}
    assert after == fresh
    now = inodes(top)
    others = {path for path in before if f"/{path}" not in expected and f"/{os.path.dirname(path)}" not in expected}
    groups = {f"{folder}/{name}" for folder in FOLDERS for name in ("linked", "linked-3")}
    of_contents = {*of_contents, PYC}
    assert {path for path in others - groups - of_contents if now[path] != before[path]} == set()
    assert len(others - groups) >= 7
    drift = verify(top, src, level)["drift"]
    assert set(found(drift)) == {f"/{path}" for path in extras}


def test_a_clean_tree_is_not_repaired(top: Path, src: str) -> None:
    """Nor is one with extra files alone."""
    (top / "etc/extra").write_bytes(b"")
    before = everything(top)
    for repair in ("paths", "recreate"):
        assert verify(top, src, "content", repair=repair)["changed"] is False
        assert everything(top) == before


def test_recreate_keeps_what_was_there(top: Path, src: str, two: str) -> None:
    """Whatever ``keep`` says, until another tree that has drifted takes its place."""
    fresh = tree(top)
    plant_all(top)
    planted = tree(top)
    assert verify(top, src, check_mode=True, repair="recreate", keep=0)["changed"] is True
    assert tree(top) == planted
    result = verify(top, src, repair="recreate", keep=0)
    assert result["changed"] is True
    assert result["drift"]["verdict"] == "drifted"
    assert tree(top) == fresh
    assert run(top, src=src, keep=0)["changed"] is False
    (kept,) = [path for path in beside_of(top).iterdir() if path.is_dir()]
    assert tree(kept) == planted
    run(top, src=two, keep=0)
    assert kept.exists()
    (top / "bin/app").unlink()
    assert run(top, src=two, keep=0, verify="metadata", repair="recreate")["changed"] is True
    (newer,) = [path for path in beside_of(top).iterdir() if path.is_dir()]
    assert newer.name != kept.name


@pytest.mark.parametrize("repair", ["paths", "recreate"])
def test_a_tree_in_use_is_not_repaired(top: Path, src: str, repair: str) -> None:
    plant_all(top)
    planted = everything(top)
    with open(top / "etc/kept", "rb"), subprocess.Popen(["sleep", "60"], cwd=top) as process:
        try:
            for check_mode in (True, False):
                with pytest.raises(OciError, match="is in use"):
                    verify(top, src, "content", check_mode, repair=repair)
        finally:
            process.kill()
    assert everything(top) == planted


def test_what_is_no_change_is_no_finding(top: Path, src: str) -> None:
    """Touched, opened for writing, given the mode that it has, restored from a backup: suspects, and clean by content."""
    at = top / "etc"
    (at / "kept").touch()
    with open(at / "edited", "r+b"):
        pass
    os.chmod(at / "opened", 0o644)
    for folder, _folders, names in os.walk(top / "usr"):
        for name in names:
            path = os.path.join(folder, name)
            os.chown(path, *os.lstat(path)[4:6], follow_symlinks=False)
            if name == "setuid":
                os.chmod(path, 0o4755)
            if name == "capable":
                os.setxattr(path, CAPABILITY, NET_RAW)
    drift = verify(top, src)["drift"]
    assert found(drift) == {}
    assert drift["verdict"] == "suspect"
    assert drift["suspects"]["count"] >= 2
    drift = verify(top, src, "content")["drift"]
    assert (found(drift), drift["verdict"], drift["suspects"]["count"]) == ({}, "clean", 0)


def test_most_are_suspects(top: Path, src: str) -> None:
    """A restored backup is said once, not for each file."""
    for folder, _folders, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                os.utime(path, ns=(0, os.lstat(path).st_mtime_ns))
    result = verify(top, src)
    assert found(result["drift"]) == {}
    assert result["drift"]["suspects"]["most"] is True
    assert result["drift"]["suspects"]["paths"] == []
    assert sum("backup was restored" in warning for warning in result["warnings"]) == 1
    assert verify(top, src, "content")["drift"]["verdict"] == "clean"


def test_a_forged_clock_deceives_metadata_alone(top: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets the clock back can change a file so that no time tells."""
    with open(top / "etc/clock", "r+b") as opened:
        opened.write(b"CLOCK")
    put_time_back(top / "etc/clock")
    record = (beside_of(top) / "record.json").read_text()
    # the same as a change before that time
    finished = str(time.time_ns())
    old = record.split('"finished": ')[1].split(",")[0].rstrip("}")
    (beside_of(top) / "record.json").write_text(record.replace(f'"finished": {old}', f'"finished": {finished}'))
    assert verify(top, src)["drift"]["verdict"] == "clean"
    assert found(verify(top, src, "content")["drift"]) == {"/etc/clock": ["content"]}


def test_what_is_left_out(top: Path, src: str) -> None:
    """Each exclusion of the documented table; the options change them."""
    for path in (
        "run/state",
        "tmp/x",
        "var/tmp/x",
        "var/log/messages",
        "var/cache/x",
        "dev/x",
        "proc/x",
        "sys/x",
        "data/x",
    ):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(b"x")
    for path in ("etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab", "etc/machine-id"):
        (top / path).write_bytes(b"x")
    assert found(verify(top, src)["drift"]) == {}
    some = found(verify(top, src, verify_exclude=["/tmp", "/var/**"])["drift"])
    assert "/etc/hosts" in some and "/data" in some and "/dev" in some
    assert not any(path.startswith(("/tmp", "/var")) for path in some)


def test_what_is_left_out_where_the_image_has_nothing(top: Path, src: str) -> None:
    """Each pattern of the documented table; beside what they match, all is judged."""
    for path in (
        "etc/.pwd.lock",
        "etc/.updated",
        "var/.updated",
        "var/backups/dpkg.status.0",
        "var/lib/apt/daily_lock",
        "var/lib/apt/lists/partial/main",
        "var/lib/apt/periodic/update-stamp",
        "var/lib/logrotate/status",
        "var/lib/systemd/timers/stamp-logrotate.timer",
        "usr/lib/python3/__pycache__/new.pyc",
        "usr/share/app/__pycache__/x.pyc",
    ):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(b"x")
    (top / "var/lib/systemd/linger").mkdir()
    parents = ["/var/backups", "/var/lib/apt", "/var/lib/logrotate", "/var/lib/systemd"]
    assert sorted(found(verify(top, src)["drift"])) == parents, "the image has no such directories"
    assert found(verify(top, src, verify_exclude_extra=[*EXTRA_DEFAULTS, *parents])["drift"]) == {}
    (top / "var/lib/systemd/linger/app").write_bytes(b"")
    (top / PYC).write_bytes(b"changed")
    os.chmod(top / "usr/share/app/__pycache__/x.pyc", 0o4755)
    seen = found(verify(top, src, verify_exclude_extra=[*EXTRA_DEFAULTS, *parents])["drift"])
    assert set(seen) == {"/var/lib/systemd/linger/app", f"/{PYC}", "/usr/share/app/__pycache__/x.pyc"}
    assert set(found(verify(top, src, verify_exclude_extra=["/var/**"])["drift"])) == {
        "/etc/.pwd.lock",
        "/etc/.updated",
        "/usr/lib/python3/__pycache__/new.pyc",
        "/usr/share/app/__pycache__",
        "/usr/share/app/__pycache__/x.pyc",
        f"/{PYC}",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verify": "none", "repair": "paths"}, "repair: paths needs verify"),
        ({"verify": "metadata", "verify_exclude": ["etc"]}, "verify_exclude: 'etc' is not an absolute path"),
        ({"verify": "metadata", "verify_exclude_extra": ["/a/"]}, "verify_exclude_extra: '/a/'"),
        ({"verify": "metadata", "verify_timeout": 0}, "verify_timeout is 0"),
        ({"verify": "metadata", "state": "staged"}, "verify needs state: present"),
    ],
)
def test_wrong_options(top: Path, src: str, options: dict[str, t.Any], message: str) -> None:
    with pytest.raises(OciError, match=message):
        run(top, src=src, **options)


def test_without_a_journal(top: Path, src: str) -> None:
    """A tree of an earlier version is not verifiable, which is never clean."""
    (journal,) = beside_of(top).glob("*.journal")
    journal.unlink()
    for level in ("metadata", "content"):
        result = verify(top, src, level, repair="paths")
        assert result["drift"]["verdict"] == "not verifiable"
        assert "recreate: true" in result["drift"]["reason"]
        assert result["changed"] is False


def test_the_journal_goes_with_its_tree(top: Path, src: str, two: str) -> None:
    """Through exchange, earlier trees, ``previous`` and ``absent``."""

    def journals() -> int:
        return len(list(beside_of(top).glob("*.journal")))

    run(top, src=two)
    assert journals() == 2
    assert run(top, src=two, verify="content")["drift"]["verdict"] == "clean"
    run(top, state="previous")
    assert verify(top, src, "content")["drift"]["verdict"] == "clean"
    run(top, src=two, state="staged")
    run(top, src=two, keep=0)
    assert journals() == 1
    assert run(top, src=two, verify="content")["drift"]["verdict"] == "clean"
    run(top, state="absent")
    assert not beside_of(top).exists()


def test_a_new_image_is_not_compared(dest: Path, src: str, two: str) -> None:
    run(dest, src=two)
    for check_mode in (True, False):
        result = verify(dest, src, "content", check_mode)
        assert result["changed"] is True
        assert result["drift"] is None


def test_mount_points_are_left_out(top: Path, src: str, tmp_path: Path) -> None:
    """What ``oci_mount_points`` makes is noted with the tree; what is planted beside it is found."""
    (tmp_path / "source").mkdir()
    mount = {"source": str(tmp_path / "source"), "target": "/srv/deep/data", "type": "bind"}
    made: set[str] = set()
    provide_mount_points(str(top), [mount], False, made.add)
    assert provide_directories(str(top), ["/work/here"], False, made.add) is True
    assert made == {"/srv/deep/data", "/work/here"}
    assert set(found(verify(top, src)["drift"])) == {"/srv", "/work"}
    note_made(str(top), made)
    note_made(str(top), made)
    assert found(verify(top, src)["drift"]) == {}
    (top / "srv/planted").write_bytes(b"")
    assert set(found(verify(top, src)["drift"])) == {"/srv/planted"}
    assert set(found(verify(top, src, verify_exclude=[])["drift"])) == {"/srv", "/work"}
    # another tree has none of it
    run(top, src=src, recreate=True, keep=0)
    assert not list(beside_of(top).glob("*.made"))
    note_made(str(tmp_path / "elsewhere"), made)


def test_a_tree_in_a_mount_point(dest: Path, src: str) -> None:
    """What lies at the top beside the tree is no finding, and the moves into the mount touch nothing."""
    dest.mkdir()
    with mounted(dest, "-t", "tmpfs", "-o", "size=16m", "test"):
        (dest / "lost+found").mkdir()
        run(dest, src=src)
        time.sleep(0.02)
        fresh = tree(dest)
        for level in ("metadata", "content"):
            drift = verify(dest, src, level)["drift"]
            assert (found(drift), drift["verdict"]) == ({}, "clean")
        (dest / "etc/kept").unlink()
        with pytest.raises(OciError, match="is a mount point, where the tree that repair: recreate replaces"):
            verify(dest, src, repair="recreate")
        assert verify(dest, src, repair="paths")["changed"] is True
        assert tree(dest) == fresh
        run(dest, state="absent")


def test_names_are_made_visible(top: Path, src: str) -> None:
    (top / "etc" / "evil\x1b[31m\n").write_bytes(b"")
    os.close(os.open(os.fsencode(top) + b"/etc/\xff\xfe", os.O_CREAT))
    shown = [item["path"] for item in verify(top, src)["drift"]["extra"]["files"]]
    assert shown == ["/etc/evil\\x1b[31m\\n", "/etc/\\xff\\xfe"]


def test_bounds(top: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extra files and time are bounded, and the result says so."""
    for number in range(50):
        (top / f"extra-{number}").write_bytes(b"")
    monkeypatch.setattr(comparison, "_MOST_EXTRA", 20)
    result = verify(top, src)
    assert "more than 20 extra" in result["drift"]["reason"]
    assert any("not compared completely" in warning for warning in result["warnings"])
    monkeypatch.setattr(comparison, "_MOST_EXTRA", 1000)
    monkeypatch.setattr(time, "monotonic", iter(range(0, 10**9, 1000)).__next__)
    assert "verify_timeout" in verify(top, src)["drift"]["reason"]

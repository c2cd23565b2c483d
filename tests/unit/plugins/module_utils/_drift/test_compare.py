# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Live trees that do all that a container can do (docs/behaviour.md, section 17)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._drift import compare as comparison
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.compare import Compared, compare
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.exclusions import Rules, parse_exclusions
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.findings import Drift
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.objects import Looks
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.recorded import Recorded, replay
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import beneath
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Policy
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import Applier
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.root import Root
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._unpack_options import UnpackOptions
from ansible_collections.hypervisor.oci.tests.images.builder import directory, file, hardlink, symlink, tar
from ansible_collections.hypervisor.oci.tests.unit.support import IS_ROOT, mounted, needs_root

OPTIONS = UnpackOptions(max_size=2**30, max_entries=10**6, preserve=IS_ROOT)


class Lab:
    """A tree that was unpacked a moment ago, with what was noted."""

    def __init__(self, top: Path, *members: t.Any) -> None:
        top.mkdir()
        self.top = top
        policy = Policy(Report(), OPTIONS)
        fd = os.open(top, os.O_RDONLY)
        umask = os.umask(0)
        root = Root(fd, policy.for_missing_parent())
        applier = Applier(root, policy, Budget(2**30, 10**6), OPTIONS)
        applier.apply_layer([tar(members)], "sha256:layer")
        applier.finish()
        root.close()
        os.close(fd)
        os.umask(umask)
        self.recorded: Recorded = replay([root.journal.finish() or b""])
        self.finished = time.time_ns()
        time.sleep(0.02)

    def compare(self, deadline: float | None = None, is_stack: bool = False, **exclusions: t.Any) -> Compared:
        """Compare, with nothing left out by default."""
        rules = Rules(parse_exclusions(exclusions.get("paths", []), exclusions.get("extra", [])))
        looks = Looks(self.recorded, Policy(Report(), OPTIONS), self.finished, {}, parts_names=is_stack)
        until = time.monotonic() + 60 if deadline is None else deadline
        fd = os.open(self.top, os.O_RDONLY)
        try:
            return compare(fd, self.recorded, rules, looks, until)
        finally:
            os.close(fd)

    def drift(self, **options: t.Any) -> Drift:
        """The findings."""
        return self.compare(**options).drift


def paths(drift: Drift) -> set[str]:
    return {finding.path for found in drift.kinds.values() for finding in found.kept}


SOME = (
    directory("a", 0o755),
    directory("a/b", 0o755),
    *(file(f"a/b/{number}", str(number)) for number in range(20)),
    directory("z", 0o755),
    file("z/last", b"last"),
)


@pytest.fixture(name="lab")
def fixture_lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "top", *SOME)


def test_links_out_of_the_tree(tmp_path: Path, lab: Lab) -> None:
    """A directory that was replaced by a link is a finding; what the link leads to is not looked at."""
    secret = tmp_path / "secret"
    secret.mkdir()
    for number in range(20):
        (secret / str(number)).write_bytes(b"secret")
    os.rename(lab.top / "a/b", tmp_path / "elsewhere")
    (lab.top / "a/b").symlink_to(secret)
    compared = lab.compare()
    assert paths(compared.drift) == {"/a/b"}
    (finding,) = compared.drift.kinds["changed"].kept
    assert (finding.differs, finding.below) == (("type",), 20)
    assert {place.path for place in compared.files.values()} == {"/z/last"}


def test_things_that_must_not_be_opened(lab: Lab) -> None:
    """A FIFO would block for ever."""
    os.mkfifo(lab.top / "fifo")
    (lab.top / "z/last").unlink()
    os.mkfifo(lab.top / "z/last")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        os.chdir(lab.top)
        server.bind("socket")
    assert paths(lab.drift()) == {"/fifo", "/z/last", "/socket"}


def test_directories_that_move_under_the_walk(lab: Lab, tmp_path: Path) -> None:
    """Renamed all the time, into each other and for links: the walk ends, inside of the tree, without a wrong finding there."""
    stop = threading.Event()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/planted").write_bytes(b"")

    def move() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                os.rename(lab.top / "a/b", lab.top / "z/b")
                os.symlink(tmp_path / "outside", lab.top / "a/b")
                os.unlink(lab.top / "a/b")
                os.rename(lab.top / "z/b", lab.top / "a/b")

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _round in range(60):
            drift = lab.drift()
            allowed = ("/a/b", "/z/b")
            assert all(path.startswith(allowed) or path in ("/a", "/z") for path in {*paths(drift), *drift.busy})
            assert not any("planted" in path for path in paths(drift))
    finally:
        stop.set()
        thread.join()


def test_a_huge_directory(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the container makes costs no more than the bounds."""
    monkeypatch.setattr(comparison, "_MOST_EXTRA", 500)
    for number in range(2000):
        os.close(os.open(lab.top / f"extra-{number}", os.O_CREAT))
    drift = lab.drift()
    assert "more than 500" in drift.incomplete
    assert drift.verdict == "drifted"
    monkeypatch.setattr(comparison, "_MOST_EXTRA", 5000)
    assert lab.drift().kinds["extra"].count == 2000
    assert "verify_timeout" in lab.compare(deadline=0).drift.incomplete


def test_a_deep_directory(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths beyond what the kernel takes at once, and a bound for those that would cost too much."""
    fd = os.open(lab.top, os.O_RDONLY)
    for _level in range(60):
        os.mkdir("n" * 200, dir_fd=fd)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o4755, dir_fd=fd))
    os.chmod("file", 0o4755, dir_fd=fd)
    os.close(fd)
    drift = lab.drift()
    top, deep = sorted(drift.kinds["extra"].kept, key=lambda finding: len(finding.path))
    assert (top.below, deep.gives_rights) == (60, True)
    monkeypatch.setattr(comparison, "_LONGEST_PATH", 5000)
    assert "5000 characters" in lab.drift().incomplete


def test_an_extra_directory_is_one_finding(lab: Lab) -> None:
    """But for what gives rights away in it."""
    for folder in ("new", "new/deeper"):
        (lab.top / folder).mkdir()
        for number in range(10):
            (lab.top / folder / str(number)).write_bytes(b"")
    (lab.top / "new/deeper/root").write_bytes(b"")
    (lab.top / "new/deeper/root").chmod(0o4755)
    drift = lab.drift()
    assert paths(drift) == {"/new", "/new/deeper/root"}
    assert [(finding.path, finding.below) for finding in drift.kinds["extra"].sorted()] == [
        ("/new/deeper/root", 0),
        ("/new", 22),
    ]


def test_a_missing_directory_is_one_finding(lab: Lab) -> None:
    os.rename(lab.top / "a", lab.top.parent / "away")
    (finding,) = lab.drift().kinds["missing"].kept
    assert (finding.path, finding.below) == ("/a", 21)


@needs_root
def test_mounts_are_not_crossed(lab: Lab) -> None:
    """Neither one over a directory of the image nor one elsewhere, with and without openat2."""
    (lab.top / "extra").mkdir()
    with mounted(lab.top / "a"), mounted(lab.top / "extra"):
        (lab.top / "a/planted").write_bytes(b"")
        (lab.top / "extra/planted").write_bytes(b"")
        assert paths(lab.drift()) == set()
        # the same file system once more
        with mounted(lab.top / "z", "--bind", str(lab.top.parent)):
            drift = lab.drift()
            assert paths(drift) <= {"/z"}
            assert drift.busy == ["/z"]


def test_without_openat2(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.6, and where a filter forbids it: each component by itself."""

    def missing(*_arguments: t.Any) -> int:
        raise OSError(38, "not implemented")

    monkeypatch.setattr(beneath, "open_beneath", missing)
    assert (lab.drift().verdict, paths(lab.drift())) == ("clean", set())
    test_links_out_of_the_tree(lab.top.parent, lab)


@needs_root
def test_mounts_without_openat2(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_arguments: t.Any) -> int:
        raise OSError(38, "not implemented")

    monkeypatch.setattr(beneath, "open_beneath", missing)
    test_mounts_are_not_crossed(lab)


def test_names_of_one_file(tmp_path: Path) -> None:
    """Broken apart, and joined with another file."""
    lab = Lab(
        tmp_path / "top",
        *(file(name, b"same", mtime=5) for name in ("one", "other")),
        *(hardlink(f"one-{number}", "one") for number in range(3)),
        symlink("link", "one"),
    )
    assert lab.drift().verdict == "clean"
    (lab.top / "other").unlink()
    os.link(lab.top / "one", lab.top / "other")
    for is_stack in (False, True):
        joined = {finding.path: finding.differs for finding in lab.drift(is_stack=is_stack).kinds["changed"].kept}
        assert joined["/other"] == ("links",)
    for name in ("other", "one-1"):
        (lab.top / name).unlink()
        (lab.top / name).write_bytes(b"same")
        os.utime(lab.top / name, (5, 5))
    found = {finding.path: finding.differs for finding in lab.drift().kinds["changed"].kept}
    assert found == {"/one-1": ("links",)}
    stacked = lab.drift(is_stack=True)
    assert (paths(stacked), sorted(stacked.suspects.values())) == (set(), ["/one", "/other"]), "an overlay parts names"


def test_what_is_left_out_is_no_finding(tmp_path: Path) -> None:
    """Excluded paths and patterns are left out, whatever became of them."""
    lab = Lab(tmp_path / "top", *SOME)
    os.rename(lab.top / "a", lab.top.parent / "away")
    (lab.top / "z/last").unlink()
    assert paths(lab.drift(paths=["/a", "/z/*"])) == set()
    assert paths(lab.drift(paths=["/a/b", "/z"])) == {"/a"}

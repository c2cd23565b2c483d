# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What overlays need beyond btrfs (docs/behaviour.md, section 16)."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._container.mount_points import provide_directories
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.overlay import Lowers, is_mounted, open_overlay
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.stack import is_stack, opened_tree
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import stack_probe
from ansible_collections.hypervisor.oci.plugins.modules.oci_user_info import look_up_user
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    char,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import beside_of, refused
from ansible_collections.hypervisor.oci.tests.unit.support import (
    loop_mounted,
    mounted,
    needs_root,
    run,
    tree,
    without_waiting,
)

pytestmark = needs_root

BASE = Layer(
    directory("etc", 0o755, mtime=5), file("etc/passwd", "app:x:1000:1000::/:\n"), directory("d", 0o2775, gid=50)
)
ONE = Image([BASE, Layer(file("app", b"1"))], {"User": "app"})
TWO = Image([BASE, Layer(file("app", b"2"))], {"User": "app"})


class Lab(t.NamedTuple):
    """An ext4 with folders for trees and a store."""

    folder: Path

    def run(self, image: Image, name: str = "web", check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """Run with the store."""
        return run(self.dest(name), check_mode, src=self.archive(image), store_dir=self.store, **options)

    def archive(self, image: Image) -> str:
        """The image as an archive."""
        return write_oci_archive(self.folder / f"{id(image)}.tar", image)

    @property
    def store(self) -> str:
        """Where layers are."""
        return str(self.folder / "store")

    def dest(self, name: str = "web") -> Path:
        """Where a tree is."""
        return self.folder / "guests" / name

    def tree(self, name: str = "web") -> dict[str, t.Any]:
        """What a container sees."""
        with opened(os.open(self.dest(name), os.O_RDONLY)) as fd, opened_tree(fd, name) as root:
            return dict(tree(f"/proc/self/fd/{root}/."))


@pytest.fixture(name="lab")
def fixture_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Lab]:
    without_waiting(monkeypatch)
    point = tmp_path / "disk"
    point.mkdir(0o700)
    with loop_mounted(point, tmp_path / "image", "ext4"):
        (point / "guests").mkdir(0o700)
        yield Lab(point)


def same_as_ordinary(lab: Lab, image: Image) -> None:
    """Require that cold, warm and ordinary trees are the same."""
    ordinary = run(lab.dest("ordinary"), src=lab.archive(image))
    for name in ("cold", "warm"):
        result = lab.run(image, name)
        assert result["store"] == "overlay"
        assert result["report"] == ordinary["report"]
        assert lab.tree(name) == lab.tree("ordinary")


_ONE_FILE = (file("a", b"linked", 0o4755), hardlink("b", "a"), directory("sub", 0o750, mtime=9), hardlink("sub/c", "a"))


@pytest.mark.parametrize(
    "upper",
    [
        [[hardlink("d", "b")]],
        [[hardlink("d", "b"), hardlink("sub/e", "sub/c")], [hardlink("f", "d")]],
        [[whiteout("b")]],
        [[whiteout("a"), whiteout("b")]],
        [[file("b", b"own")], [hardlink("g", "a"), whiteout("sub/c")]],
        [[opaque("sub"), file("sub/new")]],
        [[whiteout("sub"), hardlink("h", "b")]],
        [[hardlink("d", "a"), whiteout("a")], [hardlink("a", "d"), file("b", b"now another")]],
        [[symlink("s", "sub"), hardlink("s/more", "s/c")]],
    ],
)
def test_names_of_one_file(lab: Lab, upper: list[list[t.Any]]) -> None:
    """An overlay copies a file for one of its names; all its names go on to be one file."""
    same_as_ordinary(lab, Image([Layer(*_ONE_FILE), *(Layer(*members) for members in upper)]))


def test_a_name_that_is_opened_for_writing(lab: Lab) -> None:
    """Section 17: an overlay copies the file for that name, which is no finding; what is written to the copy is one."""
    image = Image([Layer(*_ONE_FILE)])
    lab.run(image)

    def write(data: bytes) -> None:
        with contextlib.ExitStack() as stack:
            fd = stack.enter_context(opened(os.open(lab.dest(), os.O_RDONLY)))
            root = stack.enter_context(opened_tree(fd, "web", writing=True))
            os.write(stack.enter_context(opened(os.open("b", os.O_RDWR, dir_fd=root))), data)

    write(b"")
    drift = lab.run(image, verify="metadata")["drift"]
    assert (drift["verdict"], drift["suspects"]["paths"]) == ("suspect", ["/b"])
    assert lab.run(image, verify="content")["drift"]["verdict"] == "clean"
    write(b"LINKED")
    (changed,) = lab.run(image, verify="content", repair="paths")["drift"]["changed"]["files"]
    assert (changed["path"], changed["differs"]) == ("/b", ["content"])
    assert lab.run(image, verify="content")["drift"]["verdict"] == "clean"
    assert lab.tree() == run_alone(lab, image)


def run_alone(lab: Lab, image: Image) -> dict[str, t.Any]:
    """What is in an ordinary tree."""
    run(lab.dest("ordinary"), src=lab.archive(image))
    return lab.tree("ordinary")


@pytest.mark.parametrize("number", [130, 600])
def test_many_layers(lab: Lab, number: int) -> None:
    image = Image([Layer(file(f"f{n % 7}", str(n)), directory("d", 0o700 + n % 8)) for n in range(number)])
    same_as_ordinary(lab, image)
    # what no mount could hold is one snapshot
    assert len(os.listdir(f"{lab.store}/s")) == (number if number < 400 else 1)


def mounts_of(lab: Lab) -> list[str]:
    """What is mounted there, and where a mount of this process alone is made; other tests mount things meanwhile."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(lab.folder) in line or line.split()[4] == "/proc"]


def test_nothing_shows_a_mount(lab: Lab) -> None:
    lab.run(ONE)
    before = mounts_of(lab)
    here = os.getcwd()
    with opened(os.open(lab.dest(), os.O_RDONLY)) as fd:
        with opened_tree(fd, "web", writing=True) as root:
            assert mounts_of(lab) == before
            assert os.getcwd() == here
            assert is_mounted(fd)
            with opened_tree(fd, "web") as other:
                assert os.listdir(other) == os.listdir(root)
        assert not is_mounted(fd)


def test_in_use(lab: Lab) -> None:
    """A container that runs has it mounted, in whatever namespace."""
    lab.run(ONE)
    with opened(os.open(lab.dest(), os.O_RDONLY)) as fd, opened_tree(fd, "web", writing=True):
        for act in (
            lambda: lab.run(TWO),
            lambda: lab.run(TWO, check_mode=True),
            lambda: run(lab.dest(), state="absent"),
            lambda: provide_directories(str(lab.dest()), ["/new"], False),
        ):
            with pytest.raises(OciError, match="in use: the overlay of its layers is mounted; stop the container"):
                act()
        # what is there is found, as a run that changes nothing does
        assert provide_directories(str(lab.dest()), ["/etc"], False) is False
        assert lab.run(ONE)["changed"] is False
    assert lab.run(TWO)["changed"] is True


def test_a_device_that_is_a_whiteout(lab: Lab) -> None:
    image = Image([BASE, Layer(char("null", 0, 0))])
    tries: list[dict[str, t.Any]] = [{}, {"recreate": True}]
    for options in tries:
        result = lab.run(image, devices="create", **options)
        assert (result["changed"], result["store"]) == (True, None)
        assert [text for text in result["warnings"] if "a character device 0:0" in text]
        assert os.stat(lab.dest() / "null").st_rdev == 0
    assert lab.run(image, devices="create")["changed"] is False
    assert not is_stack_at(lab.dest())


def is_stack_at(path: Path) -> bool:
    with opened(os.open(path, os.O_RDONLY)) as fd:
        return is_stack(fd)


def test_an_image_cannot_make_a_stack(lab: Lab) -> None:
    forged: dict[str | bytes, str | bytes] = {"trusted.hypervisor_oci_stack": b"1"}
    members = [file("lower", "abc\n"), symlink("store", "/"), directory("upper"), directory("work")]
    image = Image([Layer(directory(".", 0o700, xattrs=forged), *members)])
    run(lab.dest("plain"), src=lab.archive(image))
    assert not is_stack_at(lab.dest("plain"))
    assert "lower" in lab.tree("plain")
    for name in ("trusted.hypervisor_oci_stack", "trusted.hypervisor_oci"):
        message = refused(lab.dest("no"), src=lab.archive(image), xattrs=[name])
        assert "xattrs names the xattr that binds a tree to its record" in message


def test_redirects_are_not_followed(lab: Lab) -> None:
    """Whatever ``redirect_always_follow`` of the machine says; images cannot bring them, and a container cannot set them."""
    names: dict[str | bytes, str | bytes] = {"trusted.overlay.redirect": b"/secret", "trusted.overlay.metacopy": b""}
    base = Layer(file("secret/key", "k"), file("d/own"))
    same_as_ordinary(lab, Image([base, Layer(directory("d", xattrs=names), file("x", "1", xattrs=names))]))
    for path in ("low/secret", "low/d", "top/d", "upper", "work"):
        (lab.folder / path).mkdir(parents=True)
    os.setxattr(lab.folder / "top/d", "trusted.overlay.redirect", b"/secret")
    with opened(os.open(lab.folder, os.O_RDONLY)) as fd, opened(open_overlay(Lowers(fd, ("top", "low")), fd)) as root:
        assert sorted(os.listdir(root)) == ["d", "secret"]
        with pytest.raises(PermissionError):
            os.listdir(f"/proc/self/fd/{root}/d")


def test_the_earlier_stack_whose_snapshot_is_gone(lab: Lab) -> None:
    lab.run(ONE)
    before = lab.run(TWO, keep=1)
    top = os.readlink(lab.dest() / "store")
    (names,) = [
        (beside / "lower").read_text() for beside in beside_of(lab.dest()).iterdir() if (beside / "lower").exists()
    ]
    os.rename(f"{top}/{names.split(':')[0]}", lab.folder / "gone")
    message = refused(lab.dest(), state="previous")
    assert "is no longer in its store" in message
    assert lab.run(TWO, keep=1)["manifest_digest"] == before["manifest_digest"]
    assert lab.tree()["app"].content == b"2"


def test_what_the_container_wrote_comes_back(lab: Lab) -> None:
    lab.run(ONE)
    with opened(os.open(lab.dest(), os.O_RDONLY)) as fd, opened_tree(fd, "web", writing=True) as root:
        os.mkdir("own", dir_fd=root)
    lab.run(TWO, keep=1)
    assert "own" not in lab.tree()
    assert run(lab.dest(), state="previous", keep=1)["store"] == "overlay"
    assert "own" in lab.tree()


@pytest.mark.parametrize("text", ["", "a:b/../..", "a,b", "A", "../etc"])
def test_a_damaged_stack(lab: Lab, text: str) -> None:
    lab.run(ONE)
    (lab.dest() / "lower").write_text(text)
    with pytest.raises(RootfsError, match="the stack of layers at 'web' is damaged; provision its image again"):
        lab.tree()
    assert lab.run(ONE, recreate=True)["changed"] is True
    assert lab.tree()["app"].content == b"1"


def test_other_modules_see_the_tree(lab: Lab) -> None:
    lab.run(ONE)
    assert look_up_user(str(lab.dest()), "app")["user"]["uid"] == 1000
    assert provide_directories(str(lab.dest()), ["/srv/data", "/etc"], True) is True
    assert "srv" not in lab.tree()
    assert provide_directories(str(lab.dest()), ["/srv/data", "/etc"], False) is True
    assert "srv/data" in lab.tree()


def test_the_mount_of_a_stack(lab: Lab) -> None:
    result = lab.run(ONE)
    mount = result["mount"]
    options = dict(part.split("=", 1) for part in mount["opts"].split(","))
    assert (mount["src"], mount["fstype"]) == ("overlay", "overlay")
    assert (options["upperdir"], options["workdir"]) == (f"{lab.dest()}/upper", f"{lab.dest()}/work")
    assert [os.path.dirname(path) for path in options["lowerdir"].split(":")] == [f"{lab.store}/s"] * 2
    assert (options["index"], options["metacopy"], options["redirect_dir"]) == ("off", "off", "nofollow")
    assert lab.run(ONE)["mount"] == mount
    assert run(lab.dest("plain"), src=lab.archive(ONE))["mount"] is None


def test_an_overlay_that_is_mounted_by_hand(lab: Lab) -> None:
    """With the options of the result, at a path of its own; over dest it is told."""
    mount = lab.run(ONE)["mount"]
    point = lab.folder / "point"
    point.mkdir()
    options = ("-t", mount["fstype"], "-o", mount["opts"], mount["src"])
    with mounted(point, *options):
        assert (point / "app").read_bytes() == b"1"
        with pytest.raises(RootfsError, match="is in use by an overlay of it at .*/point"):
            lab.run(TWO)
    with mounted(lab.dest(), *options):
        for act in (
            lambda: lab.run(TWO),
            lambda: lab.run(TWO, check_mode=True),
            lambda: run(lab.dest(), state="absent"),
        ):
            with pytest.raises(RootfsError, match="holds layers over which something is mounted; unmount it"):
                act()
    wait_until_unmounted(lab.dest())
    assert lab.run(TWO)["changed"] is True


def wait_until_unmounted(path: Path) -> None:
    """Other processes that make a namespace of their own keep copies of what is mounted for as long."""
    deadline = time.monotonic() + 30
    with opened(os.open(path, os.O_RDONLY)) as fd:
        while is_mounted(fd):
            assert time.monotonic() < deadline, f"{path} stays mounted"
            time.sleep(0.1)


def test_only_stacks_are_listed_for_the_start(lab: Lab) -> None:
    """The script that starts a container mounts nothing else."""
    listed = beside_of(lab.dest()) / "stacks"
    lab.run(ONE)
    first = lab.dest().stat().st_ino
    assert listed.read_text() == f"{first}\n"
    lab.run(TWO, keep=1)
    assert sorted(listed.read_text().split()) == sorted([str(first), str(lab.dest().stat().st_ino)])
    run(lab.dest(), src=lab.archive(TWO), keep=0)
    assert not listed.exists()


@pytest.mark.parametrize("name", ["a,b", "a:b", "a b", 'a"b', "a%b", "a\\b"])
def test_paths_that_mount_would_interpret(lab: Lab, name: str) -> None:
    result = lab.run(ONE, name)
    assert result["store"] is None
    assert [text for text in result["warnings"] if "has characters that mount or systemd would interpret" in text]


def test_where_overlays_do_not_work(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_folder: int | None) -> str:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(stack_probe, "probe", refuse)
    for check_mode in (True, False):
        result = lab.run(ONE, check_mode=check_mode)
        assert result["store"] is None
        assert [text for text in result["warnings"] if "no overlay can be mounted" in text]
    assert lab.tree()["app"].content == b"1"


@pytest.mark.parametrize("state", ["present", "absent"])
def test_what_an_interrupted_run_has_tried(lab: Lab, state: str) -> None:
    beside = lab.folder / "guests/.web.oci_rootfs"
    (beside / "probe/low/x/y").mkdir(parents=True)
    beside.chmod(0o700)
    if state == "absent":
        run(lab.dest(), state="absent")
        assert os.listdir(lab.folder / "guests") == []
    else:
        assert lab.run(ONE)["store"] == "overlay"
        assert sorted(os.listdir(beside)) == ["record.json", "stacks"]


def test_check_mode_predicts_a_stack(lab: Lab) -> None:
    assert lab.run(ONE, check_mode=True)["store"] == "overlay"
    assert os.listdir(lab.folder / "guests") == []
    assert not os.path.exists(lab.store)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An ordinary user of the node runs setuid files of an image, wherever one could lie (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.reach import MappedRoot, ReachRule
from ansible_collections.hypervisor.oci.plugins.module_utils._container.volume import Volume, provide_volume
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, directory, file, write_oci_archive
from ansible_collections.hypervisor.oci.tests.tools.removal import made_folder
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import names_beside
from ansible_collections.hypervisor.oci.tests.unit.support import mounted, needs_root, run, without_waiting

pytestmark = needs_root

_STRANGER = 12345
_BASE = 100000
_MAPS: dict[str, t.Any] = {"uid_map": [f"0:{_BASE}:65536"], "gid_map": [f"0:{_BASE}:65536"]}
_RIGHTS = "the image has 1 setuid or setgid files"


@pytest.fixture(name="top")
def fixture_top(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Path]:
    """A folder that every user can pass, and can write to, as ``/tmp`` is."""
    without_waiting(monkeypatch)
    above = Path(tempfile.gettempdir()).resolve()
    for folder in (above, *above.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            pytest.skip(f"{folder} is closed to other users; set TMPDIR")
    with made_folder("oci_reach.", str(above)) as name:
        top = Path(name)
        top.chmod(0o755)
        yield top


@pytest.fixture(name="src")
def fixture_src(top: Path) -> str:
    """An image with a program that tells whose rights it has; it is set to run as its owner, root."""
    return image(top, "one")


def image(top: Path, name: str) -> str:
    program = Path("/usr/bin/id").read_bytes()
    layer = Layer(directory("data", 0o755), file("data/id", program, 0o4755), file(name, b""))
    private = top / "images"
    private.mkdir(mode=0o700, exist_ok=True)
    return write_oci_archive(private / f"{name}.tar", Image([layer]))


def as_user(uid: int, *command: str) -> str:
    """What a program of a user without any further group says; ``denied`` where he may not run it."""

    def become() -> None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)

    try:
        done = subprocess.run(command, preexec_fn=become, cwd="/", capture_output=True, check=True)
    except PermissionError:
        return "denied"
    return done.stdout.decode().strip()


def attack(path: Path) -> str:
    """The user whose rights a stranger gets by a setuid program."""
    assert path.stat().st_mode & stat.S_ISUID
    return as_user(_STRANGER, str(path), "-u")


def refused(dest: Path, **changes: t.Any) -> str:
    with pytest.raises(RootfsError) as caught:
        run(dest, **changes)
    return caught.value.message


def open_folder(top: Path) -> Path:
    """A folder as administrators make them."""
    folder = top / "srv"
    folder.mkdir(exist_ok=True)
    os.chmod(folder, 0o755)
    return folder


def test_without_the_rule_a_stranger_becomes_root(top: Path, src: str) -> None:
    """Only where the task says so; this is what the other tests prevent."""
    dest = open_folder(top) / "web"
    assert run(dest, src=src, reachable="allow")["warnings"] == []
    assert attack(dest / "data/id") == "0"


def test_a_dest_that_others_can_reach_is_refused(top: Path, src: str) -> None:
    folder = open_folder(top)
    dest = folder / "web"
    message = refused(dest, src=src)
    assert message == (
        f"every user can reach '{dest}' through '{folder}', and {_RIGHTS};"
        f" close '{folder}' to all but root (chown root:root, chmod 0700), choose another dest,"
        " or set reachable: warn or allow"
    )
    assert os.listdir(folder) == []
    os.chmod(folder, 0o700)
    assert run(dest, src=src)["warnings"] == []
    assert attack(dest / "data/id") == "denied"


def test_a_folder_that_the_module_makes_is_closed(top: Path, src: str) -> None:
    """The first example of the documentation needs no option: nobody but root passes its folder."""
    dest = top / "lxc/web/rootfs"
    assert run(dest, src=src)["warnings"] == []
    assert attack(dest / "data/id") == "denied"


@pytest.mark.parametrize(
    ("mode", "owner", "who"),
    [(0o710, (0, _STRANGER), f"group {_STRANGER}"), (0o700, (_STRANGER, 0), f"user {_STRANGER}, the owner,")],
)
def test_a_folder_for_some_is_reachable_too(top: Path, src: str, mode: int, owner: tuple[int, int], who: str) -> None:
    folder = open_folder(top)
    os.chmod(folder, mode)
    os.chown(folder, *owner)
    dest = folder / "web"
    message = refused(dest, src=src)
    assert message.startswith(f"{who} can reach '{dest}' through '{folder}', and {_RIGHTS};")
    run(dest, src=src, reachable="allow")
    assert attack(dest / "data/id") == "0"


def test_an_acl_lets_a_user_pass(top: Path, src: str) -> None:
    folder = open_folder(top)
    os.chmod(folder, 0o700)
    subprocess.run(["setfacl", "-m", f"u:{_STRANGER}:x", folder], check=True)
    dest = folder / "web"
    assert refused(dest, src=src).startswith(f"user {_STRANGER} can reach '{dest}'")
    run(dest, src=src, reachable="allow")
    assert attack(dest / "data/id") == "0"


def test_an_inherited_acl_opens_no_folder_of_ours(top: Path, src: str) -> None:
    """A default ACL of the administrator's is not taken over, by the folder of a mapped root either."""
    folder = open_folder(top)
    subprocess.run(["setfacl", "-d", "-m", f"u:{_STRANGER}:rwx", folder], check=True)
    choices: dict[str, dict[str, t.Any]] = {"plain": {}, "mapped": _MAPS}
    for name, maps in choices.items():
        dest = folder / name / "rootfs"
        assert run(dest, src=src, **maps)["warnings"] == []
        assert attack(dest / "data/id") == "denied"


def test_an_earlier_tree_and_a_staged_one_are_closed(top: Path, src: str) -> None:
    """Even below a folder that is as open as the task allows it."""
    dest = open_folder(top) / "web"
    run(dest, src=src, reachable="allow")
    run(dest, src=image(top, "two"), reachable="allow")
    run(dest, src=image(top, "three"), state="staged", reachable="allow")
    trees = list(dest.parent.glob(".web.oci_rootfs/*/data/id"))
    assert len(trees) == 2
    assert [attack(path) for path in trees] == ["denied", "denied"]


def test_what_the_cache_keeps_is_closed(top: Path, src: str) -> None:
    """Also in a folder that was open before."""
    cache = open_folder(top) / "cache"
    cache.mkdir(0o755)
    os.chmod(cache, 0o755)
    run(top / "lxc/web/rootfs", src=src, cache_dir=str(cache), cache_max_size=1 << 30)
    (blob,) = (path for path in cache.glob("sha256/*") if path.stat().st_size)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        as_user(_STRANGER, "cat", str(blob))
    assert b"Permission denied" in caught.value.stderr


# -- mapped roots


def test_a_folder_above_a_mapped_root_is_for_that_root_alone(top: Path, src: str) -> None:
    dest = top / "lxc/web/rootfs"
    assert run(dest, src=src, **_MAPS)["warnings"] == []
    status = dest.parent.stat()
    assert (status.st_uid, status.st_gid) == (0, _BASE)
    assert stat.S_IMODE(status.st_mode) == 0o710
    assert attack(dest / "data/id") == "denied"
    assert as_user(_BASE, str(dest / "data/id"), "-u") == str(_BASE)
    # the root of another container is a stranger
    assert as_user(_BASE + 65536, str(dest / "data/id"), "-u") == "denied"


def test_a_folder_of_another_map_is_refused(top: Path, src: str) -> None:
    dest = top / "lxc/web/rootfs"
    run(dest, src=src, **_MAPS)
    other: dict[str, t.Any] = {"uid_map": ["0:200000:65536"], "gid_map": ["0:200000:65536"]}
    assert refused(dest, src=src, **other) == (
        f"group {_BASE} can reach '{dest}' through '{dest.parent}', and {_RIGHTS};"
        f" close '{dest.parent}' to all but the container's root (chown root:200000, chmod 0710),"
        " choose another dest, or set reachable: warn or allow"
    )


@pytest.mark.parametrize("maps", [{}, _MAPS], ids=["plain", "mapped"])
@pytest.mark.parametrize("mode", [0o755, 0o711, 0o750])
def test_advice_that_is_followed_helps(top: Path, src: str, maps: dict[str, t.Any], mode: int) -> None:
    """Section 7: neither the advice of an error, nor what docs/rendering.md recommends, ends in a warning."""
    folder = open_folder(top)
    os.chown(folder, 0, _STRANGER)
    os.chmod(folder, mode)
    dest = folder / "web"
    message = refused(dest, src=src, **maps)
    found = re.search(r"\(chown (root:\w+), chmod (0[0-7]{3})\)", message)
    assert found is not None
    for program, value in zip(("chown", "chmod"), found.groups()):
        subprocess.run([program, value, folder], check=True)
    for changed in (True, False):
        result = run(dest, src=src, **maps)
        assert (result["changed"], result["warnings"]) == (changed, [])
    assert attack(dest / "data/id") == "denied"


def test_a_folder_that_several_maps_share(top: Path, src: str) -> None:
    """docs/rendering.md: both roots pass by an ACL, and the folders in it are closed themselves."""
    folder = open_folder(top)
    os.chmod(folder, 0o700)
    for number, base in enumerate((_BASE, _BASE + 65536)):
        subprocess.run(["setfacl", "-m", f"u:{base}:x", folder], check=True)
        maps: dict[str, t.Any] = {name: [f"0:{base}:65536"] for name in ("uid_map", "gid_map")}
        dest = folder / str(number) / "rootfs"
        for changed in (True, False):
            result = run(dest, src=src, **maps)
            assert (result["changed"], result["warnings"]) == (changed, [])


def test_going_back_needs_no_map(top: Path, src: str) -> None:
    """The earlier tree is judged by the map that it was made with."""
    dest = top / "lxc/web/rootfs"
    run(dest, src=src, **_MAPS)
    run(dest, src=image(top, "two"), **_MAPS)
    assert run(dest, state="previous")["warnings"] == []
    assert (dest / "one").exists()


# -- when it is judged, and what comes of it


def test_every_state_is_judged_before_it_changes_something(top: Path, src: str) -> None:
    folder = open_folder(top)
    dest = folder / "web"
    os.chmod(folder, 0o700)
    run(dest, src=src)
    run(dest, src=image(top, "two"))
    os.chmod(folder, 0o755)
    three = image(top, "three")
    choices: list[dict[str, t.Any]] = [
        {"src": three},
        {"src": three, "state": "staged"},
        {"src": image(top, "two"), "recreate": True},
        {"state": "previous"},
        {"state": "previous", "check_mode": True},
    ]
    for changes in choices:
        assert _RIGHTS in refused(dest, **changes)
        assert sorted(os.listdir(dest)) == ["data", "two"]
        assert len(names_beside(folder / "web")) == 2


def test_a_staged_tree_is_judged_again(top: Path, src: str) -> None:
    """It stays staged, so that nothing has to be unpacked anew when the folder is closed."""
    folder = open_folder(top)
    dest = folder / "web"
    os.chmod(folder, 0o700)
    run(dest, src=src, state="staged")
    os.chmod(folder, 0o755)
    choices: list[dict[str, t.Any]] = [{}, {"check_mode": True}, {"state": "staged"}]
    for changes in choices:
        assert _RIGHTS in refused(dest, src=src, **changes)
    os.chmod(folder, 0o700)
    assert run(dest, src=src, state="staged")["changed"] is False
    assert run(dest, src=src)["warnings"] == []


def test_what_is_there_is_only_a_warning(top: Path, src: str) -> None:
    folder = open_folder(top)
    dest = folder / "web"
    os.chmod(folder, 0o700)
    run(dest, src=src)
    os.chmod(folder, 0o755)
    for check_mode in (True, False):
        result = run(dest, check_mode, src=src)
        assert result["changed"] is False
        (warning,) = result["warnings"]
        assert warning.startswith(f"every user can reach '{dest}' through '{folder}', and {_RIGHTS}; close")
        assert run(dest, check_mode, src=src, reachable="allow")["warnings"] == []


def test_warn_goes_on(top: Path, src: str) -> None:
    dest = open_folder(top) / "web"
    (warning,) = run(dest, src=src, reachable="warn")["warnings"]
    assert _RIGHTS in warning
    (warning,) = run(dest, src=image(top, "two"), reachable="warn")["warnings"]
    assert _RIGHTS in warning
    (warning,) = run(dest, state="previous", reachable="warn")["warnings"]
    assert _RIGHTS in warning


def test_check_mode_says_what_it_cannot_know(top: Path, src: str) -> None:
    """The files of a new image are not known before it is unpacked."""
    folder = open_folder(top)
    (warning,) = run(folder / "web", True, src=src)["warnings"]
    assert warning.startswith(
        f"every user can reach '{folder}/web' through '{folder}'; an image with setuid or setgid files,"
        " capabilities or device nodes would be refused there: close"
    )
    assert run(folder / "web", True, src=src, reachable="allow")["warnings"] == []
    assert run(folder / "new/web", True, src=src)["warnings"] == []
    # nothing of that kind is made there
    for check_mode in (True, False):
        result = run(folder / "web", check_mode, src=src, ownership="ignore")
        assert result["warnings"] == []
    assert not (folder / "web/data/id").stat().st_mode & stat.S_ISUID


def test_an_image_without_such_files_may_be_reached(top: Path) -> None:
    src = write_oci_archive(top / "plain.tar", Image([Layer(file("plain", b""))]))
    assert run(open_folder(top) / "web", src=src)["warnings"] == []


def test_capabilities_and_devices_count(top: Path) -> None:
    capability = b"\x01\0\0\2" + b"\x80\0\0\0" + bytes(12)
    layer = Layer(file("ping", b"", xattrs={"security.capability": capability}))
    src = write_oci_archive(top / "image.tar", Image([layer]))
    message = refused(open_folder(top) / "web", src=src)
    assert "the image has 1 files with capabilities;" in message


def test_a_mount_point(top: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above the mount counts, and nothing of the old content is touched."""
    monkeypatch.setattr(
        "ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path.DestPath.state_parent",
        property(lambda self: str(top / "states") if self.is_mount else self.parent),
    )
    folder = open_folder(top)
    dest = folder / "web"
    dest.mkdir()
    with mounted(dest):
        assert _RIGHTS in refused(dest, src=src)
        assert os.listdir(dest) == []
        os.chmod(folder, 0o700)
        assert run(dest, src=src)["warnings"] == []
        assert attack(dest / "data/id") == "denied"


# -- volumes


def provide(
    path: Path, rootfs: Path, rule: ReachRule, check_mode: bool = False, **more: t.Any
) -> tuple[bool, list[str]]:
    """Whether something changed, and the warnings."""
    volume = Volume(str(path), str(rootfs), "/data", reach=rule, **more)
    provided = provide_volume(volume, check_mode)
    return provided.changed, provided.warnings


@pytest.fixture(name="rootfs")
def fixture_rootfs(top: Path, src: str) -> Path:
    dest = top / "lxc/web/rootfs"
    run(dest, src=src)
    return dest


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("also_empty", [True, False])
def test_a_volume_that_others_can_reach_is_refused(top: Path, rootfs: Path, also_empty: bool, check_mode: bool) -> None:
    folder = open_folder(top)
    path = folder / "data"
    if also_empty:
        path.mkdir()
    with pytest.raises(RootfsError) as caught:
        provide(path, rootfs, ReachRule(), check_mode, fill_empty=also_empty)
    assert caught.value.message == (
        f"every user can reach '{path}' through '{folder}', and {_RIGHTS};"
        f" close '{folder}' to all but root (chown root:root, chmod 0700), choose another path,"
        " or set reachable: warn or allow"
    )
    assert os.listdir(folder) == (["data"] if also_empty else [])
    assert not (path / "id").exists()


def test_a_volume_that_the_task_allows(top: Path, rootfs: Path) -> None:
    path = open_folder(top) / "data"
    changed, warnings = provide(path, rootfs, ReachRule("warn"))
    assert changed is True
    assert _RIGHTS in warnings[0]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert attack(path / "id") == "0"
    changed, warnings = provide(path, rootfs, ReachRule())
    assert changed is False
    assert _RIGHTS in warnings[0]


def test_a_new_folder_above_a_volume_is_closed(top: Path, rootfs: Path) -> None:
    folder = open_folder(top)
    assert provide(folder / "web/data", rootfs, ReachRule()) == (True, [])
    assert attack(folder / "web/data/id") == "denied"
    mapped = ReachRule(root=MappedRoot(_BASE, _BASE))
    assert provide(folder / "mapped/data", rootfs, mapped) == (True, [])
    assert attack(folder / "mapped/data/id") == "denied"
    assert as_user(_BASE, str(folder / "mapped/data/id"), "-u") == "0"

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The script that mounts a stack for the start of its container (docs/behaviour.md, section 16)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.container_plans import RESULT, ROOT, file_of, node_of, planned
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import beside_of
from ansible_collections.hypervisor.oci.tests.unit.support import loop_mounted, needs_root, run, without_waiting

_SERVED = ["lxc", "nspawn", "runc", "crun"]
STACKED = replace(ROOT, result={**RESULT, "store": "overlay"})


@pytest.mark.parametrize("runtime", _SERVED)
@pytest.mark.parametrize("systemd", [True, False])
def test_every_start_goes_through_the_script(runtime: str, systemd: bool) -> None:
    result = planned(runtime, node=node_of(systemd=systemd), store_dir="/var/lib/layers")
    own = result["places"]["own_folder"]
    assert file_of(result, "/mount")["mode"] == "0700"
    if systemd:
        unit = next(item for item in result["files"] if "ExecStart=" in item["content"])["content"]
        assert "\nPrivateMounts=yes\n" in unit
        assert f'\nExecStart="{own}/mount" ' in unit
    else:
        control = file_of(result, "/control")["content"]
        assert control.count(f"$plain unshare --mount --propagation private {own}/mount ") == 1
    # LXC starts with the node by itself
    config = file_of(result, "/config")["content"] if runtime == "lxc" else ""
    itself = f"lxc.start.auto = 1\nlxc.monitor.unshare = 1\nlxc.hook.pre-start = {own}/mount true\n"
    assert (itself in config) == (runtime == "lxc" and not systemd)
    assert ("lxc.hook" in config) == (itself in config)
    assert ("does not start with the node" in result["service"]["note"]) == (runtime != "lxc" and not systemd)


@pytest.mark.parametrize("runtime", _SERVED)
@pytest.mark.parametrize("systemd", [True, False])
def test_without_a_store_nothing_of_it_is_there(runtime: str, systemd: bool) -> None:
    result = planned(runtime, node=node_of(systemd=systemd))
    assert not [item for item in result["files"] if item["path"].endswith("/mount")]
    for text in ("PrivateMounts", "unshare", "lxc.hook"):
        assert text not in str(result["files"])


def test_the_kernel_maps_no_owners_of_an_overlay() -> None:
    settings: dict[str, t.Any] = {"lxc_settings": ["lxc.rootfs.options = idmap=container"], "store_dir": "/layers"}
    with pytest.raises(ContainerError, match="idmap=container.* needs mounts with mapped owners"):
        planned("lxc", root=STACKED, **settings)
    # a tree of its own, or a snapshot of btrfs
    planned("lxc", **settings)


class Start(t.NamedTuple):
    """A container's root on an ext4, and the script of its start."""

    folder: Path

    @property
    def rootfs(self) -> Path:
        """Its place."""
        return self.folder / "guests" / "web"

    def provision(self, *layers: Layer, **options: t.Any) -> None:
        """Bring an image there."""
        src = write_oci_archive(self.folder / "image.tar", Image(list(layers)))
        run(self.rootfs, src=src, **options)

    def words(self, command: str) -> list[str]:
        """The words that run a command of a shell as the container's start."""
        content = file_of(planned("runc", rootfs=str(self.rootfs), store_dir="/x"), "/mount")["content"]
        script = self.folder / "mount"
        script.write_text(content)
        script.chmod(0o700)
        return [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            str(script),
            "sh",
            "-ec",
            command,
            "sh",
            str(self.rootfs),
        ]

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the container's start."""
        return subprocess.run(self.words(command), check=False, capture_output=True, text=True, timeout=60)

    @contextlib.contextmanager
    def running(self) -> t.Iterator[str]:
        """A container that runs; yield what its file ``a`` says."""
        words = self.words('head -n 1 "$1/a"; echo; read wait')
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            yield process.stdout.readline().strip()
            process.stdin.close()


@pytest.fixture(name="start")
def fixture_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Start]:
    without_waiting(monkeypatch)
    point = tmp_path / "disk"
    point.mkdir(0o700)
    with loop_mounted(point, tmp_path / "image", "ext4"):
        (point / "guests").mkdir(0o700)
        yield Start(point)


@needs_root
class TestScript:
    """What it mounts, and what it leaves alone."""

    def test_a_stack(self, start: Start) -> None:
        start.provision(Layer(file("a", "1")), Layer(file("b", "2")), store_dir=str(start.folder / "store"))
        done = start('cat "$1/a" "$1/b"; echo own >"$1/own"; ls "$1"; grep " $1 " /proc/self/mounts; pwd')
        assert done.stderr == ""
        first, *rest = done.stdout.split("\n")
        assert first == "12a"
        assert rest[:2] == ["b", "own"]
        for option in ("metacopy=off", "redirect_dir=nofollow", "index=off", "nfs_export=off"):
            # a kernel shows what is not its default
            assert option in rest[2] or option.replace("=off", "=on") not in rest[2]
        assert rest[3] == "/"
        assert (start.rootfs / "upper/own").read_text() == "own\n"
        assert str(start.rootfs) not in Path("/proc/self/mounts").read_text()

    def test_it_is_mounted_once(self, start: Start) -> None:
        """LXC's hook runs it again, in the namespace of a caller that has mounted it, and when the container restarts."""
        start.provision(Layer(file("a", "1")), store_dir=str(start.folder / "store"))
        done = start(f'{start.folder}/mount cat "$1/a"; echo; grep -c " $1 " /proc/self/mounts')
        assert (done.stdout, done.stderr) == ("1\n1\n", "")

    @pytest.mark.parametrize("number", [130, 380])
    def test_many_layers(self, start: Start, number: int) -> None:
        layers = [Layer(file(f"f{n}", str(n))) for n in range(number)]
        start.provision(*layers, store_dir=str(start.folder / "store"))
        assert start('ls "$1" | wc -l').stdout == f"{number}\n"

    def test_flags_of_the_mounts_that_it_comes_from(self, start: Start) -> None:
        start.provision(Layer(file("a", "1")), store_dir=str(start.folder / "store"))
        subprocess.run(["mount", "-o", "remount,nosuid,nodev", str(start.folder)], check=True)
        (line,) = start('grep " $1 " /proc/self/mounts').stdout.splitlines()
        assert {"nosuid", "nodev"} <= set(line.split()[3].split(","))
        assert "noexec" not in line

    def test_a_tree_of_its_own(self, start: Start) -> None:
        start.provision(Layer(file("a", "1")))
        done = start('cat "$1/a"; grep " $1 " /proc/self/mounts || true')
        assert (done.stdout, done.stderr) == ("1", "")

    def test_a_tree_that_looks_like_a_stack(self, start: Start) -> None:
        """An image or a container cannot make the script mount what it names."""
        start.provision(Layer(file("real", "1")), store_dir=str(start.folder / "store"))
        names = (start.rootfs / "lower").read_text()
        start.provision(Layer(file("lower", names), file("upper/a"), file("work/b")))
        os.symlink(start.folder / "store/s", start.rootfs / "store")
        # of the earlier tree
        assert str(start.rootfs.stat().st_ino) not in (beside_of(start.rootfs) / "stacks").read_text().split()
        done = start('ls "$1"; grep " $1 " /proc/self/mounts || true')
        assert done.stdout.split() == ["lower", "store", "upper", "work"]

    @pytest.mark.parametrize(
        ("lower", "says"),
        [
            ("", "/lower is damaged"),
            ("a,b", "/lower is damaged"),
            ("../x", "/lower is damaged"),
            ("zzzzzz", "the snapshot zzzzzz is no longer in its store"),
        ],
    )
    def test_a_damaged_stack(self, start: Start, lower: str, says: str) -> None:
        start.provision(Layer(file("a", "1")), store_dir=str(start.folder / "store"))
        (start.rootfs / "lower").write_text(lower + "\n")
        done = start("echo started")
        assert (done.returncode, done.stdout) == (125, "")
        assert says in done.stderr

    def test_it_is_in_use_while_it_runs(self, start: Start) -> None:
        """Its mount is in a namespace of its own, and nothing else shows it."""
        start.provision(Layer(file("a", "1")), Layer(file("b", "2")), store_dir=str(start.folder / "store"))
        with start.running() as says:
            assert says == "1"
            with pytest.raises(RootfsError, match="in use"):
                start.provision(Layer(file("a", "2")), store_dir=str(start.folder / "store"))
        start.provision(Layer(file("a", "2")), store_dir=str(start.folder / "store"))
        assert start('cat "$1/a"').stdout == "2"

    def test_a_store_that_is_not_there(self, start: Start) -> None:
        start.provision(Layer(file("a", "1")), store_dir=str(start.folder / "store"))
        os.rename(start.folder / "store", start.folder / "gone")
        done = start("echo started")
        assert (done.returncode, done.stdout) == (125, "")
        assert "its store is not there" in done.stderr

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes and mount points, from arguments to one result (docs/behaviour.md, section 9)."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._container import volume
from ansible_collections.hypervisor.oci.plugins.modules import oci_mount_points, oci_volume
from ansible_collections.hypervisor.oci.tests.unit.support import give, needs_root, set_xattr_or_skip, tree

Run = t.Callable[..., t.Dict[str, t.Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a module in this process."""

    def runs(module: t.Any, **params: t.Any) -> dict[str, t.Any]:
        give(monkeypatch, params)
        with pytest.raises(SystemExit):
            module.main()
        result: dict[str, t.Any] = json.loads(capfd.readouterr().out)
        return result

    return runs


@needs_root
def test_a_volume_has_all_that_the_image_has(tmp_path: Path, run: Run) -> None:
    data = tmp_path / "root/data"
    data.mkdir(parents=True)
    (data / "--preserve=none").write_text("a name like an option\n")
    (data / "one").write_text("one\n")
    (data / "one").chmod(0o4751)
    os.link(data / "one", data / "two")
    (data / "link").symlink_to("/etc/passwd")
    os.mkfifo(data / "fifo")
    set_xattr_or_skip(data / "one", "user.note", b"\0kept")
    for path in (data, data / "one", data / "link", data / "fifo"):
        os.chown(path, 1000, 1001, follow_symlinks=False)
    os.utime(data, ns=(1, 1_500_000_000_123_456_789))
    before = tree(data)
    arguments = {"path": str(tmp_path / "volume"), "rootfs": str(tmp_path / "root"), "target": "/data"}
    first = run(oci_volume, **arguments)
    assert first["changed"] is True
    assert tree(tmp_path / "volume") == before
    assert run(oci_volume, **arguments)["changed"] is False


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the modules warn of."""
    said: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text: said.append(text))
    return said


@needs_root
def test_what_is_left_out_is_told(tmp_path: Path, run: Run, warnings: list[str]) -> None:
    (tmp_path / "root/data").mkdir(parents=True)
    os.mknod(tmp_path / "root/data/disk", 0o60600, os.makedev(7, 0))
    result = run(oci_volume, path=str(tmp_path / "volume"), rootfs=str(tmp_path / "root"), target="/data")
    assert result["changed"] is True
    assert warnings == [f"the volume '{tmp_path}/volume' lacks 1 devices of the image"]
    assert list((tmp_path / "volume").iterdir()) == []


def test_a_volume_of_the_image_on_procfs(tmp_path: Path, run: Run, warnings: list[str]) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/p").symlink_to("proc")
    arguments = {"path": str(tmp_path / "volume"), "rootfs": str(tmp_path / "root"), "target": "/p"}
    assert "belongs to the runtime" in run(oci_volume, **arguments)["msg"]
    result = run(oci_volume, **arguments, from_image=True)
    assert (result["changed"], result["ignored"]) == (False, True)
    mounts = [{"source": str(tmp_path), "target": "/p", "from_image": True}]
    points = run(oci_mount_points, rootfs=arguments["rootfs"], mounts=mounts)
    assert points["mounts"] == []
    assert len(warnings) == 2
    # which Ansible shows once
    assert warnings[0] == warnings[1]
    assert "a volume of the image is ignored" in warnings[0]


def test_a_root_that_is_used(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root/data/sub").mkdir(parents=True)
    monkeypatch.setattr(volume, "require_unused", _refuse)
    arguments = {"path": str(tmp_path / "volume"), "rootfs": str(tmp_path / "root"), "target": "/data"}
    assert run(oci_volume, **arguments)["msg"] == "in use"
    assert run(oci_volume, **arguments, in_use="ignore")["changed"] is True


def _refuse(_fd: int, _path: str) -> None:
    raise RootfsError("in use")


def test_mounts_come_back_as_filters_take_them(tmp_path: Path, run: Run) -> None:
    (tmp_path / "root/run").mkdir(parents=True)
    (tmp_path / "root/var").symlink_to("/run")
    source = str(tmp_path)
    result = run(
        oci_mount_points,
        rootfs=str(tmp_path / "root"),
        mounts=[{"source": source, "target": "/var/a", "read_only": True}],
        directories=["/var/work/dir", "/run"],
    )
    assert (tmp_path / "root/run/work/dir").is_dir()
    assert result["changed"] is True
    assert result["mounts"] == [
        {"source": source, "target": "/run/a", "read_only": True, "type": "bind", "options": []}
    ]


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        (oci_volume, {"path": "/v/w", "target": "/data"}, "does not exist"),
        (oci_mount_points, {"mounts": [{"target": "/a"}]}, "does not exist"),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, run: Run, module: t.Any, arguments: dict[str, t.Any], says: str
) -> None:
    result = run(module, rootfs=str(tmp_path / "gone"), **arguments)
    assert result["failed"] is True
    assert says in result["msg"]

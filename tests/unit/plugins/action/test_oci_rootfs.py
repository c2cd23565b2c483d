# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's half: what is sent to the node, and what the module is told (docs/behaviour.md, section 1)."""

from __future__ import annotations

import os
import types
import typing as t
from pathlib import Path

import pytest
from ansible.release import __version__

if tuple(map(int, __version__.split(".")[:2])) < (2, 19):
    pytest.skip("no controller that is supported", allow_module_level=True)

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.shell.sh import ShellModule
from ansible_collections.hypervisor.oci.plugins.action.oci_rootfs import ActionModule
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    file,
    write_layout,
    write_oci_archive,
)

IMAGE = Image([Layer(file("f"))], ref="demo:1")
REMOTE = "/remote/tmp 1"


class Node:
    """A node that notes what is done to it; C(files) is what it received, by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.commands: list[str] = []
        self.fixed: list[str] = []
        self.module: dict[str, t.Any] = {}
        self.wrapped_async: t.Any = None
        self.removed: list[t.Any] = []
        self.fails = ""


class Action(ActionModule):
    """The plugin with a node that is not there."""

    node: Node

    def _execute_module(
        self, *_arguments: t.Any, **keywords: t.Any
    ) -> dict[str, t.Any]:
        self.node.module = keywords["module_args"]
        self.node.wrapped_async = keywords["wrap_async"]
        assert keywords["module_name"] == "hypervisor.oci.oci_rootfs"
        assert keywords["task_vars"] == {"a": 1}
        if self.node.fails == "module":
            raise AnsibleError("the connection is lost")
        return {"changed": True}

    def _make_tmp_path(self, remote_user: t.Any = None) -> str:
        self._connection._shell.tmpdir = REMOTE
        return REMOTE

    def _transfer_file(self, local_path: t.Any, remote_path: t.Any) -> t.Any:
        if self.node.fails == "transfer":
            raise AnsibleError("the disk is full")
        self.node.files[remote_path] = Path(local_path).read_bytes()
        return remote_path

    def _fixup_perms2(self, remote_paths: t.Any, *_arguments: t.Any, **_keywords: t.Any) -> t.Any:  # fmt: skip
        self.node.fixed += remote_paths
        return remote_paths

    def _low_level_execute_command(self, cmd: t.Any, *_arguments: t.Any, **_keywords: t.Any) -> t.Any:  # fmt: skip
        self.node.commands.append(cmd)
        if self.node.fails == "command":
            return {"rc": 1, "stdout": "", "stderr": "read-only file system"}
        return {"rc": 0, "stdout": "", "stderr": ""}

    def _remove_tmp_path(self, tmp_path: t.Any, force: bool = False) -> None:
        self.node.removed.append(tmp_path)


@pytest.fixture(name="node")
def fixture_node() -> Node:
    """A node that has received nothing."""
    return Node()


def run(
    node: Node,
    search: Path | None = None,
    async_val: int = 0,
    tmpdir: str | None = None,
    **args: t.Any,
) -> dict[str, t.Any]:
    """A task with these arguments; files are looked for in C(search), as in a role or play."""
    shell = ShellModule()
    shell.tmpdir = tmpdir
    task = types.SimpleNamespace(
        args=args, async_val=async_val, check_mode=False, diff=False, action="hypervisor.oci.oci_rootfs",
        environment=None, get_search_path=lambda: [str(search)] if search else [],
        _role=None, no_log=False, delegate_to=None,
    )  # fmt: skip
    connection = types.SimpleNamespace(
        _shell=shell, transport="ssh", has_pipelining=True, become=None,
        always_pipeline_modules=False,
    )  # fmt: skip
    loader = DataLoader()
    anything: t.Any = types.SimpleNamespace
    action = Action(
        t.cast(t.Any, task), t.cast(t.Any, connection), anything(), loader, anything(), anything()
    )  # fmt: skip
    action.node = node
    return action.run(task_vars={"a": 1})


# -- an archive


def test_an_archive_is_sent_as_one_file(tmp_path: Path, node: Node) -> None:
    src = write_oci_archive(tmp_path / "i.tar", IMAGE)
    result = run(node, src=src, dest="/srv/x", keep=2)
    remote = f"{REMOTE}/image"
    assert node.files == {remote: Path(src).read_bytes()}
    assert node.module == {"src": remote, "dest": "/srv/x", "keep": 2}
    assert node.fixed == [REMOTE, remote]
    assert result["changed"] is True
    assert node.removed == [REMOTE]


def test_a_folder_on_the_node_that_is_there_is_used(tmp_path: Path, node: Node) -> None:
    src = write_oci_archive(tmp_path / "i.tar", IMAGE)
    run(node, src=src, dest="/srv/x", tmpdir="/other")
    assert list(node.files) == ["/other/image"]


def test_a_name_is_looked_for_as_ansible_does(tmp_path: Path, node: Node) -> None:
    """In C(files/) of the role or play; C(~) is the controller's."""
    (tmp_path / "files").mkdir()
    write_oci_archive(tmp_path / "files" / "i.tar", IMAGE)
    run(node, tmp_path, src="i.tar", dest="/srv/x")
    assert list(node.files) == [f"{REMOTE}/image"]


def test_a_home_is_the_controllers(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_oci_archive(tmp_path / "i.tar", IMAGE)
    run(node, src="~/i.tar", dest="/srv/x")
    assert list(node.files) == [f"{REMOTE}/image"]


def test_an_archive_that_is_missing(tmp_path: Path, node: Node) -> None:
    with pytest.raises(AnsibleError, match="missing.tar"):
        run(node, tmp_path, src="missing.tar", dest="/srv/x")
    assert (node.files, node.module) == ({}, {})


# -- a layout directory


def test_a_layout_is_sent_as_its_files(tmp_path: Path, node: Node) -> None:
    """Links are followed; what is no regular file is left out without waiting for it."""
    layout = Path(write_layout(tmp_path / "a layout", IMAGE))
    os.rename(layout / "index.json", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", layout / "index.json")
    os.symlink("nowhere", layout / "dangling")
    os.symlink("loop", layout / "loop")
    os.mkfifo(layout / "fifo")
    (layout / "empty").mkdir()
    run(node, src=str(layout), dest="/srv/x")
    remote = f"{REMOTE}/image"
    sent = {os.path.relpath(path, remote): data for path, data in node.files.items()}
    expected = {
        os.path.relpath(path, layout): path.read_bytes()
        for path in layout.rglob("*")
        if path.name not in ("dangling", "loop", "fifo") and path.is_file()
    }
    assert sent == expected
    assert "index.json" in sent
    assert node.module["src"] == remote
    (command,) = node.commands
    assert command == (f"mkdir -p '{remote}' '{remote}/blobs/sha256'")
    assert set(node.fixed) == {REMOTE, remote, f"{remote}/blobs/sha256", *node.files}


def test_a_folder_that_cannot_be_made(tmp_path: Path, node: Node) -> None:
    node.fails = "command"
    with pytest.raises(AnsibleActionFail) as caught:
        run(node, src=write_layout(tmp_path / "l", IMAGE), dest="/srv/x")
    assert (
        "the folder for the image cannot be made on the node: read-only file system"
        in str(caught.value)
    )
    assert node.removed == [REMOTE]


# -- nothing is sent


@pytest.mark.parametrize(
    "args",
    [
        {"src": "/on/the/node.tar", "remote_src": True},
        {"src": "/on/the/node.tar", "remote_src": "yes"},
        {"state": "absent"},
        {"state": "previous"},
        {"state": "absent", "src": "missing.tar"},
        {"state": "previous", "src": "missing.tar"},
        {},
        {"src": ""},
    ],
    ids=str,
)
def test_what_is_on_the_node_or_not_needed_is_not_sent(
    node: Node, args: dict[str, t.Any]
) -> None:
    run(node, dest="/srv/x", **args)
    assert (node.files, node.commands) == ({}, [])
    assert node.module == {"dest": "/srv/x", **args}


@pytest.mark.parametrize("state", ["present", "staged"])
def test_states_that_need_an_image(tmp_path: Path, node: Node, state: str) -> None:
    src = write_oci_archive(tmp_path / "i.tar", IMAGE)
    run(node, src=src, dest="/srv/x", state=state, remote_src="no")
    assert len(node.files) == 1
    assert node.module["remote_src"] == "no"


def test_the_tasks_own_arguments_stay(tmp_path: Path, node: Node) -> None:
    """A loop runs the same task again."""
    src = write_oci_archive(tmp_path / "i.tar", IMAGE)
    args: dict[str, t.Any] = {"src": src, "dest": "/srv/x"}
    run(node, **args)
    assert args["src"] == src


# -- async and errors


def test_async_runs_on_the_node(node: Node) -> None:
    """The folder on the node then belongs to the task that goes on."""
    run(node, async_val=60, src="/on/the/node.tar", remote_src=True, dest="/srv/x")
    assert node.wrapped_async == 60
    assert node.removed == []


def test_async_cannot_send(tmp_path: Path, node: Node) -> None:
    src = write_oci_archive(tmp_path / "i.tar", IMAGE)
    with pytest.raises(AnsibleActionFail) as caught:
        run(node, async_val=60, src=src, dest="/srv/x")
    assert (
        "async cannot send src from the controller; copy it to the node first and set remote_src: true"
    ) in str(caught.value)
    assert node.files == {}


@pytest.mark.parametrize("fails", ["transfer", "module"])
def test_the_folder_on_the_node_goes_after_errors_too(
    tmp_path: Path, node: Node, fails: str
) -> None:
    node.fails = fails
    src = write_oci_archive(tmp_path / "i.tar", IMAGE)
    with pytest.raises(AnsibleError):
        run(node, src=src, dest="/srv/x")
    assert node.removed == [REMOTE]

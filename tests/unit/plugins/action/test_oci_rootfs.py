# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's half: what is offered and sent to the node, and what the module is told.

docs/behaviour.md, sections 7 and 8.
"""

from __future__ import annotations

import os
import stat
import threading
import types
import typing as t
from pathlib import Path

import pytest
from ansible.release import __version__

if tuple(map(int, __version__.split(".")[:2])) < (2, 19):
    pytest.skip("no controller that is supported", allow_module_level=True)

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.plugins.shell.sh import ShellModule
from ansible_collections.hypervisor.oci.plugins.action.oci_rootfs import ActionModule
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import unpack_offer
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sent import upload_name, bundle_head, bundle_name
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _staging
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_layout, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.web import Web, serving

LAYERS = [Layer(file("f", "f")), Layer(file("g", "g"))]
IMAGE = Image(LAYERS, ref="demo:1")
NAMES = [f"blobs/sha256/{layer.digest[7:]}" for layer in LAYERS]
SIZES = {name: len(layer.data) for name, layer in zip(NAMES, LAYERS)}
REMOTE = "/remote/tmp 1"
UPLOAD = "/srv/a b/.oci_rootfs-" + "0123456789abcdef" * 2
OTHER = "/srv/.oci_rootfs-" + "f" * 32
DONE: dict[str, t.Any] = {"changed": True}


def request(*names: str, folder: str | None = UPLOAD) -> dict[str, t.Any]:
    """What the module answers where it lacks blobs."""
    blobs = [{"name": name, "size": SIZES.get(name, 1)} for name in names]
    return {"changed": False, "_upload_request": {"folder": folder, "blobs": blobs}}


class Node:
    """A node that notes what is done to it; ``files`` is what it received, by path.

    ``answers`` are the module's results, one a run; ``fails`` are what transfers raise, one a file.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.order: list[str] = []
        self.modes: set[int] = set()
        self.commands: list[str] = []
        self.fixed: list[str] = []
        self.modules: list[dict[str, t.Any]] = []
        self.names_of_modules: list[str] = []
        self.wrapped_async: t.Any = None
        self.removed: list[t.Any] = []
        self.answers: list[dict[str, t.Any] | Exception] = []
        self.fails: list[Exception | None] = []
        self.read: bytes | None = None

    @property
    def module(self) -> dict[str, t.Any]:
        """The arguments of the only run."""
        (only,) = self.modules
        return only

    def names(self) -> list[str]:
        """The names of the files in the order in which they came."""
        return [os.path.basename(path) for path in self.order]


class Action(ActionModule):
    """The plugin with a node that is not there."""

    node: Node
    unprivileged = False

    def _execute_module(self, *_arguments: t.Any, **keywords: t.Any) -> dict[str, t.Any]:
        args = keywords["module_args"]
        self.node.modules.append(dict(args))
        self.node.wrapped_async = keywords["wrap_async"]
        self.node.names_of_modules.append(keywords["module_name"])
        assert keywords["task_vars"]["inventory_hostname"] == "node1"
        if self._connection.transport == "local" and os.path.isfile(args["src"]):
            self.node.read = Path(args["src"]).read_bytes()
        answer = self.node.answers.pop(0) if self.node.answers else DONE
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _make_tmp_path(self, remote_user: t.Any = None) -> str:
        self._connection._shell.tmpdir = REMOTE
        return REMOTE

    def _is_become_unprivileged(self) -> bool:
        return self.unprivileged

    def _transfer_file(self, local_path: t.Any, remote_path: t.Any) -> t.Any:
        failure = self.node.fails.pop(0) if self.node.fails else None
        if failure is not None:
            raise failure
        self.node.files[remote_path] = Path(local_path).read_bytes()
        self.node.order.append(remote_path)
        self.node.modes.add(stat.S_IMODE(os.stat(local_path).st_mode))
        return remote_path

    def _fixup_perms2(self, remote_paths: t.Any, *_arguments: t.Any, **_keywords: t.Any) -> t.Any:  # fmt: skip
        self.node.fixed += remote_paths
        return remote_paths

    def _low_level_execute_command(self, cmd: t.Any, *_arguments: t.Any, **_keywords: t.Any) -> t.Any:  # fmt: skip
        self.node.commands.append(cmd)
        return {"rc": 0, "stdout": "", "stderr": ""}

    def _remove_tmp_path(self, tmp_path: t.Any, force: bool = False) -> None:
        self.node.removed.append(tmp_path)


@pytest.fixture(name="node")
def fixture_node() -> Node:
    """A node that has received nothing."""
    return Node()


@pytest.fixture(autouse=True)
def _no_blob_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that each is a file."""
    monkeypatch.setattr(_staging, "_SMALL", -1)


@pytest.fixture(name="local_tmp", autouse=True)
def fixture_local_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The controller's own temporary folder."""
    path = tmp_path / "local tmp"
    path.mkdir()
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(path))
    return path


@pytest.fixture(name="src")
def fixture_src(tmp_path: Path) -> str:
    """An archive with two layers."""
    return write_oci_archive(tmp_path / "i.tar", IMAGE)


def run(
    node: Node,
    search: Path | None = None,
    async_val: int = 0,
    tmpdir: str | None = None,
    transport: str = "ssh",
    unprivileged: bool = False,
    no_log: bool = False,
    delegate_to: str | None = None,
    loader: DataLoader | None = None,
    **args: t.Any,
) -> dict[str, t.Any]:
    """A task with these arguments; files are looked for in ``search``, as in a role or play."""
    shell = ShellModule()
    shell.tmpdir = tmpdir
    task = types.SimpleNamespace(
        args=args, async_val=async_val, check_mode=False, diff=False, action="hypervisor.oci.oci_rootfs",
        environment=None, get_search_path=lambda: [str(search)] if search else [],
        _role=None, no_log=no_log, delegate_to=delegate_to,
    )  # fmt: skip
    connection = types.SimpleNamespace(
        _shell=shell, transport=transport, has_pipelining=True, become=None,
        always_pipeline_modules=False,
    )  # fmt: skip
    anything: t.Any = types.SimpleNamespace
    action = Action(
        t.cast(t.Any, task), t.cast(t.Any, connection), anything(), loader or DataLoader(), anything(), anything()
    )  # fmt: skip
    action.node = node
    action.unprivileged = unprivileged
    return action.run(task_vars={"inventory_hostname": "node1"})


# -- an archive


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("2K", "is compressed as a whole, and holds more than the 2048 bytes of max_size; raise max_size"),
        (2048, "more than the 2048 bytes of max_size"),
        ("much", "max_size: "),
        ("0", "max_size is 0; give 1 or more"),
    ],
)  # fmt: skip
def test_max_size_holds_on_the_controller(
    node: Node, tmp_path: Path, local_tmp: Path, given: t.Any, words: str
) -> None:
    """An archive that is compressed as a whole is decompressed there: the node is not even asked (section 7)."""
    src = write_oci_archive(tmp_path / "i.tar.gz", IMAGE, compression="gzip")
    with pytest.raises(AnsibleActionFail, match=words):
        run(node, src=src, dest="/srv/x", max_size=given)
    assert (node.files, node.modules) == ({}, [])
    assert not [name for name in local_tmp.rglob("*") if name.name.startswith("sha")]
    assert run(node, src=src, dest="/srv/x", max_size="1M") == DONE


def test_a_node_that_lacks_nothing_gets_the_offer_alone(node: Node, src: str) -> None:
    """One run of the module, and not one byte of a layer (section 7)."""
    result = run(node, src=src, dest="/srv/x", keep=2)
    remote = f"{REMOTE}/offer"
    assert list(node.files) == [remote]
    assert node.module == {"src": src, "dest": "/srv/x", "keep": 2, "_offer": remote}
    offer = unpack_offer(node.files[remote], "x")
    assert set(offer.layers) == set(NAMES)
    assert offer.path == src
    assert "index.json" in offer.documents
    assert len(node.files[remote]) < 4096
    assert result == DONE
    assert (node.fixed, node.commands) == ([], [])
    assert node.removed == [REMOTE]


def test_blobs_are_sent_where_and_as_the_module_asks(node: Node, src: str, local_tmp: Path) -> None:
    node.answers = [request(NAMES[1])]
    result = run(node, src=src, dest="/srv/x")
    remote = f"{UPLOAD}/{upload_name(NAMES[1])}"
    assert node.order == [f"{REMOTE}/offer", remote]
    assert node.files[remote] == LAYERS[1].data
    first, second = node.modules
    assert "_upload_folder" not in first
    assert second == {**first, "_upload_folder": UPLOAD}
    assert result == DONE
    # nobody else could read them on the controller, and what took room is gone
    assert node.modes == {0o600}
    assert sorted(path.name[:6] for path in local_tmp.glob("*/*")) == ["in-use", "offer-", "writin"]  # fmt: skip
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o700 for path in local_tmp.glob("*"))  # fmt: skip


def test_small_blobs_are_sent_together(node: Node, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_staging, "_SMALL", 100_000)
    node.answers = [request(*NAMES)]
    assert run(node, src=src, dest="/srv/x") == DONE
    assert node.order[1:] == [f"{UPLOAD}/{bundle_name(NAMES)}"]
    sizes = {name: len(layer.data) for name, layer in zip(NAMES, LAYERS)}
    blobs = b"".join(layer.data for layer in LAYERS)
    assert node.files[node.order[1]] == bundle_head(sizes) + blobs


def test_a_user_who_cannot_be_given_a_folder_sends_to_his_own(node: Node, src: str) -> None:
    node.answers = [request(*NAMES, folder=None)]
    run(node, src=src, dest="/srv/x")
    assert node.order[1:] == [f"{REMOTE}/{upload_name(name)}" for name in NAMES]
    assert node.modules[1]["_upload_folder"] == REMOTE


def test_another_ordinary_user_is_let_read_what_was_sent(node: Node, src: str) -> None:
    node.answers = [request(*NAMES)]
    run(node, src=src, dest="/srv/x", unprivileged=True)
    assert node.fixed == [REMOTE, *node.order]


def test_a_folder_on_the_node_that_is_there_is_used(node: Node, src: str) -> None:
    run(node, src=src, dest="/srv/x", tmpdir="/other")
    assert list(node.files) == ["/other/offer"]


def test_a_name_is_looked_for_as_ansible_does(tmp_path: Path, node: Node) -> None:
    """In ``files/`` of the role or play; ``~`` is the controller's."""
    (tmp_path / "files").mkdir()
    src = write_oci_archive(tmp_path / "files" / "r.tar", IMAGE)
    run(node, tmp_path, src="r.tar", dest="/srv/x")
    assert node.module["src"] == src


def test_a_home_is_the_controllers(tmp_path: Path, node: Node, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run(node, src="~/i.tar", dest="/srv/x")
    assert node.module["src"] == src


def test_an_archive_that_is_missing(tmp_path: Path, node: Node) -> None:
    with pytest.raises(AnsibleError, match=r"missing\.tar"):
        run(node, tmp_path, src="missing.tar", dest="/srv/x")
    assert (node.files, node.modules) == ({}, [])


def test_the_name_of_an_image_without_its_scheme(tmp_path: Path, node: Node) -> None:
    with pytest.raises(AnsibleActionFail, match=r"docker://alpine:3\.20"):
        run(node, tmp_path, src="alpine:3.20", dest="/srv/x")
    assert (node.files, node.modules) == ({}, [])


def test_the_name_of_an_image_goes_to_the_node(tmp_path: Path, node: Node) -> None:
    run(node, tmp_path, src="docker://alpine:3.20", dest="/srv/x")
    assert node.files == {} and len(node.modules) == 1


def test_what_is_no_image_never_reaches_a_node(tmp_path: Path, node: Node) -> None:
    path = tmp_path / "no.tar"
    path.write_bytes(b"no tar at all")
    with pytest.raises(AnsibleActionFail, match="is not an image archive: it is text"):
        run(node, src=str(path), dest="/srv/x")
    assert (node.files, node.modules) == ({}, [])


def vault(tmp_path: Path, src: str) -> tuple[str, DataLoader]:
    """The archive encrypted, and who can decrypt it."""
    secrets = [("default", VaultSecret(b"a password"))]
    path = tmp_path / "vaulted.tar"
    path.write_bytes(VaultLib(secrets).encrypt(Path(src).read_bytes()))
    loader = DataLoader()
    loader.set_vault_secrets(t.cast(t.Any, secrets))
    return str(path), loader


def test_an_encrypted_archive_is_decrypted_for_as_long_as_it_is_read(
    tmp_path: Path, node: Node, src: str, local_tmp: Path
) -> None:
    path, loader = vault(tmp_path, src)
    node.answers = [request(NAMES[0])]
    run(node, src=path, dest="/srv/x", loader=loader)
    assert node.files[f"{UPLOAD}/{upload_name(NAMES[0])}"] == LAYERS[0].data
    # messages name what the user knows
    assert node.modules[0]["src"] == path
    assert unpack_offer(node.files[f"{REMOTE}/offer"], "x").path == path
    assert not [path for path in local_tmp.iterdir() if path.is_file()]


# -- a layout directory


def test_blobs_of_a_layout_are_sent_as_they_are(tmp_path: Path, node: Node, local_tmp: Path) -> None:
    """Links are followed; what is not asked for is never looked at."""
    layout = Path(write_layout(tmp_path / "a layout", IMAGE))
    os.rename(layout / NAMES[0], tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", layout / NAMES[0])
    os.mkfifo(layout / "fifo")
    node.answers = [request(*NAMES)]
    run(node, src=str(layout), dest="/srv/x")
    for name, layer in zip(NAMES, LAYERS):
        assert node.files[f"{UPLOAD}/{upload_name(name)}"] == layer.data
    assert len(node.files) == 3
    assert not list(local_tmp.glob("*/sha256-*"))


# -- nothing is sent


@pytest.mark.parametrize(
    "args",
    [
        {"src": "/on/the/node.tar", "remote_src": True},
        {"src": "/on/the/node.tar", "remote_src": "yes"},
        {"src": "https://images.example.org/a.tar"},
        {"src": "HTTP://images.example.org/a.tar"},
        {"state": "absent"},
        {"state": "previous"},
        {"state": "absent", "src": "missing.tar"},
        {"state": "previous", "src": "missing.tar"},
        {},
        {"src": ""},
    ],
    ids=str,
)
def test_what_is_on_the_node_or_not_needed_is_not_sent(node: Node, args: dict[str, t.Any]) -> None:
    run(node, dest="/srv/x", **args)
    assert (node.files, node.commands) == ({}, [])
    assert node.module == {"dest": "/srv/x", **args}


@pytest.mark.parametrize("state", ["present", "staged"])
def test_states_that_need_an_image(node: Node, src: str, state: str) -> None:
    run(node, src=src, dest="/srv/x", state=state, remote_src="no")
    assert len(node.files) == 1
    assert node.module["remote_src"] == "no"


def test_the_tasks_own_arguments_stay(node: Node, src: str) -> None:
    """A loop runs the same task again."""
    args: dict[str, t.Any] = {"src": src, "dest": "/srv/x"}
    node.answers = [request(*NAMES)]
    run(node, **args)
    assert args == {"src": src, "dest": "/srv/x"}


@pytest.mark.parametrize("name", ["_offer", "_upload_folder"])
def test_private_arguments_are_no_users(node: Node, src: str, name: str) -> None:
    with pytest.raises(AnsibleActionFail, match=f"^{name} is private"):
        given: dict[str, t.Any] = {name: "/x"}
        run(node, src=src, dest="/srv/x", **given)
    assert (node.files, node.modules) == ({}, [])


# -- the controller is the node


def test_a_local_node_reads_the_image_where_it_is(node: Node, src: str) -> None:
    run(node, src=src, dest="/srv/x", transport="local")
    assert node.module == {"src": src, "dest": "/srv/x", "remote_src": True}
    assert (node.files, node.commands) == ({}, [])


def test_a_local_user_who_may_not_read_it_is_sent_it(node: Node, src: str) -> None:
    run(node, src=src, dest="/srv/x", transport="local", unprivileged=True)
    assert "_offer" in node.module


def test_a_local_node_reads_what_was_decrypted(tmp_path: Path, node: Node, src: str) -> None:
    path, loader = vault(tmp_path, src)
    run(node, src=path, dest="/srv/x", transport="local", loader=loader)
    assert node.read == Path(src).read_bytes()
    assert not os.path.exists(node.module["src"])


# -- which module


PUBLIC = "hypervisor.oci.oci_rootfs"
OFFERED = "hypervisor.oci.oci_rootfs_offered"


def test_what_is_offered_has_a_module_without_what_reads_a_source(node: Node, src: str) -> None:
    """The same one again when blobs were sent; all options reach it, those that only a server needs, too."""
    node.answers = [request(NAMES[0])]
    run(node, src=src, dest="/srv/x", keep=2, timeout=3)
    assert node.names_of_modules == [OFFERED, OFFERED]
    assert all((args["keep"], args["timeout"]) == (2, 3) for args in node.modules)


@pytest.mark.parametrize(
    "args",
    [
        {"src": "/on/the/node.tar", "remote_src": True},
        {"src": "https://example.org/i.tar"},
        {"src": "docker://example.org/i:1"},
        {"src": "{src}", "transport": "local"},
        {"src": "{src}", "state": "absent"},
        {"state": "previous"},
        {"state": "absent"},
    ],
)
def test_what_the_node_reads_has_the_whole_module(node: Node, src: str, args: dict[str, t.Any]) -> None:
    run(node, dest="/srv/x", **{**args, **({"src": args["src"].format(src=src)} if "src" in args else {})})
    assert node.names_of_modules == [PUBLIC]


# -- async and errors


def test_async_runs_on_the_node(node: Node) -> None:
    """The folder on the node then belongs to the task that goes on."""
    run(node, async_val=60, src="/on/the/node.tar", remote_src=True, dest="/srv/x")
    assert node.wrapped_async == 60
    assert node.removed == []


def test_async_runs_on_a_local_node(tmp_path: Path, node: Node, src: str) -> None:
    run(node, async_val=60, src=src, dest="/srv/x", transport="local")
    assert node.wrapped_async == 60
    path, loader = vault(tmp_path, src)
    with pytest.raises(AnsibleActionFail, match="encrypted by ansible-vault"):
        run(node, async_val=60, src=path, dest="/srv/x", transport="local", loader=loader)  # fmt: skip


def test_async_cannot_send(node: Node, src: str) -> None:
    with pytest.raises(AnsibleActionFail) as caught:
        run(node, async_val=60, src=src, dest="/srv/x")
    assert ("async cannot send src from the controller; copy it to the node first and set remote_src: true") in str(
        caught.value
    )
    assert node.files == {}


def test_a_failed_module_is_the_result(node: Node, src: str) -> None:
    node.answers = [request(*NAMES), {"failed": True, "msg": "the disk is full"}]
    assert run(node, src=src, dest="/srv/x")["failed"] is True


@pytest.mark.parametrize("at", [0, 1])
def test_a_lost_connection_is_not_tried_again(node: Node, src: str, at: int) -> None:
    """It makes the host unreachable, for Ansible to say; the next run goes on (section 7)."""
    node.answers = [request(*NAMES)]
    node.fails = [None] * at + [AnsibleConnectionFailure("lost")]
    with pytest.raises(AnsibleConnectionFailure):
        run(node, src=src, dest="/srv/x")
    assert len(node.modules) == at
    assert node.removed == [REMOTE]


@pytest.mark.parametrize("before", [0, 1])
def test_what_a_node_answers_a_transfer_is_made_visible(node: Node, src: str, before: int) -> None:
    """The node's own words stand in that error, and no terminal obeys them (section 8)."""
    node.answers = [request(*NAMES) for _round in range(4)]
    refused = AnsibleError("no room \x1b]0;owned\x07" + "x" * 10_000)
    node.fails = [*[None] * before, *[refused] * 8]
    with pytest.raises(AnsibleActionFail) as caught:
        run(node, src=src, dest="/srv/x")
    assert "no room \\x1b]0;owned\\x07" in str(caught.value)
    assert len(str(caught.value)) < 3000


def test_a_folder_that_went_away_is_asked_for_again(node: Node, src: str) -> None:
    """Another run finished the same work meanwhile, or took over."""
    node.answers = [request(*NAMES), request(NAMES[1], folder=OTHER)]
    node.fails = [None, None, AnsibleError("no such file or directory")]
    assert run(node, src=src, dest="/srv/x") == DONE
    first, second, third = node.modules
    assert "_upload_folder" not in second
    assert second == first
    assert third["_upload_folder"] == OTHER
    assert node.names() == ["offer", *map(upload_name, NAMES)]


def test_a_node_that_takes_nothing_is_given_up(node: Node, src: str) -> None:
    node.answers = [request(*NAMES)] * 9
    node.fails = [None, *[AnsibleError("the disk is full")] * 9]
    with pytest.raises(AnsibleError, match="the disk is full"):
        run(node, src=src, dest="/srv/x")
    assert len(node.modules) == 4


def test_a_node_that_loses_everything_is_given_up(node: Node, src: str) -> None:
    node.answers = [request(*NAMES)] * 9
    with pytest.raises(AnsibleActionFail, match=f"still missing on the node .* from {UPLOAD}"):
        run(node, src=src, dest="/srv/x")
    assert (len(node.modules), len(node.files)) == (4, 3)


@pytest.mark.parametrize("name", ["../../etc/shadow", "/etc/shadow", "index.json", IMAGE.path, IMAGE.config.path, ""], ids=lambda name: name[:15])  # fmt: skip
def test_a_node_gets_nothing_but_what_it_was_offered(node: Node, src: str, name: str) -> None:
    node.answers = [request(NAMES[0], name)]
    with pytest.raises(AnsibleActionFail, match="which it was not offered"):
        run(node, src=src, dest="/srv/x")
    assert len(node.files) == 1


@pytest.mark.parametrize(
    "answer",
    [
        request(*NAMES, folder="/srv/x\\'\"\n!touch attacked\n"),
        request(*NAMES, folder="/etc"),
        request(*NAMES, folder=""),
        request(NAMES[0], NAMES[0]),
        request(),
        {"_upload_request": {"folder": UPLOAD, "blobs": [{"name": NAMES[0], "size": 0}]}},
        {"_upload_request": []},
        {"_upload_request": 0},
        {"_upload_request": {}, "failed": True},
    ],
    ids=lambda answer: ascii(answer["_upload_request"])[:40],
)
def test_an_odd_answer_is_the_end_for_that_host(node: Node, src: str, answer: dict[str, t.Any]) -> None:
    """Nothing is sent, and nothing of it is used for anything."""
    node.answers = [answer]
    with pytest.raises(AnsibleActionFail, match="the node's answer does not come from this module"):  # fmt: skip
        run(node, src=src, dest="/srv/x")
    assert len(node.files) == len(node.modules) == 1
    assert node.removed == [REMOTE]


def test_an_odd_answer_to_what_was_sent_is_the_end_too(node: Node, src: str) -> None:
    node.answers = [request(*NAMES), request(*NAMES, folder="/srv/\n")]
    with pytest.raises(AnsibleActionFail, match="is not the path of an upload folder"):
        run(node, src=src, dest="/srv/x")
    assert (len(node.modules), len(node.files)) == (2, 3)


@pytest.mark.parametrize("tmpdir", ["/x\\'\"/", "relative", "/a/../b", "/\x1b[2J"])
def test_an_odd_temporary_folder_gets_no_file(node: Node, src: str, tmpdir: str) -> None:
    """A node says itself what it is called."""
    with pytest.raises(AnsibleActionFail, match="is not a valid temporary folder"):
        run(node, src=src, dest="/srv/x", tmpdir=tmpdir)
    assert (node.files, node.modules) == ({}, [])


def test_a_node_changes_nothing_on_the_controller_by_its_result(node: Node, src: str) -> None:
    hostile = {"add_host": {"host_name": "x"}, "ansible_facts": {"oci_rootfs": {}, "ansible_connection": "local"}}  # fmt: skip
    for options in ({"src": src}, {"src": "/on/the/node", "remote_src": True}, {"state": "absent"}):  # fmt: skip
        node.answers = [{**DONE, **hostile}]
        result = run(node, dest="/srv/x", **options)
        assert result == {**DONE, "ansible_facts": {"oci_rootfs": {}}}


# -- a task that names its image


def test_a_node_gets_nothing_of_an_image_that_its_task_does_not_name(tmp_path: Path, node: Node) -> None:
    other = Image([Layer(file("o", "o"))], {"Env": ["PASSWORD=x"]}, ref="other:1")
    src = write_oci_archive(tmp_path / "two.tar", IMAGE, other)
    for name in (other.layers[0].path, other.path, other.config.path):
        node.answers = [request(name)]
        with pytest.raises(AnsibleActionFail, match="which it was not offered"):
            run(node, src=src, dest="/srv/x", ref="demo:1")
        offer = unpack_offer(node.files.pop(f"{REMOTE}/offer"), "x")
        assert set(offer.layers) == set(NAMES)
        assert not any(b"PASSWORD" in data for data in offer.documents.values())
        assert node.files == {}
    run(node, src=src, dest="/srv/x", ref="other:1")
    # what the task says is the module's to read, too
    assert node.modules[-1]["ref"] == "other:1"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ref": "other:1"}, "holds no image with the name 'other:1'; it holds 'demo:1'"),
        ({"platform": "linux/s390x"}, "holds no image for linux/s390x; it holds 'demo"),
        ({"platform": "x"}, "invalid platform 'x'"),
        ({"digest": "x"}, "an invalid digest: 'x'"),
    ],
    ids=str,
)
def test_what_no_node_can_have_reaches_none(node: Node, src: str, options: dict[str, t.Any], said: str) -> None:
    with pytest.raises(AnsibleActionFail, match=said):
        run(node, src=src, dest="/srv/x", **options)
    assert (node.files, node.modules) == ({}, [])


def test_the_folder_on_the_node_goes_after_errors_too(node: Node, src: str) -> None:
    node.answers = [AnsibleError("the connection is lost")]
    with pytest.raises(AnsibleError):
        run(node, src=src, dest="/srv/x")
    assert node.removed == [REMOTE]


# -- what the user sees


@pytest.fixture(name="lines")
def fixture_lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is displayed, and how."""
    lines: list[tuple[str, str]] = []
    display = "ansible_collections.hypervisor.oci.plugins.action.oci_rootfs.display"
    for how in ("display", "v", "vv"):

        def note(line: str, how: str = how) -> None:
            lines.append((how, line))

        monkeypatch.setattr(f"{display}.{how}", note)
    return lines


def test_short_transfers_are_told_to_who_asks(node: Node, src: str, lines: list[tuple[str, str]]) -> None:
    node.answers = [request(*NAMES)]
    run(node, src=src, dest="/srv/x", delegate_to="node2")
    assert [how for how, _line in lines] == ["vv"] * 3
    assert lines[0][1].startswith("[node1 -> node2] sending blob 1 of 2, sha256:")


def test_long_transfers_are_told_to_all(
    node: Node, src: str, lines: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = "ansible_collections.hypervisor.oci.plugins.plugin_utils._progress"
    monkeypatch.setattr(f"{progress}.LONG", 1)
    node.answers = [request(*NAMES)]
    run(node, src=src, dest="/srv/x")
    assert [how for how, _line in lines] == ["display"] * 3
    assert lines[2][1].startswith("[node1] sent ")
    node.answers = [request(*NAMES)]
    run(node, src=src, dest="/srv/x", no_log=True)
    assert len(lines) == 3


def test_a_run_that_takes_long_is_told_of(
    node: Node, src: str, lines: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = "ansible_collections.hypervisor.oci.plugins.plugin_utils._progress"
    monkeypatch.setattr(f"{progress}._INTERVAL", 0.01)
    told = threading.Event()

    def layer_progress() -> None:
        told.set()

    def work(*_arguments: t.Any, **_keywords: t.Any) -> dict[str, t.Any]:
        told.clear()
        assert told.wait(30)
        answer = node.answers.pop(0)
        assert isinstance(answer, dict)
        return answer

    monkeypatch.setattr(f"{progress}.layer_progress", layer_progress)
    monkeypatch.setattr(Action, "_execute_module", work)
    node.answers = [request(*NAMES), DONE]
    run(node, src=src, dest="/srv/x")
    told_lines = [line for how, line in lines if how == "display"]
    assert told_lines[0] == "[node1] at work on the node, for 0 s so far"
    assert told_lines[-1] == "[node1] unpacking on the node, for 0 s so far"
    lines.clear()
    node.answers = [DONE]
    run(node, src=src, dest="/srv/x", no_log=True)
    assert lines == []


def test_of_a_result_one_line_is_printed(node: Node, src: str, lines: list[tuple[str, str]]) -> None:
    done = {"changed": True, "manifest_digest": "sha256:" + "0" * 64, "layers": [{}] * 32}
    node.answers = [dict(done)]
    result = run(node, src=src, dest="/srv/x")
    assert result == {**done, "_ansible_verbose_override": True}
    assert lines == [("v", f"[node1] '{done['manifest_digest']}', 32 layers")]
    node.answers = [{**done, "failed": True, "msg": "no"}]
    assert "_ansible_verbose_override" not in run(node, src=src, dest="/srv/x")
    lines.clear()
    node.answers = [dict(done)]
    run(node, src=src, dest="/srv/x", no_log=True)
    assert lines == []


# -- a URL that the controller fetches

SECRETS = ("us3r", "s3cret", "t0ken", "h3ader")


@pytest.fixture(name="web")
def fixture_web(src: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Web]:
    """A server of the archive, and a controller without a cache or a proxy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("no_proxy", "*")
    with serving(Path(src).read_bytes()) as server:
        yield server


def test_the_controller_fetches_for_a_node_that_learns_nothing_of_it(
    node: Node, web: Web, lines: list[tuple[str, str]]
) -> None:
    node.answers = [request(NAMES[0])]
    url = web.url.replace("//", "//us3r:s3cret@") + "?t0ken"
    secrets: dict[str, t.Any] = {
        "headers": {"X-Key": "h3ader"},
        "url_retries": 1,
        "validate_certs": False,
        "http_agent": "a",
    }
    assert run(node, src=url, dest="/d", fetch="controller", keep=3, **secrets) == DONE
    assert node.names_of_modules == [OFFERED, OFFERED]
    first, second = node.modules
    assert first == {"src": f"{web.url}?...", "dest": "/d", "keep": 3, "_offer": f"{REMOTE}/offer"}
    assert second == {**first, "_upload_folder": UPLOAD}
    assert node.names() == ["offer", upload_name(NAMES[0])]
    assert node.files[f"{UPLOAD}/{upload_name(NAMES[0])}"] == LAYERS[0].data
    everything = repr((node.modules, node.files, node.commands, lines)).encode()
    everything += b"".join(unpack_offer(node.files[f"{REMOTE}/offer"], "offer").documents.values())
    assert [secret for secret in SECRETS if secret.encode() in everything] == []
    # the server got what it needs, and the fetch was told
    assert web.asked[-1].headers["x-key"] == "h3ader"
    assert lines[0][1].startswith("[node1] fetching blob 1 of 1, sha256:")


def test_a_node_fetches_by_itself_unless_it_is_told_otherwise(node: Node) -> None:
    for given in ({}, {"fetch": "node"}):
        node.modules.clear()
        args: dict[str, t.Any] = {"src": "https://images.example.org/i.tar", "dest": "/d", "url_username": "u", **given}
        assert run(node, async_val=60, **args) == DONE
        assert node.modules == [args]
    assert node.files == {}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"async_val": 60}, "async cannot send what the controller fetches; leave async out, or set fetch: node"),
        ({"src": "i.tar"}, "fetch is for a URL or an image in a registry, and src is a path; leave fetch out"),
        ({"src": "i.tar", "fetch": "node"}, "fetch is for a URL or an image in a registry, and src is a path"),
        ({"remote_src": True}, "remote_src: true says that the node has src"),
        ({"url_retries": "s"}, "url_retries"),
        ({"src": "https://us3r:s3cret@:x/"}, "src is not a valid URL"),
    ],
)
def test_a_fetch_that_cannot_be(node: Node, given: dict[str, t.Any], words: str) -> None:
    with pytest.raises(AnsibleActionFail, match=words) as caught:
        run(node, **{"src": "https://images.example.org/i.tar", "dest": "/d", "fetch": "controller", **given})
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert (node.modules, node.files) == ([], {})


def test_a_state_without_an_image_fetches_nothing(node: Node) -> None:
    src = "https://images.example.org/i.tar"
    args: dict[str, t.Any] = {"src": src, "dest": "/d", "fetch": "controller", "state": "absent"}
    assert run(node, **args) == DONE
    assert node.modules == [args]


def test_a_pause_is_told_while_it_lasts(
    node: Node, web: Web, lines: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    busy = [True]

    def answer(handler: t.Any) -> bool:
        if busy:
            handler.status(429, Retry_After="1")
        return bool(busy and busy.pop())

    web.handle = answer
    assert run(node, src=web.url, dest="/d", fetch="controller") == DONE
    how, line = lines[0]
    assert how == "display"
    assert line.startswith("[node1] 127.0.0.1: the server answered 429 Too Many Requests, so the run waited 1 seconds")

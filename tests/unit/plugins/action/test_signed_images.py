# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks with ``signature_keys``, from the action to the tree: what lands, and that nothing else does.

docs/behaviour.md, section 12. The node is this process: the module's own code with the arguments that it is given.
"""

from __future__ import annotations

import base64
import json
import os
import types
import typing as t
from pathlib import Path

import pytest
from ansible.release import __version__

if tuple(map(int, __version__.split(".")[:2])) < (2, 19):
    pytest.skip("no controller that is supported", allow_module_level=True)

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.shell.sh import ShellModule
from ansible_collections.hypervisor.oci.plugins.action.oci_rootfs import ActionModule
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.outcome import Outcome, VerdictRequest
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.provision import provision
from ansible_collections.hypervisor.oci.tests.images import signatures
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Blob,
    Image,
    Index,
    Layer,
    file,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.tools.arguments import arguments, options_of
from ansible_collections.hypervisor.oci.tests.unit import web
from ansible_collections.hypervisor.oci.tests.unit.registry import Handler, Registry, serving
from ansible_collections.hypervisor.oci.tests.unit.support import tree, without_waiting

BY = signatures.signer()
OTHER = signatures.signer("p256", 1)
THIRD = signatures.signer("p256", 2)
AMD64 = Image([Layer(file("f", "amd64"))])
ARM64 = Image([Layer(file("f", "arm64"))], platform="linux/arm64")
OLD = Image([Layer(file("f", "old"))])
INDEX = Index(AMD64, ARM64)


def named(blob: t.Any, ref: str = "web:1") -> t.Any:
    """The image or index under a name."""
    return blob.listed(ref=ref)


def mixed(subject: Blob) -> Blob:
    """A keyless signature, and one by a key, under one tag."""
    keyless = signatures.classic_layer(THIRD, signatures.payload(subject.digest), certificate=True)
    keyed = signatures.classic_layer(BY, signatures.payload(subject.digest))
    return signatures.signature_manifest(keyless, keyed, ref=signatures.signature_tag(subject.digest))


# What each archive holds, whether it may be installed, and why not.
CASES: dict[str, tuple[list[t.Any], str]] = {
    "unsigned": ([named(INDEX)], "it has no signature"),
    "index signed": ([named(INDEX), signatures.tagged(INDEX, BY)], ""),
    "index signed by a bundle": ([named(INDEX), *signatures.bundled(INDEX, BY)], ""),
    "index signed, fallback tag": ([named(INDEX), signatures.fallback(INDEX, *signatures.bundled(INDEX, BY))], ""),
    "manifest signed": ([named(AMD64), signatures.tagged(AMD64, BY)], ""),
    "child signed": ([named(INDEX), signatures.tagged(AMD64, BY)], ""),
    "cosign save": (
        [
            signatures.as_cosign_saves("imageIndex", INDEX),
            signatures.as_cosign_saves(
                "sigs", signatures.signature_manifest(signatures.classic_layer(BY, signatures.payload(INDEX.digest)))
            ),
        ],
        "",
    ),
    "another entry signed": ([named(INDEX), signatures.tagged(ARM64, BY)], "it has no signature"),
    "config signed": (
        [
            named(AMD64),
            signatures.signature_manifest(
                signatures.classic_layer(BY, signatures.payload(AMD64.config_digest)),
                ref=signatures.signature_tag(AMD64.digest),
            ),
        ],
        "signed is another manifest",
    ),
    "another image's signature": (
        [
            named(AMD64),
            signatures.signature_manifest(
                signatures.classic_layer(BY, signatures.payload(OLD.digest)), ref=signatures.signature_tag(AMD64.digest)
            ),
        ],
        "signed is another manifest",
    ),
    "by another key": ([named(AMD64), signatures.tagged(AMD64, OTHER)], "none of its signatures is by a key"),
    "mixed keyless and keyed": ([named(AMD64), mixed(AMD64)], ""),
    "keyless": (
        [
            named(AMD64),
            signatures.signature_manifest(
                signatures.classic_layer(THIRD, signatures.payload(AMD64.digest), certificate=True),
                ref=signatures.signature_tag(AMD64.digest),
            ),
        ],
        "1 not judged: certificates",
    ),
    # a signature proves no tag
    "old image under a new tag": ([named(OLD, "web:2"), signatures.tagged(OLD, BY)], ""),
}
FORMS = ("archive", "layout")
PLACES = ("controller", "node", "local")


class Action(ActionModule):
    """The plugin with this process as its node; ``sent`` are the sizes of the files that the node received."""

    check_mode = False
    sent: list[str]

    def _execute_module(self, *_arguments: t.Any, **keywords: t.Any) -> dict[str, t.Any]:
        given = {name: value for name, value in keywords["module_args"].items() if value is not None}
        try:
            outcome = provision(options_of(arguments(**given)), self.check_mode)
        except OciError as error:
            return {"failed": True, "msg": error.message}
        if isinstance(outcome, Outcome):
            return outcome.to_result()
        if isinstance(outcome, VerdictRequest):
            return {"changed": False, "_verdict_request": True}
        return {"changed": False, "_upload_request": outcome.to_result()}

    def _make_tmp_path(self, remote_user: t.Any = None) -> str:
        path = os.path.join(constants.DEFAULT_LOCAL_TMP, "node")  # type: ignore[attr-defined]
        os.makedirs(path, exist_ok=True)
        self._connection._shell.tmpdir = path
        return path

    def _transfer_file(self, local_path: t.Any, remote_path: t.Any) -> t.Any:
        self.sent.append(os.path.basename(remote_path))
        Path(remote_path).write_bytes(Path(local_path).read_bytes())
        return remote_path

    def _is_become_unprivileged(self) -> bool:
        return False

    def _remove_tmp_path(self, tmp_path: t.Any, force: bool = False) -> None:
        pass


class Fleet(t.NamedTuple):
    """A controller with files in ``folder``, one node with a ``dest``, and perhaps a registry."""

    folder: Path
    dest: Path
    sent: list[str]
    registry: Registry | None = None

    def source(self, form: str, contents: t.Sequence[Blob], name: str = "image") -> str:
        """Write an image, or push it."""
        if self.registry is not None and form == "registry":
            return self._pushed(self.registry, contents, name)
        path = self.folder / f"{name}-{form}"
        return write_layout(path, *contents) if form == "layout" else write_oci_archive(path, *contents)

    def _pushed(self, registry: Registry, contents: t.Sequence[Blob], repository: str) -> str:
        """Push what an archive would hold: each thing under its tag, and bundles as what they refer to has them."""
        tags = []
        for number, content in enumerate(contents):
            ref = content.annotations.get("org.opencontainers.image.ref.name", f"untagged-{number}")
            tags.append(ref.rpartition(":")[2])
            registry.push(repository, tags[-1], content)
            if isinstance(registry, ReferringRegistry) and ref.startswith("untagged"):
                registry.referrers.append({**content.descriptor(), "artifactType": signatures.BUNDLE})
        return f"docker://{registry.host}/{repository}:{tags[0]}"

    def key(self, by: signatures.Signer, name: str = "key.pub") -> str:
        """Write a public key."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(by.public_pem)
        return str(path)

    def run(self, place: str = "controller", check_mode: bool = False, **args: t.Any) -> dict[str, t.Any]:
        """Run a task; raises ``AnsibleActionFail`` if it fails."""
        async_val = args.pop("async_val", 0)
        if args.get("src", "").startswith("docker://") and "fetch" not in args:
            args = {**args, "fetch": place, "registry_plain_http": True}
        elif place == "node" and "src" in args:
            args["remote_src"] = True
        task = types.SimpleNamespace(
            args={"dest": str(self.dest), **args}, async_val=async_val, check_mode=check_mode, diff=False,
            action="hypervisor.oci.oci_rootfs", environment=None, get_search_path=lambda: [str(self.folder)],
            _role=None, no_log=False, delegate_to=None,
        )  # fmt: skip
        connection = types.SimpleNamespace(
            _shell=ShellModule(), transport="local" if place == "local" else "ssh", has_pipelining=True, become=None,
            always_pipeline_modules=False,
        )  # fmt: skip
        anything: t.Any = types.SimpleNamespace
        action = Action(
            t.cast(t.Any, task), t.cast(t.Any, connection), anything(), DataLoader(), anything(), anything()
        )
        action.check_mode = check_mode
        action.sent = self.sent
        result = action.run(task_vars={"inventory_hostname": "node1"})
        if result.get("failed"):
            raise AnsibleActionFail(result["msg"])
        return result

    def state(self) -> t.Any:
        """Everything in dest, and what is remembered of it."""
        record = self.dest.parent / ".rootfs.oci_rootfs" / "record.json"
        remembered = record.read_bytes() if record.exists() else None
        return tree(self.dest) if self.dest.exists() else None, remembered

    def refuses(self, words: str, **args: t.Any) -> None:
        """Require that a task fails, in check mode too, and leaves everything as it was and sends no layer."""
        before, already = self.state(), len(self.sent)
        for check_mode in (True, False):
            with pytest.raises(AnsibleActionFail, match=words):
                self.run(check_mode=check_mode, **args)
            assert self.state() == before
        assert set(self.sent[already:]) <= {"offer"}

    def content(self) -> str:
        """What the image has in its file."""
        return (self.dest / "f").read_text()


@pytest.fixture(name="fleet")
def fixture_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A fleet without anything at dest."""
    without_waiting(monkeypatch)
    for name in ("local tmp", "files", "srv"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "local tmp"))
    (tmp_path / "srv" / "foreign").mkdir()
    return Fleet(tmp_path / "files", tmp_path / "srv" / "rootfs", [])


@pytest.fixture(name="no_proxy")
def fixture_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers on loopback are reached, and what is kept of them is the test's own."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_what_is_installed(fleet: Fleet, case: str, form: str, place: str) -> None:
    """The table, for files."""
    _test_what_is_installed(fleet, case, form, place)


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("place", ["controller", "node"])
@pytest.mark.parametrize("case", [case for case in CASES if case != "cosign save"])
def test_what_is_installed_from_a_registry(fleet: Fleet, case: str, place: str) -> None:
    """The table, by who fetches. Only a registry without the referrers API is asked for the fallback tag."""
    with serving(ReferringRegistry() if "by a bundle" in case else Registry()) as registry:
        _test_what_is_installed(fleet._replace(registry=registry), case, "registry", place)


def _test_what_is_installed(fleet: Fleet, case: str, form: str, place: str) -> None:
    """Fresh, unchanged, unchanged without signatures, key removed, threshold, identity, staged, previous, check mode."""
    contents, why_not = CASES[case]
    src = fleet.source(form, contents)
    key = fleet.key(BY)
    task: dict[str, t.Any] = {"place": place, "src": src, "signature_keys": [key]}
    if why_not:
        fleet.refuses(why_not, **task)
        fleet.refuses(why_not, state="staged", **task)
        # neither over a tree that was installed without asking for signatures, even if it is the same
        fleet.run(place, src=src)
        fleet.refuses(why_not, **task)
        fleet.refuses(why_not, recreate=True, **task)
        fleet.refuses("was not signed|no earlier tree|no previous", place=place, state="previous", signature_keys=[key])
        return
    assert fleet.run(check_mode=True, **task)["changed"]
    assert not fleet.dest.exists()
    fresh = fleet.run(**task)
    assert fresh["changed"] and len(fresh["signed_by"]) == 1
    before = fleet.state()
    for check_mode in (True, False):
        again = fleet.run(check_mode=check_mode, **task)
        assert not again["changed"] and again["signed_by"] == fresh["signed_by"]
    assert fleet.state() == before
    # the record is enough, without signatures and without cryptography on the node
    bare = fleet.source(form, [content for content in contents if isinstance(content, (Image, Index))][:1], "bare")
    assert not fleet.run(place, src=bare, signature_keys=[key])["changed"]
    # the key is not trusted any more
    other = fleet.key(OTHER, "other.pub")
    fleet.refuses("none of its signatures is by a key", place=place, src=src, signature_keys=[other])
    fleet.refuses("only 1 of the 2 keys", place=place, src=src, signature_keys=[key, other], signature_threshold=2)
    if "bundle" in case or "fallback" in case:
        fleet.refuses("bundles, which name no image", signature_identity=signatures.REFERENCE, **task)
    else:
        assert not fleet.run(signature_identity=signatures.REFERENCE, **task)["changed"]
        fleet.refuses("its signatures name", signature_identity="registry.example.org/db", **task)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_staged_and_previous(fleet: Fleet, form: str, place: str) -> None:
    key, other = fleet.key(BY), fleet.key(OTHER, "other.pub")
    both = fleet.source(form, [named(AMD64), signatures.tagged(AMD64, BY, OTHER)])
    one = fleet.source(form, [named(OLD), signatures.tagged(OLD, BY)], "old")
    fleet.run(place, src=one, signature_keys=[key])
    staged = fleet.run(place, src=both, signature_keys=[key], state="staged")
    assert staged["changed"] and fleet.content() == "old"
    # keys that the staged tree was not judged by
    assert not fleet.run(place, src=both, signature_keys=[other], state="staged")["changed"]
    third = fleet.key(THIRD, "third.pub")
    fleet.refuses("none of its signatures", place=place, src=both, signature_keys=[third], state="staged")
    fleet.refuses("none of its signatures", place=place, src=both, signature_keys=[third])
    unsigned = fleet.source(form, [named(AMD64)], "unsigned")
    assert fleet.run(place, src=unsigned, signature_keys=[key, other], signature_threshold=2)["changed"]
    assert fleet.content() == "amd64"
    # back: by the key that has signed the old image, and not by the other
    fleet.refuses("was not signed", place=place, state="previous", signature_keys=[other])
    fleet.refuses("was not signed", place=place, state="previous", signature_keys=[key, other], signature_threshold=2)
    result = fleet.run(place, state="previous", signature_keys=[key], signature_identity=signatures.REFERENCE)
    assert result["changed"] and len(result["signed_by"]) == 1 and fleet.content() == "old"
    # without keys, nothing is asked of the earlier tree
    assert fleet.run(place, state="previous")["changed"]
    assert fleet.run(place, state="absent", signature_keys=[key])["changed"]


@pytest.mark.parametrize("place", PLACES)
def test_a_tree_that_was_installed_unsigned_is_verified_once(fleet: Fleet, place: str) -> None:
    key = fleet.key(BY)
    src = fleet.source("archive", [named(AMD64), signatures.tagged(AMD64, BY)])
    fleet.run(place, src=src)
    assert not fleet.run(place, check_mode=True, src=src, signature_keys=[key])["changed"]
    assert not fleet.run(place, src=src, signature_keys=[key])["changed"]
    bare = fleet.source("archive", [named(AMD64)], "bare")
    assert fleet.run(place, src=bare, signature_keys=[key])["signed_by"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_an_index_that_maps_a_platform_to_a_signed_image_of_another(fleet: Fleet, form: str, place: str) -> None:
    """An attacker's index: the manifest is signed, and for another platform."""
    key = fleet.key(BY)
    lying = Index(ARM64.listed(platform="linux/amd64"))
    task: dict[str, t.Any] = {"place": place, "signature_keys": [key]}
    alone = fleet.source(form, [named(lying), signatures.tagged(ARM64, BY)])
    fleet.refuses(
        "listed for linux/amd64 by an index that is not signed, but its config says linux/arm64", src=alone, **task
    )
    # nor beside the signed index that has it for its own platform
    for name, contents in (
        ("before", [named(lying), Index(ARM64)]),
        ("behind", [Index(ARM64.listed(platform="linux/arm64")), named(lying)]),
    ):
        signed = [content for content in contents if content.digest != lying.digest]
        src = fleet.source(form, [*contents, *[signatures.tagged(content, BY) for content in signed]], name)
        fleet.refuses("listed for linux/amd64|holds no image", src=src, ref="web:1", **task)
    unnamed = Image([Layer(file("f", "x"))], config_document={"architecture": None, "os": None})
    src = fleet.source(form, [named(unnamed), signatures.tagged(unnamed, BY)], "unnamed")
    fleet.refuses("its config says nothing", src=src, **task)


@pytest.mark.parametrize("place", PLACES)
def test_an_image_without_a_manifest(fleet: Fleet, place: str) -> None:
    path = fleet.folder / "old.tar"
    write_docker_archive(path, AMD64, style="old", repo_tags=[["web:1"]])
    fleet.refuses(
        "has no manifest, which is what is signed", place=place, src=str(path), signature_keys=[fleet.key(BY)]
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["bundle", "layout", "archive"])
def test_signatures_beside_the_image(fleet: Fleet, place: str, kind: str) -> None:
    src = fleet.source("archive", [named(AMD64)])
    if kind == "bundle":
        beside = str(fleet.folder / "web.sigstore.json")
        Path(beside).write_bytes(signatures.bundle(BY, signatures.statement(AMD64.digest)))
    else:
        beside = fleet.source(kind, [signatures.tagged(AMD64, BY)], "signatures")
    key = fleet.key(BY)
    fleet.refuses("it has no signature", place=place, src=src, signature_keys=[key])
    result = fleet.run(place, src=src, signature_keys=[key], signatures=[beside])
    assert result["changed"] and fleet.content() == "amd64"
    missing = str(fleet.folder / "missing.json")
    with pytest.raises(Exception, match="missing.json"):
        fleet.run(place, src=src, signature_keys=[key], signatures=[missing], recreate=True)


def test_a_node_gets_no_layer_of_what_is_not_approved(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a node answers: the controller sends layers of approved images only."""
    src = fleet.source("archive", [named(AMD64), signatures.tagged(AMD64, BY), named(OLD, "old:1")])
    name = f"blobs/sha256/{OLD.layers[0].digest[7:]}"
    answer = {"_upload_request": {"folder": None, "blobs": [{"name": name, "size": OLD.layers[0].size}]}}
    monkeypatch.setattr(Action, "_execute_module", lambda *_arguments, **_keywords: answer)
    with pytest.raises(AnsibleActionFail, match="which it was not offered"):
        fleet.run(src=src, signature_keys=[fleet.key(BY)])
    assert fleet.sent == ["offer"]


def spelled(by: signatures.Signer) -> list[str]:
    """One key in several ways of writing it."""
    pem = by.public_pem
    return [pem, pem.replace("\n", "\r\n"), f"# a comment\n{pem}", pem.rstrip()]


@pytest.mark.parametrize("place", PLACES)
def test_one_key_in_five_ways_is_one_key(fleet: Fleet, place: str) -> None:
    src = fleet.source("archive", [named(AMD64), signatures.tagged(AMD64, BY, BY)])
    keys = [*spelled(BY), fleet.key(BY)]
    fleet.refuses(
        "signature_threshold is 2, and signature_keys has 1",
        place=place,
        src=src,
        signature_keys=keys,
        signature_threshold=2,
    )
    with_other = [*keys, fleet.key(OTHER, "other.pub")]
    fleet.refuses("only 1 of the 2 keys", place=place, src=src, signature_keys=with_other, signature_threshold=2)
    assert fleet.run(place, src=src, signature_keys=keys)["changed"]


@pytest.mark.parametrize("place", PLACES)
def test_a_threshold_is_met_by_two_keys(fleet: Fleet, place: str) -> None:
    src = fleet.source("archive", [named(AMD64), signatures.tagged(AMD64, BY, OTHER)])
    keys = [BY.public_pem, OTHER.public_pem]
    result = fleet.run(place, src=src, signature_keys=keys, signature_threshold="2")
    assert result["changed"] and len(result["signed_by"]) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"signature_keys": []}, "signature_keys is empty"),
        ({"signature_keys": None}, "signature_keys is empty"),
        ({"signature_keys": ""}, r"signature_keys\[0\] is empty or undefined"),
        ({"signature_keys": [None]}, r"signature_keys\[0\] is empty or undefined"),
        ({"signature_keys": ["key.pub", " "]}, r"signature_keys\[1\] is empty or undefined"),
        ({"signature_keys": {"a": 1}}, "signature_keys is empty"),
        ({"signature_keys": ["nowhere.pub"]}, r"signature_keys\[0\] \('nowhere.pub'\) is neither"),
        ({"signature_keys": ["key.pub"], "signature_threshold": 0}, "signature_threshold is 0"),
        ({"signature_keys": ["key.pub"], "signature_threshold": "x"}, "signature_threshold is 'x'"),
        ({"signature_keys": ["key.pub"], "signature_identity": ""}, "invalid signature_identity"),
        ({"signature_threshold": 1}, "signature_threshold needs signature_keys"),
        ({"signature_identity": "web"}, "signature_identity needs signature_keys"),
        ({"signatures": ["x"]}, "signatures needs signature_keys"),
        ({"signature_keys": ["key.pub"], "_verdict": {}}, "_verdict is private"),
    ],
)
@pytest.mark.parametrize("state", ["present", "previous"])
def test_options_that_are_wrong(fleet: Fleet, args: dict[str, t.Any], words: str, state: str) -> None:
    """None of them means that signatures are not demanded."""
    fleet.key(BY)
    src = fleet.source("archive", [named(AMD64), signatures.tagged(AMD64, BY)])
    fleet.refuses(words, src=src, state=state, **args)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_private_key_is_refused_and_not_shown(fleet: Fleet, as_file: bool) -> None:
    src = fleet.source("archive", [named(AMD64), signatures.tagged(AMD64, BY)])
    secret = BY.private_pem
    (fleet.folder / "key.pem").write_text(secret)
    bare = "".join(secret.split("\n")[1:-2])
    for given in ("key.pem" if as_file else secret, bare):
        with pytest.raises(AnsibleActionFail) as caught:
            fleet.run(src=src, signature_keys=[given])
        assert secret.split("\n")[1] not in str(caught.value) and bare[:20] not in str(caught.value)


def test_the_diff_shows_who_signed(fleet: Fleet) -> None:
    key = fleet.key(BY)
    fleet.run(src=fleet.source("archive", [named(OLD)], "old"))
    src = fleet.source("archive", [named(AMD64), signatures.tagged(AMD64, BY)])
    for check_mode in (True, False):
        result = fleet.run(check_mode=check_mode, src=src, signature_keys=[key])
        assert "signed_by" not in result["diff"]["before"]
        assert result["diff"]["after"]["signed_by"] == result["signed_by"]


def test_a_verdict_is_found_once_for_all_hosts(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.hypervisor.oci.plugins.plugin_utils import _signing

    src = fleet.source("archive", [named(AMD64), signatures.tagged(AMD64, BY)])
    key = fleet.key(BY)
    fleet.run(src=src, signature_keys=[key])
    monkeypatch.setattr(_signing, "make_judge", None)
    assert not fleet.run(src=src, signature_keys=[key])["changed"]
    with pytest.raises(TypeError):
        fleet.run(src=src, signature_keys=[fleet.key(OTHER, "other.pub")])


# -- registries


class ReferringRegistry(Registry):
    """A registry with the referrers API, which answers in pages of one."""

    def __init__(self) -> None:
        super().__init__()
        self.referrers: list[dict[str, t.Any]] = []

    def answer(self, handler: Handler) -> None:
        """Serve the API."""
        path, _question, query = handler.path.partition("?")
        if "/referrers/" not in path:
            super().answer(handler)
            return
        page = int(query or "0")
        more = {"Link": f'<{path}?{page + 1}>; rel="next"'} if page + 1 < len(self.referrers) else {}
        index = {"schemaVersion": 2, "manifests": self.referrers[page : page + 1]}
        handler.send(200, json.dumps(index).encode(), Content_Type="application/vnd.oci.image.index.v1+json", **more)


@pytest.fixture(name="registry")
def fixture_registry(no_proxy: None) -> t.Iterator[ReferringRegistry]:
    """A registry with an unsigned index."""
    del no_proxy
    with serving(ReferringRegistry()) as registry:
        registry.push("web", "1", INDEX)
        yield registry


def fetched(registry: Registry) -> dict[str, t.Any]:
    """The arguments of a task that fetches from the registry."""
    src = f"docker://{registry.host}/web:1"
    return {"src": src, "fetch": "controller", "registry_plain_http": True, "signature_keys": [BY.public_pem]}


def test_what_the_controller_fetches_is_verified(fleet: Fleet, registry: ReferringRegistry) -> None:
    task = fetched(registry)
    fleet.refuses("it has no signature", **task)
    # nothing of the layers was even fetched
    assert not [path for path in registry.paths() if any(layer.digest in path for layer in AMD64.layers)]
    registry.push(
        "web", signatures.signature_tag(INDEX.digest), signatures.tagged(INDEX, BY, reference="example.org/web")
    )
    constants.DEFAULT_LOCAL_TMP += "2"  # type: ignore[attr-defined]
    registry.asked.clear()
    assert fleet.run(**task)["changed"] and fleet.content() == "amd64"
    asked = [path for path in registry.paths() if "referrers" in path or "manifests/sha256-" in path]
    # the referrers and the tag; then the payload
    assert len(asked) == 2
    registry.asked.clear()
    assert not fleet.run(**task)["changed"]
    assert registry.paths() == []
    fleet.refuses("its signatures name", signature_identity="example.org/db", **task)
    assert not fleet.run(signature_identity="example.org/web", **task)["changed"]


class TestTheNodeFetches:
    """With ``fetch: node``, the controller reads documents and signatures alone, and only if the node's record is not enough."""

    @pytest.fixture(name="task")
    def fixture_task(self, registry: ReferringRegistry, monkeypatch: pytest.MonkeyPatch) -> dict[str, t.Any]:
        """A task for the image of the registry, which is signed; the requests of node and controller can be told apart."""
        registry.push("web", signatures.signature_tag(INDEX.digest), signatures.tagged(INDEX, BY))
        del monkeypatch
        return {**fetched(registry), "fetch": "node"}

    @pytest.fixture(name="asks")
    def fixture_asks(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What the controller asks for, as the sources that it opens."""
        asked: list[str] = []
        real = ActionModule._ask

        def ask(action: t.Any, args: t.Any, signing: t.Any) -> t.Any:
            asked.append(args["src"])
            return real(action, args, signing)

        monkeypatch.setattr(ActionModule, "_ask", ask)
        return asked

    def test_unsigned(self, fleet: Fleet, registry: ReferringRegistry) -> None:
        task = {**fetched(registry), "fetch": "node"}
        for state in ("present", "staged"):
            fleet.refuses("it has no signature", state=state, **task)
        assert not [path for path in registry.paths() if any(layer.digest in path for layer in AMD64.layers)]
        # over the same tree, installed without asking for signatures
        fleet.run(src=task["src"], registry_plain_http=True)
        fleet.refuses("it has no signature", **task)

    def test_signed(self, fleet: Fleet, registry: ReferringRegistry, task: dict[str, t.Any], asks: list[str]) -> None:
        assert fleet.run(check_mode=True, **task)["changed"]
        assert not fleet.dest.exists()
        result = fleet.run(**task)
        assert result["changed"] and len(result["signed_by"]) == 1 and fleet.content() == "amd64"
        assert fleet.sent == []
        # by tag and there: the node asks for its digest, and nobody else is asked
        asks.clear()
        registry.asked.clear()
        for check_mode in (True, False):
            again = fleet.run(check_mode=check_mode, **task)
            assert not again["changed"] and again["signed_by"] == result["signed_by"]
        assert registry.paths() == ["HEAD /v2/web/manifests/1 200"] * 2
        # pinned and there
        registry.asked.clear()
        assert not fleet.run(digest=INDEX.digest, **task)["changed"]
        assert registry.paths() == [] and asks == []

    def test_the_record_is_not_enough(self, fleet: Fleet, task: dict[str, t.Any], asks: list[str]) -> None:
        fleet.run(**task)
        asks.clear()
        other = {**task, "signature_keys": [OTHER.public_pem]}
        fleet.refuses("none of its signatures is by a key", **other)
        both = {**task, "signature_keys": [BY.public_pem, OTHER.public_pem], "signature_threshold": 2}
        fleet.refuses("only 1 of the 2 keys", **both)
        fleet.refuses("its signatures name", signature_identity="registry.example.org/db", **task)
        fleet.refuses("its signatures name", signature_identity="example.org/db", digest=INDEX.digest, **task)
        assert len(asks) == 8
        assert not fleet.run(signature_identity=signatures.REFERENCE, **task)["changed"]

    def test_staged_and_previous(self, fleet: Fleet, registry: ReferringRegistry, task: dict[str, t.Any]) -> None:
        fleet.run(**task)
        registry.push("web", "2", OLD)
        second = {**task, "src": task["src"][:-1] + "2"}
        fleet.refuses("it has no signature", state="staged", **second)
        registry.push("web", signatures.signature_tag(OLD.digest), signatures.tagged(OLD, BY, OTHER))
        constants.DEFAULT_LOCAL_TMP += "2"  # type: ignore[attr-defined]
        assert fleet.run(state="staged", **second)["changed"]
        assert not fleet.run(state="staged", **second)["changed"]
        assert fleet.run(**second)["changed"] and fleet.content() == "old"
        fleet.refuses("was not signed", state="previous", signature_keys=[OTHER.public_pem])
        assert fleet.run(state="previous", signature_keys=[BY.public_pem])["changed"]
        assert fleet.content() == "amd64"

    def test_the_tag_moves_meanwhile(
        self, fleet: Fleet, registry: ReferringRegistry, task: dict[str, t.Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All nodes get what the tag meant when its signatures were verified."""
        real = ActionModule._ask

        def ask(action: t.Any, args: t.Any, signing: t.Any) -> t.Any:
            judged = real(action, args, signing)
            registry.push("web", "1", OLD)
            return judged

        monkeypatch.setattr(ActionModule, "_ask", ask)
        result = fleet.run(**task)
        assert result["changed"] and fleet.content() == "amd64"
        assert result["ref"] == f"{registry.host}/web:1"

    def test_requests(self, fleet: Fleet, registry: ReferringRegistry, task: dict[str, t.Any]) -> None:
        """The first kind of signatures that is looked for is a bundle; here there is none."""
        fleet.run(**task)
        about = [path for path in registry.paths() if "referrers" in path or "sha256-" in path]
        assert about == [
            f"GET /v2/web/referrers/{INDEX.digest} 200",
            f"GET /v2/web/manifests/sha256-{INDEX.digest[7:]}.sig 200",
        ]
        assert len([path for path in registry.paths() if AMD64.layers[0].digest in path]) == 1

    def test_credentials_of_the_node(
        self, fleet: Fleet, registry: ReferringRegistry, task: dict[str, t.Any], tmp_path: Path
    ) -> None:
        """The controller has no file of the node: it asks with what the task gives, and says so if that is not enough."""
        registry.auth, registry.users = "basic", {"me": "secret"}
        auth = tmp_path / "auth.json"
        login = base64.b64encode(b"me:secret").decode()
        auth.write_text(json.dumps({"auths": {registry.host: {"auth": login}}}))
        fleet.refuses("the controller verifies signatures, and could not", registry_auth_file=str(auth), **task)
        result = fleet.run(url_username="me", url_password="secret", **task)
        assert result["changed"] and "secret" not in repr(result)
        assert not fleet.run(registry_auth_file=str(auth), **task)["changed"]

    def test_an_archive_on_a_web_server(self, fleet: Fleet, no_proxy: None, asks: list[str]) -> None:
        """The controller reads its documents by ranges, and no layer."""
        del no_proxy
        content = Image([Layer(file("f", "amd64"), file("large", os.urandom(3_000_000)))])
        path = fleet.source("archive", [named(content), signatures.tagged(content, BY)])
        with web.serving(Path(path).read_bytes()) as server:
            task: dict[str, t.Any] = {"src": server.url, "fetch": "node", "signature_keys": [BY.public_pem]}
            fleet.refuses("none of its signatures is by a key", **{**task, "signature_keys": [OTHER.public_pem]})
            before = server.sent
            result = fleet.run(**task)
            assert result["changed"] and len(result["signed_by"]) == 1 and fleet.sent == []
            assert server.sent - before < len(content.layers[0].data) + 200_000
            asks.clear()
            assert not fleet.run(**task)["changed"]
            assert asks == []

    def test_in_the_background(self, fleet: Fleet, task: dict[str, t.Any], asks: list[str]) -> None:
        """Nobody waits for the node's question, so the controller asks before."""
        assert fleet.run(async_val=60, **task)["changed"]
        assert len(asks) == 1

    def test_a_node_that_asks_for_ever(
        self, fleet: Fleet, task: dict[str, t.Any], asks: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = {"changed": False, "_verdict_request": True}
        monkeypatch.setattr(Action, "_execute_module", lambda *_arguments, **_keywords: dict(answer))
        assert fleet.run(**task) == {"changed": False}
        assert len(asks) == 1

    def test_a_node_that_asks_without_being_asked(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without keys there is nothing to verify."""
        answer = {"changed": False, "_verdict_request": True}
        monkeypatch.setattr(Action, "_execute_module", lambda *_arguments, **_keywords: dict(answer))
        assert "_verdict_request" not in fleet.run("node", src="docker://registry.example.org/web:1")


def test_a_node_gets_keys_and_no_path_of_the_controller(fleet: Fleet, registry: ReferringRegistry) -> None:
    """Also when the controller fetches: a key file has another name on nodes, or none."""
    registry.push("web", signatures.signature_tag(INDEX.digest), signatures.tagged(INDEX, BY))
    fleet.key(BY, "files/key.pub")
    task = {**fetched(registry), "signature_keys": ["key.pub"]}
    assert fleet.run(**task)["changed"]
    assert not fleet.run(**task)["changed"]


def test_bundles_of_a_registry(fleet: Fleet, registry: ReferringRegistry) -> None:
    """Pages are followed, and nothing is asked for when the bundles suffice."""
    for by in (OTHER, BY):
        (manifest,) = signatures.bundled(INDEX, by)
        registry.push("web", f"bundle{by is BY}", manifest)
        registry.referrers.append({**manifest.descriptor(), "artifactType": signatures.BUNDLE})
    assert fleet.run(**fetched(registry))["changed"]
    asked = [path for path in registry.paths() if "referrers" in path or "manifests/sha256-" in path]
    assert len(asked) == 2 and all("referrers" in path for path in asked)


def test_pages_beyond_the_limit(fleet: Fleet, registry: ReferringRegistry) -> None:
    """They are not read; that is told if there are too few signatures before them."""
    (manifest,) = signatures.bundled(INDEX, OTHER)
    registry.push("web", "bundle", manifest)
    listed = {**manifest.descriptor(), "artifactType": signatures.BUNDLE}
    registry.referrers += [listed] * 11
    with pytest.raises(AnsibleActionFail, match="2 not judged: pages of referrers beyond a fixed limit"):
        fleet.run(**fetched(registry))
    assert len([path for path in registry.paths() if "/referrers/" in path and INDEX.digest in path]) == 10


def test_signatures_of_a_private_repository_get_the_same_credentials(fleet: Fleet, registry: ReferringRegistry) -> None:
    registry.auth, registry.users = "basic", {"me": "secret"}
    registry.push("web", signatures.signature_tag(INDEX.digest), signatures.tagged(INDEX, BY))
    task = fetched(registry)
    with pytest.raises(AnsibleActionFail):
        fleet.run(**task)
    result = fleet.run(url_username="me", url_password="secret", **task)
    assert result["changed"] and "secret" not in repr(result)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module that the action runs for an image of the controller: as oci_rootfs, but for where the image comes from."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.modules import oci_rootfs, oci_rootfs_offered
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria
from ansible_collections.hypervisor.oci.plugins.plugin_utils._offer import make_offer, pack
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import contents, give, without_waiting

Run = t.Callable[..., t.Dict[str, t.Any]]
IMAGE = Image([Layer(file("f", "one"))], {"User": "0"}, ref="demo:1")


@pytest.fixture(name="run")
def fixture_run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs one of the modules in this process, and returns its result."""
    without_waiting(monkeypatch)

    def run(module: t.Any, **params: t.Any) -> dict[str, t.Any]:
        give(monkeypatch, {"_ansible_module_name": f"hypervisor.oci.{module.__name__.rpartition('.')[2]}", **params})
        with pytest.raises(SystemExit):
            module.main()
        result: dict[str, t.Any] = json.loads(capfd.readouterr().out)
        result.pop("invocation", None)
        result.pop("exception", None)
        return result

    return run


@pytest.fixture(name="given")
def fixture_given(tmp_path: Path) -> dict[str, t.Any]:
    """A task, as far as both modules get the same of it."""
    return {"src": write_oci_archive(tmp_path / "i.tar", IMAGE), "platform": "linux/amd64", "reachable": "allow"}


def offer(tmp_path: Path, src: str) -> str:
    """The offer of an archive's images."""
    source = open_source(src)
    (tmp_path / "offer").write_bytes(pack(make_offer(source, Criteria())))
    source.close()
    return str(tmp_path / "offer")


def test_both_have_the_same_options() -> None:
    private = {"_offer", "_upload_folder"}
    assert {**oci_rootfs.ARGUMENT_SPEC, **dict.fromkeys(private)} == {
        **oci_rootfs_offered.ARGUMENT_SPEC,
        **dict.fromkeys(private),
    }
    assert private.isdisjoint(oci_rootfs.ARGUMENT_SPEC)
    assert set(yaml.safe_load(oci_rootfs_offered.DOCUMENTATION)["options"]) == private
    fragments, own = (
        set(yaml.safe_load(module.DOCUMENTATION)["extends_documentation_fragment"])
        for module in (oci_rootfs, oci_rootfs_offered)
    )
    assert fragments == own


def test_what_is_offered_becomes_the_same_tree(tmp_path: Path, run: Run, given: dict[str, t.Any]) -> None:
    """Blobs are asked for first; then the results differ in their paths alone, and the next run changes nothing."""
    there, here = str(tmp_path / "there"), str(tmp_path / "here")
    expected = run(oci_rootfs, **given, dest=there)
    offered = {**given, "dest": here, "_offer": offer(tmp_path, given["src"])}
    asked = run(oci_rootfs_offered, **offered)["_upload_request"]
    (blob,) = asked["blobs"]
    name = blob["name"].replace("blobs/", "").replace("/", "-")
    (tmp_path / "sent").mkdir()
    folder = asked["folder"] or str(tmp_path / "sent")
    Path(folder, name).write_bytes(IMAGE.layers[0].data)
    result = run(oci_rootfs_offered, **offered, _upload_folder=folder)
    assert result["changed"] is True
    assert contents(here) == contents(there)
    assert json.dumps(result).replace(here, there) == json.dumps(expected)
    assert run(oci_rootfs_offered, **offered)["changed"] is False
    assert run(oci_rootfs, **{**given, "dest": here})["changed"] is False


@pytest.mark.parametrize(
    "wrong", [{"unknown": 1}, {"state": "gone"}, {"timeout": "x"}, {"keep": -1}, {"ref": "other:1"}, {"max_size": "0"}]
)
def test_what_is_wrong_is_said_in_the_same_words(
    tmp_path: Path, run: Run, given: dict[str, t.Any], wrong: dict[str, t.Any]
) -> None:
    task = {**given, "dest": str(tmp_path / "x"), **wrong}
    expected = run(oci_rootfs, **task)
    result = run(oci_rootfs_offered, **task, _offer=offer(tmp_path, given["src"]))
    assert expected["failed"] is True
    assert result["msg"] == expected["msg"]


def test_secrets_that_only_a_server_needs_are_masked(
    tmp_path: Path, given: dict[str, t.Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = {"headers": {"X-Key": "h3ader"}, "registry_mirrors": ["u:s3cret@mirror"], "url_password": "passw0rd"}
    give(monkeypatch, {**given, **secret, "dest": str(tmp_path / "x"), "_offer": offer(tmp_path, given["src"])})
    with pytest.raises(SystemExit):
        oci_rootfs_offered.main()
    output = capfd.readouterr().out
    assert "_upload_request" in output
    assert [word for word in ("h3ader", "s3cret", "passw0rd") if word in output] == []


def test_a_task_cannot_use_it(tmp_path: Path, run: Run, given: dict[str, t.Any]) -> None:
    result = run(oci_rootfs_offered, **given, dest=str(tmp_path / "x"))
    assert result["msg"] == (
        "there is no offer of the controller; use hypervisor.oci.oci_rootfs, whose action makes one"
    )
    assert os.listdir(tmp_path) == ["i.tar"]


def test_keys_without_a_verdict_are_no_approval(tmp_path: Path, run: Run, given: dict[str, t.Any]) -> None:
    """The controller verifies what it offers; without what it found, nothing is installed."""
    key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"
    task = {**given, "dest": str(tmp_path / "x"), "signature_keys": [key]}
    result = run(oci_rootfs_offered, **task, _offer=offer(tmp_path, given["src"]))
    assert result["msg"] == "the verdict of the controller about signatures is missing; run again"

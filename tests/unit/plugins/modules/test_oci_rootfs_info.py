# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module that tells what is known of root file systems (docs/behaviour.md, section 14)."""

from __future__ import annotations

import json
import os
import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.hypervisor.oci.plugins.doc_fragments import _http, _registry, _verify
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import search
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import lock_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import resolve_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import unpacking
from ansible_collections.hypervisor.oci.plugins.modules import oci_rootfs_info
from ansible_collections.hypervisor.oci.tests.images.builder import write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import ONE, TWO, beside_of, everything
from ansible_collections.hypervisor.oci.tests.unit.support import give, mounted, needs_root, run


class Module:
    """Runs the module in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, **params: t.Any) -> t.Any:
        """Return what is known, or the message of an error."""
        give(self._monkeypatch, {key: _plain(value) for key, value in params.items()})
        with pytest.raises(SystemExit):
            oci_rootfs_info.main()
        result: dict[str, t.Any] = json.loads(self._capfd.readouterr().out, parse_constant=pytest.fail)
        assert result.get("changed", False) is False
        return result["msg"] if "msg" in result else result["rootfs"]


def _plain(value: t.Any) -> t.Any:
    if isinstance(value, list):
        return [os.fspath(item) for item in value]
    return os.fspath(value) if isinstance(value, Path) else value


@pytest.fixture(name="module")
def fixture_module(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Module:
    """See ``Module``."""
    return Module(monkeypatch, capfd)


@pytest.fixture(name="one")
def fixture_one(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "one.tar", ONE)


@pytest.fixture(name="two")
def fixture_two(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "two.tar", TWO)


@pytest.fixture(name="guests")
def fixture_guests(tmp_path: Path) -> Path:
    (tmp_path / "guests").mkdir(0o700)
    return tmp_path / "guests"


def test_what_is_returned_is_documented(guests: Path, one: str, two: str, module: Module) -> None:
    for src in (one, two):
        run(guests / "web", src=src)
    run(guests / "web", src=one, state="staged")
    found = module(dest=guests / "web", sizes=True, verify="metadata")[0]
    documented = yaml.safe_load(oci_rootfs_info.RETURN)["rootfs"]["contains"]
    assert set(found) == set(documented)
    assert set(found["unfinished"]) == set(documented["unfinished"]["contains"])
    keys = re.findall(r"C\((\w+)\)", documented["staged"]["description"][1])
    assert set(found["staged"]) == set(found["earlier"][0]) == set(keys)
    texts = [each.ModuleDocFragment.DOCUMENTATION for each in (_http, _registry, _verify)]
    options: dict[str, t.Any] = {}
    for text in (oci_rootfs_info.DOCUMENTATION, *texts):
        options.update(yaml.safe_load(text)["options"])
    assert {name: value.get("default") for name, value in options.items()} == {
        name: spec.get("default") for name, spec in oci_rootfs_info.ARGUMENT_SPEC.items()
    }


@needs_root
def test_drift(tmp_path: Path, guests: Path, one: str, two: str, module: Module) -> None:
    """Section 17: metadata needs no source, contents do; nothing is changed, and nothing that cannot be read is clean."""
    web = guests / "web"
    run(web, src=one)
    assert module(dest=web, verify="metadata")[0]["drift"]["verdict"] == "clean"
    assert module(dest=web, verify="content", src=one)[0]["drift"]["verdict"] == "clean"
    with open(web / "bin/app", "r+b") as file:
        file.write(b"ONE")
    before = everything(guests)
    assert module(dest=web, verify="metadata")[0]["drift"]["verdict"] == "suspect"
    assert "drift" not in module(dest=web)[0]
    found = module(dest=web, verify="content")[0]["drift"]
    assert (found["verdict"], found["reason"]) == ("not verifiable", "contents need the image's layers; give src")
    for src in (two, str(tmp_path / "nothing.tar")):
        found = module(dest=web, verify="content", src=src)[0]["drift"]
        assert (found["verdict"], found["changed"]["count"]) == ("not verifiable", 0)
        assert "its layers cannot be read" in found["reason"]
    found = module(dest=web, verify="content", src=one)[0]["drift"]
    assert [item["differs"] for item in found["changed"]["files"]] == [["content"]]
    with lock_dest(resolve_dest(str(web)), 5, 0o700, False):
        found = module(dest=web, verify="content", src=one)[0]["drift"]
        assert (found["verdict"], found["reason"]) == ("not verifiable", "another run is at work on it")
    assert everything(guests) == before
    assert module(dest=guests / "none", verify="metadata")[0]["drift"] is None


@needs_root
def test_drift_by_the_cache(tmp_path: Path, guests: Path, one: str, module: Module) -> None:
    """Layers come from the cache as far as it has them, whatever scope has added them; it is not changed."""
    web, cache = guests / "web", tmp_path / "cache"
    run(web, src=one, cache_dir=str(cache), cache_max_size=10**9, cache_scope="a")
    given: dict[str, t.Any] = {"dest": web, "verify": "content", "cache_dir": str(cache)}
    before = everything(cache)
    assert module(**given)[0]["drift"]["verdict"] == "clean"
    assert module(**given, src=str(tmp_path / "nothing.tar"))[0]["drift"]["verdict"] == "clean"
    with open(web / "bin/app", "r+b") as file:
        file.write(b"ONE")
    assert [item["path"] for item in module(**given)[0]["drift"]["changed"]["files"]] == ["/bin/app"]
    assert everything(cache) == before
    first, *_others = (path for path in (cache / "sha256").iterdir())
    first.write_bytes(bytes(first.stat().st_size))
    before = everything(cache)
    found = module(**given)[0]["drift"]
    assert found["verdict"] in ("not verifiable", "drifted")
    assert found["reason"] == "its layers cannot be read: cache_dir does not have all of the image's layers; give src"
    found = module(**given, src=one)[0]["drift"]
    assert ([item["path"] for item in found["changed"]["files"]], found["reason"]) == (["/bin/app"], None)
    assert everything(cache) == before
    cache.chmod(0o777)
    found = module(**given)[0]["drift"]
    assert "its layers cannot be read: cache_dir" in found["reason"]
    found = module(**{**given, "cache_dir": str(tmp_path / "none")})[0]["drift"]
    assert "cache_dir does not have all" in found["reason"]


def test_a_tree_with_an_earlier_and_a_staged_one(guests: Path, one: str, two: str, module: Module) -> None:
    first = run(guests / "web", src=one)
    second = run(guests / "web", src=two)
    run(guests / "web", src=one, state="staged")
    before = everything(guests)
    found = module(dest=guests / "web", sizes=True)[0]
    assert everything(guests) == before
    assert found["exists"] and found["provisioned"] and not found["busy"]
    for name in ("manifest_digest", "config_digest", "ref", "platform", "layers", "image", "report"):
        assert found[name] == json.loads(json.dumps(second[name])), name
    assert found["options"]["devices"] in ("safe", "skip")
    assert found["signed_by"] == []
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", found["made"])
    assert found["size"] > 0
    for other in (found["staged"], *found["earlier"]):
        assert other["manifest_digest"] == first["manifest_digest"]
        assert (Path(other["path"]) / "data/one").is_file()
        assert other["size"] > 0
    assert found["unfinished"] == {"phase": None, "transfers": 0, "partial_blobs": False, "to_remove": []}


def test_nothing_is_there(guests: Path, module: Module) -> None:
    found = module(dest=guests / "above/web", sizes=True)[0]
    assert found["exists"] is False
    assert found["provisioned"] is False
    assert found["manifest_digest"] is found["size"] is found["staged"] is None
    assert found["earlier"] == []
    assert os.listdir(guests) == []


def test_a_tree_of_somebody_else(guests: Path, one: str, module: Module) -> None:
    (guests / "web").mkdir()
    (guests / "web/file").touch()
    found = module(dest=guests / "web")[0]
    assert (found["exists"], found["provisioned"]) == (True, False)
    run(guests / "web", src=one, force=True)
    found = module(dest=guests / "web")[0]
    assert found["provisioned"]
    assert [tree["manifest_digest"] for tree in found["earlier"]] == [None]


def test_an_interrupted_run(guests: Path, one: str, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_given: t.Any) -> t.Any:
        os._exit(3)

    child = os.fork()
    if not child:
        monkeypatch.setattr(unpacking, "syncfs", stopped)
        run(guests / "web", src=one)
    assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 3
    found = module(dest=guests / "web")[0]
    assert found["unfinished"]["phase"] == "unpacking"
    assert found["staged"] is None


def test_another_run_is_at_work(guests: Path, one: str, module: Module) -> None:
    """Its lock is not waited for."""
    run(guests / "web", src=one)
    with lock_dest(resolve_dest(os.fspath(guests / "web")), 0, 0o700, False):
        found = module(dest=guests / "web")[0]
    assert found["busy"] is True
    assert found["provisioned"] is True


def test_all_in_some_folders(guests: Path, one: str, module: Module) -> None:
    long = "n" * 240
    for path in ("a", "lxc/b/rootfs", f"lxc/{long}"):
        run(guests / path, src=one)
    # deeper than two levels, in a tree, and without a record
    run(guests / "lxc/deep/er/est", src=one)
    (guests / "a/.in.oci_rootfs").mkdir(0o700)
    (guests / "lxc/.none.oci_rootfs").mkdir(0o700)
    (guests / "lxc/plain").mkdir()
    found = module(folders=[guests, guests / "nowhere"])
    assert [item["dest"] for item in found] == sorted(
        os.fspath(guests / path) for path in ("a", "lxc/b/rootfs", f"lxc/{long}")
    )
    assert all(item["provisioned"] for item in found)
    assert module(folders=[]) == []


def test_a_record_that_was_put_elsewhere(guests: Path, one: str, module: Module) -> None:
    """By a container, for example: its dest would have it in another place."""
    run(guests / "web", src=one)
    fake = guests / "other/.x.oci_rootfs"
    fake.mkdir(0o700, parents=True)
    record = (beside_of(guests / "web") / "record.json").read_bytes()
    for content in (record, record.replace(b"/web", b"/../.."), b"{}", b"[", b'{"dest": 5}'):
        (fake / "record.json").write_bytes(content)
        assert [item["dest"] for item in module(folders=[guests / "other"])] == []
    (fake / "record.json").unlink()
    os.mkfifo(fake / "record.json")
    assert module(folders=[guests / "other"]) == []
    (fake / "record.json").unlink()
    (fake / "record.json").symlink_to(beside_of(guests / "web") / "record.json")
    assert module(folders=[guests / "other"]) == []


def test_folders_are_bounded(guests: Path, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_MOST_FOLDERS", 3)
    for name in "abcd":
        (guests / name).mkdir()
    assert "more than 3 folders to search" in module(folders=[guests])


@needs_root
def test_a_mount_point(guests: Path, one: str, module: Module) -> None:
    point = guests / "mounted"
    point.mkdir()
    with mounted(point):
        run(point, src=one)
        try:
            found = module(folders=["/var/lib/hypervisor.oci"])
            assert os.fspath(point) in [item["dest"] for item in found]
            found = module(dest=point, sizes=True)[0]
            assert found["provisioned"]
            assert found["ref"] == "demo:1"
        finally:
            run(point, state="absent")


def test_a_dest_that_none_can_be(module: Module) -> None:
    assert "is a directory of the system" in module(dest="/etc")


def test_a_damaged_record(guests: Path, one: str, module: Module) -> None:
    run(guests / "web", src=one)
    (beside_of(guests / "web") / "record.json").write_text("{")
    assert "is damaged" in module(dest=guests / "web")

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module from arguments to one result (docs/behaviour.md, sections 6, 7 and 8)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils import basic
from ansible_collections.hypervisor.oci.plugins.doc_fragments import _http, _registry, _rootfs, _signatures, _verify
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import apply
from ansible_collections.hypervisor.oci.plugins.module_utils._source import unzstd
from ansible_collections.hypervisor.oci.plugins.modules import oci_rootfs
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, cut, file, hardlink, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import (
    contents,
    give,
    needs_root,
    needs_user,
    without_waiting,
)

ONE = Image(
    [Layer(file("etc/passwd", "app:x:7:8::/:\n"), file("f", "one"))],
    {"User": "app", "Labels": {"v": "1"}},
    ref="demo:1",
)
TWO = Image([Layer(file("f", "two"))], {"Labels": {"v": "2"}}, ref="demo:2")
PLATFORM = "linux/amd64"


class Module:
    """Runs the module in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, dest: t.Any, **params: t.Any) -> dict[str, t.Any]:
        """The result as Ansible gets it; warnings as text."""
        if "src" in params:
            params.setdefault("platform", PLATFORM)
        if dest is not None:
            params["dest"] = os.fspath(dest)
        give(self._monkeypatch, params)
        with pytest.raises(SystemExit):
            oci_rootfs.main()
        output = self._capfd.readouterr().out
        result: dict[str, t.Any] = json.loads(output, parse_constant=pytest.fail)
        json.dumps(result, ensure_ascii=False).encode("utf-8")
        result.pop("invocation", None)
        if "failed" not in result:
            # what Ansible itself adds of the path that a result calls dest
            for key in ("uid", "gid", "owner", "group", "mode", "size", "secontext"):
                result.pop(key, None)
            assert result.pop("state", "directory") in ("directory", "absent")
        return result


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Module:
    """See ``Module``."""
    without_waiting(monkeypatch)
    return Module(monkeypatch, capfd)


def archive(tmp_path: Path, *layers: Layer, **image: t.Any) -> str:
    """An archive of an image of these layers."""
    return write_oci_archive(tmp_path / "image.tar", Image(layers, **image))


# -- results


def test_present_and_present_again(tmp_path: Path, module: Module) -> None:
    """Section 8: the values stand at the top and in the facts, also when nothing changed."""
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    first = module(tmp_path / "x", src=src)
    assert first.pop("changed") is True
    assert contents(tmp_path / "x")["f"] == b"one"
    facts = first.pop("ansible_facts")
    assert facts == {"oci_rootfs": first}
    identity = {"manifest_digest", "config_digest", "ref", "platform", "layers"}
    assert set(first) == {"dest", *identity, "image", "report", "signed_by", "store", "mount"}
    assert first["image"]["uid"] == 7
    again = module(tmp_path / "x", src=src)
    assert again.pop("changed") is False
    assert again == {**first, "ansible_facts": facts}


def test_what_is_returned_is_documented() -> None:
    """RETURN, DOCUMENTATION and the argument spec agree."""
    documented = {
        **yaml.safe_load(_rootfs.ModuleDocFragment.DOCUMENTATION)["options"],
        **yaml.safe_load(_http.ModuleDocFragment.DOCUMENTATION)["options"],
        **yaml.safe_load(_registry.ModuleDocFragment.DOCUMENTATION)["options"],
        **yaml.safe_load(_signatures.ModuleDocFragment.DOCUMENTATION)["options"],
        **yaml.safe_load(_verify.ModuleDocFragment.DOCUMENTATION)["options"],
    }
    assert set(documented) == set(oci_rootfs.ARGUMENT_SPEC)
    specs: t.Any = oci_rootfs.ARGUMENT_SPEC
    for name, spec in specs.items():
        option: dict[str, t.Any] = documented[name]
        for key in ("type", "elements", "default", "choices"):
            expected = spec.get(key)
            found = option.get(key)
            if key == "choices" and isinstance(found, dict):
                found = list(found)
            if key == "default" and found is None and expected == []:
                continue
            assert found == expected, (name, key)


def test_every_key_of_a_result_is_documented(tmp_path: Path, module: Module) -> None:
    documented = yaml.safe_load(oci_rootfs.RETURN)
    result = module(tmp_path / "x", src=write_oci_archive(tmp_path / "i.tar", ONE))
    facts = result["ansible_facts"]["oci_rootfs"]
    assert set(facts) <= set(documented)
    for key in ("image", "report"):
        assert set(facts[key]) == set(documented[key]["contains"])
    assert set(facts["layers"][0]) == set(documented["layers"]["contains"])


def test_check_mode(tmp_path: Path, module: Module) -> None:
    """Section 8: a new image's user and report are null; nothing is written."""
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    result = module(tmp_path / "x", src=src, _ansible_check_mode=True)
    assert result["changed"] is True
    assert result["report"] is None
    assert result["image"]["user"] == "app"
    assert result["image"]["uid"] is None
    assert os.listdir(tmp_path) == ["i.tar"]


def test_a_diff_only_where_it_is_asked_for(tmp_path: Path, module: Module) -> None:
    one = write_oci_archive(tmp_path / "1.tar", ONE)
    two = write_oci_archive(tmp_path / "2.tar", TWO)
    assert "diff" not in module(tmp_path / "x", src=one)
    result = module(tmp_path / "x", src=two, _ansible_diff=True)
    assert result["diff"]["before"]["image"]["labels"] == {"v": "1"}
    assert result["diff"]["after"]["image"]["labels"] == {"v": "2"}
    assert "diff" not in result["ansible_facts"]["oci_rootfs"]


def test_absent(tmp_path: Path, module: Module) -> None:
    module(tmp_path / "x", src=write_oci_archive(tmp_path / "i.tar", ONE))
    result = module(tmp_path / "x", state="absent")
    assert result == {
        "changed": True,
        "dest": f"{tmp_path}/x",
        "ansible_facts": {"oci_rootfs": {"dest": f"{tmp_path}/x"}},
    }
    assert module(tmp_path / "x", state="absent")["changed"] is False
    assert os.listdir(tmp_path) == ["i.tar"]


@pytest.mark.parametrize("end", ["/", "//"])
def test_dest_without_a_slash_at_its_end(tmp_path: Path, module: Module, end: str) -> None:
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    for params in ({"src": src}, {"src": src}, {"state": "absent"}, {"state": "absent"}):
        result = module(f"{tmp_path}/x{end}", **params)
        assert result["dest"] == result["ansible_facts"]["oci_rootfs"]["dest"] == f"{tmp_path}/x"


def test_private_options_are_not_offered(tmp_path: Path, module: Module) -> None:
    """Only the action plugin sets them."""
    message = failed(module(tmp_path / "x", state="absent", unknown=1))
    assert "Supported parameters include: acl, ca_path, " in message
    assert " _" not in message


def test_warnings_are_ansibles(tmp_path: Path, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they go from there depends on what else this process is."""
    told: list[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _self, warning: told.append(warning))
    src = archive(tmp_path, Layer(file("f")), config={"User": "nobody"})
    result = module(tmp_path / "x", src=src)
    (warning,) = told
    assert "the image's user 'nobody' is not in its /etc/passwd" in warning
    assert "warnings" not in result["ansible_facts"]["oci_rootfs"]


def test_values_that_are_no_text(tmp_path: Path, module: Module) -> None:
    """Section 8: strict UTF-8 JSON, whatever the image holds."""
    config = ONE.config.data.replace(b'"v":"1"', b'"v":"\\ud800"')
    assert b"ud800" in config
    layers: t.Any = ONE.layers
    src = archive(tmp_path, *layers, config_document=config)
    result = module(tmp_path / "x", src=src)
    assert result["image"]["labels"]["v"].strip("\ufffd") == ""


# -- failures: one sentence each


def failed(result: dict[str, t.Any]) -> str:
    """The message of a failure."""
    assert result["failed"] is True
    # for ansible-core, which shows it to those who ask for it
    result.pop("exception", None)
    assert "ansible_facts" not in result
    assert "Traceback" not in json.dumps(result)
    message: str = result["msg"]
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "state is present but all of the following are missing: src"),
        ({"state": "staged"}, "state is staged but all of the following are missing: src"),
        ({"state": "gone"}, "value of state must be one of: present, staged, previous, absent, got: gone"),
        ({"src": "{src}", "unknown": 1}, "Unsupported parameters for"),
        ({"src": "{src}", "max_size": "much"}, "max_size: "),
        ({"src": "{src}", "max_size": "0"}, "max_size is 0; give 1 or more"),
        ({"src": "{src}", "max_entries": 0}, "max_entries is 0; give 1 or more"),
        ({"src": "{src}", "keep": -1}, "keep is -1; give 0 or more"),
        ({"src": "{src}", "lock_timeout": -1}, "lock_timeout is -1; give 0 or more"),
        ({"src": "{src}", "platform": "x"}, "invalid platform 'x'"),
        ({"src": "{src}", "uid_map": ["x"], "gid_map": ["0:0:1"]}, "uid_map: invalid range 'x'; "),
        ({"src": "{src}", "uid_map": ["0:0:1"]}, "uid_map and gid_map must be given together"),
        ({"src": "/nonexistent"}, "src '/nonexistent' cannot be opened: no such file or directory"),
        ({"src": "{src}", "ref": "other"}, "no image"),
        ({"src": "{src}", "digest": "sha256:" + "0" * 64}, "no image"),
        ({"src": "{src}", "max_size": "1"}, "raise max_size if you trust this image"),
        ({"src": "{src}", "max_entries": 1}, "raise max_entries if you trust this image"),
    ],
)  # fmt: skip
def test_failures(tmp_path: Path, module: Module, params: dict[str, t.Any], message: str) -> None:
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    given = {key: value.format(src=src) if isinstance(value, str) else value for key, value in params.items()}
    result = module(tmp_path / "x", **given)
    assert message in failed(result)
    assert os.listdir(tmp_path) == ["i.tar"]


def test_a_bomb_that_is_compressed_as_a_whole(tmp_path: Path, module: Module) -> None:
    """The chosen image is small; what else the archive holds is bounded, too, before anything is written."""
    other = Image([Layer(file("f", bytes(3_000_000)), compression="none")], ref="o:1")
    src = write_oci_archive(tmp_path / "i.tar", ONE, other, compression="gzip")
    digest = ONE.manifest_digest
    result = module(tmp_path / "x", src=src, digest=digest, max_size="1M")
    message = "and holds more than the 1048576 bytes of max_size; raise max_size if"
    assert message in failed(result)
    assert os.listdir(tmp_path) == ["i.tar"]
    assert module(tmp_path / "x", src=src, digest=digest, max_size="4M")["changed"]


def test_no_dest(module: Module) -> None:
    assert "missing required arguments: dest" in failed(module(None, state="absent"))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Layer(file("../f")), "layer {}, entry '../f': its name has a '..' component;"),
        (Layer(hardlink("a", "b")), "layer {}, entry 'a': it is a hard link to 'b', which does not exist;"),
        (Layer(file("f"), edit_blob=cut(-1)), "layer {}: its gzip stream ends too early;"),
        (Layer(file(b"\xff\n", fields={"checksum": 1})), "layer {}, entry '\\xff\\n': the checksum"),
    ],
)  # fmt: skip
def test_a_wrong_layer(tmp_path: Path, module: Module, layer: Layer, message: str) -> None:
    src = archive(tmp_path, layer)
    text = failed(module(tmp_path / "x", src=src))
    assert text.startswith(message.format(layer.digest))
    assert os.listdir(tmp_path) == ["image.tar"]


def test_zstd_without_a_library(tmp_path: Path, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is named only where it is needed, with what Ansible says of such."""

    class NoLibraries:
        """An installation without any."""

        @staticmethod
        def import_module(name: str) -> t.Any:
            raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(unzstd, "importlib", NoLibraries)
    monkeypatch.setattr(unzstd, "zstd_program", lambda: None)
    zstd = archive(tmp_path, Layer(file("f"), compression="zstd-stored"))
    message = failed(module(tmp_path / "x", src=zstd))
    assert "Failed to import the required Python library (zstandard)" in message
    assert (
        "to read what is compressed by zstd; install the package python3-zstandard or, for its program, zstd" in message
    )
    # told before anything is written, and in check mode
    assert failed(module(tmp_path / "x", src=zstd, _ansible_check_mode=True)) == message
    assert os.listdir(tmp_path) == ["image.tar"]
    gzip = archive(tmp_path, Layer(file("f")))
    assert module(tmp_path / "x", src=gzip)["changed"] is True


@needs_user
def test_preserve_without_root(tmp_path: Path, module: Module) -> None:
    """Section 6: an error that says so."""
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    message = failed(module(tmp_path / "x", src=src, ownership="preserve"))
    assert message == ("ownership: preserve needs root; run with become, or set ownership: ignore")


@needs_root
def test_maps_without_owners(tmp_path: Path, module: Module) -> None:
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    message = failed(
        module(
            tmp_path / "x", src=src, ownership="ignore", uid_map=["0:1:1"], gid_map=["0:1:1"]
        )
    )  # fmt: skip
    assert (
        message == "uid_map and gid_map need ownership: preserve, which needs root; run with become, or leave them out"
    )


def test_human_sizes(tmp_path: Path, module: Module) -> None:
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    for size in ("1M", "1 MB", "1048576", "0.5G"):
        module(tmp_path / "x", src=src, max_size=size, recreate=True)
        assert contents(tmp_path / "x")["f"] == b"one"


# -- told to stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal(tmp_path: Path, module: Module, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """A lost connection leaves nothing behind, and the result says what happened."""

    def stop(_self: t.Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)
        pytest.fail("the signal did not come")

    before = signal.getsignal(number)
    monkeypatch.setattr(apply.Applier, "finish", stop)
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    message = failed(module(tmp_path / "x", src=src))
    assert message == (f"{number.name} ended the run; dest holds the whole old tree or the whole new one, run again")
    assert os.listdir(tmp_path) == ["i.tar"]
    assert signal.getsignal(number) == before


def test_a_bug_is_not_hidden(tmp_path: Path, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nothing outside can cause is no failure with one sentence; and it leaves nothing behind either."""

    def broken(*_arguments: t.Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(apply.Applier, "finish", broken)
    src = write_oci_archive(tmp_path / "i.tar", ONE)
    give(monkeypatch, {"src": src, "dest": f"{tmp_path}/x", "platform": PLATFORM})
    with pytest.raises(ZeroDivisionError):
        oci_rootfs.main()
    assert os.listdir(tmp_path) == ["i.tar"]


# -- what a node needs


def test_only_the_standard_library_and_ansible_are_imported() -> None:
    """Nothing else is needed on a node; zstandard only for layers of zstd."""
    code = (
        "import sys\n"
        "import ansible_collections.hypervisor.oci.plugins.modules.oci_rootfs\n"
        "import ansible_collections.hypervisor.oci.plugins.module_utils._unpack\n"
        "import ansible_collections.hypervisor.oci.plugins.module_utils._dest.mounted\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(names & {'zstandard', 'compression', 'isal', 'zlib_ng', 'yaml', 'requests'}))\n"
        "parts = {name for name in sys.modules if name.startswith('ansible.')}\n"
        "print(sorted(name for name in parts if not name.startswith(('ansible.module_utils', 'ansible._vendor', 'ansible.release'))))\n"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


_OURS = "ansible_collections.hypervisor.oci.plugins.module_utils."


def test_an_unchanged_run_imports_little(tmp_path: Path) -> None:
    """Each file costs about a millisecond, because Ansible compiles it for every task."""
    src = write_oci_archive(tmp_path / "image.tar", ONE)
    arguments = {"src": src, "dest": f"{tmp_path}/x", "platform": PLATFORM, "reachable": "allow"}
    code = (
        "import json, sys\n"
        "from ansible.module_utils import basic\n"
        f"basic._ANSIBLE_ARGS = json.dumps({{'ANSIBLE_MODULE_ARGS': {arguments!r}}}).encode()\n"
        "basic._ANSIBLE_PROFILE = 'legacy'\n"
        "from ansible_collections.hypervisor.oci.plugins.modules import oci_rootfs\n"
        "try:\n oci_rootfs.main()\n"
        "except SystemExit:\n pass\n"
        f"print(); print(*(name[{len(_OURS)}:] for name in sys.modules if name.startswith({_OURS!r})))"
    )
    path = os.pathsep.join(entry for entry in sys.path if entry)
    for changed in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        result, names = done.stdout.strip().splitlines()[0], done.stdout.splitlines()[-1]
        assert json.loads(result)["changed"] is changed
    found = names.split()
    rooms = {name.partition(".")[0] for name in found}
    assert rooms.isdisjoint({"_cache", "_container", "_layer", "_transfer", "_unpack"})
    late = {"_dest.in_use", "_dest.mounted", "_dest.mounts", "_dest.uploads", "_fs.removal", "_provision.unpacking",
            "_remote.http", "_rootfs.apply", "_rootfs.root", "_rootfs.users", "_source.decompress"}  # fmt: skip
    assert late.isdisjoint(found)
    assert len(found) <= 68

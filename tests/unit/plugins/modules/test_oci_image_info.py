# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module from arguments to one result (docs/behaviour.md, sections 1, 2 and 8)."""

from __future__ import annotations

import importlib
import json
import os
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._source import unzstd
from ansible_collections.hypervisor.oci.plugins.modules import oci_image_info
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Index,
    Layer,
    cut,
    file,
    write_layout,
    write_oci_archive,
    zstd_stored_frame,
)
from ansible_collections.hypervisor.oci.tests.unit.support import give

if t.TYPE_CHECKING:
    from pathlib import Path

IMAGE = Image([Layer(file("a", b"data"))], {"Labels": {"l": "v"}}, ref="app:1")
ARM = Image([Layer(file("b", b"data"))], platform="linux/arm64", ref="app:2")


class Module:
    """Runs the module in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, **params: t.Any) -> dict[str, t.Any]:
        give(self._monkeypatch, params)
        with pytest.raises(SystemExit):
            oci_image_info.main()
        output = self._capfd.readouterr().out
        result: dict[str, t.Any] = json.loads(output, parse_constant=pytest.fail)
        json.dumps(result, ensure_ascii=False).encode("utf-8")
        return result


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Module:
    """See ``Module``."""
    return Module(monkeypatch, capfd)


@pytest.mark.parametrize("check", [False, True])
def test_an_archive(tmp_path: Path, module: Module, check: bool) -> None:
    path = write_oci_archive(tmp_path / "archive", IMAGE, ARM)
    result = module(src=path, _ansible_check_mode=check)
    assert result["changed"] is False
    assert "failed" not in result
    assert result["form"] == "archive"
    assert [item["refs"] for item in result["images"]] == [["app:1"], ["app:2"]]
    assert result["images"][0]["image"]["labels"] == {"l": "v"}
    assert result["images"][0]["config_digest"] == IMAGE.config_digest
    assert os.listdir(tmp_path) == ["archive"]


def test_max_size(tmp_path: Path, module: Module) -> None:
    """What must be decompressed to be listed is bounded, and nothing else is."""
    path = write_oci_archive(tmp_path / "archive", IMAGE, compression="gzip")
    message = "and holds more than the 1024 bytes of max_size; raise max_size if"
    assert message in module(src=path, max_size="1K")["msg"]
    assert "max_size: " in module(src=path, max_size="much")["msg"]
    assert module(src=path, max_size="0")["msg"] == "max_size is 0; give 1 or more"
    assert len(module(src=path)["images"]) == 1
    path = write_oci_archive(tmp_path / "archive", IMAGE)
    assert len(module(src=path, max_size="1")["images"]) == 1


def test_filters(tmp_path: Path, module: Module) -> None:
    path = write_layout(tmp_path / "layout", Index(IMAGE, ARM))
    result = module(src=path, ref="", digest="", platform="linux/aarch64")
    assert result["form"] == "directory"
    assert [item["platform"] for item in result["images"]] == ["linux/arm64"]
    result = module(src=path, digest=IMAGE.digest)
    assert [item["platform"] for item in result["images"]] == ["linux/amd64"]
    assert module(src=path, ref="app:2")["images"][0]["refs"] == ["app:2"]


def test_names_that_are_no_text(tmp_path: Path, module: Module) -> None:
    """Strict UTF-8 JSON, whatever the image holds."""
    lone = b'"a": "\\ud800"'
    config = IMAGE.config.data.replace(b'"l":"v"', lone)
    assert lone in config
    image = Image([Layer(file("a", b"data"))], config_document=config)
    result = module(src=write_oci_archive(tmp_path / "archive", image))
    assert result["images"][0]["image"]["labels"]["a"].strip("\ufffd") == ""


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "missing required arguments: src"),
        ({"src": "/nonexistent"}, "src '/nonexistent' cannot be opened: no such file"),
        ({"src": "/dev/null"}, "'/dev/null' is not a regular file; check src"),
        ({"src": "/etc"}, "src '/etc' is not an image layout"),
        ({"src": "/etc", "platform": "amd64"}, "invalid platform 'amd64': expected os/architecture"),
        ({"src": "/etc", "unknown": 1}, "Unsupported parameters"),
    ],
)
def test_failures(module: Module, params: dict[str, t.Any], message: str) -> None:
    result = module(**params)
    assert result["failed"] is True
    assert message in result["msg"]


def test_a_damaged_archive(tmp_path: Path, module: Module) -> None:
    path = write_oci_archive(tmp_path / "archive", IMAGE, edit=cut(2000))
    result = module(src=path)
    assert result["failed"] is True
    assert result["msg"].startswith(f"'{path}' is a damaged tar near byte ")


def test_a_missing_library_is_named(tmp_path: Path, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def refuse(name: str) -> t.Any:
        if name in ("compression.zstd", "zstandard"):
            raise ImportError(f"No module named '{name}'")
        return real(name)

    path = write_oci_archive(tmp_path / "archive", IMAGE, compression=zstd_stored_frame)
    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.setattr(unzstd, "zstd_program", lambda: None)
    result = module(src=path)
    assert result["failed"] is True
    assert "zstandard" in result["msg"]
    assert "to read what is compressed by zstd" in result["msg"]

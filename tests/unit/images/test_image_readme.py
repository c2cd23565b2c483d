# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The examples of the builder's README hold."""

from __future__ import annotations

import pathlib
import re
import tarfile
import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.images import builder

README = pathlib.Path(builder.__file__).with_name("README.md")


def test_examples(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of Python runs, in order, and the archives are there."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 6
    monkeypatch.chdir(tmp_path)
    names: dict[str, t.Any] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    for name in ("demo.oci.tar", "flat.tar", "nested.tar", "new.tar", "old.tar"):
        assert tarfile.is_tarfile(name)
    assert (tmp_path / "layout" / "index.json").is_file()


def test_all_that_is_exported_is_described() -> None:
    """No function of the API is missing in the README, but for the low-level ones."""
    low_level = (
        "OCI_LAYOUT ZERO_BLOCK Entry Manifest Raw base_256 changed compress "
        "index_json layout_files octal pax_records tar to_json"
    )
    text = README.read_text("utf-8")
    missing = {name for name in builder.__all__ if not re.search(rf"\b{name}\b", text)}
    assert missing <= set(low_level.split())

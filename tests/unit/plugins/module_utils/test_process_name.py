# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Progress of a run as the name of its process (docs/behaviour.md, section 8)."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils import _process_name
from ansible_collections.hypervisor.oci.plugins.module_utils._process_name import named_after_progress, parse_progress
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import Applier
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import run, without_waiting


def name() -> str:
    """The name of this process."""
    return Path("/proc/self/comm").read_text(encoding="utf-8").rstrip("\n")


def test_the_name_of_before_comes_back() -> None:
    before = name()
    with pytest.raises(ValueError), named_after_progress() as show:
        assert name() == before
        show(999, 1000)
        assert name() == "layer 999/1000"
        assert parse_progress(name()) == (999, 1000)
        raise ValueError
    assert name() == before


def test_where_names_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    before = name()
    monkeypatch.setattr(_process_name, "_COMM", "/nonexistent/comm")
    with named_after_progress() as show:
        show(1, 2)
        assert name() == before


@pytest.mark.parametrize("other", ["", "python3", "layer", "layer 1/", "layer 1/2 x", "my layer 1/2", "layer 12345/2"])
def test_other_names(other: str) -> None:
    assert parse_progress(other) is None


def test_each_layer_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    seen: list[str] = []
    apply_layer = Applier.apply_layer

    def watch(self: Applier, *arguments: t.Any) -> None:
        seen.append(name())
        apply_layer(self, *arguments)

    monkeypatch.setattr(Applier, "apply_layer", watch)
    before = name()
    source = write_oci_archive(tmp_path / "image.tar", Image([Layer(file("a")), Layer(file("b")), Layer(file("c"))]))
    run(tmp_path / "dest", src=str(source), reachable="allow")
    assert seen == ["layer 1/3", "layer 2/3", "layer 3/3"]
    assert name() == before

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A policy is judged before anything changes, in every state (docs/behaviour.md, section 13)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._inventory import inventory as inventories
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import beside_of, everything, refused
from ansible_collections.hypervisor.oci.tests.unit.support import Watched, contents, needs_root, run

pytestmark = needs_root

CLEAN = Image([Layer(file("app", b"clean"))])
WITH_SU = Image([Layer(file("app", b"su"), file("usr/bin/su", b"", 0o4755))])
NONE: dict[str, t.Any] = {"setuid": []}
ONLY_SU: dict[str, t.Any] = {"setuid": ["/usr/bin/su"]}
REFUSED = "the image has files that policy does not allow: setuid: /usr/bin/su. "


@pytest.fixture(name="clean")
def fixture_clean(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "clean.tar", CLEAN)


@pytest.fixture(name="su")
def fixture_su(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "su.tar", WITH_SU)


def kept(dest: Path) -> list[str]:
    """The files and trees beside dest."""
    return sorted(os.listdir(beside_of(dest)))


@pytest.mark.parametrize("state", ["present", "staged"])
def test_a_new_image(dest: Path, clean: str, su: str, state: str) -> None:
    """It is refused before the exchange, and nothing of it is left."""
    run(dest, src=clean)
    before = everything(dest), kept(dest)
    assert refused(dest, src=su, state=state, policy=NONE).startswith(REFUSED)
    assert (everything(dest), kept(dest)) == before
    assert run(dest, src=clean, policy=NONE)["changed"] is False
    assert run(dest, src=su, state=state, policy=ONLY_SU)["changed"] is True


def test_a_first_image(dest: Path, su: str) -> None:
    assert refused(dest, src=su, policy=NONE).startswith(REFUSED)
    assert os.listdir(dest.parent) == []


def test_a_changed_policy(dest: Path, su: str, sources: list[Watched]) -> None:
    """The tree is judged by its record, without unpacking."""
    run(dest, src=su, policy=ONLY_SU)
    sources.clear()
    before = everything(dest)
    for check_mode in (True, False):
        with pytest.raises(Exception, match="policy does not allow"):
            run(dest, check_mode, src=su, policy=NONE)
    assert run(dest, src=su, policy=ONLY_SU)["changed"] is False
    assert everything(dest) == before
    layers = {layer.path for layer in WITH_SU.layers}
    assert not any(layers & set(source.reads) for source in sources)


def test_a_staged_tree(dest: Path, clean: str, su: str) -> None:
    run(dest, src=clean)
    run(dest, src=su, state="staged")
    before = everything(dest)
    for state in ("present", "staged"):
        assert refused(dest, src=su, state=state, policy=NONE).startswith(REFUSED)
    assert everything(dest) == before
    assert run(dest, src=su, policy=ONLY_SU)["changed"] is True


def test_an_earlier_tree(dest: Path, clean: str, su: str) -> None:
    run(dest, src=su)
    run(dest, src=clean)
    before = everything(dest)
    assert refused(dest, state="previous", policy=NONE).startswith(REFUSED)
    assert everything(dest) == before
    run(dest, state="previous", policy=ONLY_SU)
    assert contents(dest)["app"] == b"su"


def test_check_mode_tells_what_it_cannot_judge(dest: Path, su: str) -> None:
    result = run(dest, True, src=su, policy=NONE)
    assert result["changed"] is True
    assert [text for text in result["warnings"] if "policy is judged by a real run" in text]
    assert not [text for text in run(dest, True, src=su)["warnings"] if "policy" in text]


def test_a_tree_without_an_inventory(dest: Path, clean: str) -> None:
    """One that an earlier version made is never taken for one without such files."""
    run(dest, src=clean)
    record = beside_of(dest) / "record.json"
    record.write_text(record.read_text().replace('"inventory"', '"other"'))
    assert "policy cannot be judged" in refused(dest, src=clean, policy=NONE)
    assert run(dest, src=clean, policy=NONE, recreate=True)["changed"] is True
    assert run(dest, src=clean, policy=NONE)["changed"] is False


def test_what_an_update_adds_and_takes_away(dest: Path, clean: str, su: str) -> None:
    run(dest, src=clean)
    diff = run(dest, src=su)["diff"]
    assert diff["after"]["adds"] == ["setuid /usr/bin/su"]
    assert "takes away" not in diff["after"]
    diff = run(dest, state="previous")["diff"]
    assert diff["after"]["takes away"] == ["setuid /usr/bin/su"]
    assert "adds" not in diff["after"]


class TestLong:
    """An inventory that is longer than a result lies beside the record, as long as its tree is needed."""

    @pytest.fixture(name="many")
    def fixture_many(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(inventories, "_MOST_SHOWN", 3)
        files = [file(f"bin/{name}", b"", 0o4755) for name in "abcd"]
        return write_oci_archive(tmp_path / "many.tar", Image([Layer(*files)]))

    def long_ones(self, dest: Path) -> int:
        return len([name for name in kept(dest) if name.endswith(".inventory")])

    def test_all_of_it_is_judged(self, dest: Path, many: str) -> None:
        result = run(dest, src=many)
        assert len(result["report"]["inventory"]["setuid"]["files"]) == 3
        assert "setuid: /bin/d." in refused(dest, src=many, policy={"setuid": ["/bin/a", "/bin/b", "/bin/c"]})

    def test_it_goes_with_its_tree(self, dest: Path, clean: str, many: str) -> None:
        run(dest, src=many)
        assert self.long_ones(dest) == 1
        run(dest, src=clean)
        assert self.long_ones(dest) == 1
        assert "setuid: /bin/a" in refused(dest, state="previous", policy=NONE)
        run(dest, src=clean, keep=0)
        assert self.long_ones(dest) == 0
        assert refused(dest, src=many, policy=NONE)
        assert self.long_ones(dest) == 0
        run(dest, src=many, state="staged")
        assert self.long_ones(dest) == 1
        run(dest, state="absent")
        assert os.listdir(dest.parent) == []

    def test_a_damaged_one(self, dest: Path, many: str) -> None:
        run(dest, src=many)
        for path in beside_of(dest).glob("*.inventory"):
            path.write_bytes(b"damaged")
        assert "is damaged" in refused(dest, src=many, policy=NONE)
        for path in beside_of(dest).glob("*.inventory"):
            path.unlink()
        assert "is damaged" in refused(dest, src=many, policy=NONE)
        run(dest, src=many)

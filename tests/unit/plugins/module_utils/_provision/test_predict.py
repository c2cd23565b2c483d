# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode (docs/behaviour.md, section 7)."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import exchange as beside
from ansible_collections.hypervisor.oci.tests.unit.support import run
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import ONE, everything


def test_check_mode_writes_nothing(tmp_path: Path, dest: Path, one: str, two: str) -> None:
    """Section 8: nothing at all, and predicts ``changed``."""

    def check(expected: bool, **changes: t.Any) -> dict[str, t.Any]:
        before = everything(tmp_path)
        result = run(dest, check_mode=True, **changes)
        assert everything(tmp_path) == before
        assert result["changed"] is expected
        return result

    predicted = check(True, src=one)
    check(True, src=one, state="staged")
    check(False, state="absent")
    made = run(dest, src=one)
    for key in ("manifest_digest", "config_digest", "ref", "platform", "layers", "dest"):
        assert predicted[key] == made[key]
    assert predicted["report"] is None
    unknown = {"uid": None, "gid": None, "groups": None, "home": None}
    assert predicted["image"] == {**made["image"], **unknown}
    assert predicted["diff"]["before"] == {}
    check(False, src=one)
    check(True, src=two)
    check(True, state="absent")
    run(dest, src=two, state="staged")
    check(False, src=two, state="staged")
    check(True, src=one, state="staged", recreate=True)
    check(True, src=two)
    check(False, src=one)
    run(dest, src=two)
    check(True, state="previous")
    missing = tmp_path / "not" / "there"
    assert run(missing, check_mode=True, src=one)["changed"] is True
    assert not missing.parent.exists()


def test_check_mode_after_a_crash(
    tmp_path: Path, dest: Path, one: str, two: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run that was killed left is seen, and left alone."""
    run(dest, src=one)

    def killed(*_arguments: t.Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(beside.ExchangedDest, "_exchanged", killed)
        patched.setattr(beside.ExchangedDest, "abandon", killed)
        with pytest.raises(KeyboardInterrupt):
            run(dest, src=two)
    before = everything(tmp_path)
    assert run(dest, src=two, check_mode=True)["changed"] is False
    assert run(dest, src=one, check_mode=True)["changed"] is True
    assert everything(tmp_path) == before
    assert run(dest, src=two)["changed"] is False
    assert run(dest, state="previous")["manifest_digest"] == ONE.manifest_digest

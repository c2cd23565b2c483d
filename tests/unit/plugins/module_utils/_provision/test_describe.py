# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The result and its diff (docs/behaviour.md, section 8)."""

from __future__ import annotations

from pathlib import Path
from ansible_collections.hypervisor.oci.tests.unit.support import run
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import GOOD, ONE, TWO, archive


def test_the_diff(dest: Path, one: str, two: str) -> None:
    """Section 8: digests, layers, and the config fields that differ."""
    run(dest, src=one)
    for check_mode in (True, False):
        diff = run(dest, src=two, check_mode=check_mode)["diff"]
        assert diff["before_header"] == f"{dest} (before)"
        assert diff["after_header"] == f"{dest} (after)"
        # a value may be a secret of the image: its name, and that it changed
        shown = {"before": "********", "after": "******** (changed)"}
        for side, image in (("before", ONE), ("after", TWO)):
            assert diff[side] == {
                "manifest_digest": image.manifest_digest,
                "config_digest": image.config_digest,
                "platform": "linux/amd64",
                "layers": [image.layers[1].digest],
                "image": {"env": {"A": shown[side]}},
            }
    diff = run(dest, src=two)["diff"]
    assert diff["before"] == diff["after"]
    assert (diff["after"]["layers"], diff["after"]["image"]) == ([], {})


def test_the_diff_of_a_first_run(dest: Path, one: str) -> None:
    diff = run(dest, src=one)["diff"]
    assert diff["before"] == {}
    assert diff["after"]["layers"] == [layer.digest for layer in ONE.layers]
    assert diff["after"]["image"]["user"] == "app"
    assert "uid" not in diff["after"]["image"]


def test_a_user_that_is_not_there(tmp_path: Path, dest: Path) -> None:
    """Section 8: null with a warning, on every run."""
    src = archive(tmp_path, GOOD, config={"User": "nobody"})
    for changed in (True, False):
        result = run(dest, src=src)
        assert result["changed"] is changed
        image = result["image"]
        assert (image["user"], image["uid"], image["gid"], image["groups"]) == ("nobody", None, None, None)  # fmt: skip
        assert result["warnings"] == [
            "the image's user 'nobody' is not in its /etc/passwd; choose another user before you start a container"
        ]

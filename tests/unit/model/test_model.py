# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Generated images: product and model make the same of them (docs/behaviour.md, sections 4 to 6)."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.hypervisor.oci.tests.model import compare, model
from ansible_collections.hypervisor.oci.tests.model.generator import Image
from ansible_collections.hypervisor.oci.tests.model.run import Tally, run, run_batch
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root

_SECONDS = 600

# What the generator must reach in some thousand images. More stands in tests/model/README.md.
_OVER = [
    f"{new} over {whose} {old}"
    for new, whose, old in itertools.product(
        ("file", "directory", "symlink", "hardlink"),
        ("lower", "own"),
        ("file", "directory", "full directory", "symlink"),
    )
]
_WHITEOUTS = [
    "of nothing",
    "in nothing",
    "of lower file",
    "of lower symlink",
    "of own file",
    "of own symlink",
    *(f"of lower directory, holding {what}" for what in ("nothing", "lower", "own", "lower and own")),
    "of own directory, holding nothing",
    "of own directory, holding own",
]
_LINKS = [shape + more for shape in ("relative", "absolute", "relative with ..") for more in ("", ", then another")]


def test_generated_images() -> None:
    """Whole trees with every attribute, or an error at the same entry. Raises with the smallest image."""
    tally = run(300, 1, _SECONDS)
    assert tally.images >= 300


def test_generated_images_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, each layer applied to the tree that it finds on disk, as a store does it."""
    monkeypatch.setattr(compare, "in_steps", True)
    tally = run(300, 2, _SECONDS)
    assert tally.images >= 300


@needs_root
def test_generated_images_as_overlays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, each layer applied to an overlay of those below it."""
    monkeypatch.setattr(compare, "in_stacks", True)
    tally = run(300, 3, _SECONDS)
    assert tally.images >= 300


# What must be met of each kind that the tally knows.
_RULES = {
    "new over old": set(_OVER),
    "whiteout": set(_WHITEOUTS),
    "link followed": set(_LINKS),
    "opaque": {"holding nothing", "holding lower", "holding own", "holding lower and own"},
    "whiteout of .": {"holding lower", "holding own", "holding lower and own"},
    "parent made": {"nothing", "file", "file behind a link", "nothing behind a link"},
    "hard link to": {model.FILE, model.SYMLINK},
    "refused": {"loop of links", "hard link to nothing", ".. in a name"},
}


def test_generator_reaches_the_rules() -> None:
    """A generator that misses a rule would prove nothing about it; most are met in the first batches."""
    tally = Tally()

    def look(image: Image) -> None:
        compare.of_model(image, tally.watch)

    missed = _RULES
    for number in range(10, 30):
        run_batch(number, 700, look)
        missed = {kind: rules - set(tally.reached.get(kind, ())) for kind, rules in missed.items()}
        if not any(missed.values()):
            break
    assert {kind: rules for kind, rules in missed.items() if rules} == {}

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares product and model on many generated images, and says what the images reached.

    PYTHONPATH=COLLECTIONS python3 tests/model/run.py
        [-n 1000] [--seed 1] [--seconds 1800] [--coverage] [--peers]

``COLLECTIONS`` is the folder that holds ``ansible_collections``; hypothesis is needed. As root it covers owners, id
maps and devices too.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import typing as t
from collections import Counter

from ansible_collections.hypervisor.oci.tests.model import compare, model, peers
from ansible_collections.hypervisor.oci.tests.model.generator import Image, images
from ansible_collections.hypervisor.oci.tests.tools.confinement import require
from hypothesis import HealthCheck, Phase, given, seed, settings

# Hypothesis remembers every example of a run, so many short runs keep it fast.
_BATCH = 500
# How many images a peer unpacks: some take a second each.
_PEERS = {"umoci": 500, "buildah": 100}


class Found(Exception):
    """The smallest image that product and model disagree about."""

    def __init__(self, image: Image, lines: t.Sequence[str]) -> None:
        text = "\n".join([compare.to_code(image), *lines])
        super().__init__(text)
        self.image = image


class Tally:
    """Counts what the images were and what they reached."""

    def __init__(self) -> None:
        self.images = 0
        self.entries = 0
        self.layers = 0
        self.reached: dict[str, Counter[str]] = {}

    def add(self, image: Image) -> None:
        """Count an image."""
        self.images += 1
        self.layers += len(image.layers)
        self.entries += sum(map(len, image.layers))
        if image.shape:
            self.watch("archive", image.shape)
        for layer in image.layers:
            self._add_orders(layer)

    def _add_orders(self, layer: model.Layer) -> None:
        """In which order a layer hides a path and brings it."""
        brought: set[bytes] = set()
        hidden: set[bytes] = set()
        for thing in layer:
            path = b"".join(b"/" + part for part in thing.name.split(b"/") if part)
            folder, _slash, name = path.rpartition(b"/")
            if name.startswith(b".wh."):
                opaque = name == b".wh..wh..opq"
                target = folder if opaque else folder + b"/" + name[4:]
                kind = "an opaque mark" if opaque else "a whiteout"
                if target in brought:
                    self.watch("order in a layer", f"an entry, then {kind}")
                hidden.add(target)
                continue
            if path in hidden:
                self.watch("order in a layer", "a whiteout, then an entry at its path")
            if folder in hidden:
                self.watch("order in a layer", "what hides a directory, then an entry in it")
            brought |= {path, folder}

    def watch(self, kind: str, what: str) -> None:
        """What the model calls for each rule that it uses."""
        self.reached.setdefault(kind, Counter())[what] += 1

    def summary(self) -> str:
        """One line."""
        refused = sum(self.reached.get("refused", Counter()).values())
        return (
            f"{self.images} different images with {self.layers} layers and {self.entries} entries,"
            f" {refused} refused by both, no difference"
        )

    def coverage(self) -> str:
        """Which rules the images reached, and how often."""
        lines = []
        for kind in sorted(self.reached):
            counted = self.reached[kind]
            lines.append(f"{kind}: {len(counted)} kinds, {sum(counted.values())} times")
            lines += [f"    {counted[what]:8} {what}" for what in sorted(counted)]
        return "\n".join(lines)


def run_batch(number: int, examples: int, check: t.Callable[[Image], None]) -> None:
    """Run ``check`` on so many images; the same number always gives the same ones."""

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(images())
    def checked(image: Image) -> None:
        check(image)

    checked()


def smallest_difference(image: Image, work: bytes) -> tuple[Image, list[str]]:
    """An image that fails as simply as it can, and how it does."""
    image = compare.smallest(image, lambda one: bool(compare.differences(one, work)))
    return image, compare.differences(image, work)


def run(number: int, first_seed: int, seconds: float) -> Tally:
    """Compare so many images, or as many as the time allows. Raises ``Found``."""
    tally = Tally()
    seen: set[int] = set()
    failing: list[Image] = []
    end = time.monotonic() + seconds
    with compare.workplace() as work:

        def check(image: Image) -> None:
            # batches begin alike, so some images come again: only new ones count
            if failing or hash(image) in seen or tally.images >= number:
                return
            seen.add(hash(image))
            tally.add(image)
            if compare.differences(image, work, tally.watch):
                # not raised, since hypothesis would run the image again, and it would not be new
                failing.append(image)

        batch = 0
        while tally.images < number and time.monotonic() < end:
            run_batch(first_seed * 1_000_003 + batch, _BATCH, check)
            if failing:
                raise Found(*smallest_difference(failing[0], work))
            batch += 1
    return tally


def compare_peers(first_seed: int) -> bool:
    """Compare with those that are installed, a bounded number each; false where one differs."""
    names = peers.installed()
    if not names:
        print("no peers: they need root, and umoci or buildah installed")
    found: list[Image] = []
    run_batch(first_seed, 2 * max(_PEERS.values()), found.append)
    agree = True
    for name in names:
        result = peers.run_peer(name, found, _PEERS[name])
        print(result.summary())
        agree = agree and result.compared > 0 and not result.differing
    return agree


def main() -> int:
    """The command line; 0 where all agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="images to compare")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1800, help="at most")
    parser.add_argument("--coverage", action="store_true", help="print what was reached")
    parser.add_argument("--steps", action="store_true", help="apply layers one by one, each to what is on disk")
    parser.add_argument("--stacks", action="store_true", help="apply each layer to an overlay of those below it; root")
    parser.add_argument("--peers", action="store_true", help="compare umoci and buildah as well")
    options = parser.parse_args()
    require()
    compare.in_steps = options.steps
    compare.in_stacks = options.stacks
    # leave nothing in memory for who stops the run
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    try:
        tally = run(options.n, options.seed, options.seconds)
    except Found as found:
        print(f"product and model disagree (seed {options.seed}):\n{found}")
        return 1
    except KeyboardInterrupt:
        print("stopped")
        return 130
    print(f"{tally.summary()}, {time.monotonic() - start:.0f} s, seed {options.seed}")
    if options.coverage:
        print(tally.coverage())
    if options.peers and not compare_peers(options.seed):
        return 1
    if tally.images < options.n:
        print(f"only {tally.images} of {options.n} images in {options.seconds:.0f} s")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

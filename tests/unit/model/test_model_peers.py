# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other tools against the model (docs/behaviour.md, sections 4 and 5), and what they are never given."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.model import model, peers
from ansible_collections.hypervisor.oci.tests.model.generator import Image
from ansible_collections.hypervisor.oci.tests.model.model import Options, Thing
from ansible_collections.hypervisor.oci.tests.model.run import run_batch


def _image(*names: bytes) -> Image:
    return Image((tuple(Thing(model.FILE, name) for name in names),), Options())


@pytest.mark.parametrize("name", [b".wh...", b"a/.wh...", b"./a/b/.wh.../", b"/.wh...//"])
def test_no_peer_sees_the_parent_whiteout(name: bytes) -> None:
    """Section 5: `.wh...`; one of them deletes the folder above its root for it."""
    image = _image(b"a/b/c", name)
    for peer in peers.KNOWN:
        result = peers.run_peer(peer, [image], 1) if peer in peers.installed() else None
        assert result is None or result.left_out == {"'.wh...'": 1}
        assert peers.left_out(peer, image, ()) == "'.wh...'"
    assert peers.left_out("umoci", _image(b"a", b".wh.....", b"b"), ()) == ""


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ("parent made: nothing behind a link", ""),
        ("parent made: fifo", "other parents"),
        ("whiteout: of lower directory, holding lower", ""),
        ("whiteout: of lower directory, holding lower and own", "mixed directory"),
    ],
)
def test_left_out(event: str, why: str) -> None:
    """Only what is known to differ is left out."""
    assert peers.left_out("umoci", _image(b"a"), [event]) == why


@pytest.mark.skipif("umoci" not in peers.installed(), reason="needs root and umoci installed")
def test_umoci_agrees() -> None:
    """Sections 4 and 5: the common ground, on a few generated images."""
    images: list[Image] = []
    run_batch(5, 60, images.append)
    result = peers.run_peer("umoci", images, 20)
    assert (result.compared, result.differing) == (20, []), result.summary()


def test_tame_agrees_with_itself() -> None:
    """What a peer is given has no entry that the model refuses, and links with their files' metadata."""
    layer: t.Sequence[Thing] = (
        Thing(model.FILE, b"a", mode=0o100600),
        Thing(model.HARD_LINK, b"b", link=b"a"),
        Thing(model.HARD_LINK, b"c", link=b"nothing"),
    )
    tamed = peers.tame(Image((tuple(layer),), Options()), "umoci")
    names = [thing.name for thing in tamed.layers[1]]
    assert names == [b"a", b"b"]
    assert [thing.mode for thing in tamed.layers[1]] == [0o600, 0o600]

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node does about signatures by itself (docs/behaviour.md, section 12)."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError, MissingLibraryError, OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image import selection
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import provision
from ansible_collections.hypervisor.oci.plugins.module_utils._signature import keys
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import run, without_waiting

pytest.importorskip("cryptography", reason="signatures need the Python library cryptography")

from ansible_collections.hypervisor.oci.tests.images import (
    signatures,
)  # noqa: E402 pylint: disable=wrong-import-position

BY = signatures.signer()
IMAGE = Image([Layer(file("f", "f"))])
OTHER = Image([Layer(file("f", "g"))])


@pytest.fixture(name="src", autouse=True)
def fixture_src(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A signed image."""
    without_waiting(monkeypatch)
    return write_oci_archive(tmp_path / "i.tar", IMAGE, signatures.tagged(IMAGE, BY))


def without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the library one that is not installed."""
    for name in [*sys.modules]:
        if name.split(".")[0] == "cryptography":
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)


def verdict_about(image: Image, platform: str = "linux/amd64") -> dict[str, t.Any]:
    """What the controller says of an image that is signed."""
    key = keys.parse_key(BY.public_pem, "the key").fingerprint
    approval = {"signers": {key: [signatures.REFERENCE]}, "platform": platform}
    return {"approvals": {image.digest: approval}, "errors": {}}


def test_a_verdict_needs_no_library(tmp_path: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = verdict_about(IMAGE)
    without_cryptography(monkeypatch)
    task: dict[str, t.Any] = {"src": src, "signature_keys": [BY.public_pem]}
    assert run(tmp_path / "x", _verdict=verdict, **task)["changed"]
    # the record is enough
    assert not run(tmp_path / "x", **task)["changed"]
    with pytest.raises(MissingLibraryError, match="cryptography"):
        run(tmp_path / "y", **task)
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize(("image", "platform"), [(OTHER, "linux/amd64"), (IMAGE, "linux/arm64")])
def test_nothing_but_what_the_verdict_approves(tmp_path: Path, src: str, image: Image, platform: str) -> None:
    """Not even a signed image, since the node does not look for itself."""
    with pytest.raises(ImageError, match="not among those that were verified"):
        run(tmp_path / "x", src=src, signature_keys=[BY.public_pem], _verdict=verdict_about(image, platform))
    assert not (tmp_path / "x").exists()


def test_a_source_that_changes_after_the_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image that was verified is the one that is unpacked."""
    contents = [IMAGE.listed(ref="web:1"), OTHER.listed(ref="other:1"), signatures.tagged(IMAGE, BY)]
    src = write_oci_archive(tmp_path / "two.tar", *contents)
    monkeypatch.setattr(
        provision, "select_image", lambda source, _ref, *further: selection.select_image(source, "other:1", *further)
    )
    with pytest.raises(ImageError, match="not among those that were verified"):
        run(tmp_path / "x", src=src, ref="web:1", signature_keys=[BY.public_pem])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        ("nothing", "not a public key"),
        ("-----BEGIN PUBLIC KEY-----\\nA\\n-----END PUBLIC KEY-----\\n", "not a public key"),
    ],
)
def test_keys_that_only_a_broken_controller_sends(tmp_path: Path, src: str, pem: str, words: str) -> None:
    with pytest.raises(OciError, match=words):
        run(tmp_path / "x", src=src, signature_keys=[pem.replace("\\n", "\n")])

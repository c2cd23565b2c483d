# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node believes of an offer, and of what is sent to it (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._source import offer
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import (
    Offer,
    OfferSource,
    read_offer,
    unpack_offer,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sent import SentBlob, upload_name

HEX = "0123456789abcdef" * 4
BLOB = f"blobs/sha256/{HEX}"


def packed(head: t.Any, documents: bytes = b"") -> bytes:
    """An offer's file as no controller of ours makes it."""
    return gzip.compress(json.dumps(head).encode() + b"\n" + documents)


def head(**fields: t.Any) -> dict[str, t.Any]:
    """The line of JSON of a right one, with other fields."""
    plain = {"format": 3, "form": "archive", "path": "/i.tar", "pinned": "", "scope": ""}
    plain = {**plain, "documents": [], "layers": {}, "sizes": {}, "problems": {}}
    return {**plain, **fields}


def source(**fields: t.Any) -> OfferSource:
    """A source of an offer with these fields."""
    return OfferSource(Offer("archive", "/i.tar", **fields), 0, 0)


# -- the file


def test_an_offer_is_read_as_it_was_packed() -> None:
    data = packed(
        head(
            documents=[["index.json", 2], ["a", 0], ["b", 3]],
            layers={"blobs/y": 7},
            sizes={"blobs/x": 5, "\udcff": 0},
            problems={"c": "no"},
            pinned="sha256:p",
        ),
        b"{}\xff\n\0",
    )
    assert unpack_offer(data, "x") == Offer(
        "archive",
        "/i.tar",
        {"index.json": b"{}", "a": b"", "b": b"\xff\n\0"},
        {"blobs/y": 7},
        {"blobs/x": 5, "\udcff": 0},
        {"c": "no"},
        "sha256:p",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        packed(head())[:-1],
        gzip.compress(b"no line"),
        gzip.compress(b"{\n"),
        packed([]),
        packed(head(format=1)),
        packed(head(documents=[["a", 2]]), b"1"),
        packed(head(), b"1"),
        packed(head(documents=[["a", -1]])),
        packed(head(documents=[["a"]])),
        packed(head(documents=None)),
        packed(head(sizes={"a": "b"})),
        packed(head(sizes=[1])),
        packed(head(problems=3)),
        packed({"format": 2}),
        packed(head(layers=[1])),
        packed(head(layers={"a": "b"})),
        gzip.compress(b"[" * 100_000 + b"\n"),
    ],
    ids=lambda data: str(len(data)),
)
def test_a_damaged_offer_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="'the file' from the controller is damaged"):
        unpack_offer(data, "the file")


def test_an_offer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(head(documents=[["a", 5000]]), bytes(5000))
    assert len(unpack_offer(data, "x").documents["a"]) == 5000
    monkeypatch.setattr(offer, "LIMIT", 5000)
    with pytest.raises(SourceError, match="too large"):
        unpack_offer(data, "x")


def test_whose_file_it_is(tmp_path: Path) -> None:
    path = tmp_path / "offer"
    path.write_bytes(packed(head()))
    found, status = read_offer(str(path))
    assert found.path == "/i.tar"
    assert status.st_uid == os.geteuid()


def test_an_offer_must_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is followed and nothing waited for."""
    path = tmp_path / "offer"
    for make in (lambda: None, lambda: os.mkfifo(path), lambda: path.symlink_to("/etc/passwd")):  # fmt: skip
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        make()
        with pytest.raises(SourceError, match="offer"):
            read_offer(str(path))
    path.unlink()
    path.write_bytes(packed(head()))
    monkeypatch.setattr(offer, "LIMIT", 10)
    with pytest.raises(SourceError, match="is not a regular file of at most"):
        read_offer(str(path))


# -- the source


def test_documents_are_the_offers() -> None:
    given = source(documents={"index.json": b"{}"}, sizes={BLOB: 7}, problems={"bad": "it is bad"})
    assert given.document("index.json") == b"{}"
    assert given.size_of("index.json") == 2
    assert given.size_of(BLOB) == 7
    assert given.size_of("other") is None
    # its one value counts 32 more
    assert given.documents_size == 2 + 32
    for ask in (given.size_of, given.document):
        with pytest.raises(SourceError, match="^it is bad$"):
            ask("bad")
    for name in (BLOB, "other"):
        with pytest.raises(SourceError, match="holds no"):
            given.document(name)
    assert given.spool(0) is given
    given.close()


def test_documents_are_bounded_as_in_every_source() -> None:
    given = source(documents={"a": bytes(4 * 1024 * 1024 + 1)})
    with pytest.raises(SourceError, match="more than 4194304, a fixed limit"):
        given.document("a")


def test_blobs_are_read_from_their_folder(tmp_path: Path) -> None:
    (tmp_path / upload_name(BLOB)).write_bytes(b"layer")
    given = source(sizes={BLOB: 5, "else": 3})
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(SourceError, match="did not arrive"):
        given.open(BLOB)
    given.receive_from({BLOB: SentBlob(fd, upload_name(BLOB), 0, 5), "else": SentBlob(fd, "else", 0, 4)})  # fmt: skip
    with contextlib.closing(given.open(BLOB)) as reader:
        assert reader.read() == b"layer"
    for name in ("else", "unknown"):
        with pytest.raises(SourceError, match="did not arrive"):
            given.open(name)
    os.close(fd)

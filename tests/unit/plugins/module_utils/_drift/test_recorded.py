# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Journals replayed, also damaged and hostile ones (docs/behaviour.md, section 17)."""

from __future__ import annotations

import random
import struct
import typing as t
import zlib

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._drift import recorded
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.recorded import JournalError, Recorded, replay
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import journal as events
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Attributes
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.journal import Journal

FILE = Attributes(0o644, 1, 2, 3, {})
FOLDER = Attributes(0o755, 0, 0, 4, {})


def journal(act: t.Callable[[Journal], t.Any]) -> bytes:
    """What is noted of one layer."""
    noted = Journal()
    noted.begin_layer(0)
    act(noted)
    made = noted.finish()
    assert made is not None
    return made


def paths(tree: Recorded) -> dict[str, int]:
    """Every object by its path."""
    found: dict[str, int] = {}
    pending = [("", tree.top)]
    while pending:
        folder, number = pending.pop()
        for name, below in tree.folders[number].items():
            found[f"{folder}/{name}"] = below
            if below in tree.folders:
                pending.append((f"{folder}/{name}", below))
    return found


def some(noted: Journal) -> None:
    noted.entry = 1
    folder = noted.directory(events.MAKE_DIRECTORY, events.TOP, b"d")
    noted.note(events.FILE, folder, b"f", FILE, 7)
    noted.entry = 2
    noted.note(events.SYMLINK, folder, b"s/../x/y", FILE)
    noted.note(events.CHARACTER_DEVICE, events.TOP, b"null", FILE, 259)
    noted.link(folder, b"f", events.TOP, b"g")
    noted.note(events.FILE, events.TOP, b"gone", FILE)
    noted.note(events.REMOVE, events.TOP, b"gone")
    noted.note(events.FINISH_DIRECTORY, folder, b"", FOLDER)


def test_what_was_noted() -> None:
    tree = replay([journal(some)])
    found = paths(tree)
    assert set(found) == {"/d", "/d/f", "/d/s", "/null", "/g"}
    assert found["/d/f"] == found["/g"]
    assert found["/g"] in tree.linked
    assert tree.attributes(found["/d/f"]) == (0o100644, 1, 2)
    assert tree.attributes(found["/d"]) == (0o040755, 0, 0)
    assert tree.attributes(found["/d/s"]) == (0o120777, 1, 2)
    assert tree.texts[found["/d/s"]] == "../x/y"
    assert (tree.sizes[found["/d/f"]], tree.sizes[found["/null"]], tree.times[found["/d/f"]]) == (7, 259, 3)
    assert (tree.sources[found["/d/f"]], tree.sources[found["/d/s"]]) == (1, 2)


def test_layers_on_top_of_each_other() -> None:
    """As a store keeps them: each has numbers of its own."""

    def upper(noted: Journal) -> None:
        noted.begin_layer(5)
        noted.entry = 6
        noted.note(events.FILE, events.TOP, b"first", FILE)
        folder = noted.directory(events.LOWER_DIRECTORY, events.TOP, b"d")
        noted.note(events.FILE, folder, b"new", FILE)
        noted.note(events.REMOVE, folder, b"f")
        noted.link(events.TOP, b"g", folder, b"h")

    tree = replay([journal(some), journal(upper)])
    found = paths(tree)
    assert set(found) == {"/d", "/d/s", "/null", "/g", "/first", "/d/new", "/d/h"}
    assert found["/d/h"] == found["/g"]
    assert tree.sources[found["/d/new"]] == 6
    assert tree.layers == [0, 0, 5]


def test_many_events() -> None:
    """More than one chunk, and few bytes for each."""

    def many(noted: Journal) -> None:
        for number in range(10_000):
            noted.entry += 1
            noted.note(events.FILE, events.TOP, b"file-%06d.js" % number, FILE._replace(mtime=number), number % 7000)

    data = journal(many)
    assert len(data) < 20 * 10_000
    tree = replay([data])
    found = paths(tree)
    assert len(found) == 10_000
    assert tree.sizes[found["/file-009999.js"]] == 2999
    assert tree.sources[found["/file-009999.js"]] == 10_000


def test_many_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than are remembered."""
    monkeypatch.setattr(events, "_MOST_STYLES", 3)

    def many(noted: Journal) -> None:
        for number in range(5000):
            noted.note(events.FILE, events.TOP, b"%d" % number, FILE._replace(uid=number % 7))

    tree = replay([journal(many)])
    assert {name: tree.attributes(number)[1] for name, number in paths(tree).items()} == {
        f"/{number}": number % 7 for number in range(5000)
    }


def test_names_that_cost_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that grows too large is given up, not kept in part."""
    monkeypatch.setattr(events, "_MOST_BYTES", 10_000)
    noted = Journal()
    rng = random.Random(1)
    for _number in range(20_000):
        noted.note(events.FILE, events.TOP, b"%0200x" % rng.getrandbits(800), FILE)
    assert noted.finish() is None


def test_times_beyond_all_bounds() -> None:
    data = journal(lambda noted: noted.note(events.FILE, 0, b"f", FILE._replace(mtime=2**80)))
    tree = replay([data])
    assert tree.times[paths(tree)["/f"]] == 2**63 - 1


def raw(*chunks: bytes) -> bytes:
    return events.MAGIC + zlib.compress(b"".join(chunks))


def chunk(kind: int, place: int, name: bytes, mode: int = 0o644, count: int = 1, added: int = 1) -> bytes:
    """One event, as it is stored."""
    return b"".join(
        [
            events.CHUNK_HEADER.pack(count, len(name), added),
            events.STYLE.pack(mode, 0, 0),
            bytes([kind]),
            struct.pack("<III", place, 0, 1),
            struct.pack("<Qq", 0, 0),
            name,
        ]
    )


def test_the_stored_form_is_what_these_tests_think() -> None:
    assert set(paths(replay([raw(chunk(events.FILE, 0, b"f"))]))) == {"/f"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        events.MAGIC,
        events.MAGIC + b"x" * 100,
        raw(chunk(events.FILE, 0, b"f"))[:-10],
        raw(chunk(events.FILE, 7, b"f")),
        raw(chunk(events.LOWER_DIRECTORY, 0, b"f")),
        raw(chunk(events.FILE, 0, b"f"), chunk(events.LOWER_DIRECTORY, 0, b"f", added=1)),
        raw(chunk(events.LINK_FROM, 0, b"f")),
        raw(chunk(events.LINK, 0, b"f")),
        raw(chunk(events.MAKE_DIRECTORY, 0, b"f"), chunk(events.LINK_FROM, 0, b"f"), chunk(events.LINK, 2, b"g")),
        raw(chunk(events.FINISH_DIRECTORY, 9, b"")),
        raw(chunk(events.LAST_KIND + 1, 0, b"f")),
        raw(chunk(events.FILE, 0, b"f", mode=0o100644)),
        raw(chunk(events.FILE, 0, b"a\0b")),
        raw(chunk(events.FILE, 0, b"f", count=2**31)),
        raw(chunk(events.FILE, 0, b"f", count=0)),
        raw(events.CHUNK_HEADER.pack(1, 2**32 - 1, 0)),
        raw(chunk(events.XATTRS, 0, b"\xff\xfe")),
    ],
)
def test_damaged_journals(data: bytes) -> None:
    with pytest.raises(JournalError):
        replay([data])


def test_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and events are bounded, whatever a journal decompresses to."""
    one = chunk(events.FILE, 0, b"f")
    monkeypatch.setattr(recorded, "_MOST_BYTES", 10 * len(one))
    with pytest.raises(JournalError, match="holds more than"):
        replay([raw(one * 1000)])
    with pytest.raises(JournalError, match="holds more than"):
        replay([raw(one * 6), raw(one * 6)])
    monkeypatch.setattr(recorded, "_MOST_BYTES", 2**30)
    monkeypatch.setattr(recorded, "_MOST_EVENTS", 10)
    with pytest.raises(JournalError, match="more than 10 events"):
        replay([raw(one * 20)])


def test_random_damage_is_an_error_or_a_tree() -> None:
    """Nothing else comes of it, whatever bytes are changed."""
    good = journal(some)
    plain = zlib.decompress(good[len(events.MAGIC) :])
    rng = random.Random(7)
    refused = 0
    for _number in range(3000):
        damaged = bytearray(plain)
        for _change in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            paths_of = replay([events.MAGIC + zlib.compress(bytes(damaged), 1)])
        except JournalError:
            refused += 1
        else:
            assert len(paths(paths_of)) < 10
    assert 100 < refused < 3000

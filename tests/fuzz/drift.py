# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Damaged papers of a tree: the journal of what was written, and the list of files that were compared since.

They lie in a closed folder, but a disk, a backup or another program may have damaged them (docs/behaviour.md, section 17).
An input is ``DRIFT``, the letter of a paper, and its bytes; the image is always the same.
"""

from __future__ import annotations

import zlib
from random import Random

from ansible_collections.hypervisor.oci.plugins.module_utils._drift.proven import to_bytes
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import journal as events
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Attributes
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.journal import Journal
from ansible_collections.hypervisor.oci.tests.fuzz import mutate
from ansible_collections.hypervisor.oci.tests.fuzz.mutate import pick
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    directory,
    fifo,
    file,
    hardlink,
    oci_archive,
    symlink,
)

# What such an input begins with, and the letters of the papers with the ends of their names.
DRIFT = b"drift\n"
PAPERS = {b"j": ".journal", b"p": ".proven"}

_LAYERS = (
    Layer(directory("d", 0o755, mtime=5), file("d/f", b"one", mtime=5), hardlink("d/g", "d/f"), file("gone", b"x")),
    Layer(file("d/h", b"two", 0o4755, mtime=5), symlink("s", "d", mtime=5), fifo("p", mtime=5)),
)
_NAMES = (
    *(b"d", b"f", b"g", b"h", b"s", b"p", b"gone", b"new", b"s/d", b"s/../..", b"d/f"),
    *(
        b"",
        b".",
        b"..",
        b"/",
        b"/etc",
        b"../target",
        b"a/../b",
        b"\xff\xfe",
        b"\x1b[2J",
        b"x" * 300,
        b".oci_rootfs-repair",
    ),
)
_SIZES = (0, 1, 3, 3, 3, 2**31, 2**63, 2**64 - 1)
_TIMES = (0, 5_000_000_000, 5_000_000_000, -1, 2**63 - 1, -(2**63))
_MODES = (0o644, 0o644, 0o755, 0o755, 0o4755, 0o7777, 0o10000, 2**32 - 1)
_IDS = (0, 0, 0, 1000, 2**31, 2**32 - 1)


def archive() -> bytes:
    """The image whose tree is compared."""
    return oci_archive(Image(_LAYERS, ref="fuzz:1"))


def damaged(random: Random) -> bytes:
    """An input."""
    how = random.randrange(8)
    if how == 0:
        return DRIFT + b"p" + _proven(random)
    if how == 1:
        return DRIFT + b"j" + mutate.blinds(random, whole())
    if how < 5:
        chunks = zlib.decompress(whole()[len(events.MAGIC) :])
        return DRIFT + b"j" + events.MAGIC + zlib.compress(mutate.blinds(random, chunks))
    return DRIFT + b"j" + _events(random)


def whole() -> bytes:
    """A journal as that of the image's tree."""
    noted = Journal()
    noted.begin_layer(0)
    noted.entry = 1
    folder = noted.directory(events.MAKE_DIRECTORY, events.TOP, b"d")
    noted.note(events.FINISH_DIRECTORY, folder, b"", Attributes(0o755, 0, 0, 5_000_000_000, {}))
    noted.entry = 2
    noted.note(events.FILE, folder, b"f", Attributes(0o644, 0, 0, 5_000_000_000, {}), 3)
    noted.link(folder, b"f", folder, b"g")
    noted.entry = 4
    noted.note(events.FILE, events.TOP, b"gone", Attributes(0o644, 0, 0, 0, {}), 1)
    noted.begin_layer(4)
    noted.entry = 5
    noted.note(events.FILE, folder, b"h", Attributes(0o4755, 0, 0, 5_000_000_000, {}), 3)
    noted.entry = 6
    noted.note(events.SYMLINK, events.TOP, b"s/d", Attributes(0o777, 0, 0, 5_000_000_000, {}))
    noted.entry = 7
    noted.note(events.FIFO, events.TOP, b"p", Attributes(0o644, 0, 0, 5_000_000_000, {}))
    return noted.finish() or b""


def _proven(random: Random) -> bytes:
    known = {pick(random, (0, 1, 2, 7, 2**32 - 1)): (pick(random, _TIMES), pick(random, _TIMES)) for _each in range(9)}
    data = to_bytes(known)
    head = data.index(b"\n") + 1
    if random.random() < 0.5:
        return mutate.blinds(random, data)
    return data[:head] + zlib.compress(mutate.blinds(random, zlib.decompress(data[head:])))


def _events(random: Random) -> bytes:
    """Events in an order that no image gives, most of places that are there."""
    noted = Journal()
    noted.begin_layer(0)
    places = 2
    for number in range(random.randrange(40)):
        noted.entry = random.randrange(9) if random.random() < 0.9 else random.randrange(2**32)
        kind = random.randrange(events.LAST_KIND + 1)
        place = random.randrange(places) if random.random() < 0.95 else random.randrange(2**32)
        mode, uid, gid = pick(random, _MODES), pick(random, _IDS), pick(random, _IDS)
        attributes = Attributes(mode, uid, gid, pick(random, _TIMES), {})
        places += kind in (events.MAKE_DIRECTORY, events.LOWER_DIRECTORY)
        noted.note(kind, place, _name(random, kind, number), attributes, pick(random, _SIZES))
    return noted.finish() or b""


def _name(random: Random, kind: int, number: int) -> bytes:
    if kind == events.XATTRS:
        return pick(random, (b"0" * 48, b"f" * 48, b"", b"x", b"\xff" * 48))
    return pick(random, _NAMES) if random.random() < 0.7 else b"n%d" % number

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images for the model and the product: few names and little depth, so that things collide all the time.

An entry is six numbers that choose from the tables below, simplest first: that is fast, and shrinks well. Names
are often those of what is there already, or lie below it.
"""

from __future__ import annotations

import itertools
import os
import random
import typing as t
from dataclasses import dataclass

from ansible_collections.hypervisor.oci.tests.model import model
from ansible_collections.hypervisor.oci.tests.model.model import (
    BLOCK,
    CAPABILITY,
    CHAR,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SOCKET,
    SYMLINK,
    Directory,
    Model,
    ModelError,
    Options,
    Thing,
)
from ansible_collections.hypervisor.oci.tests.images.builder import SHAPES
from hypothesis import strategies as st


@dataclass(frozen=True, repr=False)
class Image:
    """What is unpacked: layers from the lowest up, and how.

    With a ``shape``, one of the builder's ``SHAPES``, the product gets an archive of that kind; without, its layers alone.
    """

    layers: tuple[tuple[Thing, ...], ...]
    options: Options
    shape: str = ""

    def __repr__(self) -> str:
        # hypothesis would print every byte; C(compare.to_code) shows an image
        return f"<image of {len(self.layers)} layers>"


def _weighted(*pairs: tuple[int, t.Sequence[t.Any]]) -> list[t.Any]:
    """Each of a sequence's values that many times, in the order given."""
    return [value for weight, values in pairs for value in values for _time in range(weight)]


_LONG = b"n" * 255
_ODD_NAMES = [
    b"\xff\xfe",
    b"two words",
    b" ",
    b"new\nline",
    b"-",
    b"..a",
    b"...",
    b"a.wh.b",
    b".wh",
    "n\u00e4me".encode(),
    b"n" * 120,
    _LONG,
]
_PLAIN = [b"a", b"b", b"c"]


def _paths(depth: int) -> list[bytes]:
    return [b"/".join(parts) for parts in itertools.product(_PLAIN, repeat=depth)]


_NAMES = _weighted(
    (12, [b"a", b"b", b"c", b"d"]),
    (4, _paths(2)),
    (1, [b"d/a", b"d/b", b"a/d", b"b/d", b"d/d"]),
    (1, _paths(3)),
    (1, _paths(4)[::5]),
    (1, _ODD_NAMES),
    (1, [b"a/" + name for name in _ODD_NAMES]),
    (1, [name + b"/b" for name in _ODD_NAMES]),
)

# From this number on, an entry is aimed at what is there.
_AIMED = 48
_BELOW = _weighted((6, [b""]), (1, [b"/a", b"/b", b"/a/b"]))

# From this number on, a link leads to a directory that is there.
_TO_DIRECTORY = 160

_LINKABLE = (FILE, SYMLINK, CHAR, BLOCK, FIFO)
_ANY = (*_LINKABLE, DIRECTORY)
_DIRECTORY_ONLY = (DIRECTORY,)

# How an archive may write a name without changing what it means.
_FORMS: list[t.Callable[[bytes], bytes]] = _weighted(
    (14, [lambda name: name]),
    (2, [lambda name: b"./" + name, lambda name: b"/" + name]),
    (
        1,
        [
            lambda name: name.replace(b"/", b"//"),
            lambda name: name + b"/",
            lambda name: name.replace(b"/", b"/./") + b"/.",
            lambda name: b"//./" + name + b"//",
        ],
    ),
)

_ROOTS = [b"./", b".", b"/", b"//", b"/./"]

_BAD_NAMES = [
    b"",
    b"..",
    b"../a",
    b"a/../b",
    b"a/..",
    b"n" * 256,
    b"a/" + b"n" * 256 + b"/b",
    b".wh." + b"n" * 252,
    b"a\0b",
    b".wh.a/b",
    b"a/.wh.b/c",
    b".wh./a",
    b".wh../a",
    b".wh.../a",
    b".wh..wh..opq/a",
    b".wh.",
    b"a/.wh.",
]

_TEXTS = _weighted(
    (6, [b"a", b"b", b"c", b"d"]),
    (3, [b"/a", b"/b", b"/c", b"../a", b"../b", b"a/b", b"b/a", b"/a/b", b"/b/a"]),
    (
        1,
        [
            b".",
            b"/",
            b"..",
            b"../..",
            b"../../../a",
            b"../../../../../../b",
            b"./a",
            b"a/.",
            b"b/",
            b"a/..",
            b"a/../b",
            b"b/../../c",
            b"/../a",
            b"/a/../b",
            b"c/../c/../c/a",
            b"//a//b//",
            b"d/d/d",
            b"/d/x/y",
            b"nothing",
            b"nothing/../a",
            b"/nothing/here",
            b"/etc/passwd",
            b"/proc/self/root",
            b"/dev/null/x",
            b"\xff\xfe",
            b"new\nline",
            b"a/" * 50 + b"b",
            b"./" * 60 + b"c",
            b"a/../" * 45 + b"b",
            _LONG,
            b"n" * 256,
            b"x/" + b"n" * 300,
            b".wh.a",
            b"a/.wh..wh..opq/b",
            b".wh..wh.plnk",
            b"/.wh..wh.plnk/a",
        ],
    ),
)
# What a hard link of AUFS names.
_KEPT_ASIDE = [b".wh..wh.plnk/a"] * 20
_BAD_TEXTS = [b"", b"n/" * 2200]

_DATA = [b"", *(b"%d" % number for number in range(40)), b"x" * 511, b"y" * 70_000]

_DEVICES = [(1, 3), (1, 5), (5, 0), (5, 2), (0, 0), (1, 1), (7, 0), (4, 64), (8, 1)]

_HIDDEN = [b"a", b"b", b"c", b"d", b"n" * 251, b"\xff\xfe", b"two words"]
_MARKS = _weighted(
    (10, [b".wh." + name for name in _HIDDEN[:4]]),
    (1, [b".wh." + name for name in _HIDDEN[4:]]),
    (16, [b".wh..wh..opq"]),
    (8, [b".wh.."]),
    (3, [b".wh...", b".wh..wh..opq/a", b".wh..wh.plnk/a"]),
    (1, [b".wh..wh.plnk", b".wh..wh.aufs", b".wh..wh.", b".wh..wh.plnk/b/c", b".wh.....", b".wh.wh.a"]),
)
_MARK_FOLDERS = _weighted(
    (14, [b""]),
    (10, [b"a/", b"b/", b"c/"]),
    (2, [path + b"/" for path in _paths(2)]),
    (1, [b"d/", b"a/b/c/", b"c/b/a/", b"./", b"/", b"/a/", b"a//"]),
)

_CAP_SETS = b"\x00\x00" + b"\x00\x20\x00\x00" + bytes(12)
_CAP_V2 = b"\x01\x00\x00\x02" + _CAP_SETS[2:]
_CAP_V3 = b"\x01\x00\x00\x03" + _CAP_SETS[2:]
_USER_XATTRS = [
    ((b"user.a", b"1"),),
    ((b"user.b", b"\0\xff\n="), (b"user.a", b"")),
    ((b"user.a", b"2"), (b"user.n\xff", b"x" * 300)),
]
_OTHER_XATTRS = [
    ((b"user.overlay.opaque", b"y"), (b"user.c", b"3")),
    ((b"trusted.overlay.opaque", b"y"),),
    ((b"trusted.named", b"n"), (b"trusted.other", b"o")),
    ((b"security.selinux", b"label"),),
]
_CAPABILITIES = [
    ((CAPABILITY, _CAP_V2),),
    ((CAPABILITY, _CAP_V3 + bytes(4)), (b"user.a", b"4")),
    ((CAPABILITY, _CAP_V3 + b"\x05\0\0\0"),),
]
_BAD_CAPABILITIES = [
    ((CAPABILITY, b""),),
    ((CAPABILITY, _CAP_V2 + b"\0"),),
    ((CAPABILITY, _CAP_V3 + b"\xff\xff\xff\xff"),),
]

_MODES = _weighted(
    (6, [0o644, 0o755, 0o700, 0o600]),
    (2, [0o4755, 0o2755, 0o1777, 0o6711, 0o777, 0o000, 0o444, 0o7777]),
    (1, [0o100644, 0o2644, 0o4000, 0o111]),
)
_IDS = _weighted((6, [0]), (3, [1, 1000, 65534]), (1, [65535, 65536, 2097151, 2097152, 2**31, 2**32 - 2]))
_TIMES = _weighted(
    (3, [0, 1_700_000_000 * 10**9, 1_700_000_000_123_456_789]),
    (1, [1, -1, -(10**9), -1_500_000_000, -(2**31) * 10**9 + 1, 2**32 * 10**9 + 999_999_999]),
    (1, [8**11 * 10**9, 12_345_678_900, 1_600_000_000_500_000_000]),
)


def _metadata() -> list[dict[str, t.Any]]:
    """Many mixtures of mode, ids, time and xattrs; the first is plain."""
    chance = random.Random(4)
    found: list[dict[str, t.Any]] = [{}]
    for number in range(240):
        xattrs: model.Xattrs = ()
        if number % 3 == 0:
            xattrs = chance.choice(_weighted((3, _USER_XATTRS), (2, _CAPABILITIES), (1, _OTHER_XATTRS)))
        found.append(
            {
                "mode": chance.choice(_MODES),
                "uid": chance.choice(_IDS),
                "gid": chance.choice(_IDS),
                "mtime": chance.choice(_TIMES),
                "xattrs": xattrs,
            }
        )
    found += [{"xattrs": xattrs} for xattrs in _BAD_CAPABILITIES]
    found += [{"uid": 2**32 - 1}, {"gid": 2**40}]
    return found


_METADATA = _metadata()

_KINDS = _weighted(
    (9, [FILE, DIRECTORY, SYMLINK]),
    (7, ["existing", "whiteout", "marked"]),
    (2, [HARD_LINK, FIFO, CHAR, "over a link"]),
    (1, [BLOCK, "root", "bad name", "bad name", "bad link", SOCKET]),
)

_MAPS: dict[str, t.Any] = {
    "uid_map": ((0, 100_000, 1001), (65_534, 165_534, 1), (65_536, 200_000, 10)),
    "gid_map": ((0, 300_000, 65_536),),
}
_ROOT_OPTIONS = _weighted(
    (8, [Options()]),
    (3, [Options(devices="create")]),
    (1, [Options(devices="skip"), Options(devices="fail")]),
    (6, [Options(devices="create", keep_dirlinks=True)]),
    (2, [Options(xattrs=(b"trusted.named",))]),
    (3, [Options(devices="create", **_MAPS), Options(devices="skip", **_MAPS)]),
    (2, [Options(devices="skip", preserve=False)]),
)
_OTHER_OPTIONS = [
    Options(devices=devices, keep_dirlinks=kept, preserve=False, caller=(os.geteuid(), os.getegid()))
    for kept in (False, True)
    for devices in ("skip", "fail")
]


def _thing(probe: Model, choice: tuple[str, int, int, int, int, int]) -> Thing:
    """An entry; ``probe`` holds what is there when it comes."""
    kind, name_number, form_number, metadata, extra, aim = choice
    name = _NAMES[name_number]
    if aim >= _AIMED:
        # at one of the things that are there, or below it
        aimed_at = _DIRECTORY_ONLY if kind == "whiteout" and extra % 2 else _ANY
        paths = _paths_of(probe.top, aimed_at)
        if paths:
            name = paths[aim % len(paths)] + _BELOW[aim % len(_BELOW)]
    form = _FORMS[form_number]
    attributes: dict[str, t.Any] = dict(_METADATA[metadata])
    attributes["name"] = form(name)
    if kind in (FILE, SYMLINK, CHAR, BLOCK, FIFO, SOCKET):
        attributes["kind"] = kind
    if kind == FILE:
        attributes["data"] = _DATA[extra % len(_DATA)]
    elif kind == SYMLINK:
        attributes["link"] = _TEXTS[extra % len(_TEXTS)]
        directories = _paths_of(probe.top, _DIRECTORY_ONLY)
        if extra >= _TO_DIRECTORY and directories:
            attributes["link"] = b"/" + directories[extra % len(directories)]
    elif kind in (CHAR, BLOCK):
        attributes["device"] = _DEVICES[extra % len(_DEVICES)]
    elif kind in (DIRECTORY, "over a link"):
        links = _paths_of(probe.top, [SYMLINK]) if kind != DIRECTORY else []
        if links:
            attributes["name"] = links[extra % len(links)]
        attributes["kind"] = DIRECTORY
        attributes.setdefault("mode", 0o755)
    elif kind == "existing":
        aside = [b".wh..wh.plnk/" + kept for layer, kept in probe.aside if layer == probe.layer]
        # what AUFS kept is linked to, nearly always
        targets = aside if aside and extra % 8 else _paths_of(probe.top, _LINKABLE) or [b"a"]
        # now and then the absolute form
        slash = b"/" if extra % 7 == 6 else b""
        target = slash + targets[extra % len(targets)]
        attributes.update(kind=HARD_LINK, link=target)
    elif kind == HARD_LINK:
        targets = [*_TEXTS, *_ROOTS, *_KEPT_ASIDE]
        attributes.update(kind=HARD_LINK, link=targets[extra % len(targets)])
    elif kind in ("whiteout", "marked"):
        attributes["kind"] = [FILE, FILE, FILE, DIRECTORY, CHAR, SYMLINK][extra % 6]
        if kind == "whiteout":
            # of one of the very names that entries have
            folder, slash, last = name.rpartition(b"/")
            attributes["name"] = form(folder + slash + b".wh." + last[:251])
        else:
            folder = name + b"/"
            if aim < _AIMED:
                folder = _MARK_FOLDERS[name_number % len(_MARK_FOLDERS)]
            attributes["name"] = folder + _MARKS[extra % len(_MARKS)]
        if attributes["kind"] == SYMLINK:
            attributes["link"] = b"a"
    elif kind == "root":
        attributes.update(name=_ROOTS[extra % len(_ROOTS)], kind=DIRECTORY)
        if extra % 16 == 15:
            attributes.update(kind=[FILE, SYMLINK, FIFO][extra // 16 % 3], link=b"a")
    elif kind == "bad name":
        attributes.update(name=_BAD_NAMES[extra % len(_BAD_NAMES)], kind=FILE)
        if name_number % 3 == 2:
            attributes["kind"] = [SYMLINK, FIFO][name_number // 3 % 2]
            attributes["link"] = b"a"
    elif kind == "bad link":
        attributes.update(link=_BAD_TEXTS[extra % len(_BAD_TEXTS)], kind=[SYMLINK, HARD_LINK][extra // 2 % 2])
    if attributes["kind"] == DIRECTORY and not attributes["name"].endswith(b"/"):
        # as every archiver writes them
        attributes["name"] += b"/"
    return Thing(**attributes)


def _numbers(table: t.Sequence[t.Any]) -> st.SearchStrategy[int]:
    return st.integers(0, len(table) - 1)


def _build(choice: tuple[t.Any, int, Options, str]) -> Image:
    """The image of these choices; since an error ends an image, most have their refused entries left out."""
    layers, refusals, options, shape = choice
    probe = Model(options)
    kept: list[tuple[Thing, ...]] = []
    failed = False
    for number, entries in enumerate(layers):
        probe.layer = number
        layer = []
        for entry in entries:
            thing = _thing(probe, entry)
            if not failed:
                try:
                    probe.apply(thing)
                except ModelError:
                    if refusals:
                        continue
                    failed = True
            layer.append(thing)
        kept.append(tuple(layer))
    return Image(tuple(kept), options, shape)


def _paths_of(directory: Directory, kinds: t.Container[str]) -> list[bytes]:
    """The paths of these kinds that are there."""
    found = []
    for name, slot in sorted(directory.children.items()):
        if slot.inode.kind in kinds:
            found.append(name)
        if isinstance(slot.inode, Directory):
            below = _paths_of(slot.inode, kinds)
            found += [name + b"/" + path for path in below]
    return found


_ENTRIES = st.tuples(
    st.sampled_from(_KINDS),
    _numbers(_NAMES),
    _numbers(_FORMS),
    _numbers(_METADATA),
    st.integers(0, 255),
    st.integers(0, 127),
)


# Most images come without an archive, which costs ten times as much.
_SHAPES = _weighted((40, [""]), (1, list(SHAPES)))


def images(most_layers: int = 5, most_entries: int = 10) -> st.SearchStrategy[Image]:
    """Images of one to ``most_layers`` layers, as root or, for who is not, with `ownership: ignore`."""
    options = _ROOT_OPTIONS if os.geteuid() == 0 else _OTHER_OPTIONS
    layers = st.lists(st.lists(_ENTRIES, max_size=most_entries), min_size=1, max_size=most_layers)
    return st.tuples(layers, st.integers(0, 7), st.sampled_from(options), st.sampled_from(_SHAPES)).map(_build)

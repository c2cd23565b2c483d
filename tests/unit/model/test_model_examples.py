# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The model against hand-written trees, and the product against the same ones.

Each case names the section of docs/behaviour.md that it proves. A tree is told in one word per path: ``d`` for a
directory, ``f:CONTENT`` for a file, ``l:TEXT`` for a symlink, ``c:MAJOR:MINOR`` and ``p`` for nodes, each with a mode
where it is not the usual one, and with ``=PATH`` where it is the same inode as an earlier path.
"""

from __future__ import annotations

import os
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.hypervisor.oci.tests.model import compare, model
from ansible_collections.hypervisor.oci.tests.model.generator import Image
from ansible_collections.hypervisor.oci.tests.model.model import ModelError, Options, Record, Thing, Tree, unwatched

Layers = t.Sequence[t.Sequence[Thing]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners, devices and capabilities are for root to give")


def d(name: str, mode: int = 0o755, **more: t.Any) -> Thing:
    """A directory."""
    return Thing(model.DIRECTORY, name.encode() + b"/", mode=mode, **more)


def f(name: str, data: str = "", **more: t.Any) -> Thing:
    """A file."""
    return Thing(model.FILE, name.encode(), data=data.encode(), **more)


def s(name: str, text: str, **more: t.Any) -> Thing:
    """A symlink."""
    return Thing(model.SYMLINK, name.encode(), link=text.encode(), **more)


def h(name: str, target: str, **more: t.Any) -> Thing:
    """A hard link."""
    return Thing(model.HARD_LINK, name.encode(), link=target.encode(), **more)


def c(name: str, major: int, minor: int) -> Thing:
    """A character device."""
    return Thing(model.CHAR, name.encode(), device=(major, minor))


# Section, what it shows, layers, and the tree without its root or the kind of the error.
Case = t.Tuple[str, str, Layers, t.Union[t.Dict[str, str], str]]
CASES: list[Case] = [
    # -- 4: names
    ("4", "'..' in a name", [[f("a/../b")]], ".. in a name"),
    (
        "4",
        "forms of a name are cleaned",
        [[f("./a//b/", "1"), f("/c", "2"), f("//./d/./e", "3")]],
        {"a": "d", "a/b": "f:1", "c": "f:2", "d": "d", "d/e": "f:3"},
    ),
    ("4", "empty name", [[f("")]], "empty name"),
    ("4", "NUL", [[f("a\0b")]], "NUL in a name"),
    ("4", "component of 256 bytes", [[f("n" * 256)]], "name too long"),
    ("4", "component of 255 bytes", [[f("n" * 255, "1")]], {"n" * 255: "f:1"}),
    ("4", "a link as the root", [[s("./", "a")]], "root is no directory"),
    # -- 4: parents
    ("4", "missing parents", [[f("a/b/c")]], {"a": "d", "a/b": "d", "a/b/c": "f:"}),
    (
        "4",
        "a parent is an absolute link to a directory",
        [[d("usr/lib"), s("lib", "/usr/lib"), f("lib/x", "1")]],
        {"usr": "d", "usr/lib": "d", "usr/lib/x": "f:1", "lib": "l:/usr/lib"},
    ),
    (
        "4",
        "links above the root stop there",
        [[s("l", "../../../a"), f("l/x", "1")]],
        {"l": "l:../../../a", "a": "d", "a/x": "f:1"},
    ),
    (
        "4",
        "a parent is a link to nothing",
        [[s("l", "x/../y"), f("l/z")]],
        {"l": "l:x/../y", "x": "d", "y": "d", "y/z": "f:"},
    ),
    ("4", "a parent is a loop", [[s("a", "b"), s("b", "a"), f("a/x")]], "loop of links"),
    ("4", "a parent is a file", [[f("a", "1"), f("a/b", "2")]], {"a": "d", "a/b": "f:2"}),
    (
        "4",
        "a parent is a link to a file: the file is replaced, the link stays",
        [[f("a", "1"), s("l", "a"), f("l/b", "2")]],
        {"a": "d", "a/b": "f:2", "l": "l:a"},
    ),
    # -- 4: over what is there
    (
        "4",
        "a file over a link is not written through it",
        [[f("a", "1"), s("l", "a")], [f("l", "2")]],
        {"a": "f:1", "l": "f:2"},
    ),
    (
        "4",
        "a file over one name of a hard link leaves the other",
        [[f("a", "1"), h("b", "a")], [f("a", "2")]],
        {"a": "f:2", "b": "f:1"},
    ),
    ("4", "a file over a full directory", [[f("a/b")], [f("a", "1")]], {"a": "f:1"}),
    ("4", "a directory over a directory", [[d("a"), f("a/b")], [d("a", 0o700)]], {"a": "d 700", "a/b": "f:"}),
    (
        "4",
        "a directory over a link to a directory",
        [[f("a/b"), s("l", "a")], [d("l")]],
        {"a": "d", "a/b": "f:", "l": "d"},
    ),
    ("4", "a directory over a file", [[f("a")], [d("a")]], {"a": "d"}),
    ("4", "the last of a path wins", [[f("a", "1"), f("a", "2")]], {"a": "f:2"}),
    (
        "4",
        "a read-only directory receives its children, and keeps its mode",
        [[d("a", 0o555), f("a/b")]],
        {"a": "d 555", "a/b": "f:"},
    ),
    ("4", "an unknown type", [[Thing(model.SOCKET, b"a")]], "unknown type"),
    # -- 4: hard links
    (
        "4",
        "a hard link keeps the file's metadata",
        [[f("a", "1", mode=0o600), h("b", "a", mode=0o777, mtime=5)]],
        {"a": "f:1 600", "b": "f:1 600 =a"},
    ),
    (
        "4",
        "a hard link to a link links the link",
        [[f("a", "1"), s("l", "a"), h("m", "l")]],
        {"a": "f:1", "l": "l:a", "m": "l:a =l"},
    ),
    (
        "4",
        "a hard link's target is found through a link",
        [[f("d/a", "1"), s("l", "/d"), h("b", "l/a")]],
        {"d": "d", "d/a": "f:1 =b", "l": "l:/d", "b": "f:1"},
    ),
    ("4", "a hard link to nothing", [[h("a", "b")]], "hard link to nothing"),
    ("4", "a hard link to itself", [[f("a"), h("a", "./a")]], "hard link to itself"),
    ("4", "a hard link to a directory", [[d("a"), h("b", "a")]], "hard link to a directory"),
    ("4", "a hard link to what it replaces", [[f("a/b"), h("a", "a/b")]], "hard link into what it replaces"),
    # -- 5: plain whiteouts
    ("5", "a file is hidden", [[f("a"), f("b")], [f(".wh.a")]], {"b": "f:"}),
    ("5", "a full directory is hidden", [[f("a/b/c")], [f(".wh.a")]], {}),
    (
        "5",
        "a whiteout does not touch its own layer, before it",
        [[f("a", "1")], [f("a", "2"), f(".wh.a")]],
        {"a": "f:2"},
    ),
    (
        "5",
        "a whiteout does not touch its own layer, after it",
        [[f("a", "1")], [f(".wh.a"), f("a", "2")]],
        {"a": "f:2"},
    ),
    (
        "5",
        "a hidden directory stays for its own layer's things, with the defaults",
        [[d("a", 0o700), f("a/b"), f("a/c/d")], [f("a/c/e", "2"), f(".wh.a")]],
        {"a": "d", "a/c": "d", "a/c/e": "f:2"},
    ),
    ("5", "or with the layer's own metadata", [[d("a", 0o700), f("a/b")], [d("a", 0o711), f(".wh.a")]], {"a": "d 711"}),
    ("5", "a link is hidden, not what it leads to", [[f("a/b"), s("l", "a")], [f(".wh.l")]], {"a": "d", "a/b": "f:"}),
    (
        "5",
        "the parent is resolved",
        [[f("a/b"), f("a/c"), s("l", "/a")], [f("l/.wh.b")]],
        {"a": "d", "a/c": "f:", "l": "l:/a"},
    ),
    (
        "5",
        "in a missing directory and under a dangling link",
        [[s("l", "x"), f("l2/a")], [f("l/.wh.a"), f("m/.wh.a"), f("l2/a/.wh.b")]],
        {"l": "l:x", "l2": "d", "l2/a": "f:"},
    ),
    ("5", "one name of a hard link is hidden", [[f("a", "1"), h("b", "a")], [f(".wh.a")]], {"b": "f:1"}),
    (
        "5",
        "a directory made on the way through a link is its layer's, whichever comes first",
        [
            [f("a/x"), f("b/x")],
            [s("l", "a/c/../../d"), s("m", "b/c/../../d"), f(".wh.b")],
            [f("l/x"), f("m/y"), f(".wh.a")],
        ],
        {
            "a": "d",
            "a/c": "d",
            "b": "d",
            "b/c": "d",
            "d": "d",
            "d/x": "f:",
            "d/y": "f:",
            "l": "l:a/c/../../d",
            "m": "l:b/c/../../d",
        },
    ),
    ("5", "of any entry type", [[f("a"), f("b")], [d(".wh.a"), s(".wh.b", "x")]], {}),
    ("5", "of an empty name", [[f("a/.wh.")]], "whiteout of an empty name"),
    ("5", "an entry below a whiteout", [[f(".wh.a/b")]], "below a whiteout"),
    ("5", "an entry below an opaque mark", [[f(".wh..wh..opq/b")]], "below a whiteout"),
    ("5", "a marker that a link names", [[s("l", "a/.wh.b"), f("l/c")]], "through a whiteout"),
    # -- 5: opaque marks
    (
        "5",
        "opaque after and before its layer's things",
        [[f("a/b"), f("a/c/d"), f("e/b")], [f("a/n"), f("a/.wh..wh..opq"), f("e/.wh..wh..opq"), f("e/n")]],
        {"a": "d", "a/n": "f:", "e": "d", "e/n": "f:"},
    ),
    (
        "5",
        "an opaque mark at the root",
        [[f("a"), f("b/c"), d("e", 0o700), f("e/f")], [f("e/g"), f(".wh..wh..opq")]],
        {"e": "d", "e/g": "f:"},
    ),
    (
        "5",
        "an opaque mark empties at every depth",
        [[f("a/b/c"), f("a/b/d")], [f("a/b/e"), f("a/.wh..wh..opq")]],
        {"a": "d", "a/b": "d", "a/b/e": "f:"},
    ),
    # -- 5: the odd names
    ("5", "'.wh..' hides its own directory", [[f("etc/x")], [f("etc/.wh..")]], {}),
    (
        "5",
        "'.wh..' behind a link hides the directory, and the link stays",
        [[f("a/x"), s("l", "a")], [f("l/.wh..")]],
        {"l": "l:a"},
    ),
    ("5", "'.wh..' at the root", [[f("a")], [f(".wh..")]], {"a": "f:"}),
    ("5", "'.wh...' reaches nothing", [[f("a/b")], [f(".wh..."), f("a/.wh...")]], {"a": "d", "a/b": "f:"}),
    ("5", "what AUFS left, and what lies below it", [[f(".wh..wh.plnk/1.2"), f(".wh..wh.aufs"), f("a")]], {"a": "f:"}),
    (
        "5",
        "a whiteout is no whiteout in the middle of a name",
        [[f("a.wh.b"), f(".wh")]],
        {"a.wh.b": "f:", ".wh": "f:"},
    ),
]

ROOT_CASES: list[tuple[str, str, Options, Layers, dict[str, str] | str]] = [
    (
        "4",
        "safe devices are created, others hide what is there",
        Options(),
        [[f("a"), f("b")], [c("a", 1, 3), c("b", 1, 1)]],
        {"a": "c:1:3"},
    ),
    ("4", "devices fail", Options(devices="fail"), [[c("a", 1, 3)]], "device"),
    ("5", "overlayfs's mark is data", Options(), [[f("a")], [c("a", 0, 0)]], {"a": "c:0:0"}),
    (
        "5",
        "a directory stays where a skipped device took the last own thing, as if the whiteout came first",
        Options(),
        [[d("a", 0o700)], [f("a/b"), c("a/b", 1, 1), f(".wh.a")]],
        {"a": "d"},
    ),
    (
        "6",
        "an id outside of the map",
        Options(uid_map=((0, 1000, 10),), gid_map=((0, 1000, 10),)),
        [[f("a", uid=10)]],
        "id outside every range",
    ),
    (
        "4",
        "keep_dirlinks keeps the link, and gives the metadata to the directory",
        Options(keep_dirlinks=True),
        [[f("a/b"), s("l", "a")], [d("l", 0o700)]],
        {"a": "d 700", "a/b": "f:", "l": "l:a"},
    ),
    (
        "5",
        "with keep_dirlinks a whiteout leaves the directory behind the link to its layer",
        Options(keep_dirlinks=True),
        [[f("a/b"), s("l", "a")], [d("l", 0o700), f(".wh.a")]],
        {"a": "d 700", "l": "l:a"},
    ),
    (
        "5",
        "with keep_dirlinks '.wh..' leaves the directory behind the link to its layer",
        Options(keep_dirlinks=True),
        [[f("a/b"), s("l", "a")], [d("l", 0o700), f("l/.wh..")]],
        {"a": "d 700", "l": "l:a"},
    ),
]


def told(tree: Tree) -> dict[str, str]:
    """A tree in the words of the cases, without its root."""
    return {path.decode(): _word(path, record) for path, record in tree.items() if path}


def _word(path: bytes, record: Record) -> str:
    letters = {model.CHAR: "c", model.FIFO: "p", model.SYMLINK: "l"}
    word = letters.get(record.kind, record.kind[0])
    if record.kind == model.CHAR:
        word += ":{}:{}".format(*record.content)
    elif record.kind in (model.FILE, model.SYMLINK):
        word += ":" + record.content.decode()
    usual = {model.DIRECTORY: 0o755, model.FILE: 0o644, model.CHAR: 0o644}
    if record.mode != usual.get(record.kind, 0o777):
        word += f" {record.mode:o}"
    if record.group != path:
        word += f" ={record.group.decode()}"
    return word


def check(image: Image, expected: dict[str, str] | str, work: bytes) -> None:
    """Model and product both make this tree, or refuse for this reason."""
    if isinstance(expected, str):
        with pytest.raises(ModelError, match=f"^{expected}$"):
            model.apply(image.layers, image.options, unwatched)
    else:
        made = model.apply(image.layers, image.options, unwatched)
        assert told(made.tree()) == expected
    assert compare.differences(image, work) == []


@pytest.fixture(name="work")
def _work() -> t.Iterator[bytes]:
    with compare.workplace() as work:
        yield work


def _image(layers: Layers, options: Options) -> Image:
    return Image(tuple(tuple(layer) for layer in layers), options)


@pytest.mark.parametrize(
    ("layers", "expected"), [case[2:] for case in CASES], ids=[f"{case[0]}: {case[1]}" for case in CASES]
)
def test_case(layers: Layers, expected: dict[str, str] | str, work: bytes) -> None:
    """The sections stand in the names of the cases."""
    check(_image(layers, compare.PLAIN), expected, work)


@needs_root
@pytest.mark.parametrize(
    ("options", "layers", "expected"),
    [case[2:] for case in ROOT_CASES],
    ids=[f"{case[0]}: {case[1]}" for case in ROOT_CASES],
)
def test_root_case(options: Options, layers: Layers, expected: dict[str, str] | str, work: bytes) -> None:
    """The sections stand in the names of the cases."""
    check(_image(layers, options), expected, work)


def test_times(work: bytes) -> None:
    """Section 4: nanoseconds, before 1970 too; a directory only passed through keeps its time."""
    layers = [
        [d("a", mtime=-1_500_000_000), f("a/b", mtime=1), s("l", "a", mtime=-1)],
        [f("a/c", mtime=1_700_000_000_123_456_789), f(".wh.x")],
    ]
    image = _image(layers, compare.PLAIN)
    tree = model.apply(image.layers, image.options, unwatched).tree()
    times = {path: record.mtime for path, record in tree.items()}
    assert times == {b"": 0, b"a": -1_500_000_000, b"a/b": 1, b"a/c": 1_700_000_000_123_456_789, b"l": -1}
    assert compare.differences(image, work) == []


@needs_root
def test_metadata(work: bytes) -> None:
    """Section 4: the root's entry, owners, setuid; section 6: what of xattrs is written, and where they go stale."""
    capability = b"\x01\0\0\x02" + bytes(16)
    layers = [
        [
            d(".", 0o1777, uid=5),
            d("a", xattrs=((b"user.x", b"1"),)),
            f("a/b", uid=1000, gid=2**32 - 2, mode=0o4711, xattrs=((b"security.capability", capability),)),
            s("l", "a", uid=3, xattrs=((b"user.x", b"1"),)),
        ],
        [d("a", 0o2750, xattrs=((b"user.overlay.opaque", b"y"), (b"user.y", b"2")))],
    ]
    image = _image(layers, Options())
    tree = model.apply(image.layers, image.options, unwatched).tree()
    assert tree == {
        b"": Record(model.DIRECTORY, 0o1777, 5, 0, 0, (), None, b""),
        b"a": Record(model.DIRECTORY, 0o2750, 0, 0, 0, ((b"user.y", b"2"),), None, b"a"),
        b"a/b": Record(model.FILE, 0o4711, 1000, 2**32 - 2, 0, ((b"security.capability", capability),), b"", b"a/b"),
        b"l": Record(model.SYMLINK, 0o777, 3, 0, 0, (), b"a", b"l"),
    }
    assert compare.differences(image, work) == []


@needs_root
def test_map(work: bytes) -> None:
    """Section 6: ids and capabilities through several ranges; missing parents belong to the mapped root."""
    capability = b"\x01\0\0\x02" + bytes(16)
    maps = ((0, 100_000, 10), (1000, 5000, 1))
    image = _image(
        [[f("a/b", uid=1000, gid=9, xattrs=((b"security.capability", capability),))]],
        Options(uid_map=maps, gid_map=maps),
    )
    tree = model.apply(image.layers, image.options, unwatched).tree()
    owners = {path: (record.uid, record.gid) for path, record in tree.items()}
    assert owners == {b"": (100_000, 100_000), b"a": (100_000, 100_000), b"a/b": (5000, 100_009)}
    written = b"\x01\0\0\x03" + bytes(16) + (100_000).to_bytes(4, "little")
    assert tree[b"a/b"].xattrs == ((b"security.capability", written),)
    assert compare.differences(image, work) == []


def test_ownership_ignore(work: bytes) -> None:
    """Section 6: all is the caller's; setuid and setgid bits are dropped."""
    layers = [[f("a", uid=7, mode=0o6755), d("b", 0o1777)]]
    caller = (os.geteuid(), os.getegid())
    image = _image(layers, Options(devices="skip", preserve=False, caller=caller))
    tree = model.apply(image.layers, image.options, unwatched).tree()
    assert (tree[b"a"].uid, tree[b"a"].gid) == caller
    assert (tree[b"a"].mode, tree[b"b"].mode) == (0o755, 0o1777)
    assert compare.differences(image, work) == []


@pytest.fixture(name="ordinary_user")
def _ordinary_user() -> t.Iterator[tuple[int, int]]:
    """The ids of somebody without root's rights, who runs the test."""
    if os.geteuid():
        yield os.geteuid(), os.getegid()
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield 65534, 65534
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_read_only_things_of_an_ordinary_user(ordinary_user: tuple[int, int]) -> None:
    """Section 6: xattrs are written although the mode forbids it to everybody but root."""
    xattrs = ((b"user.x", b"1"),)
    layers = [[f("a", mode=0o444, xattrs=xattrs), d("b", 0o555, xattrs=xattrs), f("b/c", mode=0, xattrs=xattrs)]]
    options = Options(devices="skip", preserve=False, caller=ordinary_user)
    image = _image(layers, options)
    with compare.workplace() as work:
        assert compare.differences(image, work) == []


def test_smallest() -> None:
    """A failing image shrinks to what it needs, and prints as calls of the builder."""
    image = _image([[f("a", "1"), d("c", mtime=7)], [f("./b", "2", mode=0o600), s("l", "b")], [f("z")]], compare.PLAIN)

    def fails(one: Image) -> bool:
        names = [thing.name for layer in one.layers for thing in layer]
        return b"a" in names and b"l" in names

    small = compare.smallest(image, fails)
    plain = replace(image, layers=((f("a"), s("l", "b")),))
    assert small == plain
    assert compare.to_code(small).splitlines()[1:] == [
        "layer 0:",
        "    file(b'a', mode=0o644)",
        "    symlink(b'l', b'b', mode=0o644)",
    ]

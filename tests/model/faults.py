# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Seeded faults: the product with one rule broken, to show that the comparison bites.

No fault lets anything out of the root: the wrong turns are taken inside of it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from dataclasses import dataclass, replace
from unittest import mock

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import EntryError
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.entry import Entry
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import apply
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import Applier
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Attributes, Policy, Writer
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.directories import names_in
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.root import Directory, Names, Root
from ansible_collections.hypervisor.oci.tests.model import compare
from ansible_collections.hypervisor.oci.tests.model.generator import Image
from ansible_collections.hypervisor.oci.tests.model.run import run_batch, smallest_difference


@dataclass(frozen=True)
class Fault:
    """What is broken, by which replacements ``(where, name, new)``.

    ``keep_dirlinks``: the rule is that option's, so all images get it.
    """

    what: str
    patches: tuple[tuple[t.Any, str, t.Any], ...]
    root_only: bool = False
    keep_dirlinks: bool = False

    @contextlib.contextmanager
    def seeded(self) -> t.Iterator[None]:
        """The product is broken for as long as this lasts."""
        with contextlib.ExitStack() as stack:
            for where, name, new in self.patches:
                stack.enter_context(mock.patch.object(where, name, new))
            yield


def find(fault: Fault, corpus: t.Sequence[Image], work: bytes) -> tuple[int, Image, list[str]] | None:
    """The number of the image that found the fault, and its smallest form; ``None`` where none did."""
    with fault.seeded():
        for number, image in enumerate(corpus):
            if fault.keep_dirlinks:
                options = replace(image.options, keep_dirlinks=True)
                image = replace(image, options=options)
            if compare.differences(image, work):
                return (number, *smallest_difference(image, work))
    return None


def generate(number: int, seed: int) -> list[Image]:
    """So many images, the same for the same seed."""
    found: list[Image] = []
    run_batch(seed, number, found.append)
    return found


# What stood in the product before any of it was replaced.
_create_file = Root.create_file
_hide = Root.white_out
_hide_all = Root.white_out_all
_link_file = Root.link_file
_link_text = Root._link_text
_apply_layer = Applier.apply_layer
_apply_whiteout = Applier._apply_whiteout
_hide_named = Applier._white_out
_init: t.Callable[..., None] = Applier.__init__
_make_device = Applier._make_device
_make_directory = Applier._make_directory
_make_hard_link = Applier._make_hard_link
_for_entry = Policy.for_entry
_for_missing_parent = Policy.for_missing_parent
_to_fd = Writer.to_fd
_to_new_file = Writer.to_new_file
_to_node = Writer.to_node
_to_symlink = Writer.to_symlink


# -- links


def _written_through(self: Root, parent: Directory, name: bytes, mode: int) -> int:
    behind = _behind(self, parent, name)
    return _create_file(self, *(behind or (parent, name)), mode)


def _behind(root: Root, parent: Directory, name: bytes) -> tuple[Directory, bytes] | None:
    """Where a link leads to, one step far."""
    text = root._link_text(parent, name)
    parts = [part for part in (text or b"").split(b"/") if part not in (b"", b".")]
    if not text or not parts or b".." in parts:
        return None
    above: Directory | None = root.top if text.startswith(b"/") else parent
    for part in parts[:-1]:
        above = above.children.get(part) if above is not None else None
    if above is None or parts[-1] in above.children:
        return None
    return above, parts[-1]


def _from_the_top(self: Root, parent: Directory, name: bytes) -> bytes | None:
    text = _link_text(self, parent, name)
    return b"/" + text if text else text


def _from_its_directory(self: Root, parent: Directory, name: bytes) -> bytes | None:
    text = _link_text(self, parent, name)
    return (text.lstrip(b"/") or b".") if text else text


def _as_if_no_link(self: Root, parent: Directory, name: bytes) -> bytes | None:
    text = _link_text(self, parent, name)
    return b"" if text else text


def _without_dots(self: Root, parent: Directory, name: bytes) -> bytes | None:
    text = _link_text(self, parent, name)
    return text.replace(b"..", b".") if text else text


def _dirlinks_kept(self: t.Any, *arguments: t.Any) -> None:
    _init(self, *arguments[:-1], True)


def _only_the_link(self: Applier, entry: Entry, above: Names, name: bytes) -> None:
    calls: list[tuple[Directory, bytes]] = []
    with mock.patch.object(Root, "add", lambda _self, *call: calls.append(call)):
        _make_directory(self, entry, above, name)
    self._root.add(*calls[-1])


def _below_the_mark(self: Applier, above: Names, name: bytes) -> bool:
    return b".wh..wh..opq" in above or _apply_whiteout(self, above, name)


def _link_followed(self: Root, source: Directory, old: bytes, parent: Directory, name: bytes) -> None:
    if source.children.get(old) is None:
        source, old = _behind(self, source, old) or (source, old)
    _link_file(self, source, old, parent, name)


def _link_with_metadata(self: Applier, entry: Entry, above: Names, name: bytes) -> None:
    _make_hard_link(self, entry, above, name)
    parent = self._root.make_parent(above)
    if not self._root._link_text(parent, name):
        _to_node(self._writer, self._root.fd(parent), name, self._policy.for_entry(entry))


# -- whiteouts


def _whiteout_followed(self: Root, parent: Directory, name: bytes) -> bool:
    behind = self.follow_directory_link(parent, name)
    if behind is not None and behind.parent is not None:
        return _hide(self, behind.parent, behind.name)
    return _hide(self, parent, name)


def _never_brought(self: Root, parent: Directory, name: bytes) -> bool:
    return False


def _own_layer_too(self: Root, directory: Directory) -> bool:
    for name in names_in(self.fd(directory)):
        self.remove(directory, name)
    return True


def _nothing_hidden(self: Root, directory: Directory) -> bool:
    return True


def _metadata_of_below(self: Root, child: Directory, brought: bool) -> None:
    if not brought and child.layer != self._layer:
        self.remove_tree(child)
        return
    self.white_out_all(child)


def _at_the_top_only(self: Root, directory: Directory) -> bool:
    for name in names_in(self.fd(directory)):
        child = directory.children.get(name)
        if not self._is_added(directory, name) and (child is None or child.layer != self._layer):
            self.remove(directory, name)
    return True


def _put_off(self: t.Any, above: Names, name: bytes) -> bool:
    if any(part.startswith(b".wh.") for part in (*above, name)):
        self.put_off.append((above, name))
        return True
    return False


def _with_whiteouts_last(self: t.Any, chunks: t.Any, digest: str) -> None:
    self.put_off = []
    _apply_layer(self, chunks, digest)
    with contextlib.suppress(EntryError):
        for above, name in self.put_off:
            _apply_whiteout(self, above, name)


def _above_hidden(self: Applier, above: list[bytes], name: bytes) -> None:
    if name == b"..":
        directory = self._root.find(above)
        outer = directory.parent if directory is not None else None
        if outer is not None and outer.parent is not None:
            self._root.white_out(outer.parent, outer.name)
        elif directory is not None:
            self._root.white_out_all(self._root.top)
    _hide_named(self, above, name)


def _dot_not_known(self: Applier, above: list[bytes], name: bytes) -> None:
    if name != b".":
        _hide_named(self, above, name)


def _device_hides_nothing(self: Applier, entry: Entry, above: Names, name: bytes) -> None:
    with mock.patch.object(Root, "remove", lambda *_arguments: None):
        _make_device(self, entry, above, name)


# -- metadata


def _now(self: Writer, fd: int, attributes: Attributes) -> None:
    _to_fd(self, fd, attributes)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.utime(fd)


def _at_once(self: t.Any, entry: Entry, above: Names, name: bytes) -> None:
    _make_directory(self, entry, above, name)
    directory = self._root.make_parent(above).children[name]
    self._writer.to_fd(self._root.fd(directory), directory.attributes)
    self.finished = [*getattr(self, "finished", ()), directory]


def _only_the_rest(self: t.Any) -> None:
    for directory in self._root.directories():
        if directory not in getattr(self, "finished", ()):
            self._writer.to_fd(self._root.fd(directory), directory.attributes)


def _owner_after_mode(self: Writer, fd: int, attributes: Attributes) -> None:
    _to_fd(self, fd, attributes._replace(xattrs={}))
    os.fchown(fd, attributes.uid, attributes.gid)
    for name, value in attributes.xattrs.items():
        os.setxattr(fd, os.fsencode(name), value)


def _owner_after_xattrs(self: Writer, fd: int, attributes: Attributes) -> None:
    _to_fd(self, fd, attributes)
    os.fchown(fd, attributes.uid, attributes.gid)
    os.fchmod(fd, attributes.mode)


def _with_umask(self: Writer, fd: int, attributes: Attributes) -> None:
    _to_fd(self, fd, attributes._replace(mode=attributes.mode & ~0o022))


def _owner_left(self: Writer, fd: int, attributes: Attributes) -> None:
    born = os.fstat(fd)
    _to_new_file(self, fd, attributes._replace(uid=born.st_uid, gid=born.st_gid))


def _set_ids_left(self: Writer, fd: int, attributes: Attributes) -> None:
    _to_new_file(self, fd, attributes._replace(mode=attributes.mode & 0o777))


def _stale_xattrs(self: Applier, entry: Entry, above: Names, name: bytes) -> None:
    old = self._root.make_parent(above).children.get(name)
    stale = old.attributes.xattrs if old is not None else {}
    _make_directory(self, entry, above, name)
    if old is not None:
        merged = {**stale, **old.attributes.xattrs}
        old.attributes = old.attributes._replace(xattrs=merged)


def _microseconds(self: Policy, entry: Entry) -> Attributes:
    attributes = _for_entry(self, entry)
    return attributes._replace(mtime=attributes.mtime // 1000 * 1000)


def _after_1970(self: Policy, entry: Entry) -> Attributes:
    attributes = _for_entry(self, entry)
    return attributes._replace(mtime=max(attributes.mtime, 0))


def _link_of_now(self: Writer, parent: int, name: bytes, attributes: Attributes) -> None:
    _to_symlink(self, parent, name, attributes)
    os.utime(name, dir_fd=parent, follow_symlinks=False)


def _link_of_root(self: Writer, parent: int, name: bytes, attributes: Attributes) -> None:
    _to_symlink(self, parent, name, attributes._replace(uid=0, gid=0))


def _closed_parent(self: Policy) -> Attributes:
    return _for_missing_parent(self)._replace(mode=0o700)


def _unmapped_parent(self: Policy) -> Attributes:
    return _for_missing_parent(self)._replace(uid=0, gid=0)


def _same_inode(self: Root, parent: Directory, name: bytes, mode: int) -> int:
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=self.fd(parent))
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
            return fd
        os.close(fd)
    return _create_file(self, parent, name, mode)


def _all_kept(self: Policy, kept: dict[str, bytes], entry: Entry, name: str, value: bytes) -> None:
    kept[name] = value


def _dots_dropped(name: bytes) -> tuple[Names, bytes]:
    parts = [part for part in name.split(b"/") if part not in (b"", b".", b"..")]
    return tuple(parts[:-1]), parts[-1] if parts else b""


def _of_directories(wrong: t.Any) -> tuple[tuple[t.Any, str, t.Any], ...]:
    return tuple((Writer, name, wrong) for name in ("to_fd", "to_new_directory"))


FAULTS = [
    Fault("a file is written through a link", ((Root, "create_file", _written_through),)),
    Fault("relative links start at the root", ((Root, "_link_text", _from_the_top),)),
    Fault("absolute links start at their directory", ((Root, "_link_text", _from_its_directory),)),
    Fault("a link as parent is replaced", ((Root, "_link_text", _as_if_no_link),)),
    Fault("'..' in a link is no step up", ((Root, "_link_text", _without_dots),)),
    Fault("a directory over a link follows it", ((Applier, "__init__", _dirlinks_kept),)),
    Fault("a hard link follows a link", ((Root, "link_file", _link_followed),)),
    Fault("a hard link's metadata is applied", ((Applier, "_make_hard_link", _link_with_metadata),)),
    Fault("a whiteout follows a link", ((Root, "white_out", _whiteout_followed),)),
    Fault("a whiteout hits its own layer", ((Root, "_is_added", _never_brought),)),
    Fault("an opaque mark hits its own layer", ((Root, "white_out_all", _own_layer_too),)),
    Fault("an opaque mark keeps what is below", ((Root, "white_out_all", _nothing_hidden),)),
    Fault("an opaque mark empties one level", ((Root, "white_out_all", _at_the_top_only),)),
    Fault("a hidden directory keeps its metadata", ((Root, "_white_out_directory", _metadata_of_below),)),
    Fault(
        "whiteouts wait for the layer's end",
        ((Applier, "_apply_whiteout", _put_off), (Applier, "apply_layer", _with_whiteouts_last)),
    ),
    Fault("'.wh...' hides the parent", ((Applier, "_white_out", _above_hidden),)),
    Fault("'.wh..' hides nothing", ((Applier, "_white_out", _dot_not_known),)),
    Fault("a skipped device hides nothing", ((Applier, "_make_device", _device_hides_nothing),)),
    Fault("directory times are lost", _of_directories(_now)),
    Fault(
        "directories get their metadata at once",
        ((Applier, "_make_directory", _at_once), (Applier, "finish", _only_the_rest)),
    ),
    Fault("the owner after the mode", ((Writer, "to_fd", _owner_after_mode),), True),
    Fault("the owner after the xattrs", ((Writer, "to_fd", _owner_after_xattrs),), True),
    Fault("the umask plays a part", _of_directories(_with_umask)),
    Fault("a file's owner is left", ((Writer, "to_new_file", _owner_left),), True),
    Fault("a file's set-ids are left", ((Writer, "to_new_file", _set_ids_left),)),
    Fault("older xattrs of a directory stay", ((Applier, "_make_directory", _stale_xattrs),)),
    Fault("times have microseconds", ((Policy, "for_entry", _microseconds),)),
    Fault("times before 1970 are lost", ((Policy, "for_entry", _after_1970),)),
    Fault("times of links are lost", ((Writer, "to_symlink", _link_of_now),)),
    Fault("owners of links are lost", ((Writer, "to_symlink", _link_of_root),), True),
    Fault("a missing parent is closed", ((Policy, "for_missing_parent", _closed_parent),)),
    Fault("a missing parent is not mapped", ((Policy, "for_missing_parent", _unmapped_parent),), True),
    Fault("a file over a file keeps the inode", ((Root, "create_file", _same_inode),)),
    Fault("no xattr is filtered", ((Policy, "_keep", _all_kept),), True),
    Fault(
        "with keep_dirlinks a layer brings only the link",
        ((Applier, "_make_directory", _only_the_link),),
        keep_dirlinks=True,
    ),
    Fault("an entry below an opaque mark is ignored", ((Applier, "_apply_whiteout", _below_the_mark),)),
    Fault("'..' in a name is dropped", ((apply, "split_name", _dots_dropped),)),
]

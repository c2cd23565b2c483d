# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unpack an image for real, and compare the whole tree with the model's."""

from __future__ import annotations

import contextlib
import math
import os
import time
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.hypervisor.oci.plugins.module_utils._drift import compare as comparison
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.content import compare_contents
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.exclusions import Rules, parse_exclusions
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.objects import Looks
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.recorded import replay
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import parse_platform
from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import select_image
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.reread import Reread
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.overlay import Lowers, open_overlay
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.stack import make_upper
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import Applier, Unstackable
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Policy
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.ids import IdMap
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.told import Told
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.root import Root
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import Spooled
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.module_utils._unpack import Kept, Steps, Unpacked, unpack
from ansible_collections.hypervisor.oci.tests.images import builder
from ansible_collections.hypervisor.oci.tests.model import model
from ansible_collections.hypervisor.oci.tests.model.generator import Image
from ansible_collections.hypervisor.oci.tests.model.model import ModelError, Record, Thing, Tree
from ansible_collections.hypervisor.oci.tests.tools.compare_trees import read_tree
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_folder
from ansible_collections.hypervisor.oci.plugins.module_utils._unpack_options import UnpackOptions

PLAIN = model.Options(preserve=not os.geteuid(), caller=(os.geteuid(), os.getegid()))
_PLAIN_THING = Thing(model.FILE, b"")
# Counted by both sides in the same places (docs/behaviour.md, sections 4 to 6).
_COUNTS = (
    "aufs_leftovers",
    "capabilities_dropped",
    "devices_created",
    "devices_skipped",
    "setid_bits_dropped",
    "user_xattrs_forbidden",
    "whiteouts_of_parent",
    "whiteouts_of_root",
    "xattrs_filtered",
)


@dataclass(frozen=True)
class Outcome:
    """A tree with its counts, or the place of an error and what it says."""

    tree: Tree = field(default_factory=dict)
    counts: t.Mapping[str, int] = field(default_factory=dict)
    refused_at: tuple[int, bytes | None] | None = None
    message: str = ""


@contextlib.contextmanager
def workplace() -> t.Iterator[bytes]:
    """A folder for trees, in memory where the system has such a place."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    path = make_folder("model-", base)
    try:
        yield os.fsencode(path)
    finally:
        remove_folder(path)


def differences(image: Image, work: bytes, watch: model.Watch = model.unwatched) -> list[str]:
    """What product and model disagree about, one line each; nothing where they agree."""
    expected = of_model(image, watch)
    try:
        found = of_product(image, work)
    except Exception as error:
        # whatever is no clean refusal is a defect, and shrinks like one
        return [f"product: {error!r}"]
    return compare(expected, found)


def of_model(image: Image, watch: model.Watch = model.unwatched) -> Outcome:
    """What the image is to become."""
    try:
        made = model.apply(image.layers, image.options, watch)
    except ModelError as error:
        watch("refused", error.kind)
        return Outcome(refused_at=(error.layer, error.entry), message=error.kind)
    return Outcome(made.tree(), made.counts)


def of_product(image: Image, work: bytes) -> Outcome:
    """What the product makes of the image, in a fresh directory that is gone afterwards."""
    root = os.path.join(work, b"root")
    os.mkdir(root)
    try:
        try:
            outcome = _unpacked(image, root)
        except Unstackable:
            _remove(root)
            os.mkdir(root)
            outcome = _ordinary(image, root)
        if os.listdir(work) != [b"root"]:
            raise AssertionError(f"something was made outside of the root: {os.listdir(work)}")
        return outcome
    finally:
        _remove(root)


def _ordinary(image: Image, root: bytes) -> Outcome:
    """The tree of its own of an image that no overlay can hold."""
    global in_stacks  # pylint: disable=global-statement
    in_stacks = False
    try:
        return _unpacked(image, root)
    finally:
        in_stacks = True


def smallest(image: Image, fails: t.Callable[[Image], bool]) -> Image:
    """The image with all taken away that it does not need to fail."""
    while True:
        for smaller in _smaller(image):
            if fails(smaller):
                image = smaller
                break
        else:
            return image


def _smaller(image: Image) -> t.Iterator[Image]:
    """Simpler images: without a layer or an entry, two layers in one, plain options, metadata or names."""
    layers = image.layers
    for number in range(len(layers)):
        yield replace(image, layers=layers[:number] + layers[number + 1 :])
    for number, layer in enumerate(layers):
        before, after = layers[:number], layers[number + 1 :]
        for index in range(len(layer)):
            less = layer[:index] + layer[index + 1 :]
            yield replace(image, layers=(*before, less, *after))
    for number in range(len(layers) - 1):
        joined = layers[number] + layers[number + 1]
        yield replace(image, layers=(*layers[:number], joined, *layers[number + 2 :]))
    if image.shape:
        yield replace(image, shape="")
    if image.options != PLAIN:
        yield replace(image, options=PLAIN)
    for number, layer in enumerate(layers):
        for index, thing in enumerate(layer):
            for plainer in _plainer(thing):
                changed = (*layer[:index], plainer, *layer[index + 1 :])
                yield replace(image, layers=(*layers[:number], changed, *layers[number + 1 :]))


def _plainer(thing: Thing) -> t.Iterator[Thing]:
    for name in ("mode", "uid", "gid", "mtime", "xattrs", "data"):
        default = getattr(_PLAIN_THING, name)
        if getattr(thing, name) != default:
            yield replace(thing, **{name: default})
    short = b"/".join([part for part in thing.name.split(b"/") if part not in (b"", b".")])
    if len(short) < len(thing.name.rstrip(b"/")):
        yield replace(thing, name=short)


def compare(expected: Outcome, found: Outcome) -> list[str]:
    """Differences between two outcomes, one line each."""
    if expected.refused_at or found.refused_at:
        if _same_place(expected.refused_at, found.refused_at):
            return []
        return [f"model: {_told(expected)}", f"product: {_told(found)}"]
    lines = []
    for path in sorted({*expected.tree, *found.tree}):
        one, other = expected.tree.get(path), found.tree.get(path)
        if one is None or other is None:
            lines.append(f"{path!r}: model: {one}, product: {other}")
        elif one != other:
            pairs = zip(Record._fields, one, other)
            lines += [
                f"{path!r}: {name}: model: {mine!r}, product: {theirs!r}"
                for name, mine, theirs in pairs
                if mine != theirs
            ]
    for kind in _COUNTS:
        mine, theirs = expected.counts.get(kind, 0), found.counts.get(kind, 0)
        if mine != theirs:
            lines.append(f"{kind}: model: {mine}, product: {theirs}")
    kind = "whiteouts_of_nothing"
    mine, theirs = expected.counts.get(kind, 0), found.counts.get(kind, 0)
    if mine > theirs:
        # the product counts those that found only things of their own layer as well
        lines.append(f"{kind}: model: {mine}, product: {theirs}")
    return lines


def snapshot(root: bytes) -> Tree:
    """Every path below a directory with all that can be compared; the root is the empty path."""
    found: Tree = {}
    for path, node in read_tree(root, contents=True, unlock=True).items():
        path = b"" if path == b"." else path
        content: t.Any = node.content
        if node.kind == model.SYMLINK:
            content = node.target
        elif node.device:
            content = tuple(map(int, node.device.split(":")))
        xattrs = tuple((os.fsencode(name), value) for name, value in node.xattrs)
        found[path] = Record(node.kind, node.mode, node.uid, node.gid, node.mtime, xattrs, content, node.group or path)
    return found


def layer_tar(layer: model.Layer) -> bytes:
    """The layer as the builder writes it."""
    return builder.tar([_member(thing) for thing in layer])


def to_code(image: Image) -> str:
    """The image as a few readable lines, calls of the builder that make the same layers."""
    lines = [f"{image.options}", *([f"archive: {image.shape}"] if image.shape else [])]
    for number, layer in enumerate(image.layers):
        lines.append(f"layer {number}:")
        lines += ["    " + _call(thing) for thing in layer]
    return "\n".join(lines)


# -- the product

# Whether layers are applied one by one, each to a tree that it finds on disk, or to an overlay of those below it.
in_steps = False
in_stacks = False


class _Stack:
    """The layers of an image as those of overlays, in the directory ``top``."""

    def __init__(self, top: bytes) -> None:
        self._fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self._names: list[str] = []

    @contextlib.contextmanager
    def draft(self) -> t.Iterator[int]:
        """Yield the root for the next layer, which stays unless the block fails."""
        name = f"l{len(self._names)}"
        os.mkdir(f"{name}-draft", 0o700, dir_fd=self._fd)
        lowers = Lowers(self._fd, self._names[::-1])
        with opened(os.open(f"{name}-draft", os.O_RDONLY, dir_fd=self._fd)) as draft:
            make_upper(draft, lowers)
            root = open_overlay(lowers, draft) if self._names else os.open("upper", os.O_RDONLY, dir_fd=draft)
            with opened(root):
                yield root
            os.rename("upper", name, src_dir_fd=draft, dst_dir_fd=self._fd)
        self._names.append(name)

    def close(self) -> None:
        """Close the directory."""
        os.close(self._fd)

    @contextlib.contextmanager
    def view(self) -> t.Iterator[bytes]:
        """Yield where all of it is seen."""
        lowers = Lowers(self._fd, self._names[::-1])
        several = len(self._names) > 1
        with opened(open_overlay(lowers) if several else os.open(self._names[0], os.O_RDONLY, dir_fd=self._fd)) as root:
            yield b"/proc/self/fd/%d/." % root


def _unpack_options(options: model.Options) -> UnpackOptions:
    return UnpackOptions(
        max_size=2**40,
        max_entries=2**20,
        devices=options.devices,
        preserve=options.preserve,
        xattrs=tuple(os.fsdecode(name) for name in options.xattrs),
        keep_dirlinks=options.keep_dirlinks,
        uids=IdMap("uid", options.uid_map),
        gids=IdMap("gid", options.gid_map),
    )


def _unpacked_from_archive(image: Image, layers: list[builder.Layer], root: bytes) -> Outcome:
    """What the whole way from an archive makes of it."""
    data = builder.SHAPES[image.shape](builder.Image(layers), "model:1")
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(os.fdopen(os.memfd_create("model"), "wb"))
        archive.write(data)
        archive.flush()
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, fd)
        source = stack.enter_context(contextlib.closing(open_source(f"/proc/self/fd/{archive.fileno()}")))
        chosen = select_image(source, "model:1", None, parse_platform("linux/amd64"))
        blobs = stack.enter_context(contextlib.closing(Spooled(source, fd)))
        unpack_options = _unpack_options(image.options)
        try:
            if in_stacks and chosen.layers:
                return _stacked_from_archive(blobs, chosen, root, unpack_options)
            made, journals = _unpack(blobs, chosen, fd, unpack_options)
        except LayerError as error:
            number = [str(layer.digest) for layer in chosen.layers].index(error.layer)
            return Outcome(refused_at=(number, error.entry), message=str(error))
        differs = _drift(fd, journals, unpack_options, Reread(blobs, chosen.layers, unpack_options, Kept()))
        if differs:
            # no model expects this
            return Outcome(refused_at=(-1, None), message=f"a new tree differs from its journal: {differs}")
    return Outcome(snapshot(root), made.report.to_dict()["counts"])


def _stacked_from_archive(blobs: t.Any, chosen: t.Any, root: bytes, options: UnpackOptions) -> Outcome:
    steps = Steps(blobs, chosen, options, stacked=True)
    told: Told | None = None
    with contextlib.closing(_Stack(root)) as stack:
        for layer in steps.layers:
            with stack.draft() as fd:
                told, _journal = steps.apply([layer], fd, told)
        with stack.view() as path, opened(os.open(path, os.O_RDONLY)) as fd:
            made = steps.finish(fd, t.cast(Told, told))
            return Outcome(snapshot(path), made.report.to_dict()["counts"])


def _stacked(image: Image, root: bytes) -> Outcome:
    """What the product makes of the layers as those of overlays."""
    options = _unpack_options(image.options)
    report, budget = Report(), Budget(2**40, 2**20)
    policy = Policy(report, options)
    umask = os.umask(0)
    try:
        with contextlib.closing(_Stack(root)) as stack:
            for number, layer in enumerate(image.layers):
                keeps = policy.keeps if number else None
                with stack.draft() as fd, contextlib.closing(
                    Root(fd, policy.for_missing_parent(), keeps=keeps, stacked=True)
                ) as top:
                    applier = Applier(top, policy, budget, options, stacked=True)
                    applier.apply_layer([layer_tar(layer)], str(number))
                    applier.finish()
            with stack.view() as path:
                return Outcome(snapshot(path), report.to_dict()["counts"])
    except LayerError as error:
        return Outcome(refused_at=(int(error.layer), error.entry), message=str(error))
    finally:
        os.umask(umask)


def _unpack(blobs: t.Any, chosen: t.Any, fd: int, options: UnpackOptions) -> tuple[Unpacked, list[bytes]]:
    """Unpack an image at once, or layer by layer, each with what is on disk and what the lower ones have told.

    Returns the journals, too.
    """
    steps = Steps(blobs, chosen, options)
    if not in_steps or not steps.layers:
        made = unpack(blobs, chosen, fd, options)
        return made, [made.journal or b""]
    told: Told | None = None
    journals = []
    for layer in steps.layers:
        told, journal = steps.apply([layer], fd, told)
        journals.append(journal or b"")
    return steps.finish(fd, t.cast(Told, told)), journals


def _drift(fd: int, journals: list[bytes], options: UnpackOptions, layers: Reread) -> list[str]:
    """What a tree that was just unpacked differs in from what was noted of it, and from the layers: nothing."""
    recorded = replay(journals)
    looks = Looks(recorded, Policy(Report(), options), time.time_ns(), {})
    compared = comparison.compare(fd, recorded, Rules(parse_exclusions([], [])), looks, math.inf)
    compare_contents(fd, compared, looks, layers, math.inf)
    drift = compared.drift
    odd = [*drift.suspects.values(), *drift.busy, *filter(None, [drift.not_verifiable, drift.incomplete])]
    return [*drift.to_lines(), *odd]


def _unpacked(image: Image, root: bytes) -> Outcome:
    layers = [builder.Layer(*map(_member, layer)) for layer in image.layers] if image.shape else []
    # two equal layers could not be told apart in an error
    if len({layer.diff_id for layer in layers}) == len(image.layers):
        return _unpacked_from_archive(image, layers, root)
    if in_stacks and image.layers:
        return _stacked(image, root)
    unpack_options = _unpack_options(image.options)
    report = Report()
    budget = Budget(2**40, 2**20)
    policy = Policy(report, unpack_options)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    umask = os.umask(0)
    top = Root(fd, policy.for_missing_parent())
    try:
        applier = Applier(top, policy, budget, unpack_options)
        for number, layer in enumerate(image.layers):
            if in_steps and number:
                applier.finish()
                top.close()
                top = Root(fd, policy.for_missing_parent(), keeps=policy.keeps)
                applier = Applier(top, policy, budget, unpack_options)
            applier.apply_layer([layer_tar(layer)], str(number))
        applier.finish()
    except LayerError as error:
        return Outcome(refused_at=(int(error.layer), error.entry), message=str(error))
    finally:
        top.close()
        os.umask(umask)
        os.close(fd)
    return Outcome(snapshot(root), report.to_dict()["counts"])


def _same_place(expected: tuple[int, bytes | None] | None, found: tuple[int, bytes | None] | None) -> bool:
    if expected is None or found is None:
        return False
    if expected[1] is not None and b"\0" in expected[1]:
        # such a name cannot be told
        return expected[0] == found[0]
    return expected == found


def _told(outcome: Outcome) -> str:
    if outcome.refused_at is None:
        return "a tree"
    layer, entry = outcome.refused_at
    return f"refused at layer {layer}, entry {entry!r}: {outcome.message}"


def _remove(path: bytes) -> None:
    if os.geteuid():
        os.chmod(path, 0o700)
    with os.scandir(path) as found:
        entries = list(found)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove(entry.path)
        else:
            os.unlink(entry.path)
    os.rmdir(path)


# -- the archive

_FLAGS = {
    model.FILE: "0",
    model.HARD_LINK: "1",
    model.SYMLINK: "2",
    model.CHAR: "3",
    model.BLOCK: "4",
    model.DIRECTORY: "5",
    model.FIFO: "6",
    model.SOCKET: "s",
}


def _attributes(thing: Thing) -> dict[str, t.Any]:
    """The builder's keywords, where they are not its own defaults."""
    attributes: dict[str, t.Any] = {}
    if thing.uid:
        attributes["uid"] = thing.uid
    if thing.gid:
        attributes["gid"] = thing.gid
    if thing.mtime % 10**9:
        attributes["mtime"] = builder.nanoseconds(thing.mtime)
    elif thing.mtime:
        attributes["mtime"] = thing.mtime // 10**9
    if thing.xattrs:
        attributes["xattrs"] = dict(thing.xattrs)
    if b"\0" in thing.name:
        attributes["pax"] = {"path": thing.name}
    return attributes


def _member(thing: Thing) -> builder.Entry:
    # a whole time without xattrs now and then in GNU's dialect, with base-256 numbers
    attributes = _attributes(thing)
    return builder.entry(
        thing.name,
        _FLAGS[thing.kind],
        thing.data,
        thing.link,
        thing.mode,
        thing.device if thing.kind in (model.CHAR, model.BLOCK) else None,
        **attributes,
    )


def _call(thing: Thing) -> str:
    keywords: dict[str, t.Any] = {}
    arguments: list[t.Any] = [thing.name]
    call: str = thing.kind
    if thing.kind == model.FILE and thing.data:
        arguments.append(thing.data)
    elif thing.kind in (model.SYMLINK, model.HARD_LINK):
        arguments.append(thing.link)
    elif thing.kind in (model.CHAR, model.BLOCK):
        arguments += thing.device
    elif thing.kind == model.SOCKET:
        call = "entry"
        arguments.append(_FLAGS[thing.kind])
    shown = [repr(argument) for argument in arguments]
    shown.append(f"mode={thing.mode:#o}")
    keywords.update(_attributes(thing))
    shown += [f"{name}={value!r}" for name, value in keywords.items()]
    return f"{call}({', '.join(shown)})"

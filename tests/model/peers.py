# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares the model with other tools, on generated images that they accept.

What they are known to do otherwise is left out, by the names in ``KNOWN``, which README.md explains.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import typing as t
from collections import Counter
from dataclasses import dataclass, field, replace

from ansible_collections.hypervisor.oci.tests.images import builder
from ansible_collections.hypervisor.oci.tests.model import compare, model
from ansible_collections.hypervisor.oci.tests.model.generator import Image
from ansible_collections.hypervisor.oci.tests.model.model import (
    CAPABILITY,
    DIRECTORY,
    FILE,
    HARD_LINK,
    Model,
    ModelError,
    Options,
    Thing,
    clean,
)
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below

# Nothing that a peer does may take longer.
_SECONDS = 60
# umoci deletes the folder above its root for this one, so it never gets to see it.
_NEVER = re.compile(rb"\.wh\.\.\.(/|\Z)")

_UMOCI = "umoci"
_BUILDAH = "buildah"

# Peers do not give back the times of directories that were passed through for this.
_PASSED = re.compile("link followed|parent made")

# What leaves an image out: what the model tells about it, by the name in README.md.
KNOWN: dict[str, list[tuple[str, re.Pattern[str]]]] = {
    _UMOCI: [
        ("other parents", re.compile(r"parent made: (?!nothing)")),
        ("whiteout of .", re.compile(r"whiteout of \.|ignored: whiteouts_of_root")),
        ("AUFS leftovers", re.compile(r"ignored: aufs_leftovers")),
        ("'..' in a link", re.compile(r"link followed: .* with \.\.")),
        (
            "mixed directory",
            re.compile(r"opaque: .*lower and own|whiteout: of lower directory, .*own|whiteout: of own directory"),
        ),
    ],
    _BUILDAH: [
        ("other parents", re.compile(r"parent made: (?!nothing)")),
        ("whiteout of .", re.compile(r"whiteout of \.|ignored: whiteouts_of_root")),
        ("AUFS leftovers", re.compile(r"ignored: aufs_leftovers")),
        ("hard link to no file", re.compile("hard link to: (?!file)")),
        ("whiteout in nothing", re.compile("whiteout: in nothing")),
        ("own layer hidden", re.compile(r"(whiteout|opaque): .*\bown\b")),
    ],
}


@dataclass
class Result:
    """What came of the comparison with one peer."""

    version: str
    compared: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    differing: list[tuple[Image, list[str]]] = field(default_factory=list)

    def summary(self) -> str:
        """A few lines."""
        lines = [f"{self.version}: {self.compared} images agree"]
        lines += [f"    {number:6} left out: {what}" for what, number in self.left_out.items()]
        lines += [f"    {number:6} refused: {what}" for what, number in self.refused.items()]
        for image, differences in self.differing:
            lines += ["differs:", compare.to_code(image), *differences]
        return "\n".join(lines)


def installed() -> list[str]:
    """The peers that are here; they need root."""
    if os.geteuid() != 0:
        return []
    return [name for name in (_UMOCI, _BUILDAH) if shutil.which(name)]


def run_peer(name: str, images: t.Iterable[Image], most: int) -> Result:
    """Compare until so many images were unpacked, or there are no more."""
    version = _run([name, "--version"]).stdout.decode().splitlines()[0]
    result = Result(version)
    with compare.workplace() as work:
        for image in images:
            if result.compared + len(result.differing) >= most:
                break
            image = tame(image, name)
            events: set[str] = set()
            expected = compare.of_model(image, _into(events))
            why = left_out(name, image, events)
            if why or expected.refused_at:
                result.left_out[why or "refused by the model"] += 1
                continue
            found, message = _UNPACK[name](image, work)
            if found is None:
                result.refused[message] += 1
                continue
            passed = any(_PASSED.match(event) for event in events)
            lines = differences(passed, expected.tree, found)
            if lines:
                result.differing.append((image, lines))
            else:
                result.compared += 1
    return result


def _into(events: set[str]) -> model.Watch:
    return lambda kind, what: events.add(f"{kind}: {what}")


def tame(image: Image, name: str) -> Image:
    """The image as archivers write them, without what the peer is known to spoil wherever it stands."""
    probe = Model(Options(devices="create"))
    layers = []
    # a root that no entry speaks of has another mode for each
    root = Thing(DIRECTORY, b"./", mode=0o755)
    for number, layer in enumerate(((root,), *image.layers)):
        probe.layer = number
        things = []
        names = set()
        for thing in layer:
            # buildah refuses a path that comes twice
            path = tuple(part for part in thing.name.split(b"/") if part not in (b"", b"."))
            if name == _BUILDAH and path in names:
                continue
            names.add(path)
            # setgid directories hand their bit on to the parents that peers make
            bits = 0o5777 if thing.kind == DIRECTORY else 0o7777
            thing = replace(
                thing,
                mode=thing.mode & bits,
                # buildah's times begin in 1970
                mtime=abs(thing.mtime) if name == _BUILDAH else thing.mtime,
                xattrs=tuple(_common_xattrs(thing)),
            )
            try:
                probe.apply(thing)
                if thing.kind == HARD_LINK:
                    # fails where the link itself made a loop of its path
                    thing = _with_metadata_of_target(probe, thing)
            except ModelError:
                continue
            things.append(thing)
        layers.append(tuple(things))
    return Image(tuple(layers), probe.options)


def _common_xattrs(thing: Thing) -> t.Iterator[tuple[bytes, bytes]]:
    for name, value in thing.xattrs:
        user = name.startswith(b"user.") and not name.startswith(b"user.overlay.")
        # Go's tar reader takes an empty value for no record
        plain = user and value and thing.kind in (FILE, DIRECTORY)
        capable = name == CAPABILITY and thing.kind == FILE and value[3:4] == b"\x02"
        if plain or capable:
            yield name, value


def _with_metadata_of_target(probe: Model, thing: Thing) -> Thing:
    parts = clean(thing.name)
    if any(part.startswith(b".wh.") for part in parts):
        return thing
    parent = probe.resolve(parts[:-1])
    assert parent is not None
    meta = parent.children[parts[-1]].inode.meta
    return replace(thing, mode=meta.mode, uid=meta.uid, gid=meta.gid, mtime=meta.mtime, xattrs=meta.xattrs)


def left_out(name: str, image: Image, events: t.Collection[str]) -> str:
    """Why the peer is not given this image, of which the model tells these events; nothing where it is."""
    for layer in image.layers:
        if any(_NEVER.search(thing.name) for thing in layer):
            return "'.wh...'"
    for what, pattern in KNOWN[name]:
        if any(pattern.match(event) for event in events):
            return what
    return ""


def differences(passed: bool, expected: model.Tree, found: model.Tree) -> list[str]:
    """As ``compare.compare``, without the times that peers do not keep: the root's, and directories' that were passed."""
    adjusted = dict(found)
    for path, record in found.items():
        wanted = expected.get(path)
        # buildah's mount gives the root a new time
        known = passed or not path
        if known and wanted is not None and wanted.kind == DIRECTORY:
            adjusted[path] = record._replace(mtime=wanted.mtime)
    return compare.compare(compare.Outcome(expected), compare.Outcome(adjusted))


# -- the peers


def _umoci(image: Image, work: bytes) -> tuple[model.Tree | None, str]:
    """Unpacked two folders deep in a throw-away place."""
    top = os.path.join(work, b"one")
    root = os.path.join(top, b"two", b"root")
    os.makedirs(os.path.dirname(root))
    try:
        layout = _layout(image, top)
        done = _run([_UMOCI, "raw", "unpack", "--image", layout + ":t", os.fsdecode(root)])
        if done.returncode:
            return None, _last_words(done)
        return compare.snapshot(root), ""
    finally:
        remove_below(work, top)


def _buildah(image: Image, work: bytes) -> tuple[model.Tree | None, str]:
    """Unpacked into a storage of its own."""
    top = os.path.join(work, b"one")
    os.mkdir(top)
    folder = os.fsdecode(top)
    command = [_BUILDAH, f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs"]
    try:
        _layout(image, top)
        # not every path makes a reference
        done = _run([*command, "from", "--name", "c", "oci:layout:t"], folder)
        if done.returncode:
            return None, _last_words(done)
        done = _run([*command, "mount", "c"])
        if done.returncode:
            return None, _last_words(done)
        tree = compare.snapshot(done.stdout.strip())
        _run([*command, "umount", "c"])
        return tree, ""
    finally:
        remove_below(work, top)


_UNPACK = {_UMOCI: _umoci, _BUILDAH: _buildah}


def _layout(image: Image, top: bytes) -> str:
    end = len(builder.tar([]))
    layers = [builder.Layer(builder.raw(compare.layer_tar(layer)[:-end])) for layer in image.layers]
    return builder.write_layout(os.path.join(top, b"layout"), builder.Image(layers, ref="t"))


def _run(command: list[str], folder: str | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=_SECONDS, check=False)


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    """The end of what a peer said, without the names in it."""
    words = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
    return words.splitlines()[-1].rpartition(": ")[2][:80] if words else "no word"

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the unit tests share: layers into a tree, a tree into values, and what this machine can do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils import basic
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import unpacking
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.options import Options
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.outcome import Outcome
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.provision import provision
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import mounted as inside
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import Applier
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Policy
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.ids import IdMap
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.root import Root
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import RangeReader
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import Source
from ansible_collections.hypervisor.oci.tests.images.builder import Entry, Raw, tar
from ansible_collections.hypervisor.oci.tests.tools import compare_trees
from ansible_collections.hypervisor.oci.tests.tools.arguments import arguments, options_of
from ansible_collections.hypervisor.oci.tests.tools.compare_trees import read_tree
from ansible_collections.hypervisor.oci.plugins.module_utils._unpack_options import UnpackOptions

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may change owners, make devices and mount")
needs_user = pytest.mark.skipif(IS_ROOT, reason="speaks of an ordinary user")

Members = t.Sequence[t.Union[Entry, Raw]]

# Nanoseconds, as the times of a tree.
SECOND = 10**9
# How the message about a wrong entry ends.
ADVICE = "do not use this image, or build it without"

# What the host itself puts on files.
_HOSTS_OWN = ("security.selinux", "trusted.hypervisor_oci")


class Watched:
    """A source whose ``reads`` are the names of all that was read of it, in order."""

    def __init__(self, source: Source) -> None:
        self.reads: list[str] = []
        self._source = source

    def __getattr__(self, name: str) -> t.Any:
        return getattr(self._source, name)

    def open(self, name: str) -> RangeReader:
        """Open a file, and note its name."""
        self.reads.append(name)
        return self._source.open(name)

    def document(self, name: str) -> bytes:
        """Return a document, and note its name."""
        self.reads.append(name)
        return self._source.document(name)

    def spool(self, directory: int) -> Source:
        """Return the source that is read in place: this one, if it is."""
        spooled = self._source.spool(directory)
        return t.cast(Source, self) if spooled is self._source else spooled


def watched(source: Source) -> t.Any:
    """Return a ``Watched`` source, which serves as any."""
    return Watched(source)


class Node(t.NamedTuple):
    """One path of a tree.

    ``mtime`` in nanoseconds; ``content`` is a file's bytes, a link's text, a node's numbers; ``links`` is how
    many hard links there are, 0 for a directory.
    """

    type: str
    mode: int
    uid: int
    gid: int
    mtime: int
    content: bytes | tuple[int, int] | None
    xattrs: dict[str, bytes]
    links: int


def tree(top: str | Path) -> dict[str, Node]:
    """Everything at and below ``top``, by its path from there; "." is ``top`` itself."""
    found = read_tree(top, contents=True, unlock=True)
    return {os.fsdecode(path): _node(node) for path, node in found.items()}


def _node(node: compare_trees.Node) -> Node:
    content: bytes | tuple[int, int] | None = node.content
    if node.kind == "symlink":
        content = node.target
    elif node.device:
        major, minor = map(int, node.device.split(":"))
        content = (major, minor)
    xattrs = {name: value for name, value in node.xattrs if name not in _HOSTS_OWN}
    links = node.links if node.kind != "directory" else 0
    return Node(node.kind, node.mode, node.uid, node.gid, node.mtime, content, xattrs, links)


def names(top: str | Path) -> list[str]:
    """The paths below ``top``, sorted."""
    return sorted(name for name in tree(top) if name != ".")


def contents(top: str | Path) -> dict[str, bytes | tuple[int, int] | None]:
    """What is below ``top`` without metadata: content, link text or device numbers by path."""
    return {name: node.content for name, node in tree(top).items() if name != "."}


def owned(uid: int, gid: int) -> tuple[int, int]:
    """The owner that an archive's numbers give: they themselves for root, else the caller."""
    return (uid, gid) if IS_ROOT else (os.geteuid(), os.getegid())


def unpack(
    top: Path,
    *layers: Members,
    devices: str | None = None,
    preserve: bool = IS_ROOT,
    uids: t.Sequence[tuple[int, int, int]] = (),
    gids: t.Sequence[tuple[int, int, int]] = (),
    xattrs: t.Sequence[str] = (),
    drop_acls: bool = False,
    keep_dirlinks: bool = False,
    max_size: int = 2**40,
    max_entries: int = 10**6,
    chunk: int = 64 * 1024,
    umask: int = 0,
) -> Report:
    """Apply layers, each a list of entries, to the directory ``top``, which is made where it is missing.

    Layer number N, from 0, has the digest ``sha256:layerN``. ``chunk`` is how many bytes of a tar come at once.
    """
    if not top.is_dir():
        top.mkdir(0o700)
    report = Report()
    options = UnpackOptions(
        max_size=max_size,
        max_entries=max_entries,
        devices=devices or ("safe" if IS_ROOT else "skip"),
        preserve=preserve,
        xattrs=tuple(xattrs),
        drop_acls=drop_acls,
        keep_dirlinks=keep_dirlinks,
        uids=IdMap("uid", tuple(uids)),
        gids=IdMap("gid", tuple(gids)),
    )
    policy = Policy(report, options)
    budget = Budget(max_size, max_entries)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    before = os.umask(umask)
    digest = ""
    root = Root(fd, policy.for_missing_parent(), lambda: budget.add_entry(digest, b"implied"))
    applier = Applier(root, policy, budget, options)
    try:
        for number, members in enumerate(layers):
            digest = f"sha256:layer{number}"
            applier.apply_layer(chunks(tar(members), chunk), digest)
        applier.finish()
    finally:
        root.close()
        os.close(fd)
        os.umask(before)
    return report


def in_layers(number: int, first: Members, second: Members) -> list[Members]:
    """Two lists of entries as one layer, or as two."""
    return [[*first, *second]] if number == 1 else [first, second]


def refused(top: Path, *layers: Members, **options: t.Any) -> str:
    """The one sentence that a wrong layer gives, without its place; the last layer is the wrong one."""
    with pytest.raises(LayerError) as caught:
        unpack(top, *layers, **options)
    message = caught.value.message
    prefix = f"layer sha256:layer{len(layers) - 1}, entry "
    assert message.startswith(prefix)
    assert "\n" not in message
    return message[len(prefix) :]


def chunks(data: bytes, size: int) -> t.Iterator[bytes]:
    """Data as a stream gives it, ``size`` bytes at a time."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def options(dest: str | Path, **changes: t.Any) -> Options:
    """Options as a task gives them, for an image of linux/amd64 whatever machine this is."""
    return options_of(arguments(dest=os.fspath(dest), **changes))


def run(dest: str | Path, check_mode: bool = False, **changes: t.Any) -> dict[str, t.Any]:
    """A run of the verb, as ``options`` says."""
    outcome = provision(options(dest, **changes), check_mode)
    if isinstance(outcome, Outcome):
        return outcome.to_result()
    return {"changed": False, "upload_request": outcome.to_result(), "warnings": []}


def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nothing durable, which costs the most time of all; for tests that do not speak of it."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    for module in (unpacking, inside):
        monkeypatch.setattr(module, "syncfs", lambda _fd: None)


@contextlib.contextmanager
def mounted(path: str | Path, *options: str) -> t.Iterator[None]:
    """A tmpfs at ``path``, or what ``options`` say. Skips the test where that is forbidden."""
    command = ["mount", *(options or ("-t", "tmpfs", "-o", "size=4m", "test"))]
    done = subprocess.run([*command, os.fspath(path)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        _unmount(path)


def _unmount(path: str | Path) -> None:
    """Unmount, also while the kernel has yet to end an overlay that was mounted from there."""
    deadline = time.monotonic() + 30
    while subprocess.run(["umount", os.fspath(path)], check=False).returncode:
        assert time.monotonic() < deadline, f"{path} stays busy"
        time.sleep(0.2)


def set_xattr_or_skip(path: str | Path, name: str, value: bytes) -> None:
    """Set an xattr; skips the test where this file system or user cannot."""
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        pytest.skip(f"{name.partition('.')[0]}.* xattrs cannot be had here: {error}")


def allocated(path: str | Path) -> int:
    """The bytes that a file takes on its disk."""
    return os.stat(path).st_blocks * 512


def give(monkeypatch: pytest.MonkeyPatch, params: dict[str, t.Any]) -> None:
    """Arguments as Ansible passes them."""
    text = json.dumps({"ANSIBLE_MODULE_ARGS": params}).encode()
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", text)
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)


def command(*words: str) -> None:
    """Run a program that has to succeed."""
    subprocess.run(words, check=True, capture_output=True)


@contextlib.contextmanager
def loop_mounted(point: Path, image: Path, kind: str) -> t.Iterator[None]:
    """A file system of its own in a file. Skips the test where there is nothing to make one with."""
    program = shutil.which(f"mkfs.{kind}")
    if program is None or shutil.which("chattr") is None:
        pytest.skip(f"mkfs.{kind} or chattr is not installed")
    with open(image, "wb") as sparse:
        sparse.truncate(128 << 20)
    command(program, "-q", str(image))
    try:
        with mounted(point, "-t", kind, "-o", "loop", str(image)):
            yield
    finally:
        image.unlink()

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks that differ or fail, as far as it can be played without any; ``tests/crash/disks.py`` has real ones."""

from __future__ import annotations

import errno
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import provision
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Attributes
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.directories import names_in
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.removal import empty_directory
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.root import Root

_PLAIN = Attributes(0o755, 0, 0, 0, {})


@pytest.fixture(name="directory")
def fixture_directory(tmp_path: Path) -> t.Iterator[int]:
    """A descriptor of an empty directory."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read_to_its_end(fd: int) -> t.Iterator[os.DirEntry[str]]:
    """Leave a descriptor as btrfs does: what comes later is not shown until it is set back."""
    names = os.scandir(fd)
    next(names)
    # closing it would set the descriptor back
    return names


def make(fd: int, *names: str) -> None:
    """Files in a directory."""
    for name in names:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=fd))


def test_names_are_of_this_moment(directory: int) -> None:
    """docs/behaviour.md, section 5: what lower layers have is all there is, on every file system."""
    make(directory, "one", "two")
    reading = read_to_its_end(directory)
    assert sorted(names_in(directory)) == [b"one", b"two"]
    del reading


def test_whiteouts_find_what_came_after_the_directory_was_opened(directory: int) -> None:
    """docs/behaviour.md, section 5: of a name, and opaque; the descriptors stay open over all layers."""
    root = Root(directory, _PLAIN)
    root.begin_layer()
    etc = root.make_directory(root.top, b"etc", _PLAIN)
    for name in (b"a", b"b"):
        os.close(root.create_file(etc, name))
        os.close(root.create_file(root.top, name))
    reading = [read_to_its_end(directory), read_to_its_end(root.fd(etc))]
    root.begin_layer()
    assert root.white_out(root.top, b"a")
    assert root.white_out_all(etc)
    assert sorted(os.listdir(directory)) == ["b", "etc"]
    assert os.listdir(root.fd(etc)) == []
    root.close()
    del reading


def test_a_tree_is_removed_whole(directory: int) -> None:
    """docs/behaviour.md, section 7: also what was moved up to the top meanwhile."""
    make(directory, "one", "two")
    reading = read_to_its_end(directory)
    empty_directory(directory)
    assert os.listdir(directory) == []
    del reading


@pytest.mark.parametrize(
    "code, words",
    [
        (errno.EDQUOT, "the disk quota is used up; raise the quota"),
        (errno.EROFS, "read-only file system; mount it writable"),
        (errno.EIO, "input/output error; the disk or its connection fails"),
    ],
)
def test_an_error_of_a_descriptor(monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    """It has a number for a name, which is not told; the rest is, as one sentence."""

    def fail(options: t.Any, check_mode: bool) -> t.NoReturn:
        raise OSError(code, os.strerror(code), 7)

    class Some:
        dest = "/some/dest"
        needs_image = True

    monkeypatch.setattr(provision, "_provision_image", fail)
    with pytest.raises(RootfsError) as caught:
        provision.provision(t.cast(t.Any, Some), False)
    assert words in caught.value.message
    assert "7" not in caught.value.message

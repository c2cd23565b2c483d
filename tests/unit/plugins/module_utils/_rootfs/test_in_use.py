# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a tree (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import in_use
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.in_use import (
    read_mounts,
    require_unused,
    users_of,
)
from ansible_collections.hypervisor.oci.tests.unit.support import mounted, needs_root


@pytest.fixture(name="top")
def fixture_top(tmp_path: Path) -> Path:
    """A tree with a directory in it."""
    (tmp_path / "top" / "d").mkdir(parents=True)
    return tmp_path / "top"


def users(top: Path) -> list[str]:
    """What uses a tree."""
    fd = os.open(top, os.O_RDONLY)
    try:
        return users_of(fd, os.fspath(top))
    finally:
        os.close(fd)


@contextlib.contextmanager
def process(*before: str, code: str = "", cwd: Path | None = None) -> t.Iterator[int]:
    """A process that has started and waits."""
    script = f"{code}\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()"
    child = subprocess.Popen(
        [*before, sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    try:
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            assert child.stderr is not None
            pytest.skip(
                f"no such process can be had here: {child.stderr.read()[-200:]}"
            )
        yield child.pid
    finally:
        child.communicate("")


def test_nobody(top: Path) -> None:
    """Also not this process itself."""
    here = os.open(".", os.O_RDONLY)
    os.chdir(top)
    try:
        assert users(top) == []
    finally:
        os.chdir(here)
        os.close(here)
    fd = os.open(top, os.O_RDONLY)
    require_unused(fd, os.fspath(top))
    os.close(fd)


@pytest.mark.parametrize("where", ["", "d"])
def test_a_process_with_its_working_directory_there(top: Path, where: str) -> None:
    with process(cwd=top / where) as number:
        (text,) = users(top)
    assert text.startswith(f"process {number} (python")
    assert text.endswith(") with its working directory")
    assert users(top) == []


def test_a_process_beside_does_not_count(top: Path) -> None:
    """Names that only begin alike are others."""
    (top.parent / "top2").mkdir()
    with process(cwd=top.parent / "top2"), process(cwd=top.parent):
        assert users(top) == []


@needs_root
def test_a_process_with_its_root_there(top: Path) -> None:
    code = f"import os\nimport sys\nos.chroot({str(top)!r})\nos.chdir('/')"
    with process(code=code) as number:
        (text,) = users(top)
    assert text.startswith(f"process {number} (python")
    assert text.endswith(") with its root")


@needs_root
@pytest.mark.parametrize("where", ["", "d"])
def test_a_mount_below(top: Path, where: str) -> None:
    point = top / where
    if not where:
        # at the tree itself: what is mounted over it is not the tree, but hides it
        point = top / "d" / "e"
        point.mkdir()
    with mounted(point):
        assert users(top) == [f"a mount at {point}"]
    assert users(top) == []


@needs_root
@pytest.mark.parametrize("where", ["", "d"])
def test_a_mount_of_it_elsewhere(top: Path, where: str) -> None:
    """A bind mount, as containers and chroots have them."""
    elsewhere = top.parent / "elsewhere"
    elsewhere.mkdir()
    with mounted(elsewhere, "--bind", str(top / where)):
        assert users(top) == [f"a mount of it at {elsewhere}"]
    assert users(top) == []


@needs_root
def test_a_mount_of_it_in_another_namespace(top: Path) -> None:
    """Where a container's mounts are: seen from here by its process alone."""
    elsewhere = top.parent / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import subprocess\n"
        f"subprocess.run(['mount', '--bind', {str(top)!r}, {str(elsewhere)!r}], check=True)"
    )
    with process("unshare", "--mount", "--propagation", "private", code=code) as number:
        assert users(top) == [f"a mount of it at {elsewhere} of process {number}"]
        assert users(top / "d") == []
    assert users(top) == []


@needs_root
def test_a_process_with_its_root_there_in_another_namespace(top: Path) -> None:
    """A container: its root lies at another path, or at none that is seen from here."""
    elsewhere = top.parent / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import os, subprocess\n"
        f"subprocess.run(['mount', '--bind', {str(top)!r}, {str(elsewhere)!r}], check=True)\n"
        f"import sys\nos.chroot({str(elsewhere)!r})\nos.chdir('/')"
    )
    with process("unshare", "--mount", "--propagation", "private", code=code) as number:
        found = users(top)
    assert found[0] == f"a mount of it at / of process {number}"
    (text,) = found[1:]
    assert text.startswith(f"process {number} (python")
    assert text.endswith(") with its root")


@needs_root
def test_what_another_namespace_has_as_ever_does_not_count(top: Path) -> None:
    """It has a copy of all mounts; those are no use of the tree."""
    with process("unshare", "--mount", "--propagation", "private"):
        assert users(top) == []


def test_the_error_lists_them(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7: an error that lists them, ten at most."""
    fd = os.open(top, os.O_RDONLY)
    try:
        for number, end in (
            (1, ""),
            (10, ""),
            (11, " and 1 more"),
            (99, " and 89 more"),
        ):
            found = [f"user {index}" for index in range(number)]
            monkeypatch.setattr(in_use, "users_of", lambda *_args, it=found: it)
            with pytest.raises(RootfsError) as caught:
                require_unused(fd, str(top))
            assert caught.value.message == (
                f"'{top}' is in use by {', '.join(found[:10])}{end};"
                " stop what uses it, or set in_use: ignore"
            )
    finally:
        os.close(fd)


# -- mountinfo


def test_lines_of_mountinfo(tmp_path: Path) -> None:
    lines = tmp_path / "mountinfo"
    lines.write_bytes(
        b"22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        b"57 22 0:50 /@/sub\\040vol /mnt/with\\040blank\\134and\\011tab rw - btrfs /dev/x rw\n"
        b"58 22 0:4 mnt:[4026532] /run/ns\xff rw - nsfs nsfs rw\n"
    )
    assert [tuple(mount) for mount in read_mounts(str(lines))] == [
        (22, "254:1", "/", "/"),
        (57, "0:50", "/@/sub vol", "/mnt/with blank\\and\ttab"),
        (58, "0:4", "mnt:[4026532]", os.fsdecode(b"/run/ns\xff")),
    ]


def test_a_process_that_is_gone() -> None:
    assert read_mounts("/proc/0/mountinfo") == []


@needs_root
def test_a_mount_at_a_name_with_blanks(top: Path) -> None:
    odd = top / "a b\\c\n"
    odd.mkdir()
    with mounted(odd):
        assert users(top) == [f"a mount at {odd}"]


def test_names_of_processes_are_visible(top: Path) -> None:
    """A process chooses its name, and may choose one that a terminal obeys."""
    code = "open('/proc/self/comm', 'wb').write(b'\\x1b[2J\\xc2\\x9bm\\n')"
    with process(code=code, cwd=top):
        found = [text for text in users(top) if "working directory" in text]
    assert len(found) == 1
    assert "(\\x1b[2J\\x9bm" in found[0]
    assert found[0].isprintable()

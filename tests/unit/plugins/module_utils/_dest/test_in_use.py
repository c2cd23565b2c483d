# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who uses a tree (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError, show
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import in_use
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.in_use import require_unused, users_of
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.mounts import (
    Mount,
    Spot,
    names_of,
    read_mounts,
    spot_by_name,
)
from ansible_collections.hypervisor.oci.tests.unit.support import mounted, needs_root

pytestmark = pytest.mark.usefixtures("alone")

IN_NAMESPACE = ("unshare", "--mount", "--propagation", "private")


@pytest.fixture(name="top")
def fixture_top(tmp_path: Path) -> Path:
    """A tree with a directory in it."""
    (tmp_path / "top" / "d").mkdir(parents=True)
    return tmp_path / "top"


def users(top: Path) -> list[str]:
    """What uses a tree."""
    fd = os.open(top, os.O_RDONLY)
    try:
        return users_of(fd)
    finally:
        os.close(fd)


def require_nobody(top: Path) -> None:
    """Nothing uses the tree, once tests that run beside have ended the namespaces into which they copied our mounts."""
    deadline = time.monotonic() + 20
    while users(top) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert users(top) == []


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
            pytest.skip(f"no such process can be had here: {child.stderr.read()[-200:]}")
        yield child.pid
    finally:
        child.communicate("")


def command(number: int) -> str:
    """How the name of a process is shown."""
    return show(Path(f"/proc/{number}/comm").read_bytes().strip())


def wait_for(happened: t.Callable[[], bool]) -> None:
    """Wait for another process."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nobody(top: Path) -> None:
    """Also not this process itself."""
    here = os.open(".", os.O_RDONLY)
    os.chdir(top)
    try:
        require_nobody(top)
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
    assert text.startswith(f"process {number} ('python")
    assert text.endswith("') with its working directory")
    require_nobody(top)


def test_a_process_beside_does_not_count(top: Path) -> None:
    """Names that only begin alike are others."""
    (top.parent / "top2").mkdir()
    with process(cwd=top.parent / "top2"), process(cwd=top.parent):
        require_nobody(top)


@needs_root
def test_a_process_with_its_root_there(top: Path) -> None:
    code = f"import os\nimport sys\nos.chroot({str(top)!r})\nos.chdir('/')"
    with process(code=code) as number:
        (text,) = users(top)
    assert text.startswith(f"process {number} ('python")
    assert text.endswith("') with its root")


@needs_root
@pytest.mark.parametrize("where", ["", "d"])
def test_a_mount_below(top: Path, where: str) -> None:
    point = top / where
    if not where:
        # at the tree itself: what is mounted over it is not the tree, but hides it
        point = top / "d" / "e"
        point.mkdir()
    with mounted(point):
        assert users(top) == [f"a mount at '{point}'"]
    require_nobody(top)


@needs_root
@pytest.mark.parametrize("where", ["", "d"])
def test_a_mount_of_it_elsewhere(top: Path, where: str) -> None:
    """A bind mount, as containers and chroots have them."""
    elsewhere = top.parent / "elsewhere"
    elsewhere.mkdir()
    with mounted(elsewhere, "--bind", str(top / where)):
        assert users(top) == [f"a mount of it at '{elsewhere}'"]
    require_nobody(top)


@needs_root
def test_a_mount_of_it_in_another_namespace(top: Path) -> None:
    """Where a container's mounts are: seen from here by its process alone."""
    elsewhere = top.parent / "elsewhere"
    elsewhere.mkdir()
    code = "import subprocess\n" f"subprocess.run(['mount', '--bind', {str(top)!r}, {str(elsewhere)!r}], check=True)"
    with process("unshare", "--mount", "--propagation", "private", code=code) as number:
        assert users(top) == [f"a mount of it at '{elsewhere}' of process {number}"]
        assert users(top / "d") == []
    require_nobody(top)


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
    assert found[0] == f"a mount of it at '/' of process {number}"
    (text,) = found[1:]
    assert text.startswith(f"process {number} ('python")
    assert text.endswith("') with its root")


@pytest.mark.parametrize("where", ["", "d"])
def test_a_process_with_an_open_directory(top: Path, where: str) -> None:
    """As a daemon has that was handed a descriptor and works below it."""
    with process(code=f"import os\nos.open({str(top / where)!r}, os.O_RDONLY)") as it:
        assert users(top) == [f"process {it} ({command(it)}) with an open file"]
    require_nobody(top)


def test_a_process_with_an_open_file(top: Path) -> None:
    """Also one that was removed meanwhile."""
    (top / "d/f").touch()
    code = f"f = open({str(top / 'd/f')!r})"
    with process(code=code) as it:
        expected = [f"process {it} ({command(it)}) with an open file"]
        assert users(top) == expected
        (top / "d/f").unlink()
        assert users(top) == expected
        # that file was never in the tree beside
        assert users(top.parent / "top" / "d") == expected
        (top.parent / "other").mkdir()
        assert users(top.parent / "other") == []


DEEPER = "for _level in range(30):\n os.mkdir('x' * 200)\n os.chdir('x' * 200)\n"


@needs_root
@pytest.mark.parametrize("how", ["its working directory", "an open file"])
def test_a_path_too_long_for_the_kernel_to_tell(top: Path, how: str) -> None:
    """A container can open a directory at a path longer than a page; its mount decides then."""
    with mounted(top):
        for name in ("tree", "other"):
            (top / name).mkdir()
        code = f"import os\nos.chdir({str(top / 'tree')!r})\n{DEEPER}"
        if how == "an open file":
            code += "os.open('.', os.O_RDONLY)\nos.chdir('/')\n"
        with process(code=code) as it:
            with pytest.raises(OSError, match="File name too long"):
                for link in [f"/proc/{it}/cwd", *(f"/proc/{it}/fd/{fd}" for fd in os.listdir(f"/proc/{it}/fd"))]:
                    os.readlink(link)
            assert users(top / "tree") == [f"process {it} ({command(it)}) with {how}"]


@needs_root
def test_a_long_path_on_another_mount(top: Path) -> None:
    """It cannot lie in the tree: no container keeps the tree of another one in use."""
    with mounted(top):
        for name in ("tree", "other"):
            (top / name).mkdir()
        here = str(top / "other")
        code = f"import os, subprocess\nsubprocess.run(['mount', '--bind', {here!r}, {here!r}], check=True)\n"
        with process(*IN_NAMESPACE, code=f"{code}os.chdir({here!r})\n{DEEPER}") as it:
            assert users(top / "tree") == []
            assert f"process {it} ({command(it)}) with its working directory" in users(top / "other")


def test_a_process_whose_executable_lies_there(top: Path) -> None:
    """A statically linked program, started from outside."""
    sleep = top / "d" / "sleep\x1b[31m"
    shutil.copy("/bin/sleep", sleep)
    child = subprocess.Popen([sleep, "60"])
    try:
        # the kernel gives a process its executable first, and its name a little later
        wait_for(lambda: os.readlink(f"/proc/{child.pid}/exe") == str(sleep) and "sleep" in command(child.pid))
        assert users(top) == [f"process {child.pid} ('sleep\\x1b[31m') with its executable"]
    finally:
        child.kill()
        child.wait()


def test_a_process_that_only_mapped_a_file(top: Path) -> None:
    """The descriptor is closed, as that of every library is."""
    with open(top / "d/f", "wb") as sparse:
        sparse.truncate(1 << 20)
    code = f"import mmap\nf = open({str(top / 'd/f')!r}, 'r+b')\n" "m = mmap.mmap(f.fileno(), 0)\nf.close()"
    with process(code=code) as it:
        # mmap keeps a copy of the descriptor
        keeps = [fd for fd in os.listdir(f"/proc/{it}/fd") if int(fd) > 2]
        assert users(top) == [f"process {it} ({command(it)}) with {'an open' if keeps else 'a mapped'} file"]
    code += "\nimport os\nfor number in range(3, 100):\n" " try:\n  os.close(number)\n except OSError:\n  pass"
    with process(code=code) as it:
        assert users(top) == [f"process {it} ({command(it)}) with a mapped file"]
    require_nobody(top)


def test_a_process_whose_first_thread_has_ended(top: Path) -> None:
    """The others live on, and it still has its working directory there."""
    code = (
        "import ctypes, sys, threading\n"
        "threading.Thread(target=sys.stdin.read).start()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).syscall(ctypes.c_long(EXIT), 0)"
    ).replace("EXIT", {"x86_64": "60"}.get(os.uname().machine, "93"))
    with process(code=code, cwd=top) as it:
        wait_for(lambda: "Z" in Path(f"/proc/{it}/stat").read_text())
        (text,) = users(top)
        assert text.endswith(" with its working directory")
        os.kill(it, signal.SIGKILL)


@needs_root
@pytest.mark.parametrize("how", ["directory", "descriptor", "root", "executable"])
def test_the_same_path_in_another_namespace(top: Path, how: str) -> None:
    """There it leads to another file system, so nothing of it is a use: no container blocks another by names."""
    code = (
        "import os, shutil, subprocess\n"
        f"top = {str(top)!r}\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'x', os.path.dirname(top)], check=True)\n"
        "os.makedirs(top + '/d')\n"
    )
    code += {
        "directory": "os.chdir(top + '/d')",
        "descriptor": "os.open(top + '/d', os.O_RDONLY)",
        "root": "import sys\nos.chroot(top)\nos.chdir('/')",
        "executable": (
            "shutil.copy('/bin/sleep', top + '/sleep')\n"
            "child = subprocess.Popen([top + '/sleep', '60'])\n"
            "import atexit\natexit.register(child.kill)"
        ),
    }[how]
    with process(*IN_NAMESPACE, code=code) as it:
        where = f"/proc/{it}/root" if how == "root" else f"/proc/{it}/cwd"
        if how in ("directory", "root"):
            # the text alone would say that it is a use
            assert os.readlink(where).startswith(str(top))
        require_nobody(top)
        assert users(top / "d") == []


@needs_root
@pytest.mark.parametrize("how", ["directory", "descriptor"])
def test_another_path_in_another_namespace(top: Path, how: str) -> None:
    """A container has the tree below another path, through a mount of a directory above it."""
    elsewhere = top.parent.parent / f"{top.parent.name}.elsewhere"
    elsewhere.mkdir()
    code = (
        "import os, subprocess\n"
        f"subprocess.run(['mount', '--bind', {str(top.parent)!r}, {str(elsewhere)!r}], check=True)\n"
    )
    code += {
        "directory": f"os.chdir({str(elsewhere / 'top/d')!r})",
        "descriptor": f"os.open({str(elsewhere / 'top/d')!r}, os.O_RDONLY)",
    }[how]
    words = {"directory": "its working directory", "descriptor": "an open file"}[how]
    with process(*IN_NAMESPACE, code=code) as it:
        expected = [f"process {it} ({command(it)}) with {words}"]
        assert users(top) == users(top / "d") == expected
        (top.parent / "top2").mkdir()
        assert users(top.parent / "top2") == []


@needs_root
def test_a_mount_in_it_in_another_namespace(top: Path) -> None:
    code = f"import subprocess\nsubprocess.run(['mount', '-t', 'tmpfs', 'x', {str(top / 'd')!r}], check=True)"
    with process(*IN_NAMESPACE, code=code) as it:
        assert users(top) == [f"a mount at '{top}/d' of process {it}"]


@needs_root
@pytest.mark.parametrize(
    "layer, own",
    [
        ("lowerdir", True),
        ("lowerdir", False),
        ("upperdir", True),
        ("upperdir", False),
        # links of another namespace are not followed
        ("link", True),
    ],
)
def test_an_overlay_with_the_tree_as_a_layer(top: Path, layer: str, own: bool) -> None:
    """In this namespace, and in another one."""
    above = top.parent
    disk = above / "disk"
    for name in ("disk", "other", "elsewhere"):
        (above / name).mkdir()
    (above / "link").symlink_to(top / "d")
    upper = top / "d" if layer == "upperdir" else f"{disk}/u"
    lower = {"lowerdir": top / "d", "link": above / "link"}.get(layer, above / "other")
    options = f"lowerdir={lower},upperdir={upper},workdir={disk}/w"
    if layer == "upperdir":
        options = f"lowerdir={lower}:{top / 'd'}"
    mount = ["-t", "overlay", "-o", options, "overlay"]
    elsewhere = above / "elsewhere"
    with mounted(disk):
        for name in ("u", "w"):
            (disk / name).mkdir()
        if own:
            with mounted(elsewhere, *mount):
                assert users(top) == [f"an overlay of it at '{elsewhere}'"]
                assert users(above / "disk/w") == (
                    [] if layer == "upperdir" else [f"an overlay of it at '{elsewhere}'"]
                )
        else:
            code = "import subprocess\n" f"subprocess.run({['mount', *mount, str(elsewhere)]!r}, check=True)"
            with process(*IN_NAMESPACE, code=code) as it:
                assert users(top) == [f"an overlay of it at '{elsewhere}' of process {it}"]
        require_nobody(top)


@needs_root
def test_an_overlay_of_the_same_path_in_another_namespace(top: Path) -> None:
    """Its layers lie in a file system of its own, whatever they are called."""
    code = (
        "import os, subprocess\n"
        f"top = {str(top)!r}\n"
        "above = os.path.dirname(top)\n"
        "subprocess.run(['mount', '-t', 'tmpfs', 'x', above], check=True)\n"
        "os.makedirs(top)\nos.mkdir(above + '/other')\nos.mkdir(above + '/merged')\n"
        "options = f'lowerdir={top}:{above}/other'\n"
        "subprocess.run(['mount', '-t', 'overlay', '-o', options, 'x', above + '/merged'], check=True)"
    )
    with process(*IN_NAMESPACE, code=code):
        require_nobody(top)


@needs_root
def test_a_name_that_would_break_a_terminal(top: Path) -> None:
    """What a container calls its processes and mounts is shown, not obeyed."""
    elsewhere = top.parent / "x\x1b]0;y\n"
    elsewhere.mkdir()
    code = (
        "import subprocess\n"
        "open('/proc/self/comm', 'w').write('a\x1b[2J\\n')\n"
        f"subprocess.run(['mount', '--bind', {str(top)!r}, {str(elsewhere)!r}], check=True)"
    )
    with process(*IN_NAMESPACE, code=code, cwd=top) as it:
        first, second = users(top)
    assert first == f"a mount of it at {show(str(elsewhere))} of process {it}"
    assert second == f"process {it} ('a\\x1b[2J') with its working directory"
    assert "\x1b" not in first + second


@needs_root
def test_what_another_namespace_has_as_ever_does_not_count(top: Path) -> None:
    """It has a copy of all mounts; those are no use of the tree."""
    with process("unshare", "--mount", "--propagation", "private"):
        require_nobody(top)


def test_the_error_lists_them(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7: an error that lists them, ten at most."""
    fd = os.open(top, os.O_RDONLY)
    try:
        for number, end in ((1, ""), (10, ""), (11, " and 1 more"), (99, " and 89 more")):
            found = [f"user {index}" for index in range(number)]
            monkeypatch.setattr(in_use, "users_of", lambda *_args, it=found: it)
            with pytest.raises(RootfsError) as caught:
                require_unused(fd, str(top))
            assert caught.value.message == (
                f"'{top}' is in use by {', '.join(found[:10])}{end};" " stop what uses it, or set in_use: ignore"
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
    assert read_mounts(str(lines)) == [
        Mount(22, 1, "254:1", "/", "/", "ext4"),
        Mount(57, 22, "0:50", "/@/sub vol", "/mnt/with blank\\and\ttab", "btrfs"),
        Mount(58, 22, "0:4", "mnt:[4026532]", os.fsdecode(b"/run/ns\xff"), "nsfs"),
    ]


@pytest.mark.parametrize(
    "options, layers",
    [
        (b"rw,lowerdir=/a:/b\\134:c:relative,upperdir=/u,workdir=/w", "/a /b:c /u /w"),
        (b"rw,lowerdir+=/a:b,lowerdir+=/c\\054d,datadir+=/e", "/a:b /c,d /e"),
        (b"rw,lowerdir=/a::/data,xino=off", "/a /data"),
        (b"rw", ""),
    ],
)
def test_layers_of_an_overlay(tmp_path: Path, options: bytes, layers: str) -> None:
    """As the kernel writes them: by octal numbers, and with what the mounting user wrote before colons."""
    lines = tmp_path / "mountinfo"
    lines.write_bytes(b"22 1 0:9 / /o rw shared:1 master:2 - overlay o " + options)
    (mount,) = read_mounts(str(lines))
    assert list(mount.layers) == layers.split()


def test_lines_that_no_kernel_writes(tmp_path: Path) -> None:
    """The path of a mount can be as long as a container makes it."""
    lines = tmp_path / "mountinfo"
    long = b"22 1 0:9 / /" + b"x" * 200_000 + b" rw - ext4 o rw\n"
    lines.write_bytes(long + b"23 1 0:9 / /a rw - ext4 o rw\n")
    assert read_mounts(str(lines))[-1].point == "/a"


def test_what_a_path_means_elsewhere() -> None:
    """The mount that lies on top decides, and no path leads out by dots."""
    mounts = [
        Mount(1, 0, "8:1", "/lxc/web/rootfs", "/"),
        Mount(2, 1, "8:1", "/lxc/other", "/mnt"),
        Mount(3, 1, "0:5", "/", "/mnt"),
    ]
    table = {mount.id: mount for mount in mounts}
    assert spot_by_name(table, "/../a/./b") == Spot("8:1", "/lxc/web/rootfs/a/b")
    assert spot_by_name(table, "/mnt/x") == Spot("0:5", "/x")
    assert names_of(table, Spot("8:1", "/lxc/web/rootfs/d")) == ("/d",)
    assert names_of(table, Spot("8:1", "/lxc")) == ("/", "/mnt")
    assert names_of(table, Spot("8:1", "/other")) == ()


def test_a_process_that_is_gone() -> None:
    assert read_mounts("/proc/0/mountinfo") == []


@needs_root
def test_a_mount_at_a_name_with_blanks(top: Path) -> None:
    odd = top / "a b\\c\n"
    odd.mkdir()
    with mounted(odd):
        assert users(top) == [f"a mount at {show(odd.as_posix())}"]


def test_names_of_processes_are_visible(top: Path) -> None:
    """A process chooses its name, and may choose one that a terminal obeys."""
    code = "open('/proc/self/comm', 'wb').write(b'\\x1b[2J\\xc2\\x9bm\\n')"
    with process(code=code, cwd=top):
        found = [text for text in users(top) if "working directory" in text]
    assert len(found) == 1
    assert "('\\x1b[2J\\x9bm')" in found[0]
    assert found[0].isprintable()

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandbox protects the machine: what is done in it as root is gone with it.

The machine of these tests is a sandbox itself, so that a failure hurts nobody.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import typing as t
import uuid
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.tools import confinement, sandbox

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root alone needs and has a sandbox")
# As the program does it, although this is a sandbox already.
_RUN = """
import sys
from ansible_collections.hypervisor.oci.tests.tools import sandbox

sandbox.is_inside = lambda: False
sys.exit(sandbox.main())
"""
_FOLDERS = ("/etc", "/usr", "/var/lib", "/root", "/tmp", "/var/tmp", "/run", "/dev/shm")
_PATIENCE = 60


def command(*words: str, flags: t.Sequence[str] = ()) -> list[str]:
    """The command line of a sandbox in this one."""
    return [sys.executable, "-B", "-c", _RUN, *flags, *words]


def environment() -> dict[str, str]:
    """With the collection where this process has it."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(*words: str, flags: t.Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command in a sandbox."""
    return subprocess.run(
        command(*words, flags=flags), env=environment(), capture_output=True, check=False, text=True, timeout=_PATIENCE
    )


def made_by(mark: str, pid: int = 0) -> set[str]:
    """What can be seen from outside of a sandbox with this mark and process id: others come and go beside it."""
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        # it may end at this moment
        with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
            if mark.encode() in file.read().split(b"\0"):
                found.add(f"process {process}")
    with open("/proc/self/mounts", encoding="utf-8") as file:
        found.update(line for line in file if mark in line)
    found.update(loop for loop, text in loops().items() if mark in text)
    end = f"hypervisor.oci-tests-{pid}"
    found.update(folder for folder in groups() if mark in folder or end in folder.split("/"))
    return found


def loops() -> dict[str, str]:
    """The files behind the loop devices, by their names."""
    found = {}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        # others may let go of theirs at this moment
        with contextlib.suppress(OSError):
            found[path.parts[3]] = path.read_text()
    return found


def disks() -> set[str]:
    """The files of all sandboxes of this checkout."""
    return {text for text in loops().values() if text.startswith(os.path.join(sandbox.CHECKOUT, ".nox", "sandbox-"))}


def groups() -> set[str]:
    """The control groups that this process can see."""
    return {folder for folder, _names, _files in os.walk("/sys/fs/cgroup")}


@pytest.fixture(name="canaries")
def fixture_canaries() -> t.Iterator[list[str]]:
    """A file in each folder that no test may change."""
    paths = [f"{folder}/canary-{uuid.uuid4().hex}" for folder in _FOLDERS]
    for path in paths:
        Path(path).write_text("alive\n")
    yield paths
    for path in paths:
        os.unlink(path)


def test_this_is_a_sandbox() -> None:
    assert confinement.why_not_here() == ""
    assert os.statvfs("/").f_fsid != os.statvfs(sandbox.CHECKOUT).f_fsid


_DISK = "26 1 254:0 / / rw,relatime - ext4 /dev/vda rw"
_VIEW = "938 769 0:232 / / rw - overlay overlay rw,lowerdir=/,upperdir=/x/.nox/sandbox/layers-0/upper,workdir=/x/.nox/w"


@pytest.mark.parametrize(
    ("lines", "inside"),
    [
        ([_VIEW], True),
        ([_DISK, _VIEW, "1 2 0:1 / /run rw - tmpfs tmpfs rw"], True),
        ([_DISK], False),
        ([_VIEW, _DISK], False),
        ([_VIEW.replace("/.nox/sandbox/", "/")], False),
        ([_VIEW.replace(" / / ", " / /srv ")], False),
        ([], False),
    ],
)
def test_a_mark_that_somebody_made_is_no_sandbox(tmp_path: Path, lines: list[str], inside: bool) -> None:
    """Only with it, and a root file system whose changes are thrown away."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text("".join(f"{line}\n" for line in lines))
    assert os.path.isfile(confinement.MARK)
    assert confinement.is_inside(str(mounts)) is inside


def test_what_root_does_to_the_machine_is_gone(canaries: list[str]) -> None:
    mark = uuid.uuid4().hex
    before = disks()
    script = f"""
    set -ex
    [ "$(id -u)" = 0 ]
    rm -f {" ".join(canaries)}
    for folder in {" ".join(_FOLDERS)}; do echo made >"$folder/made-{mark}"; done
    find /etc -xdev -type f -delete
    [ ! -e /etc/passwd ]
    mkdir /srv/{mark}
    mount -t tmpfs {mark} /srv/{mark}
    truncate -s 16M /var/tmp/{mark}
    mkfs.ext4 -q /var/tmp/{mark}
    losetup --find /var/tmp/{mark}
    for folder in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ ! -e "$folder/cgroup.procs" ] || mkdir "$folder/group-{mark}"
    done
    setsid sleep 1000 {mark} </dev/null >/dev/null 2>&1 &
    echo done
    """.replace("sleep 1000", "sh -c 'sleep 1000; :'")
    done = run("sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert [Path(path).read_text() for path in canaries] == ["alive\n"] * len(canaries)
    assert [folder for folder in _FOLDERS if os.path.exists(f"{folder}/made-{mark}")] == []
    assert os.path.exists("/etc/passwd")
    assert not os.path.exists(f"/srv/{mark}")
    wait_until_equal(lambda: made_by(mark), set())
    # its own, and those of others, which go as well
    left = disks() - before
    wait_until_equal(lambda: left & disks(), set())


def wait_until_equal(seen: t.Callable[[], t.Any], wanted: t.Any) -> None:
    """The kernel lets go of some things a little later than of the process."""
    deadline = time.monotonic() + _PATIENCE
    found = seen()
    while found != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
        found = seen()
    assert found == wanted


def test_nothing_is_left_of_one_that_was_killed() -> None:
    mark = uuid.uuid4().hex
    before = disks()
    process = subprocess.Popen(
        command("sh", "-c", "echo started; sleep 1000; :", mark), env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "started\n"
    made, its_disk = made_by(mark, process.pid), disks() - before
    assert len([line for line in made if line.startswith("process ")]) > 1
    its_groups = made & groups()
    assert its_groups
    process.send_signal(signal.SIGKILL)
    process.wait(_PATIENCE)
    process.stdout.close()
    # its groups stay until there is another sandbox
    wait_until_equal(lambda: made_by(mark, process.pid) - its_groups, set())
    # others' that were there as well go, too
    wait_until_equal(lambda: its_disk & disks(), set())

    def left_by_the_next() -> set[str]:
        assert run("true").returncode == 0
        return its_groups & groups()

    # the next one removes its groups, once the kernel has ended all that is in them
    wait_until_equal(left_by_the_next, set())


def test_the_checkout_is_the_real_one(tmp_path: Path) -> None:
    made = Path(sandbox.CHECKOUT, ".nox", f"made-{uuid.uuid4().hex}")
    assert run("sh", "-c", f"pwd; echo x >{made}; exit 7").returncode == 7
    assert made.read_text() == "x\n"
    made.unlink()


def test_what_a_command_needs_of_a_temporary_folder_is_there(tmp_path: Path) -> None:
    """The folder that it is started in: changes are thrown away like all others."""
    (tmp_path / "file").write_text("kept\n")
    done = subprocess.run(
        command("sh", "-c", "cat file; echo lost >file; echo lost >other"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        check=False,
        text=True,
        timeout=_PATIENCE,
    )
    assert done.stdout == "kept\n", done.stderr
    assert (tmp_path / "file").read_text() == "kept\n"
    assert os.listdir(tmp_path) == ["file"]


def test_there_are_no_disks_and_no_process_of_the_machine() -> None:
    done = run("sh", "-c", "find /dev -type b ! -name 'loop*'; ls -d /proc/[0-9]*")
    assert done.stdout.split()[0] == "/proc/1"
    assert len(done.stdout.split()) < 5


def test_where_there_can_be_none_nothing_runs() -> None:
    """Without the right to make namespaces, as root has none in many containers."""
    without = ["setpriv", "--bounding-set", "-sys_admin", "--"]
    for flags, status in (([], 3), (["--or-outside"], 0)):
        script = 'echo "ran: $OCI_TESTS_NO_SANDBOX"'
        done = subprocess.run(
            [*without, *command("sh", "-c", script, flags=flags)],
            env=environment(),
            capture_output=True,
            check=False,
            text=True,
            timeout=_PATIENCE,
        )
        assert done.returncode == status
        assert "no sandbox for tests here: new namespaces are refused" in done.stderr
        assert done.stdout == ("" if status else f"ran: {done.stderr}")


def test_where_it_cannot_be_built_nothing_runs() -> None:
    """Such as without the programs that mount; what runs outside can start processes."""
    for flags, status in (([], 3), (["--or-outside"], 0)):
        script = '/bin/true; echo "ran: $OCI_TESTS_NO_SANDBOX"'
        done = subprocess.run(
            command("/bin/sh", "-c", script, flags=flags),
            env={**environment(), "PATH": "/not there"},
            capture_output=True,
            check=False,
            text=True,
            timeout=_PATIENCE,
        )
        assert done.returncode == status
        assert "no sandbox for tests here: " in done.stderr
        assert done.stdout == ("" if status else f"ran: {done.stderr}")


def test_root_runs_no_test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "MARK", "/run/not there")
    assert "sandbox only" in confinement.why_not_here()
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _path, words: started.append(words))
    confinement.require()
    program = os.path.join(os.path.dirname(confinement.__file__), "sandbox.py")
    assert started == [[sys.executable, program, sys.executable, *sys.orig_argv[1:]]]
    monkeypatch.setenv(confinement.REFUSED, "a reason")
    with pytest.raises(SystemExit):
        confinement.require()
    assert len(started) == 1
    assert confinement.why_not_here() == "a reason"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert confinement.why_not_here() == ""

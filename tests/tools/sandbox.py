# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a command of the tests where root cannot hurt the machine.

    sandbox.py [--or-outside] COMMAND [ARGUMENT...]

The command sees the machine as it is, but in namespaces of its own: ``/`` is a throw-away copy-on-write view, and
temporary folders, ``/dev``, ``/run`` and the folders of container runtimes are empty ones. Only the checkout is the
real one, and ``~/.ansible/test`` is a folder of the checkout. What the command writes elsewhere lies in one
file system of bounded size that has no name outside. When the command ends, however it ends, the kernel kills all that
it started, and with the last process the mounts and the loop devices go.

An ordinary user's command runs as it is: that user's rights are the bound. Where root cannot have a sandbox the command
does not run, and the exit status is 3. With ``--or-outside`` it runs, with the reason in the environment variable
OCI_TESTS_NO_SANDBOX: for a command that leaves out by itself what needs the sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import types
import typing as t

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path[0] = os.path.abspath(__file__).rsplit(os.sep, 3)[0]
    __package__ = "tests.tools"

from . import loops, sandbox_cgroups, sandbox_root
from .confinement import CANNOT, MARK, REFUSED, is_inside

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# <linux/sched.h>, <linux/prctl.h>
_CLONE_NEWNS = 0x00020000
_CLONE_NEWCGROUP = 0x02000000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1
_GIB = 1 << 30
_MOST = 48 * _GIB


class Refused(Exception):
    """This machine has no sandbox to give; the text says why."""


def run(command: t.Sequence[str]) -> int:
    """Run a command in a new sandbox; returns its exit status. Raises ``Refused`` before the command has started."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        raise Refused("this system has no namespaces")
    # only one child is in it: this process has to see what is left of the sandbox
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    _unshare(libc, _CLONE_NEWPID)
    reading, writing = os.pipe()
    with sandbox_cgroups.created("hypervisor.oci-tests-") as groups:
        pid = os.fork()
        if not pid:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.close(reading)
            _run_as_first(libc, groups, writing, command)
        os.close(writing)
        libc.setns(own, _CLONE_NEWPID)
        with open(reading, encoding="utf-8", errors="replace") as file:
            _hand_on(signal.SIGTERM, pid)
            _hand_on(signal.SIGHUP, pid)
            # a terminal sends it to the command, too
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            reason = file.read()
        _pid, status = os.waitpid(pid, 0)
    if reason:
        raise Refused(reason.strip())
    return _exit_status(status)


def _unshare(libc: ctypes.CDLL, flags: int) -> None:
    if libc.unshare(flags) != 0:
        error = os.strerror(ctypes.get_errno())
        raise Refused(f"new namespaces are refused: {error}")


def _hand_on(number: int, pid: int) -> None:
    def send(_number: int, _frame: types.FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    signal.signal(number, send)


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _run_as_first(
    libc: ctypes.CDLL, groups: sandbox_cgroups.Groups, writing: int, command: t.Sequence[str]
) -> t.NoReturn:
    """Be process 1 of the sandbox: build it, run the command, and end as it does.

    What keeps it from being built is written to the pipe, which is closed when the command starts.
    """
    status = CANNOT
    try:
        folder = os.getcwd()
        groups.enter()
        _unshare(libc, _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWCGROUP)
        groups.settle()
        _build(groups)
        os.chdir(folder)
        os.close(writing)
        status = _wait_for(command)
        _release_loops()
    except (OSError, Refused, subprocess.SubprocessError) as error:
        with contextlib.suppress(OSError):
            os.write(writing, _text_of(error).encode())
    finally:
        os._exit(status)


def _text_of(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(error.cmd)}: {(error.stderr or '').strip()}"
    return str(error)


def _build(groups: sandbox_cgroups.Groups) -> None:
    sandbox_root.mount("--make-rprivate", "/")
    place = os.path.join(CHECKOUT, ".nox", "sandbox")
    os.makedirs(place, exist_ok=True)
    sandbox_root.mount_scratch(place, _MOST)
    tests = os.path.join(CHECKOUT, ".nox", "ansible-test")
    os.makedirs(tests, exist_ok=True)
    home = os.path.expanduser("~")
    root = sandbox_root.Root(place)
    root.view(needed=_needed(home))
    root.bind(CHECKOUT, CHECKOUT)
    root.bind(tests, os.path.join(home, ".ansible", "test"))
    root.mount_kernel()
    groups.mount(root.inside(sandbox_cgroups.TOP))
    root.enter()
    with open(MARK, "w", encoding="ascii") as file:
        file.write("see tests/tools/sandbox.py\n")


def _needed(home: str) -> list[str]:
    """Return folders that the tests read, wherever they are."""
    named = [os.environ.get(name) for name in ("OCI_REAL_IMAGES", "OCI_SIGNATURES", "PYENV_ROOT")]
    return [home, os.getcwd(), sys.base_prefix, *filter(None, named)]


def _wait_for(command: t.Sequence[str]) -> int:
    """Run the command as a child, and reap what others leave, until it ends."""
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGHUP):
        _hand_on(number, child.pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return _exit_status(status)


def _release_loops() -> None:
    """End what the command started, and let loop devices go that nothing else would release."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    real = os.stat(CHECKOUT).st_dev
    loops.release({item.device for item in sandbox_root.mounts()} - {real})


def main() -> int:
    """Run the command; returns the exit status."""
    words = sys.argv[1:]
    outside = words[:1] == ["--or-outside"]
    command = words[1:] if outside else words
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    if os.geteuid() or is_inside():
        os.execvp(command[0], command)
    try:
        return run(command)
    except Refused as error:
        reason = f"root has no sandbox for tests here: {error}"
    print(reason, file=sys.stderr)
    if not outside:
        return CANNOT
    os.environ[REFUSED] = reason
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main())

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kills ``oci_rootfs`` with SIGKILL at every step that changes the disk, and looks at what is left.

    crash.py instants WORK OLD NEW [--most N]    WORK is made, OLD and NEW are archives
    crash.py task WORK OLD LARGE                 the same through Ansible, once, while LARGE is unpacked

docs/behaviour.md, section 7: a crash at any instant leaves the old tree or the new one, whole, and the next
run finishes the job and clears leftovers.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
import typing as t
from dataclasses import dataclass, replace

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(_HERE, *[os.pardir] * 4, "tools"))

from compare_trees import Ignore, Node, compare, read_tree  # noqa: E402
from removal import remove_below  # noqa: E402

# What changes the disk, by the names of Python's functions. A kill before one of them is a kill after the
# one before, so that these are all the instants that matter.
_STEPS = frozenset(
    [
        "chmod",
        "chown",
        "copy_file_range",
        "fchmod",
        "fchown",
        "fdatasync",
        "flush",
        "fsync",
        "ftruncate",
        "lchown",
        "link",
        "mkdir",
        "mkfifo",
        "mknod",
        "open",
        "pwrite",
        "remove",
        "removexattr",
        "rename",
        "replace",
        "rmdir",
        "setxattr",
        "symlink",
        "sync",
        "truncate",
        "unlink",
        "utime",
        "write",
    ]
)
# These go through the C library, where a profiler only sees the function around them.
_WRAPPED = frozenset(["exchange", "rename_new", "syncfs"])
_WRAPPERS = os.path.join("_fs", "syscalls.py")

_TOKEN = Ignore(xattrs=frozenset(["trusted.hypervisor_oci"]))
_STAGING = re.compile(r"\.[0-9a-f]{32}\Z")
_PATIENCE = 60
# Names in the staging when a task is killed: some, but by far not all.
_ENOUGH = 500


class Failure(Exception):
    """Something is not as it should be; the text says what and where."""


def collections_folder() -> str:
    """The folder above ansible_collections that this collection lies in."""
    path = _HERE
    while os.path.basename(path) != "ansible_collections":
        if path == os.path.dirname(path):
            raise Failure("this is no installed collection: no ansible_collections above")
        path = os.path.dirname(path)
    return os.path.dirname(path)


# -- running the module


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``killed``, or its ``result`` and how many ``steps`` it took."""

    killed: bool
    steps: int = 0
    result: dict[str, t.Any] | None = None


class Runner:
    """Runs the module in a process of its own, as Ansible does, but without sending it anywhere."""

    def __init__(self) -> None:
        sys.path.insert(0, collections_folder())
        # found at run time, since the path to it is only known now
        self._main = importlib.import_module("ansible_collections.hypervisor.oci.plugins.modules.oci_rootfs").main
        self._testing = importlib.import_module("ansible.module_utils.testing")

    def run(self, params: dict[str, t.Any], kill_at: int = 0, patches: tuple[str, ...] = ()) -> Outcome:
        """One run; with ``kill_at`` it is killed just before that step, if it takes so many."""
        # what is still in the buffer would come out of both processes
        sys.stdout.flush()
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            self._child(params, kill_at, patches, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            output = pipe.read()
        _pid, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            if os.WTERMSIG(status) != signal.SIGKILL or not kill_at:
                raise Failure(f"the module died of signal {os.WTERMSIG(status)}")
            return Outcome(killed=True)
        text, _separator, steps = output.rpartition(b"\n#")
        if not text.strip():
            raise Failure(f"the module ended without a result: {params}")
        return Outcome(False, int(steps), json.loads(text))

    def must(self, params: dict[str, t.Any], changed: bool) -> None:
        """A run that has to succeed, and to have changed something or not."""
        result = self.run(params).result or {}
        if result.get("failed") or result.get("changed") is not changed:
            raise Failure(f"{params}: changed={changed} expected, got {result}")

    def _child(self, params: dict[str, t.Any], kill_at: int, patches: tuple[str, ...], writing: int) -> t.NoReturn:
        """Run in the forked process: its output and its count of steps go to ``writing``."""
        os.dup2(writing, 1)
        os.close(writing)
        for patch in patches:
            _cripple(patch)
        counter = _StepCounter(kill_at)
        try:
            with self._testing.patch_module_args(params):
                sys.setprofile(counter)
                self._main()
        except SystemExit:
            pass
        except BaseException:
            sys.setprofile(None)
            traceback.print_exc()
        finally:
            sys.setprofile(None)
            sys.stdout.flush()
            os.write(1, b"\n#%d" % counter.steps)
            # no exit handlers: those of the parent are not this process's to run
            os._exit(0)


class _StepCounter:
    """A profiler that counts the steps that change the disk, and kills its own process before one of them."""

    def __init__(self, kill_at: int) -> None:
        self.steps = 0
        self._kill_at = kill_at

    def __call__(self, frame: t.Any, event: str, argument: t.Any) -> None:
        if event == "c_call":
            is_step = _changes_disk(argument)
        elif event == "call":
            is_step = _wraps_step(frame.f_code)
        else:
            is_step = False
        self.steps += is_step
        if is_step and self.steps == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def _changes_disk(function: t.Any) -> bool:
    if getattr(function, "__name__", "") not in _STEPS:
        return False
    owner = type(getattr(function, "__self__", None)).__module__
    return owner == "_io" or getattr(function, "__module__", None) == "posix"


def _wraps_step(code: t.Any) -> bool:
    return code.co_name in _WRAPPED and code.co_filename.endswith(_WRAPPERS)


def _cripple(function: str) -> None:
    """Let a system call be one that this kernel or file system does not know."""

    def unknown(*_arguments: t.Any) -> None:
        raise OSError(38, os.strerror(38))

    rooms = "ansible_collections.hypervisor.oci.plugins.module_utils."
    found = False
    for room in ("_dest.exchange", "_fs.directories"):
        module = importlib.import_module(rooms + room)
        if hasattr(module, function):
            setattr(module, function, unknown)
            found = True
    if not found:
        raise AttributeError(f"no room calls {function}")


# -- what is checked


@dataclass(frozen=True)
class Scenario:
    """What is done before, which run is killed, and which one puts it right.

    ``found`` are the trees that may be at dest after the kill: ``old``, ``new``, ``none``, or ``partial`` where
    section 7 allows it for a short time. ``final`` is the tree after the next run, ``kept`` the trees that
    may stay in the private folder. ``crippled`` are system calls that do not exist for the killed run.
    """

    name: str
    before: tuple[dict[str, t.Any], ...]
    killed: dict[str, t.Any]
    following: dict[str, t.Any]
    found: frozenset[str]
    final: str
    kept: tuple[str, ...] = ()
    crippled: tuple[str, ...] = ()
    mount: bool = False
    foreign: bool = False


class Laboratory:
    """A folder to crash in; the trees that are right are made first, in folders of their own."""

    def __init__(self, work: str, old: str, new: str) -> None:
        os.makedirs(work)
        self.runner = Runner()
        self.work = work
        self.parent = os.path.join(work, "parent")
        self.dest = os.path.join(self.parent, "rootfs")
        self.state = os.path.join(self.parent, ".rootfs.oci_rootfs")
        self.trees: dict[str, dict[bytes, Node]] = {}
        self.sources = {"old": old, "new": new}
        for name in self.sources:
            dest = os.path.join(work, name)
            self.runner.must(self.params(name, dest=dest), True)
            self.trees[name] = read_tree(dest)
        if not compare(self.trees["old"], self.trees["new"], _TOKEN):
            raise Failure("the two images make the same tree: nothing could be told")

    def params(self, image: str, **more: t.Any) -> dict[str, t.Any]:
        """Arguments of the module for one of the two images."""
        params = {"src": self.sources[image], "remote_src": True, "dest": self.dest}
        return {**params, **more}

    def prepare(self, scenario: Scenario) -> None:
        """An empty folder, and then what the scenario wants to be there."""
        os.mkdir(self.parent, 0o700)
        if scenario.mount:
            os.mkdir(self.dest)
            _command("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.dest)
        if scenario.foreign:
            os.makedirs(os.path.join(self.dest, "foreign"))
            with open(os.path.join(self.dest, "foreign", "file"), "wb") as file:
                file.write(b"somebody's own\n")
            self.trees["foreign"] = read_tree(self.dest)
        for params in scenario.before:
            self.runner.must(params, True)

    def clean(self, scenario: Scenario) -> None:
        """Remove all of it by other means than the module's."""
        if scenario.mount:
            # what the module remembers about a mount lies elsewhere
            self.runner.run({"dest": self.dest, "state": "absent", "force": True})
            _command("umount", self.dest)
        remove_below(os.path.dirname(self.parent), self.parent)

    def which(self, path: str, ignore: Ignore = _TOKEN) -> str:
        """The name of the tree at a path; ``none`` where there is none, ``partial`` for no known tree."""
        if not os.path.lexists(path):
            return "none"
        found = read_tree(path)
        for name, tree in self.trees.items():
            if not compare(found, tree, ignore):
                return name
        return "partial"

    def check_after_kill(self, scenario: Scenario) -> None:
        """Only whole trees are at dest, and nothing else ever passes for provisioned."""
        ignore = _TOKEN
        if scenario.mount:
            # what is on its way lies in the mount itself, in a private folder
            names = filter(_STAGING.match, os.listdir(self.dest))
            paths = frozenset(map(os.fsencode, names))
            ignore = replace(_TOKEN, paths=paths, mtimes=frozenset([b"."]))
        found = self.which(self.dest, ignore)
        if found not in scenario.found:
            raise Failure(f"{found} is at dest, expected one of {set(scenario.found)}")
        for image in self.sources:
            params = self.params(image, _ansible_check_mode=True)
            result = self.runner.run(params).result or {}
            if result.get("changed") is False and found != image:
                raise Failure(f"{found} is at dest and passes for {image}")

    def check_after_next(self, scenario: Scenario) -> None:
        """The tree is the right one, and nothing is left over."""
        found = self.which(self.dest)
        if found != scenario.final:
            lines = (
                compare(self.trees[scenario.final], read_tree(self.dest), _TOKEN)
                if found == "partial" and scenario.final in self.trees
                else []
            )
            raise Failure(f"{found} is at dest after the next run: {lines[:5]}")
        names = sorted(os.listdir(self.parent))
        expected = ["rootfs"] if scenario.final != "none" else []
        if scenario.kept or (expected and not scenario.mount):
            expected.insert(0, ".rootfs.oci_rootfs")
        if names != expected:
            raise Failure(f"{names} are beside dest, expected {expected}")
        if ".rootfs.oci_rootfs" not in expected:
            return
        inside = sorted(os.listdir(self.state))
        trees = [name for name in inside if name != "record.json"]
        kept = sorted(self.which(os.path.join(self.state, name)) for name in trees)
        if len(inside) != len(trees) + 1 or kept != sorted(scenario.kept):
            raise Failure(f"the private folder holds {inside}, which are {kept}")

    def crash(self, scenario: Scenario, kill_at: int) -> bool:
        """One crash and its cure; false where the run had ended before."""
        self.prepare(scenario)
        try:
            outcome = self.runner.run(scenario.killed, kill_at, scenario.crippled)
            if not outcome.killed:
                return False
            self.check_after_kill(scenario)
            result = self.runner.run(scenario.following).result or {}
            if result.get("failed"):
                raise Failure(f"the next run failed: {result.get('msg')}")
            self.check_after_next(scenario)
            self.runner.must(scenario.following, False)
            return True
        except Failure as error:
            raise Failure(f"{scenario.name}, step {kill_at}: {error}") from error
        finally:
            self.clean(scenario)

    def count(self, scenario: Scenario) -> int:
        """How many steps the run takes that is to be killed."""
        self.prepare(scenario)
        try:
            outcome = self.runner.run(scenario.killed, 0, scenario.crippled)
            result = outcome.result or {}
            if result.get("failed") or not result.get("changed"):
                raise Failure(f"{scenario.name}: {result}")
            return outcome.steps
        finally:
            self.clean(scenario)


def scenarios(lab: Laboratory) -> list[Scenario]:
    """All that is killed."""
    old, new = lab.params("old"), lab.params("new")
    absent = {"dest": lab.dest, "state": "absent"}
    first = Scenario("first run", before=(), killed=new, following=new, found=frozenset(["none", "new"]), final="new")
    replacing = Scenario(
        "replacing run",
        before=(old,),
        killed=new,
        following=new,
        found=frozenset(["old", "new"]),
        final="new",
        kept=("old",),
    )
    return [
        first,
        replacing,
        replace(first, name="first run, then absent", following=absent, final="none"),
        replace(
            replacing,
            name="replacing run that keeps nothing",
            killed={**new, "keep": 0},
            following={**new, "keep": 0},
            kept=(),
        ),
        replace(
            replacing,
            name="replacing run where names cannot be exchanged",
            found=frozenset(["old", "new", "none"]),
            crippled=("exchange", "rename_new"),
        ),
        replace(replacing, name="exchange of a staged tree", before=(old, {**new, "state": "staged"})),
        replace(
            replacing,
            name="replacing run by force",
            foreign=True,
            before=(),
            killed={**new, "force": True},
            following={**new, "force": True},
            found=frozenset(["foreign", "new"]),
            kept=("foreign",),
        ),
        replace(
            first,
            name="removal",
            before=(old,),
            killed=absent,
            following=absent,
            found=frozenset(["old", "none"]),
            final="none",
        ),
        replace(
            replacing,
            name="replacing run in a mount point",
            mount=True,
            found=frozenset(["old", "new", "partial"]),
            kept=(),
        ),
    ]


def _command(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_PATIENCE)


# -- through Ansible


def task(work: str, old: str, large: str) -> None:
    """Kill the module of a real task while it unpacks; then let a real task put it right."""
    lab = Laboratory(work, old, large)
    for scenario in scenarios(lab)[:2]:
        lab.prepare(scenario)
        try:
            _kill_task(lab, scenario)
        except Failure as error:
            raise Failure(f"{scenario.name} of a task: {error}") from error
        finally:
            lab.clean(scenario)


def _kill_task(lab: Laboratory, scenario: Scenario) -> None:
    with _start_task(scenario.killed) as ansible:
        pid, entries = _wait_for_module(lab.state, ansible)
        os.kill(pid, signal.SIGKILL)
        ansible.communicate(timeout=_PATIENCE)
        if not ansible.returncode:
            raise Failure("the task succeeded although its module was killed")
    before = "old" if scenario.before else "none"
    found = lab.which(lab.dest)
    if found != before:
        raise Failure(f"{found} is at dest, expected {before}")
    with _start_task(scenario.following) as ansible:
        output, _errors = ansible.communicate(timeout=_PATIENCE)
        if ansible.returncode or "CHANGED" not in output:
            raise Failure(f"the next task failed: {output}")
    lab.check_after_next(scenario)
    print(f"{scenario.name} of a task: killed with {entries} names staged")


def _start_task(params: dict[str, t.Any]) -> subprocess.Popen[str]:
    beside = os.path.join(os.path.dirname(sys.executable), "ansible")
    command = [shutil.which("ansible") or beside, "localhost"]
    command += ["-m", "hypervisor.oci.oci_rootfs", "-a", json.dumps(params)]
    command += ["-e", json.dumps({"ansible_python_interpreter": sys.executable})]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": collections_folder()}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    )


def _wait_for_module(state: str, ansible: subprocess.Popen[str]) -> tuple[int, int]:
    """The process that has the private folder open, once it has staged a good deal."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and ansible.poll() is None:
        entries = _entries_below(state)
        if entries >= _ENOUGH:
            for pid in _processes_in(state):
                return pid, entries
        time.sleep(0.01)
    raise Failure("the module was never seen at work")


def _entries_below(path: str) -> int:
    """How many names there are below a folder that changes meanwhile."""
    return sum(len(folders) + len(files) for _top, folders, files in os.walk(path))


def _processes_in(path: str) -> t.Iterator[int]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}").startswith(path):
                    yield int(pid)
                    break
        except OSError:
            # gone meanwhile
            continue


def instants(work: str, old: str, new: str, most: int) -> None:
    """Crash every scenario at its instants, at most ``most`` of each, evenly spread."""
    lab = Laboratory(work, old, new)
    failures = []
    for scenario in scenarios(lab):
        try:
            print(_crash_all(lab, scenario, most))
        except Failure as error:
            failures.append(str(error))
    if failures:
        raise Failure("\n".join(failures))


def _crash_all(lab: Laboratory, scenario: Scenario, most: int) -> str:
    started = time.monotonic()
    steps = lab.count(scenario)
    most = min(most, steps)
    chosen = [1 + steps * number // most for number in range(most)]
    crashes = sum(lab.crash(scenario, step) for step in chosen)
    # the last steps write the result, and may be fewer another time
    if crashes < most - 2:
        raise Failure(f"{scenario.name}: only {crashes} of {most} runs were killed")
    seconds = time.monotonic() - started
    return f"{scenario.name}: killed at {crashes} of {steps} steps, {seconds:.1f} s"


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, last in (("instants", "new"), ("task", "large")):
        arguments = verbs.add_parser(verb)
        for name in ("work", "old", last):
            arguments.add_argument(name)
        if verb == "instants":
            arguments.add_argument("--most", type=int, default=1000000)
    options = parser.parse_args()
    try:
        if options.verb == "instants":
            instants(options.work, options.old, options.new, options.most)
        else:
            task(options.work, options.old, options.large)
    except Failure as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

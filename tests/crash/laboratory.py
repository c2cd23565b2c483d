# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder to crash in: preparing a dest, running the product in a process to be lost, looking at what is left.

docs/behaviour.md, section 7, says what may be found, and section 16 what of shared layers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import select
import signal
import subprocess
import sys
import traceback
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import btrfs
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.stack import opened_tree
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import (
    carry_out,
    layers,
    predict,
    provision,
    sharing,
    stack_probe,
    target,
    unpacking,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import exchange as beside
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import in_use
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import mounted as inside
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import dest_path
from ansible_collections.hypervisor.oci.plugins.module_utils._source import compressed, directory
from ansible_collections.hypervisor.oci.plugins.module_utils._store import btrfs_driver, overlay_driver
from ansible_collections.hypervisor.oci.tests.crash.archives import crash_images, write_images
from ansible_collections.hypervisor.oci.tests.crash.calls import BEFORE, Calls, replace_in_product
from ansible_collections.hypervisor.oci.tests.crash.layers import Layers, leftovers, let_be_removed, shown, to_be_shown
from ansible_collections.hypervisor.oci.tests.crash.scenarios import B, Scenario, Step
from ansible_collections.hypervisor.oci.tests.images.builder import Image
from ansible_collections.hypervisor.oci.tests.tools.arguments import arguments, options_of
from ansible_collections.hypervisor.oci.tests.tools.compare_trees import Ignore, Node, compare, read_tree
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below, remove_folder

# What a run imports late is here before it is forked.
_LATE = (carry_out, predict, unpacking, beside, in_use, inside, compressed, directory)
_LATE_TO_SHARE = (layers, sharing, stack_probe, btrfs, btrfs_driver, overlay_driver)

# A run that takes longer hangs.
_PATIENCE = 60.0
_TOKEN = "trusted.hypervisor_oci"
_RANDOM_NAME = re.compile(r"\.?[0-9a-f]{32}\Z")
_DEFAULTS: Step = {
    "check_mode": False,
    **arguments(
        # attackers of other users need a way to dest
        reachable="allow",
        # looking for processes changes nothing, and takes a third of a run
        in_use="ignore",
        max_size=2**30,
        max_entries=100_000,
    ),
}

Tree = t.Dict[bytes, Node]
# What is done to the product in the child before it runs: a fault that the harness must find.
Fault = t.Callable[[], None]


class Broken(Exception):
    """A promise that was not kept; the text says which."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``killed``, or with a ``result``, or an ``error`` message; ``names`` are its calls."""

    killed: bool = False
    names: t.Sequence[str] = ()
    changed: bool = False
    error: str = ""


class Powered(t.Protocol):
    """A disk that loses what was not made durable."""

    def sync(self) -> None:
        """Make durable what is there."""

    def again(self) -> None:
        """Start it again."""


class Run:
    """A process that runs the product; ``pid`` is its number, and ``wait`` has to be called."""

    def __init__(self, pid: int, reading: int, what: str) -> None:
        self.pid = pid
        self._reading = reading
        self._what = what

    def wait(self, patience: float = _PATIENCE, kill: bool = False, may_die: bool = False) -> list[Outcome]:
        """How its runs ended; none where it was killed.

        After ``patience`` seconds it is killed, which is ``Broken`` where ``kill`` does not expect it; so is a death
        of its own, but where it ``may_die`` by SIGKILL.
        """
        try:
            with os.fdopen(self._reading, "rb") as pipe:
                if not select.select([pipe], [], [], patience)[0]:
                    os.kill(self.pid, signal.SIGKILL)
                    if not kill:
                        raise Broken(f"{self._what} is not done after {patience} s")
                output = pipe.read()
        finally:
            _pid, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            if os.WTERMSIG(status) != signal.SIGKILL or not (kill or may_die):
                raise Broken(f"{self._what} died of signal {os.WTERMSIG(status)}")
            return []
        return [Outcome(**told) for told in json.loads(output)]


class Laboratory:
    """Works below the folder ``work``, which is made and must not be there; ``close`` removes it.

    ``images`` are those that ``src`` names, where not those of ``archives``; ``bad`` is one that makes no tree.
    With ``mounts``, a dest that is a mount point is a tmpfs; otherwise a plain directory is treated as one.
    """

    def __init__(self, work: str, mounts: bool, images: t.Mapping[str, Image] | None = None) -> None:
        os.mkdir(work, 0o755)
        self.work = work
        # a disk of the test's may lie beside it, with a dest on it
        self._above = os.path.dirname(work)
        self.mounts = mounts
        self.fault: Fault | None = None
        self.parent = os.path.join(work, "parent")
        self.var = os.path.join(work, "var")
        self.trees: dict[str, Tree] = {}
        self.layers = Layers()
        self._mounted = False
        self._scenario = Scenario("", {}, (), "")
        os.mkdir(os.path.join(work, "images"))
        os.mkdir(os.path.join(work, "right"))
        self.sources = write_images(os.path.join(work, "images"), images or crash_images())
        for name in self.sources:
            if name == "bad":
                continue
            dest = os.path.join(work, "right", name)
            self.must({"src": name, "dest": dest})
            self.trees[name] = self._read(dest)
        foreign = os.path.join(work, "right", "foreign")
        _make_foreign(foreign)
        self.trees["foreign"] = self._read(foreign)
        for name, tree in self.trees.items():
            same = [other for other in self.trees if self.trees[other] == tree]
            if same != [name] or len(tree) < 3:
                raise Broken(f"{name} cannot be told from {same}")

    def close(self) -> None:
        """Remove all of it."""
        self.clean()
        remove_folder(self.work)

    # -- one crash

    @property
    def dest(self) -> str:
        """Where the tree is to be."""
        above = ("new", "folders") if self._scenario.missing_parents else ()
        return os.path.join(self.parent, *above, "rootfs")

    @property
    def _shared(self) -> str:
        """The folder of the store and of the other dest, beside the one of dest."""
        return os.path.join(os.path.dirname(self.parent), "shared")

    @property
    def _store(self) -> str:
        return os.path.join(self._shared, "store")

    @property
    def _other(self) -> str:
        return os.path.join(self._shared, "other")

    @contextlib.contextmanager
    def on(self, folder: str) -> t.Iterator[None]:
        """Have dest in that folder, of a disk."""
        parent = self.parent
        self.parent = os.path.join(folder, "parent")
        try:
            yield
        finally:
            self.parent = parent

    def learn(self) -> None:
        """See what snapshots of all images have to hold where dest is now."""
        self.prepare(Scenario("", {}, (), "", shares=True))
        try:
            for name in self.sources:
                self.must({"src": name})
            self.layers.learn(self._store)
        finally:
            self.clean()

    def prepare(self, scenario: Scenario) -> None:
        """What the scenario wants to be there."""
        self._scenario = scenario
        os.mkdir(self.parent, 0o700)
        os.mkdir(self.var, 0o700)
        if scenario.shares:
            os.mkdir(self._shared, 0o700)
        if scenario.other:
            self.must({"src": scenario.other, "dest": self._other})
        if scenario.inside:
            os.mkdir(self.dest, 0o755)
            if self.mounts:
                options = ["-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs"]
                _command("mount", *options, self.dest)
                self._mounted = True
        if scenario.foreign:
            _make_foreign(self.dest)
        self.must(*scenario.before)
        if scenario.crashed_at:
            self.stop(scenario.action, Calls(scenario.crashed_at, BEFORE))

    def clean(self) -> None:
        """Remove what the crash left, by other means than the product's."""
        if self._mounted:
            _command("umount", self.dest)
            self._mounted = False
        let_be_removed(self._store)
        for path in (self.parent, self.var, self._shared):
            remove_below(self._above, path)

    def count(self, scenario: Scenario) -> t.Sequence[str]:
        """The calls of the run that is to be stopped."""
        try:
            self.prepare(scenario)
            found = self.found()
            outcome = self.stop(scenario.action, Calls())
            if outcome.error:
                raise Broken(f"{scenario.name}: {outcome.error}")
            if not scenario.next:
                self.check_final(found)
            return outcome.names
        finally:
            self.clean()

    def crash(
        self,
        scenario: Scenario,
        calls: Calls | None = None,
        kill_after: float = 0.0,
        untouched: bool = False,
        disk: Powered | None = None,
    ) -> Outcome:
        """One death or error, and all that has to hold afterwards. Raises ``Broken``.

        ``untouched``: an error leaves everything as it was. ``disk``: it is started again before anything is looked at.
        """
        try:
            self.prepare(scenario)
            before = self.leftovers()
            if disk is not None:
                disk.sync()
            outcome = self.stop(scenario.action, calls, kill_after)
            if disk is not None:
                disk.again()
            if outcome.error and untouched:
                self.check_untouched(before, outcome.error)
            self.check(outcome)
            return outcome
        except Broken as error:
            how = str(calls) if calls else f"killed after {kill_after:.4f} s"
            raise Broken(f"{scenario.name}, {how}: {error}") from error
        finally:
            self.clean()

    def check_untouched(self, before: tuple[str, ...], error: str) -> None:
        """After a run that failed: the old tree, and nothing new beside it."""
        scenario = self._scenario
        # staging changes the time of a mount's own root, and of a foreign one it is not known afterwards
        names = os.listdir(self.dest) if scenario.inside else []
        found = self.found(scenario.foreign or any(map(_RANDOM_NAME.match, names)))
        if found != scenario.found[0]:
            wrong = self._differences(scenario.found[0], found)
            raise Broken(f"{found} is at dest {wrong} after: {error}")
        after = self.leftovers()
        lost = set(before) - set(after)
        if set(after) - set(before) or (lost and not scenario.discards):
            raise Broken(f"there was {before}, and there is {after} after: {error}")

    def check(self, outcome: Outcome) -> None:
        """Look at dest, run again, look again."""
        scenario = self._scenario
        if outcome.error.startswith("Traceback"):
            raise Broken(f"no clean error: {outcome.error}")
        found = self.found(loose=scenario.inside)
        if found not in scenario.found:
            raise Broken(f"{found} is at dest, not one of {scenario.found}")
        if not scenario.inside or found != "partial":
            self._check_precious(found)
        if scenario.shares:
            self._check_layers(found)
        images = [image for image in self.sources if image in scenario.images]
        checks = [{"src": image, "force": True, "check_mode": True} for image in images]
        outcomes = self.run(*checks, scenario.following)
        if outcomes[-1].error:
            raise Broken(f"the next run: {outcomes[-1].error}")
        for image, passing in zip(images, outcomes):
            if not passing.changed and found != image:
                raise Broken(f"{found} is at dest and passes for {image}")
        self.check_final(found)
        if not scenario.swaps and not scenario.following.get("recreate"):
            (again,) = self.run(scenario.following)
            if again.changed or again.error:
                raise Broken(f"the run after the next is not quiet: {again}")
        if scenario.shares:
            self._check_healing()

    def _check_layers(self, found: str) -> None:
        """The store is whole, and containers that start see one image each."""
        faults = self.layers.faults(self._store, self._records())
        if faults:
            raise Broken(f"{found} is at dest, and of the store: {faults[:5]}")
        for dest, name in ((self.dest, found), (self._other, self._scenario.other)):
            if name not in self.sources:
                continue
            seen = shown(dest, os.path.join(self.work, "mount"))
            if seen != to_be_shown(self.trees[name]):
                raise Broken(f"a container that starts in {dest} does not see {name}: {seen[:500]}")

    def _check_healing(self) -> None:
        """A run that unpacks and keeps nothing leaves nothing that nobody needs."""
        self.must({**B, "recreate": True, "keep": 0, "store_max_age": 0})
        if self.found() != "b":
            raise Broken(f"{self.found()} is at dest after b was made anew")
        self._check_layers("b")
        left = leftovers(self._store, self._records())
        if left or self.leftovers() != ("record.json",):
            raise Broken(f"left over in the end: {left} of the store, {self.leftovers()} of dest")

    def _records(self) -> list[str]:
        """The paths of the records of all dests."""
        places = [os.path.split(dest) for dest in (self.dest, self._other)]
        return [f"{above}/.{name}.oci_rootfs/record.json" for above, name in places]

    def _check_precious(self, found: str) -> None:
        """What ``previous`` or ``force`` must not lose is somewhere, whole."""
        scenario = self._scenario
        precious = {"foreign"} if scenario.foreign else set()
        if scenario.swaps:
            precious = {*scenario.found[:2]}
        there = {found, *self.kept()}
        if not precious <= there:
            raise Broken(f"{precious - there} is lost; {there} is there")

    def check_final(self, found: str) -> None:
        """The tree is the right one, and nothing is left over. ``found`` was at dest before the last run."""
        scenario = self._scenario
        final, kept = scenario.final, scenario.kept
        if scenario.swaps:
            one, other = scenario.found[:2]
            # an exchange that had begun is finished first
            final = other if found == one else one
            kept = (one,) if final == other else (other,)
        after = self.found(loose=scenario.inside and scenario.foreign)
        if after != final:
            wrong = self._differences(final, after)
            raise Broken(f"{after} is at dest in the end, not {final} {wrong}")
        if self.kept() != sorted(kept):
            raise Broken(f"{self.kept()} are kept, not {sorted(kept)}")
        names = [name for name in self.leftovers() if not _RANDOM_NAME.match(name)]
        if names != (["record.json"] if final != "none" or kept else []):
            raise Broken(f"left over in the end: {names}")
        if scenario.missing_parents:
            above = os.path.dirname(self.dest)
            modes = [os.stat(path).st_mode & 0o7777 for path in (above, above + "/..")]
            if modes != [0o700, 0o755]:
                raise Broken(f"the folders above dest have the modes {modes}")

    # -- looking

    def found(self, loose: bool = False) -> str:
        """The name of the tree at dest, ``none``, or ``partial`` for anything else.

        ``loose`` does not look at the time of the root directory.
        """
        if self._scenario.inside and all(map(_RANDOM_NAME.match, os.listdir(self.dest))):
            return "none"
        return self.which(self.dest, loose)

    def which(self, path: str, loose: bool = False, rootless: bool = False) -> str:
        """The same for a tree at any path; ``rootless`` looks at nothing of the root directory."""
        if not os.path.lexists(path):
            return "none"
        tree = _without(self._read(path), loose, rootless)
        for name, known in self.trees.items():
            if _without(known, loose, rootless) == tree:
                return name
        return "partial"

    def _differences(self, name: str, found: str) -> list[str]:
        if found != "partial" or name not in self.trees:
            return []
        return compare(self.trees[name], self._read(self.dest))[:5]

    def leftovers(self) -> tuple[str, ...]:
        """What there is but dest: beside it and in the private folder, or in the mount itself."""
        top, name = os.path.split(self.dest)
        if self._scenario.missing_parents and not os.path.lexists(self.dest):
            return tuple(sorted(os.listdir(self.parent)))
        names: list[str] = []
        for other in os.listdir(top):
            path = os.path.join(top, other)
            if other == f".{name}.oci_rootfs":
                names += _without_journals(path) or [other]
            elif other != name:
                names.append(other)
        if self._scenario.inside:
            names += filter(_RANDOM_NAME.match, os.listdir(self.dest))
            for folder, folders, files in os.walk(self.var):
                files = [name for name in _without_journals(folder) if name in files]
                empty = not files and not folders and folder != self.var
                names += [folder] if empty else files
        return tuple(sorted(names))

    def kept(self) -> list[str]:
        """The names of the trees that lie in the private folder, or under ``old`` in one in the mount."""
        top, name = os.path.split(self.dest)
        folder, below = os.path.join(top, f".{name}.oci_rootfs"), ""
        if self._scenario.inside:
            folder, below = self.dest, "old"
        if not os.path.isdir(folder):
            return []
        names = filter(_RANDOM_NAME.match, os.listdir(folder))
        paths = [os.path.join(folder, other, below) for other in names]
        # the root of what was in a mount is still there, and has changed
        return sorted(self.which(path, rootless=bool(below)) for path in paths)

    def _read(self, path: str) -> Tree:
        """The tree as it is compared: without what is known to be ours."""
        hidden: frozenset[bytes] = frozenset()
        if self._scenario.inside and path == self.dest:
            ours = filter(_RANDOM_NAME.match, os.listdir(path))
            hidden = frozenset(map(os.fsencode, ours))
        try:
            with opened(os.open(path, os.O_RDONLY)) as fd, opened_tree(fd, path) as root:
                tree = read_tree(f"/proc/self/fd/{root}/.", Ignore(paths=hidden))
        except OciError as error:
            raise Broken(error.message) from error
        kept = tuple(pair for pair in tree[b"."].xattrs if pair[0] != _TOKEN)
        return {**tree, b".": replace(tree[b"."], xattrs=kept)}

    # -- running

    def must(self, *steps: Step) -> None:
        """Runs that have to succeed. Raises ``Broken``."""
        for step, outcome in zip(steps, self.run(*steps)):
            if outcome.error:
                raise Broken(f"{step} failed: {outcome.error}")

    def stop(self, step: Step, calls: Calls | None, kill_after: float = 0.0) -> Outcome:
        """One run that may be killed."""
        run = self.start(step, calls=calls)
        outcomes = run.wait(kill_after or _PATIENCE, bool(kill_after), bool(calls))
        return outcomes[0] if outcomes else Outcome(killed=True)

    def run(self, *steps: Step) -> list[Outcome]:
        """Runs in a process of their own, up to the first that fails. Raises ``Broken``."""
        return self.start(*steps).wait()

    def start(self, *steps: Step, calls: Calls | None = None) -> Run:
        """The same, and it is not waited for."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            self._child(steps, calls, writing)
        os.close(writing)
        return Run(pid, reading, str(steps))

    def _child(self, steps: tuple[Step, ...], calls: Calls | None, writing: int) -> t.NoReturn:
        outcomes: list[dict[str, t.Any]] = []
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._arrange()
        if calls is not None:
            calls.install()
        for step in steps:
            outcomes.append({"changed": False, "error": ""})
            store = self._store if self._scenario.shares and "src" in step else None
            params = {**_DEFAULTS, "dest": self.dest, "store_dir": store, **step}
            check_mode = params.pop("check_mode")
            params["src"] = self.sources.get(params["src"])
            try:
                options = options_of(params)
                outcome = provision.provision(options, check_mode).to_result()
                outcomes[-1]["changed"] = outcome["changed"]
            except OciError as problem:
                outcomes[-1]["error"] = problem.message
                break
            except BaseException:  # noqa: B036 - whatever it is, the parent has to hear of it
                outcomes[-1]["error"] = traceback.format_exc()
                break
        if calls is not None:
            outcomes[-1]["names"] = calls.names
        with open(writing, "wb") as pipe:
            pipe.write(json.dumps(outcomes).encode())
        os._exit(0)

    def _arrange(self) -> None:
        """Change, in the child, what surrounds the product."""
        scenario = self._scenario
        var = os.path.join(self.var, "hypervisor.oci")
        if scenario.inside:
            # what lies in /var/lib otherwise
            vars(dest_path)["DestPath"].state_parent = property(lambda _path: var)
        if scenario.inside and not self.mounts:
            find = dest_path.resolve_dest
            vars(dest_path)["_require_never_mounted"] = lambda _path: None
            vars(target)["resolve_dest"] = lambda dest: replace(find(dest), is_mount=True)
        if not scenario.exchanges:
            for name in ("exchange", "rename_new"):
                replace_in_product(name, lambda _found: _unknown)
        if self.fault is not None:
            self.fault()


def end_cleanly() -> None:
    """Let SIGTERM end this process as Ctrl-C does, so that what it mounted is unmounted."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))


def can_mount(folder: str) -> bool:
    """Whether this process may mount a tmpfs; tried in ``folder``."""
    path = os.path.join(folder, "mount")
    os.mkdir(path)
    try:
        _command("mount", "-t", "tmpfs", "tmpfs", path)
        _command("umount", path)
        return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        os.rmdir(path)


def _unknown(*_arguments: t.Any) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _make_foreign(path: str) -> None:
    os.makedirs(os.path.join(path, "etc"), exist_ok=True)
    for name in ("somebody", "etc/else"):
        with open(os.path.join(path, name), "wb") as file:
            file.write(b"not ours\n")
    for name in ("etc/else", "etc", "somebody", "."):
        os.utime(os.path.join(path, name), (5, 5))


def _without(tree: Tree, time: bool, root: bool) -> Tree:
    if root:
        return {path: node for path, node in tree.items() if path != b"."}
    return {**tree, b".": replace(tree[b"."], mtime=0)} if time else tree


def _without_journals(state: str) -> list[str]:
    """What a private folder holds but for the journals of the trees that its record names, and the list of its stacks."""
    names = os.listdir(state)
    if "record.json" not in names:
        return names
    with open(os.path.join(state, "record.json"), encoding="utf-8") as file:
        record = json.load(file)
    trees = [record["tree"], record["next"], *record["generations"]]
    expected = {f"{tree['papers']}.journal" for tree in trees if tree and tree["papers"]}
    if any(tree["fingerprint"].get("form") == "overlay" for tree in trees if tree):
        expected.add("stacks")
    return [name for name in names if name not in expected]


def _command(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_PATIENCE, stderr=subprocess.PIPE, text=True)

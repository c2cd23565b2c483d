# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody else at work in the same place: links put in the way of a run, and runs on the same dest.

    races.py                    every race for 20 seconds
    races.py --seconds 120      longer
    races.py --only staging     one of them (may be repeated)

docs/behaviour.md, sections 4 and 7: whatever is swapped for links that lead outside, nothing outside changes; two
runs on one dest work one after the other. Exit status 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import time
import typing as t

# an installed collection needs no PYTHONPATH
sys.path.insert(0, os.path.abspath(__file__).partition("/ansible_collections/")[0])

from ansible_collections.hypervisor.oci.plugins.module_utils._provision import target  # noqa: E402
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import exchange as exchanging  # noqa: E402
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.syscalls import exchange  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.laboratory import (  # noqa: E402
    Broken,
    Laboratory,
    Outcome,
    Run,
    can_mount,
    end_cleanly,
)
from ansible_collections.hypervisor.oci.tests.crash.scenarios import Scenario  # noqa: E402
from ansible_collections.hypervisor.oci.tests.images.builder import (  # noqa: E402
    Entry,
    Image,
    Layer,
    char,
    digest,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)
from ansible_collections.hypervisor.oci.tests.tools.compare_trees import compare, read_tree  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.confinement import require  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_folder  # noqa: E402

_FOLDERS = 160
_NAMES = ("file", "again", "link", "node", "pipe", "hard", "below")
_NOBODY = 65534
_PATIENCE = 60.0

# A run that fails when it has unpacked; what it made is removed while others wait for it.
_BAD: dict[str, t.Any] = {"src": "bad", "lock_timeout": _PATIENCE}
_BESIDE = Scenario("race", {}, ("none",), "none")
_INSIDE = Scenario("race", {}, ("none",), "none", inside=True)
_BELOW_MISSING = Scenario("race", {}, ("none",), "none", missing_parents=True)


def branching() -> Image:
    """More directories than a run keeps open, entered again and again, with every kind of entry in each."""
    first: list[Entry] = []
    second: list[Entry] = [opaque("data/0"), whiteout("data/1")]
    for number in range(_FOLDERS):
        folder = f"data/{number}"
        first += [
            directory(folder, 0o777, uid=1, gid=1),
            directory(f"{folder}/below", 0o777, uid=1, gid=1),
            file(f"{folder}/file", "first", 0o666, uid=1, gid=1),
            file(f"{folder}/gone", "first", 0o666, uid=1, gid=1),
            symlink(f"{folder}/link", "file", uid=1, gid=1),
            char(f"{folder}/node", 1, 3, uid=1, gid=1),
        ]
        second += [
            file(f"{folder}/again", "second", 0o666, uid=2, xattrs={"user.a": "b"}),
            file(f"{folder}/file", "second", 0o666, uid=2),
            whiteout(f"{folder}/gone"),
            fifo(f"{folder}/pipe", 0o666, uid=2),
            hardlink(f"{folder}/hard", f"{folder}/file"),
        ]
    third = [directory(f"data/{number}", 0o700) for number in range(1, _FOLDERS)]
    return Image([Layer(*first), Layer(*second), Layer(*third)], ref="test:branching")


def race_images() -> dict[str, Image]:
    """``large`` is attacked; ``a`` and ``b`` are quickly made."""
    small = {mark: Image([Layer(directory("etc"), file("etc/mark", mark))]) for mark in "ab"}
    bad = Image([Layer(file("etc/mark"), diff_id=digest(b"other"))])
    return {**small, "bad": bad, "large": branching()}


# -- an attacker


class Attacker:
    """A process that swaps directories for links until it is stopped; ``swaps`` counts what it managed."""

    def __init__(self, attack: t.Callable[[], int], uid: int = 0) -> None:
        self.swaps = 0
        self._counted, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._work(attack, uid, writing)
        os.close(writing)

    def _work(self, attack: t.Callable[[], int], uid: int, writing: int) -> t.NoReturn:
        done = 0
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        parent = os.getppid()
        deadline = time.monotonic() + _PATIENCE
        while not stopped and os.getppid() == parent and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                done += attack()
        os.write(writing, str(done).encode())
        os._exit(0)

    def stop(self) -> None:
        """End it, and learn what it did."""
        os.kill(self.pid, signal.SIGTERM)
        with os.fdopen(self._counted, "rb") as pipe:
            self.swaps = int(pipe.read() or b"0")
        os.waitpid(self.pid, 0)


def swap(folder: int, name: str, outside: str) -> int:
    """Put a link that leads outside into the place of a directory, for a moment; returns how many were there."""
    evil = f".evil{os.getpid()}"
    with contextlib.suppress(FileExistsError):
        os.symlink(outside, evil, dir_fd=folder)
    one, other = evil.encode(), os.fsencode(name)
    try:
        exchange(folder, one, folder, other)
        time.sleep(random.random() / 500)
        # where a run has put something into the link's place, that is fine as well
        exchange(folder, one, folder, other)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(evil, dir_fd=folder)
    return 1


def swap_somewhere(top: str, outside: str) -> int:
    """Swap some directories below a path, wherever they are just now."""
    done = 0
    for folder, folders, _files, fd in os.fwalk(top):
        for name in random.sample(folders, min(len(folders), 4)):
            if not name.startswith(".evil"):
                with contextlib.suppress(OSError):
                    done += swap(fd, name, outside)
        if len(folder) > 4000:
            break
    return done


class Outside:
    """What must not change: a directory with the image's own names in it, at every depth."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fill(path, 2)
        self._before = read_tree(path)

    def _fill(self, path: str, depth: int) -> None:
        os.makedirs(path)
        os.chmod(path, 0o755)
        names = [*_NAMES, "gone", "etc", "rootfs", "data", "new", "old", "b"]
        for name in [*names, *map(str, range(0, _FOLDERS, 10))]:
            if depth:
                self._fill(os.path.join(path, name + ".d"), 0)
            with open(os.path.join(path, name), "wb") as kept:
                kept.write(b"outside")
            os.chmod(kept.name, 0o600)
        if depth:
            # the way through a swapped parent of dest
            self._fill(os.path.join(path, "below-me", "rootfs"), 0)

    def check(self) -> None:
        """Raises ``Broken``."""
        lines = compare(self._before, read_tree(self.path))
        if lines:
            raise Broken(f"outside: {lines[:5]}")


# -- races with an attacker; each plays one round and returns the swaps, and how the run ended


def attack_staging(lab: Laboratory, outside: Outside) -> tuple[int, Outcome]:
    """Directories of the tree that is being made, swapped as root."""
    lab.prepare(_BESIDE)
    state = os.path.join(lab.parent, ".rootfs.oci_rootfs")
    return _attack(lab, lambda: swap_somewhere(state, outside.path))


def attack_mount(lab: Laboratory, outside: Outside) -> tuple[int, Outcome]:
    """All directories in a mount point while an old tree is replaced there, private ones and top ones included."""
    lab.prepare(_INSIDE)
    lab.must({"src": "a"})
    return _attack(lab, lambda: swap_somewhere(lab.dest, outside.path))


def attack_old_tree(lab: Laboratory, outside: Outside) -> tuple[int, Outcome]:
    """The tree that is at dest, while it is replaced and removed."""
    lab.prepare(_BESIDE)
    lab.must({"src": "large"})

    def attack() -> int:
        return swap_somewhere(lab.parent, outside.path)

    return _attack(lab, attack, {"src": "a", "keep": 0})


def attack_parents(lab: Laboratory, outside: Outside) -> tuple[int, Outcome]:
    """The directories above dest, once they are resolved, by their owner, who may do nothing else."""
    lab.prepare(_BESIDE)
    os.chmod(lab.parent, 0o755)
    own = os.path.join(lab.parent, "own")
    below = os.path.join(own, "user", "below-me")
    os.makedirs(below)
    for path in (own, os.path.join(own, "user"), below):
        os.chown(path, _NOBODY, _NOBODY)
    started, start = os.pipe()

    def fault() -> None:
        find = target.resolve_dest

        def found(dest: str) -> t.Any:
            place = find(dest)
            os.write(start, b"!")
            time.sleep(0.005)
            return place

        vars(target)["resolve_dest"] = found

    waited: list[bytes] = []

    def attack() -> int:
        if not waited:
            waited.append(os.read(started, 1))
        fd = os.open(own, os.O_RDONLY)
        try:
            return swap(fd, "user", outside.path)
        finally:
            os.close(fd)

    lab.fault = fault
    try:
        dest = os.path.join(below, "rootfs")
        return _attack(lab, attack, {"src": "large", "dest": dest}, _NOBODY)
    finally:
        lab.fault = None
        os.close(started)
        os.close(start)


def _attack(
    lab: Laboratory, attack: t.Callable[[], int], step: dict[str, t.Any] | None = None, uid: int = 0
) -> tuple[int, Outcome]:
    attacker = Attacker(attack, uid)
    try:
        outcome = lab.run(step or {"src": "large"})[0]
    finally:
        attacker.stop()
    if outcome.error.startswith("Traceback"):
        raise Broken(f"no clean error: {outcome.error}")
    return attacker.swaps, outcome


ATTACKS = {"staging": attack_staging, "mount": attack_mount, "old-tree": attack_old_tree, "parents": attack_parents}


def play_attack(lab: Laboratory, outside: Outside, name: str, seconds: float, rounds: int = 10**9) -> str:
    """Attack run after run; returns the figures. Raises ``Broken``."""
    deadline = time.monotonic() + seconds
    played = swaps = failed = 0
    while played < rounds and time.monotonic() < deadline:
        try:
            done, outcome = ATTACKS[name](lab, outside)
            outside.check()
        finally:
            lab.clean()
        played += 1
        swaps += done
        failed += bool(outcome.error)
    return f"{name}: {played} runs under {swaps} swaps, {failed} ended in an error, nothing outside changed"


# -- runs that meet


def meet(lab: Laboratory, seconds: float, rounds: int = 10**9) -> str:
    """Two images and ``absent`` at once, from nothing and over an old tree, above folders that may be missing."""
    deadline = time.monotonic() + seconds
    played = 0
    ends: dict[str, int] = {}
    steps: tuple[dict[str, t.Any], ...] = (
        {"src": "a"},
        {"src": "b"},
        {"state": "absent"},
        {"src": "a", "check_mode": True},
        _BAD,
        _BAD,
    )
    # nothing is staged in a mount point
    staged: dict[str, t.Any] = {"src": "a", "state": "staged"}
    while played < rounds and time.monotonic() < deadline:
        scenario = random.choice((_BESIDE, _BELOW_MISSING, _INSIDE))
        lab.prepare(scenario)
        try:
            if random.random() < 0.5:
                lab.must({"src": random.choice("ab")})
            possible = steps if scenario is _INSIDE else (*steps, staged)
            chosen = random.sample(possible, 3)
            runs = []
            for step in chosen:
                runs.append(lab.start({"lock_timeout": _PATIENCE, **step}))
                time.sleep(random.random() / 50)
            errors = [outcome.error for run in runs for outcome in run.wait()]
            for step, error in zip(chosen, errors):
                if ("has the diff_id" in error) if step is _BAD else not error:
                    continue
                # unless it found its image at dest already
                if step is not _BAD or error:
                    raise Broken(f"{chosen} at once: {errors}")
            found = _check_end(lab, scenario)
        finally:
            lab.clean()
        ends[found] = ends.get(found, 0) + 1
        played += 1
    return f"meet: {played} times three runs at once, all did their work; dest was then {ends}"


def _check_end(lab: Laboratory, scenario: Scenario) -> str:
    """One tree or none, and only what belongs to it. Raises ``Broken``."""
    found = lab.found(loose=True)
    if found == "partial":
        raise Broken("a partial tree is at dest")
    lab.must({"state": "absent"})
    # folders that were made for a tree stay, as the module does not know whose they are by then
    left = {*lab.leftovers()} - {"new" if scenario.missing_parents else ""}
    if lab.found() != "none" or left:
        raise Broken(f"{lab.found()} and {lab.leftovers()} after absent")
    return found


def wait_in_line(lab: Laboratory) -> str:
    """A run that is stopped in its work makes another wait, or give up after ``lock_timeout``."""
    lab.prepare(_BESIDE)
    try:
        first = start_and_stop(lab, {"src": "large"})
        try:
            started = time.monotonic()
            refused = [
                lab.run({**step, "lock_timeout": 1})[0].error
                for step in ({"src": "a"}, {"src": "a", "check_mode": True})
            ]
            waited = time.monotonic() - started
            second = lab.start({"src": "b", "lock_timeout": _PATIENCE})
            time.sleep(0.3)
            there = lab.found()
        finally:
            os.kill(first.pid, signal.SIGCONT)
        errors = [outcome.error for run in (first, second) for outcome in run.wait()]
        if not all("another run works on" in error for error in refused):
            raise Broken(f"not refused: {refused}")
        if not 2 <= waited < 20:
            raise Broken(f"lock_timeout of 1 second took {waited / 2} s")
        if any(errors) or there != "none":
            raise Broken(f"{there} was at dest, errors {errors}")
        if lab.found() != "b" or lab.kept() != ["large"]:
            raise Broken(f"{lab.found()} is at dest, {lab.kept()} kept")
        _check_end(lab, _BESIDE)
    finally:
        lab.clean()
    return "line: the second run waited for the first, others gave up after lock_timeout"


def start_and_stop(lab: Laboratory, step: dict[str, t.Any]) -> Run:
    """A run that stops itself when its staging is made, until it is sent SIGCONT."""

    def fault() -> None:
        stage = exchanging.ExchangedDest.stage

        def staged(steps: exchanging.ExchangedDest, record: t.Any) -> t.Any:
            made = stage(steps, record)
            os.kill(os.getpid(), signal.SIGSTOP)
            return made

        vars(exchanging)["ExchangedDest"].stage = staged

    lab.fault = fault
    try:
        run = lab.start(step)
    finally:
        lab.fault = None
    _pid, status = os.waitpid(run.pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise Broken(f"{step} ended before it staged")
    return run


RACES = (*ATTACKS, "meet", "line")


def play(lab: Laboratory, outside: Outside, name: str, seconds: float) -> str:
    """One race by its name; returns the figures. Raises ``Broken``."""
    if name == "meet":
        return meet(lab, seconds)
    if name == "line":
        return wait_in_line(lab)
    return play_attack(lab, outside, name, seconds)


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Race against oci_rootfs.")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each race")
    parser.add_argument("--only", action="append", choices=RACES)
    parser.add_argument("--work", metavar="DIR", help="where to race")
    options = parser.parse_args()
    require()
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    above = make_folder("oci_rootfs_races.", options.work or shm)
    os.chmod(above, 0o755)
    failures = 0
    end_cleanly()
    try:
        mounts = can_mount(above)
        lab = Laboratory(os.path.join(above, "work"), mounts, race_images())
        outside = Outside(os.path.join(above, "outside"))
        try:
            for name in options.only or RACES:
                if name == "parents" and os.geteuid():
                    print("parents: skipped, since only root can become another user")
                    continue
                try:
                    print(play(lab, outside, name, options.seconds), flush=True)
                except Broken as error:
                    failures += 1
                    print(f"{name}: {error}", file=sys.stderr, flush=True)
        finally:
            lab.close()
    finally:
        remove_folder(above)
    print(f"{failures} broken")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

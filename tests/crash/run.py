# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stops the product at every call that changes the disk, and at random instants, and looks at what is left.

    run.py                      every call of every scenario dies and fails; then 100 random instants
    run.py --random 500         more of those
    run.py --points             no random instants
    run.py --instants           nothing but random instants
    run.py --power              at every call, the disk loses what was not made durable (root; ext4, and also btrfs for
                                trees that share their layers)
    run.py --only previous      one scenario (may be repeated)

docs/behaviour.md, sections 7 and 16: a crash leaves the old tree or the new one, whole (with two renames or in a mount
point perhaps none, but never one that passes for provisioned), and the next run finishes the job and clears
leftovers. An error in place of a crash leaves everything as it was. Exit status 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import sys
import time
import typing as t
from dataclasses import dataclass, replace

# an installed collection needs no PYTHONPATH
sys.path.insert(0, os.path.abspath(__file__).partition("/ansible_collections/")[0])

from ansible_collections.hypervisor.oci.tests.crash.archives import sharing_images  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.calls import AFTER, BEFORE, Calls  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.disks import BtrfsDisk, Disk, Skipped  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.laboratory import (  # noqa: E402
    Broken,
    Laboratory,
    Outcome,
    can_mount,
    end_cleanly,
)
from ansible_collections.hypervisor.oci.tests.crash.scenarios import (  # noqa: E402
    SCENARIOS,
    SHARED,
    TWICE,
    Scenario,
    by_name,
)
from ansible_collections.hypervisor.oci.tests.tools.confinement import require  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_folder  # noqa: E402

_MOST_SHOWN = 40


@dataclass(frozen=True)
class Round:
    """What happens at every call: a death, an error, or errors from there on."""

    name: str
    action: str | int
    stay: bool = False


DEATHS = (Round("deaths before", BEFORE), Round("deaths after or amidst", AFTER))
ERRORS = (Round("EIO", errno.EIO), Round("ENOSPC", errno.ENOSPC), Round("ENOSPC from there on", errno.ENOSPC, True))


def crash_everywhere(
    lab: Laboratory, scenario: Scenario, rounds: t.Iterable[Round], failures: list[str], every: int = 1
) -> str:
    """Every call of a scenario in turn, or one in so many; returns the figures."""
    started = time.monotonic()
    try:
        calls = lab.count(scenario)
    except Broken as error:
        failures.append(str(error))
        return f"{scenario.name}: not even without a crash"
    turning = scenario.turning(calls)
    figures = []
    for one in rounds:
        stopped = 0
        for at in range(1, len(calls) + 1, every):
            planned = Calls(at, one.action, one.stay)
            untouched = at <= turning and not one.stay
            try:
                outcome = lab.crash(scenario, planned, untouched=untouched)
                stopped += outcome.killed or bool(outcome.error)
            except Broken as error:
                failures.append(f"{error} (of {len(calls)} calls)")
        figures.append(f"{stopped} {one.name}")
    seconds = time.monotonic() - started
    return f"{scenario.name}: {len(calls)} calls; {', '.join(figures)}; {seconds:.0f} s"


def crash_twice(lab: Laboratory, failures: list[str], every: int = 1) -> t.Iterator[str]:
    """Crash, and then crash the run that recovers, at every call."""
    for name, where in TWICE:
        scenario = by_name(name)
        started = time.monotonic()
        firsts = [at for at, call in enumerate(lab.count(scenario), 1) if call in where]
        number = 0
        for at in firsts:
            for first in (at, at + 1):
                again = replace(scenario, name=f"{name} stopped at {first}", crashed_at=first)
                try:
                    calls = lab.count(again)
                except Broken as error:
                    failures.append(str(error))
                    continue
                for second in range(1, len(calls) + 1, every):
                    try:
                        lab.crash(again, Calls(second, BEFORE))
                    except Broken as error:
                        failures.append(str(error))
                    number += 1
        seconds = time.monotonic() - started
        yield f"recovery of {name}: {number} second deaths after {2 * len(firsts)} first ones; {seconds:.0f} s"


def crash_at_random(
    lab: Laboratory, scenarios: t.Sequence[Scenario], number: int, seed: int, failures: list[str]
) -> str:
    """Kill runs on the large image at instants that the clock chooses."""
    started = time.monotonic()
    chance = random.Random(seed)
    chosen = [scenario.enlarged() for scenario in scenarios]
    lengths: dict[str, float] = {}
    killed = 0
    for _instant in range(number):
        scenario = chance.choice(chosen)
        if scenario.name not in lengths:
            lengths[scenario.name] = _length(lab, scenario)
        after = chance.uniform(0.001, lengths[scenario.name] * 1.05)
        try:
            killed += lab.crash(scenario, kill_after=after).killed
        except Broken as error:
            failures.append(str(error))
    seconds = time.monotonic() - started
    return (
        f"random: {number} instants over {len(lengths)} scenarios, {killed} before the end of the run,"
        f" seed {seed}; {seconds:.0f} s"
    )


def lose_power_everywhere(lab: Laboratory, disk: Disk, scenario: Scenario, failures: list[str], every: int = 1) -> str:
    """Lose what is not durable at every call of a scenario, and when the run is done."""
    started = time.monotonic()
    try:
        calls = lab.count(scenario)
    except Broken as error:
        failures.append(f"{scenario.name}, without a loss of power: {error}")
        return f"{scenario.name}: not even without a loss of power"
    for at in range(1, len(calls) + 1, every):
        try:
            lab.crash(scenario, Calls(at, BEFORE, event=disk.lose_power), disk=disk)
        except Broken as error:
            failures.append(f"{error} (power lost, of {len(calls)} calls)")
    lab.prepare(scenario)
    try:
        disk.sync()
        lab.must(scenario.action)
        done = lab.found()
        disk.lose_power()
        disk.again()
        if lab.found() != done:
            raise Broken(f"{lab.found()} is at dest, where {done} was")
        # an empty private folder may be back, until the next run
        lab.check(Outcome())
    except Broken as error:
        failures.append(f"{scenario.name}, power lost after the run: {error}")
    finally:
        lab.clean()
    seconds = time.monotonic() - started
    losses = len(range(1, len(calls) + 1, every)) + 1
    return f"{scenario.name}: power lost {losses} times; {seconds:.0f} s"


def _lose_power(lab: Laboratory, work: str, chosen: list[Scenario], failures: list[str], every: int) -> None:
    with Disk(work, 16 << 20) as disk, lab.on(disk.path):
        for scenario in chosen:
            # what is in a mount point here lies on another file system; and a next run after another action
            if scenario.inside or scenario.next:
                continue
            figures = lose_power_everywhere(lab, disk, scenario, failures, every)
            print(f"{figures}; {len(failures)} broken so far", flush=True)


def _lose_power_of_shared(work: str, chosen: list[Scenario], failures: list[str], every: int) -> None:
    if not chosen:
        return
    lab = Laboratory(os.path.join(work, "sharing"), True, sharing_images())
    try:
        for driver, make in (("overlay", lambda: Disk(work, 16 << 20)), ("btrfs", lambda: BtrfsDisk(work))):
            try:
                with make() as disk, lab.on(disk.path):
                    lab.learn()
                    for scenario in chosen:
                        named = replace(scenario, name=f"{scenario.name} ({driver})")
                        figures = lose_power_everywhere(lab, disk, named, failures, every)
                        print(f"{figures}; {len(failures)} broken so far", flush=True)
            except Skipped as reason:
                print(f"{driver}: skipped, {reason}", flush=True)
    finally:
        lab.close()


def _length(lab: Laboratory, scenario: Scenario) -> float:
    lab.prepare(scenario)
    try:
        started = time.monotonic()
        lab.must(scenario.action)
        return time.monotonic() - started
    finally:
        lab.clean()


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Crash oci_rootfs everywhere.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--points", action="store_true", help="only every call")
    what.add_argument("--instants", action="store_true", help="only random instants")
    what.add_argument("--power", action="store_true", help="only losses of power")
    parser.add_argument("--random", type=int, default=100, metavar="N", help="how many random instants")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only one call in N")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", action="append", metavar="SCENARIO")
    parser.add_argument("--work", metavar="DIR", help="where to crash (a tmpfs is fast)")
    options = parser.parse_args()
    require()
    names = [scenario.name for scenario in (*SCENARIOS, *SHARED)]
    unknown = {*(options.only or ())} - {*names, "recovery"}
    if unknown:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(names)}, recovery")
    shared = [scenario for scenario in SHARED if not options.only or scenario.name in options.only]
    everything = not (options.points or options.instants or options.power)
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    above = make_folder("oci_rootfs_crash.", options.work or shm)
    failures: list[str] = []
    end_cleanly()
    try:
        mounts = can_mount(above)
        print(f"in {above}; a dest inside is a {'tmpfs' if mounts else 'directory'}")
        lab = Laboratory(os.path.join(above, "work"), mounts)
        try:
            chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.name in options.only]
            if everything or options.points:
                for scenario in chosen:
                    figures = crash_everywhere(lab, scenario, (*DEATHS, *ERRORS), failures, options.every)
                    print(f"{figures}; {len(failures)} broken so far", flush=True)
                if not options.only or "recovery" in options.only:
                    for figures in crash_twice(lab, failures, options.every):
                        print(f"{figures}; {len(failures)} broken so far", flush=True)
            if options.power:
                _lose_power(lab, above, chosen, failures, options.every)
                _lose_power_of_shared(above, shared, failures, options.every)
            if (everything or options.instants) and chosen:
                figures = crash_at_random(lab, chosen, options.random, options.seed, failures)
                print(figures)
        finally:
            lab.close()
    finally:
        remove_folder(above)
    for failure in failures[:_MOST_SHOWN]:
        print(failure, file=sys.stderr)
    print(f"{len(failures)} broken")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

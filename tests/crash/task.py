# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kills the module of a real Ansible task while it unpacks, and lets a real task put it right.

    task.py [--work DIR]

docs/behaviour.md, section 7. Exit status 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from dataclasses import replace

# an installed collection needs no PYTHONPATH
_COLLECTIONS = os.path.abspath(__file__).partition("/ansible_collections/")[0]
sys.path.insert(0, _COLLECTIONS)

from ansible_collections.hypervisor.oci.tests.crash.archives import large, small  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.laboratory import Broken, Laboratory, end_cleanly  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.scenarios import FIRST, REPLACE, A, Scenario, Step  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.confinement import require  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_folder  # noqa: E402

# A run that takes longer hangs, whatever else the machine has to do.
_PATIENCE = 240
# Names in the staging when a task is killed: some, but by far not all of the large image's.
_ENOUGH = 500
_FOLDERS = 100

SCENARIOS = (FIRST.enlarged(), replace(REPLACE, before=(A,)).enlarged())


def kill_task(lab: Laboratory, scenario: Scenario) -> str:
    """Kill one task, look, and run the next; returns the figures. Raises ``Broken``."""
    lab.prepare(scenario)
    try:
        with _start(lab, scenario.action) as ansible:
            pid, names = _wait_for_module(os.path.dirname(lab.dest), ansible)
            os.kill(pid, signal.SIGKILL)
            ansible.communicate(timeout=_PATIENCE)
            if not ansible.returncode:
                raise Broken("the task succeeded although its module was killed")
        found = lab.found()
        if found != scenario.found[0]:
            raise Broken(f"{found} is at dest, not {scenario.found[0]}")
        with _start(lab, scenario.following) as ansible:
            output, _errors = ansible.communicate(timeout=_PATIENCE)
            if ansible.returncode or "CHANGED" not in output:
                raise Broken(f"the next task failed: {output}")
        lab.check_final(found)
        return f"{scenario.name} of a task: killed with {names} names staged"
    except (Broken, subprocess.TimeoutExpired) as error:
        raise Broken(f"{scenario.name} of a task: {error}") from error
    finally:
        lab.clean()


def _start(lab: Laboratory, step: Step) -> subprocess.Popen[str]:
    beside = os.path.join(os.path.dirname(sys.executable), "ansible")
    params = {**step, "src": lab.sources[step["src"]], "remote_src": True, "dest": lab.dest, "platform": "linux/amd64"}
    command = [shutil.which("ansible") or beside, "localhost"]
    command += ["-m", "hypervisor.oci.oci_rootfs", "-a", json.dumps(params)]
    command += ["-e", json.dumps({"ansible_python_interpreter": sys.executable})]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": _COLLECTIONS}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    )


def _wait_for_module(folder: str, ansible: subprocess.Popen[str]) -> tuple[int, int]:
    """The process that has the private folder open, once it has staged a good deal; and how many names."""
    state = os.path.join(folder, ".rootfs.oci_rootfs")
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and ansible.poll() is None:
        names = sum(len(folders) + len(files) for _top, folders, files in os.walk(state))
        if names >= _ENOUGH:
            for pid in _processes_in(state):
                return pid, names
        time.sleep(0.01)
    raise Broken("the module was never seen at work")


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


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Kill tasks of oci_rootfs.")
    parser.add_argument("--work", metavar="DIR", help="where to crash (a tmpfs is fast)")
    options = parser.parse_args()
    require()
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    above = make_folder("oci_rootfs_crash.", options.work or shm)
    end_cleanly()
    try:
        images = {"a": small("a"), "large": large("large", _FOLDERS)}
        lab = Laboratory(os.path.join(above, "work"), mounts=False, images=images)
        try:
            for scenario in SCENARIOS:
                print(kill_task(lab, scenario), flush=True)
        finally:
            lab.close()
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        remove_folder(above)
    return 0


if __name__ == "__main__":
    sys.exit(main())

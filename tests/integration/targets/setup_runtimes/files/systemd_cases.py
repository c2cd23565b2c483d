# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers that run under a real systemd, described by the role: docs/behaviour.md, section 10.

systemd_cases.py FOLDER RUNTIME...    starts systemd in namespaces of its own, and tests runtimes with the images in FOLDER

It starts systemd twice: what is left of the first one are files, as when a node loses its power.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import typing as t

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from role_runs import Runs, number_of, require, say  # noqa: E402

# The tests' machine has no systemd as its first process, so one starts in new namespaces, with cgroups of its own.
_START = """\
set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
while read -r name _hierarchy _count enabled; do
    case $name in \\#*) continue ;; esac
    [ "$enabled" = 1 ] || continue
    mkdir "/sys/fs/cgroup/$name"
    mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" 2>/dev/null || rmdir "/sys/fs/cgroup/$name"
done </proc/cgroups
mkdir /sys/fs/cgroup/unified /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/systemd/system
# they remove what is in temporary folders
for unit in systemd-tmpfiles-setup.service systemd-tmpfiles-clean.service systemd-tmpfiles-clean.timer; do
    ln -s /dev/null "/run/systemd/system/$unit"
done
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /lib/systemd/systemd --system --unit=basic.target --log-target=journal --show-status=0
"""
_STACKED = "-stacked"
_LAYERS = "/var/lib/hypervisor.oci/systemd-layers"
_UNITS = {"lxc": "lxc@{}", "nspawn": "systemd-nspawn@{}", "runc": "hypervisor-oci-{}"}
_PATIENCE = 60
# Which part of the tests runs inside of a systemd.
_PART = "OCI_SYSTEMD_PART"


@contextlib.contextmanager
def running_systemd(log: str) -> t.Iterator[int]:
    """Run a systemd; gives the number of its process. With it, all that it started ends."""
    with open(log, "wb") as output:
        command = [
            "unshare",
            "--fork",
            "--kill-child",
            "--pid",
            "--mount",
            "--mount-proc",
            "--cgroup",
            "sh",
            "-c",
            _START,
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield _first_process(process, log)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _first_process(process: subprocess.Popen[bytes], log: str) -> int:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            children = file.read().split()
        if children:
            asked = ["nsenter", "--all", "--target", children[0], "systemctl", "is-system-running"]
            said = subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip()
            if said in ("running", "degraded"):
                return int(children[0])
        time.sleep(0.2)
    with open(log, encoding="utf-8", errors="replace") as file:
        sys.exit(f"no systemd: {file.read()[-3000:]}")


class Cases:
    """The tests inside of it, in an order in which each builds on the one before."""

    def __init__(self, folder: str, runtimes: list[str]) -> None:
        self.folder = folder
        hosts = [*runtimes, *(f"{runtime}{_STACKED}" for runtime in runtimes)]
        self.names = {host: f"oci-systemd-{number_of(folder)}-{host}" for host in hosts}
        self.runs = Runs(folder, {host: self._variables(host) for host in hosts})

    def _variables(self, host: str) -> dict[str, t.Any]:
        """Of a host in the inventory: a container with a tree of its own, or one that shares layers."""
        shared = {"container_store_dir": _LAYERS} if host.endswith(_STACKED) else {}
        return {
            "name_of_container": self.names[host],
            "container_runtime": host.partition("-")[0],
            "container_remote_src": True,
            "container_stop_timeout": 60,
            **shared,
        }

    def image(self, name: str) -> str:
        return os.path.join(self.folder, f"{name}.oci.tar")

    def unit(self, host: str) -> str:
        """Return the unit of a container."""
        return _UNITS[host.partition("-")[0]].format(self.names[host])

    def shown(self, runtime: str, name: str) -> str:
        """Return a property of the unit."""
        unit = self.unit(runtime)
        command = ["systemctl", "show", f"--property={name}", "--value", unit]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def is_enabled(self, runtime: str) -> bool:
        unit = self.unit(runtime)
        return subprocess.run(["systemctl", "--quiet", "is-enabled", unit], check=False).returncode == 0

    def before(self) -> None:
        """Those before the node loses its power."""
        self.runs.succeed(src=self.image("one"))
        for runtime in self.names:
            require(self.shown(runtime, "ActiveState") == "active", "it runs", runtime)
            require(self.is_enabled(runtime), "it starts with the node", runtime)
        say("units are made, enabled and started")

        began = {runtime: self.shown(runtime, "MainPID") for runtime in self.names}
        changes = self.runs.succeed(src=self.image("one"))
        require(not any(changes.values()), "a second run changes nothing", changes)
        for runtime, name in self.names.items():
            with open("/proc/self/mounts", encoding="utf-8") as file:
                require(f"/{name}" not in file.read(), "nobody else sees its mounts", runtime)
        self.runs.fail("container_command must be a list", src=self.image("one"), command="httpd -f")
        self.runs.fail("container_env.FLAG", "--check", src=self.image("one"), env={"FLAG": True})
        for runtime, pid in began.items():
            require(self.shown(runtime, "MainPID") == pid, "it was not started again", runtime)
        say("nothing that changes nothing, or that cannot be, starts it again")

        self._roll_back()
        self._end()

    def after(self) -> None:
        """Those after it has come back: no mount and no process is left, and Ansible does nothing."""
        for runtime in self.names:
            require(self.is_enabled(runtime), "it starts with the node", runtime)
            subprocess.run(["systemctl", "start", self.unit(runtime)], check=True)
        for runtime in self.names:
            require(self.shown(runtime, "ActiveState") == "active", "it runs again", runtime)
        changes = self.runs.succeed(src=self.image("one"))
        require(not any(changes.values()), "nothing is left to change", changes)
        say("after a node lost its power, its own start brings them back")

        self.runs.succeed(src=self.image("two"), restart="always")
        for runtime in self.names:
            require(self.shown(runtime, "Restart") == "always", "its policy", runtime)
            subprocess.run(["kill", "-s", "KILL", self._first_process(runtime)], check=True)
        for runtime in self.names:
            self._await_restart(runtime)
        say("systemd starts it again as its policy says")

        self._health()
        self.runs.succeed(src=self.image("two"), state="stopped")
        for runtime in self.names:
            require(self.shown(runtime, "ActiveState") != "active", "it stopped", runtime)
            require(not self.is_enabled(runtime), "it does not start with the node", runtime)
        self.runs.succeed(state="absent", purge=True)
        for runtime in self.names:
            require("hypervisor" not in self.shown(runtime, "DropInPaths"), "its drop-in is gone", runtime)
            require(self.shown(runtime, "FragmentPath")[:5] != "/etc/", "its unit is gone", runtime)
        say("it is stopped, and absent removes its unit")

    def _roll_back(self) -> None:
        """A change that does not start: the description, the unit and whether it is enabled come back, and it runs."""
        before = {runtime: self._files(runtime) for runtime in self.names}
        errors = self.runs.fail("was started again, and runs", src=self.image("three"), autostart=False, stop_timeout=7)
        for runtime, error in errors.items():
            require("/bin/nothing" in error, "the reason", error)
            require(self.shown(runtime, "ActiveState") == "active", "it runs", runtime)
            require(self.is_enabled(runtime), "it is enabled again", runtime)
            require(self._files(runtime) == before[runtime], "its unit is as it was", runtime)
        changes = self.runs.succeed(src=self.image("one"))
        require(not any(changes.values()), "nothing is left to change", changes)
        say("a change that does not start is undone, and the former container runs")

    def _end(self) -> None:
        """A command that ends, also a shell that waits for nobody; LXC gives it a console, so that there it would stay."""
        ends = {
            "container_entrypoint": ["/bin/sh", "-c"],
            "container_command": ["echo '{''{ 1 + 1 }''}' ended; exit 7"],
        }
        shell = {"container_entrypoint": ["/bin/sh"], "container_command": []}
        alone = ["exit status 0", "a shell without a terminal ends at once"]
        said = {host: alone for host in self.names if host.startswith("nspawn")}
        extra = {runtime: shell if runtime in said else ends for runtime in self.names}
        self.runs.written = ""
        errors = self.runs.fail("was started again, and runs", src=self.image("one"), extra=extra)
        for runtime, error in errors.items():
            for text in said.get(runtime, ["exit status 7", "{{ 1 + 1 }} ended"]):
                require(text in error, "how it ended", error)
            for text in ("/bin/nothing", "Main process exited", "Started "):
                require(text not in error, "nothing but its own last lines", error)
        told = [line for line in self.runs.written.splitlines() if line.startswith("fatal:") and "exit status" in line]
        require(len(told) == len(errors), "each is told once", told)
        say("a command that ends is told with its exit status")

    def _health(self) -> None:
        """The systemd of a container checks its health, with no more rights than its own, and leaves no process."""
        host = next((host for host in self.names if host == "nspawn"), "")
        if not host:
            return
        mounts = [{"source": "/usr", "target": "/usr", "type": "bind", "read_only": True}]
        given = {"only": [host], "src": self.image("six"), "mounts": mounts, "restart": "no", "start_wait": 1}
        # one that goes on, and hides from whoever looks for it
        left = "(env -i sleep 7073) >/dev/null 2>&1 &"
        seen = 'id -u; pwd; printf "%s\\n" "$VALUE"; cat /proc/self/status'
        look = {"test": f"{left} {{ {seen}; }} >/run/checked", "interval": 1, "start_period": 60}
        errors = [outcome.error for outcome in self.runs(**given, health=look).values()]
        require(errors == [""], "it is healthy", errors)
        leader = self._leader(host)
        with open(f"/proc/{leader}/root/run/checked", encoding="utf-8") as file:
            user, folder, value, *lines = file.read().splitlines()
        require(
            [user, folder, value] == ["0", "/tmp", "it's $HOME %h"], "user, folder and environment", user, folder, value
        )
        with open(f"/proc/{leader}/status", encoding="utf-8") as file:
            first = _fields(file.read().splitlines())
        check = _fields(lines)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            more = int(check[name], 16) & ~int(first[name], 16)
            require(not more, f"{name} of a check has no more than the first process's", check[name], first[name])
        require(first["Seccomp"] == check["Seccomp"] == "2", "the filter", check["Seccomp"], first["Seccomp"])
        require(int(check["Seccomp_filters"]) >= int(first["Seccomp_filters"]), "all filters", check, first)
        require(not self._processes("sleep 7073"), "no process is left")

        for words, test in (
            ("ended with 3 and said: sick", "echo sick; exit 3"),
            ("more than 1 seconds", "env -i sleep 7073"),
        ):
            sick = {"test": test, "interval": 1, "start_interval": 0.5, "timeout": 1, "retries": 2, "start_period": 10}
            (outcome,) = self.runs(**given, health=sick, env={"NEW": words}).values()
            for text in (words, "was started again, and runs"):
                require(text in outcome.error, "what the check says, and that the former one is back", outcome.error)
            deadline = time.monotonic() + 5
            while self._processes("sleep 7073"):
                require(time.monotonic() < deadline, "no process is left")
                time.sleep(0.2)
        say("a systemd in a container of nspawn checks its health, and a sick container is taken back")

    def _leader(self, host: str) -> str:
        command = ["machinectl", "show", self.names[host], "--property=Leader", "--value"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _processes(self, words: str) -> list[str]:
        listed = subprocess.run(["pgrep", "--full", "--exact", words], check=False, capture_output=True, text=True)
        return listed.stdout.split()

    def _files(self, runtime: str) -> dict[str, str]:
        paths = [self.shown(runtime, "FragmentPath"), *self.shown(runtime, "DropInPaths").split()]
        texts = {}
        for path in paths:
            with open(path, encoding="utf-8") as file:
                texts[path] = file.read()
        return texts

    def _first_process(self, runtime: str) -> str:
        """Return the process whose end is the container's: without its monitor, a container of LXC would go on."""
        if not runtime.startswith("lxc"):
            return self.shown(runtime, "MainPID")
        command = ["lxc-info", "--name", self.names[runtime], "--pid", "--no-humanize"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def _await_restart(self, runtime: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self.shown(runtime, "NRestarts") == "0" or self.shown(runtime, "ActiveState") != "active":
            require(time.monotonic() < deadline, "it is started again", runtime, self.shown(runtime, "ActiveState"))
            time.sleep(0.2)


def _fields(lines: list[str]) -> dict[str, str]:
    """Return the fields of a process's status."""
    return {name: value.strip() for name, _colon, value in (line.partition(":") for line in lines)}


def main() -> int:
    """Start systemd and the tests in it, or, inside of it, test; returns the exit status."""
    folder, *runtimes = sys.argv[1:]
    part = os.environ.get(_PART)
    if part:
        cases = Cases(folder, runtimes)
        (cases.before if part == "before" else cases.after)()
        return 0
    for part in ("before", "after"):
        with running_systemd(os.path.join(folder, f"systemd-{part}.log")) as pid:
            inside = ["nsenter", "--all", "--target", str(pid), "--wd=/", sys.executable, os.path.abspath(__file__)]
            environment = {**os.environ, _PART: part}
            status = subprocess.run([*inside, folder, *runtimes], check=False, env=environment).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers that really run, described by the role: docs/behaviour.md, section 9.

container_cases.py FOLDER [--real FOLDER] RUNTIME...    tests runtimes, all at once, with the images in FOLDER
container_cases.py FOLDER --clean RUNTIME...            removes whatever a test left
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import subprocess
import sys
import time
import typing as t

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.abspath(__file__).partition("/ansible_collections/")[0])

from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below  # noqa: E402
from build_container_images import ARGUMENTS, ENVIRONMENT  # noqa: E402
from role_runs import Runs, Variables, number_of, open_to_others, require, say, served, watched_commands  # noqa: E402

from ansible_collections.hypervisor.oci.tests.crash.volume_races import CANARY, canaries, run_module  # noqa: E402

_STATE = "/var/lib/hypervisor.oci/containers"
_VOLUMES = "/var/lib/hypervisor.oci/volumes"
_BUNDLES = "/var/lib/hypervisor.oci/bundles"
_LAYERS = "/var/lib/hypervisor.oci/layers"
# ids for one map, from a multiple of it on, as systemd-nspawn wants it
_COUNT = 65536
_RANGES = ("/etc/subuid", "/etc/subgid")
_PATIENCE = 20
_STACKED = ("stacked", "stacked-mapped")
# an ordinary user of the node
_STRANGER = 12345
# A copy that follows links brings something of the node's in about every second one.
_ROUNDS = 5
_REAL = "busybox-glibc-amd64.oci.tar"
_CRUN = """\
#!/bin/sh
# crun does not start where both kinds of cgroups are mounted
grep -q ' /sys/fs/cgroup/unified ' /proc/self/mounts || exec {crun} "$@"
exec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec {crun} "$@"' crun "$@"
"""


def _base(number: int) -> int:
    """The first host id of the maps of a run of the tests."""
    return (20 + number) * _COUNT


def _fields(text: str) -> dict[str, str]:
    """The fields of a process's status."""
    return {key: value.strip() for key, _colon, value in (line.partition(":") for line in text.splitlines())}


def _read_or_nothing(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _kept_beside(container: Container) -> list[str]:
    """Return what is kept beside a container's tree, but its record and papers."""
    parent, name = os.path.split(container.rootfs)
    names = os.listdir(os.path.join(parent, f".{name}.oci_rootfs"))
    return [name for name in names if name != "record.json" and not name.endswith((".journal", ".made", ".proven"))]


class Container:
    """One container of the tests, seen from the host."""

    def __init__(self, number: int, runtime: str, case: str) -> None:
        self.runtime = runtime
        self.name = f"oci-test-{number}-{runtime}-{case}"
        self.is_mapped = case.endswith("mapped")
        self.base = _base(number) if self.is_mapped else 0
        self.rootfs = {"lxc": f"/var/lib/lxc/{self.name}/rootfs", "nspawn": f"/var/lib/machines/{self.name}"}.get(
            runtime, f"{_BUNDLES}/{self.name}/rootfs"
        )
        self.control = f"{_STATE}/{self.name}/control"
        self.volumes = f"{_VOLUMES}/{self.name}"
        self.data = f"{self.volumes}/data"

    @property
    def lacks_groups(self) -> bool:
        """LXC before 7.0 gives mapped containers no supplementary groups."""
        if self.runtime != "lxc" or not self.is_mapped:
            return False
        asked = subprocess.run(["lxc-start", "--version"], check=True, capture_output=True, text=True)
        return int(asked.stdout.partition(".")[0]) < 7

    def variables(self) -> Variables:
        """Of its host in the inventory."""
        chosen: Variables = {
            "name_of_container": self.name,
            "container_runtime": self.runtime,
            "container_remote_src": True,
            # not to be mistaken for a signal that was not sent, on a machine that has much to do
            "container_stop_timeout": 60,
        }
        if self.is_mapped:
            ranges = [f"0:{self.base}:{_COUNT}"]
            chosen["container_uid_map"] = chosen["container_gid_map"] = ranges
        if self.lacks_groups:
            chosen["container_user"] = "1000:1001"
        return chosen

    def is_running(self) -> bool:
        """Whether its own script says so."""
        if not os.path.exists(self.control):
            return False
        command = [self.control, "status"]
        return subprocess.run(command, check=False).returncode == 0

    def forget_report(self) -> None:
        """So that the next one is a new one."""
        remove_below(self.volumes, f"{self.data}/report")

    def report(self) -> dict[str, str]:
        """What its process said of itself."""
        folder = f"{self.data}/report"
        deadline = time.monotonic() + _PATIENCE
        while not os.path.isdir(folder):
            if time.monotonic() > deadline:
                sys.exit(f"{self.name} has reported nothing; {self.log()}")
            time.sleep(0.1)
        texts = {}
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                texts[name] = file.read()
        return texts

    def log(self) -> str:
        """The end of its log."""
        if not os.path.exists(self.control):
            return "no log"
        done = subprocess.run([self.control, "log"], check=False, capture_output=True, text=True)
        return done.stdout + done.stderr

    def clean(self) -> None:
        """Remove all of it, whatever became of it; only ever its own processes."""
        if os.path.exists(self.control):
            subprocess.run([self.control, "stop"], check=False)
        for folder, path in (
            ("/var/lib/lxc", f"/var/lib/lxc/{self.name}"),
            ("/var/lib/machines", f"/var/lib/machines/{self.name}"),
            ("/var/lib/machines", f"/var/lib/machines/.{self.name}.oci_rootfs"),
            (_BUNDLES, f"{_BUNDLES}/{self.name}"),
            (_STATE, f"{_STATE}/{self.name}"),
            (_VOLUMES, self.volumes),
        ):
            remove_below(folder, path)
        for path in (
            f"/etc/systemd/nspawn/{self.name}.nspawn",
            f"/var/log/hypervisor.oci/{self.name}.log",
            f"/var/log/hypervisor.oci/{self.name}.log.lxc",
            *(f"/run/hypervisor.oci/{self.name}.{end}" for end in ("pid", "begun", "ended")),
        ):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


class Cases:
    """The tests of all runtimes, in an order in which each builds on the one before."""

    def __init__(self, runtimes: list[str], folder: str, real: str) -> None:
        self.folder = folder
        self.number = number_of(folder)
        self.real = os.path.join(real, _REAL) if real else ""
        self.containers = {
            f"{runtime}-{case}": Container(self.number, runtime, case)
            for runtime in runtimes
            for case in ("privileged", "mapped")
        }
        # what has nothing to do with id maps is tried without one
        self.privileged = [name for name in self.containers if name.endswith("-privileged")]
        hosts = {name: item.variables() for name, item in self.containers.items()}
        # the trees that had drifted, and were replaced
        self.drifted: dict[str, str] = {}
        self.path = self._path_with_crun()
        self.runs = Runs(folder, hosts, self.path)

    def _path_with_crun(self) -> str:
        path = os.path.join(self.folder, "bin")
        os.makedirs(path, exist_ok=True)
        wrapper = os.path.join(path, "crun")
        with open(wrapper, "w", encoding="utf-8") as file:
            file.write(_CRUN.format(crun="/usr/bin/crun"))
        os.chmod(wrapper, 0o755)
        return path

    def image(self, name: str) -> str:
        return os.path.join(self.folder, f"{name}.oci.tar")

    def run(self) -> None:
        """All of them."""
        self.check_mode()
        self.first_run()
        self.second_run()
        self.judged()
        self.groups_that_cannot_be()
        self.secrets()
        self.overrides()
        self.damaged_image()
        self.image_that_does_not_start()
        self.command_that_ends()
        self.health()
        self.drift()
        self.update()
        self.stacks()
        self.stop()
        self.remove()
        self.attacks()
        self.real_image()

    def check_mode(self) -> None:
        names = self.privileged[:1]
        changes = self.runs.succeed("--check", src=self.image("one"), only=names)
        require(all(changes.values()), "check mode predicts a change", changes)
        for name in names:
            container = self.containers[name]
            for path in (container.rootfs, container.control, container.volumes):
                require(not os.path.exists(path), "check mode makes nothing", path)
        say("check mode predicts, and makes nothing")

    def first_run(self) -> None:
        self.runs.succeed(src=self.image("one"))
        for container in self.containers.values():
            report = container.report()
            words = ["/bin/sh", "/bin/probe", *ARGUMENTS, "last"]
            self._require_process(container, report, words, ENVIRONMENT)
            require(report["version"] == "1\n", "it is image one", report["version"])
            require(report["cwd"] == "/srv/work dir\n", "directory", report["cwd"])
            wanted = f"127.0.1.1 {container.name}\n"
            require(wanted in report["hosts"], "/etc/hosts", report["hosts"])
            require("/.hypervisor" not in report["hosts"], "hosts", report["hosts"])
            require("from-image" in report["data"], "volume", report["data"])
            self._require_owner(container, f"{container.data}/from-image", 1000, 1001)
            state = f"{container.volumes}/var%2Frun%2Fstate"
            require(os.path.isdir(state), "the volume behind a link", state)
            evaluated = f"{container.data}/evaluated"
            require(not os.path.exists(evaluated), "no template of an image's is used")
            mapped = report["uid_map"].split()
            require(mapped[1] == str(container.base), "id map", mapped)
            self._require_out_of_reach(container)
        say("argv, environment, directory, user, groups, hosts and volumes are right")

    def _require_process(
        self,
        container: Container,
        report: dict[str, str],
        words: list[str],
        env: dict[str, str],
        ids: tuple[int, int, list[int]] = (1000, 1001, [1002, 1003]),
    ) -> None:
        argv = report["cmdline"].split("\0")[:-1]
        require(argv == words, "argv", argv, words)
        seen = dict(item.partition("=")[::2] for item in report["environ"].split("\0") if item)
        for key, value in env.items():
            require(seen.get(key) == value, f"env {key}", seen.get(key), value)
        status = dict(line.partition(":")[::2] for line in report["status"].splitlines())
        uid, gid, groups = ids
        if container.lacks_groups:
            groups = []
        require(set(status["Uid"].split()) == {str(uid)}, "uid", status["Uid"])
        require(set(status["Gid"].split()) == {str(gid)}, "gid", status["Gid"])
        found = sorted(set(map(int, status["Groups"].split())) - {gid})
        require(found == groups, "groups", found, groups)

    def _require_owner(self, container: Container, path: str, uid: int, gid: int) -> None:
        status = os.stat(path)
        wanted = (container.base + uid, container.base + gid)
        require((status.st_uid, status.st_gid) == wanted, "owner", path, status)

    def _require_out_of_reach(self, container: Container) -> None:
        """An ordinary user of the node comes neither to setuid files of the image nor to the volumes."""
        for path in (f"{container.rootfs}/bin/setuid", f"{container.data}/from-image"):
            require(os.path.exists(path), "it is there", path)
            done = subprocess.run(
                ["ls", "-l", path],
                check=False,
                capture_output=True,
                text=True,
                user=_STRANGER,
                group=_STRANGER,
                extra_groups=[],
            )
            require("Permission denied" in done.stderr, "closed", path, done.stdout)

    def second_run(self) -> None:
        inodes = {item.name: os.stat(f"{item.data}/report").st_ino for item in self.containers.values()}
        changes = self.runs.succeed(src=self.image("one"))
        require(not any(changes.values()), "a second run changes nothing", changes)
        for item in self.containers.values():
            inode = os.stat(f"{item.data}/report").st_ino
            require(inode == inodes[item.name], "it was not started again", item.name)
        say("a second run changes nothing")

    def judged(self) -> None:
        """What cannot be is told before anything is unpacked or stopped, in check mode too."""
        image = {"src": self.image("one"), "only": self.privileged[:1]}
        inode = os.stat(f"{self._without_map()[0].data}/report").st_ino
        for options in ((), ("--check",)):
            says = "container_command must be a list of strings"
            self._fail_alone(says, *options, **image, command="httpd -f")
            self._fail_alone("container_env.FLAG", *options, **image, env={"FLAG": True})
            self._fail_alone("container_x is not a variable", *options, **image, x=1)
        omitted = {"hostname": "{{ omit }}", "command": "{{ nothing | default(omit) }}"}
        changes = self.runs.succeed(**image, **omitted)
        require(not any(changes.values()), "omit is as if not given", changes)
        container = self._without_map()[0]
        require(container.is_running(), "it goes on", container.name)
        seen = os.stat(f"{container.data}/report").st_ino
        require(seen == inode, "it was not started again", container.name)
        say("what cannot be is told before anything is stopped")

    def _fail_alone(self, says: str, *options: str, **changed: t.Any) -> None:
        """A run that fails with one sentence, without words of Ansible's before it."""
        for error in self.runs.fail(says, *options, **changed).values():
            require(error.startswith("container_"), "the sentence alone", error)

    def groups_that_cannot_be(self) -> None:
        """LXC before 7.0, mapped: an error that names the way out, and the container goes on."""
        lacking = [name for name, item in self.containers.items() if item.lacks_groups]
        if not lacking:
            return
        user = {name: {"container_user": "app"} for name in lacking}
        self.runs.fail("does not give supplementary groups", src=self.image("one"), only=lacking, extra=user)
        for name in lacking:
            require(self.containers[name].is_running(), "it goes on", name)
        say("groups that a runtime cannot give are an error")

    def overrides(self) -> None:
        self._forget_reports()
        self.runs.succeed(
            src=self.image("one"),
            env={"QUOTED": "other", "NEW": "a 'b' \"c\""},
            command=["over ride", "$1"],
            working_dir="/tmp",
            hostname="other-name",
            extra={
                name: {"container_user": "2000:2001" if item.lacks_groups else "other"}
                for name, item in self.containers.items()
            },
        )
        for container in self.containers.values():
            report = container.report()
            words = ["/bin/sh", "/bin/probe", *ARGUMENTS, "over ride", "$1"]
            env = {**ENVIRONMENT, "QUOTED": "other", "NEW": "a 'b' \"c\""}
            self._require_process(container, report, words, env, (2000, 2001, [1002]))
            require(report["cwd"] == "/tmp\n", "directory", report["cwd"])
            require(report["hostname"] == "other-name\n", "name", report["hostname"])
        say("changed overrides restart the container with them")

    def secrets(self) -> None:
        """None in a diff, in what Ansible writes, among the arguments of a process, or in a file that others may read."""
        names = self.privileged
        env = {"TOKEN": "env-s3cret", "LINES": "line-s3cret\nexport A='b-s3cret'"}
        self._run_secretly(names, "--diff", "-vvv", src=self.image("one"), env=env)
        for name in ("TOKEN=********", "LINES=********"):
            require(name in self.runs.written, "it shows the name", name)
        env["TOKEN"] = "other-s3cret"
        with served(self.folder) as address:
            self._run_secretly(
                names,
                *("--diff", "-vvv", "--check"),
                src=f"http://u:url-s3cret@{address}/one.oci.tar?signature=query-s3cret",
                rootfs_options={"headers": {"X-Token": "header-s3cret"}},
                remote_src=False,
                env=env,
            )
        shown = ["TOKEN=******** (changed)"]
        if '"invocation"' in self.runs.written:
            # ansible-core 2.21 and newer show no arguments
            shown.append(f"{address}/one.oci.tar?********")
        for text in shown:
            require(text in self.runs.written, "it shows what is no secret", text)
        for container in self._without_map():
            beside = os.path.dirname(container.rootfs)
            paths = [
                *(os.path.join(beside, name) for name in ("config", "config.json")),
                os.path.dirname(container.control),
                f"/etc/systemd/nspawn/{container.name}.nspawn",
            ]
            for path, text in open_to_others(paths):
                require("s3cret" not in text, "no secret in a file for others", path)
        say("secrets are in no diff, output, process list, or file for others")

    def _run_secretly(self, names: list[str], *options: str, **changed: object) -> None:
        self.runs.written = ""
        with watched_commands() as commands:
            outcomes = self.runs(*options, only=names, **changed)
        for name, outcome in outcomes.items():
            require(not outcome.error, "it succeeds", name, outcome.error[-3000:])
        for line in self.runs.written.splitlines():
            require("s3cret" not in line, "no secret is written", line[:2000])
        require(len(commands) > 3, "processes were seen", len(commands))
        for line in commands:
            require("s3cret" not in line, "no secret is an argument", line[:2000])

    def damaged_image(self) -> None:
        self._forget_reports()
        self.runs.fail("layer sha256", src=self.image("four"), only=self.privileged)
        for container in self._without_map():
            require(container.is_running(), "it goes on", container.name)
            report = f"{container.data}/report"
            require(not os.path.exists(report), "it was not started again", report)
        say("a damaged image leaves the container running")

    def image_that_does_not_start(self) -> None:
        self.runs.written = ""
        errors = self.runs.fail("was started again", src=self.image("three"), only=self.privileged)
        for name, error in errors.items():
            require("/bin/nothing" in error, "the reason", error)
            for noise in ("To get more details", "File exists", "non-zero return code"):
                require(noise not in error, "no noise", error)
            self._require_kept(self.containers[name], error, "app:1")
            self._require_image_one(name)
        told = [line for line in self.runs.written.splitlines() if line.startswith("fatal:") and "from its log" in line]
        require(len(told) == len(errors), "each is told once", told)
        say("an image that does not start is taken back, and the reason told")

    def _require_kept(self, container: Container, error: str, ref: str) -> None:
        """The message says which image is back, and where the tree is that failed."""
        require(f"its root file system is that of {ref} sha256:" in error, "the image that is back", error)
        kept = error.rpartition("; the tree that failed is kept in ")[2]
        folder, name = os.path.split(container.rootfs)
        beside = os.path.join(folder, f".{name}.oci_rootfs")
        require(os.path.dirname(kept) == beside and os.path.isdir(kept), "the tree that failed", error)

    def command_that_ends(self) -> None:
        """Also of a shell that waits for nobody; LXC gives it a console, so that there it would stay."""
        ends = {
            "container_entrypoint": ["/bin/sh", "-c"],
            "container_command": ["echo '{''{ 1 + 1 }''}' ended; exit 7"],
        }
        shell = {"container_entrypoint": ["/bin/sh"], "container_command": []}
        shells = [name for name, item in self.containers.items() if item.is_mapped and item.runtime != "lxc"]
        extra = {name: shell if name in shells else ends for name in self.containers}
        errors = self.runs.fail("was started again, and runs", src=self.image("one"), extra=extra)
        for name, error in errors.items():
            words = ["exit status 7", "{{ 1 + 1 }} ended"]
            if name in shells:
                words = ["exit status 0", "a shell without a terminal ends at once"]
            for text in words:
                require(text in error, "how it ended", error)
            require("/bin/nothing" not in error, "nothing of an earlier start", error)
            self._require_image_one(name)
        say("a command that ends is told with its exit status")

    def health(self) -> None:
        """A check has no more rights than the first process, and what fails it is taken back."""
        names = [name for name in self.privileged if not name.startswith("nspawn")]
        checked = [name for name, item in self.containers.items() if item.runtime != "nspawn"]
        self._forget_reports()
        look = "cat /proc/self/status >/data/checked; cat /proc/self/environ >/data/seen; id; true"
        self.runs.succeed(src=self.image("one"), only=checked, health={"test": look, "interval": 1})
        for name in checked:
            self._require_no_more_rights(self.containers[name])
        # an update whose check says that it is not well, and leaves processes that ignore signals
        # runc waits for what holds the output
        left = "(trap '' TERM HUP; while :; do sleep 7071; done) >/dev/null 2>&1 & "
        test = f"{left} cat /version; id >/dev/null; read v </version; [ $v = 1 ]"
        sick = {"test": test, "interval": 1, "start_interval": 0.5, "timeout": 5, "retries": 2}
        before = time.monotonic()
        errors = self.runs.fail("it is not healthy", src=self.image("two"), only=names, health=sick)
        for name, error in errors.items():
            for words in (
                "failed 2 times in a row; the last check ended with 1 and said: 2",
                "and runs; it is healthy",
            ):
                require(words in error, "what the check says", error)
            require("its volumes stay as it has left them" in error, "volumes", error)
            self._require_image_one(name)
        require(time.monotonic() - before < 120, "it does not wait for long", time.monotonic() - before)
        self._require_no_process("sleep\0" + "7071")
        hanging = {"test": f"{left} sleep 7072", "interval": 1, "start_interval": 0.5, "timeout": 1, "retries": 2}
        self.runs.fail("took more than 1 seconds", src=self.image("two"), only=names[:1], health=hanging)
        self._require_no_process("sleep\0" + "7072")
        nspawn = [name for name in self.privileged if name.startswith("nspawn")]
        if nspawn:
            # whatever the image: this node has no systemd
            why = "where systemd runs the node"
            self.runs.fail(why, src=self.image("one"), only=nspawn, health={"test": "true"})
        say("health checks have no more rights than their containers, and a sick image is taken back")

    def drift(self) -> None:
        """What a container has changed in its tree is found while it runs, and put back while it does not."""
        only = self.privileged[:1]
        (container,) = (self.containers[name] for name in only)
        version = os.path.join(container.rootfs, "version")
        given: Variables = {"src": self.image("one"), "only": only, "start_wait": 1}
        if self.runs(**given, verify="metadata")[only[0]].changed:
            sys.exit("a clean tree was changed")
        with open(version, "w", encoding="utf-8") as file:
            file.write("changed\n")
        os.unlink(os.path.join(container.rootfs, "etc/group"))
        self._forget_reports()
        self.runs.written = ""
        predicted = self.runs("--check", **given, verify="metadata", repair="paths")[only[0]]
        found = self.runs(**given, verify="content")[only[0]]
        require(predicted.changed > 0 and not predicted.error, "check mode predicts it", predicted)
        require((found.changed, found.error) == (0, ""), "it is told, and nothing changed", found)
        require("is drifted; 1 changed, 1 missing, 0 extra" in self.runs.written, "what differs", self.runs.written)
        require(not os.path.exists(f"{container.data}/report"), "it was not started again", container.name)
        repaired = self.runs(**given, verify="metadata", repair="paths")[only[0]]
        require(repaired.changed > 0 and not repaired.error, "it is repaired", repaired)
        self._require_image_one(only[0])
        # a tree that is unpacked anew for a container that is not well
        with open(version, "w", encoding="utf-8") as file:
            file.write("changed\n")
        sick = {"test": "false", "interval": 1, "start_interval": 0.5, "retries": 1}
        failed = self.runs(**given, verify="metadata", repair="recreate", health=sick)[only[0]]
        require("it is not healthy" in failed.error, "it fails", failed)
        require(_read_or_nothing(version) == "changed\n", "the former tree is back", failed)
        require(container.is_running(), "it runs", container.name)
        self._forget_reports()
        repaired = self.runs(**given, verify="metadata", repair="recreate")[only[0]]
        require(repaired.changed > 0 and not repaired.error, "it is unpacked anew", repaired)
        self._require_image_one(only[0])
        # it is kept, whatever the role keeps of earlier trees
        (self.drifted[only[0]],) = _kept_beside(container)
        say("what a container has changed in its tree is found, and repaired")

    def _require_no_more_rights(self, container: Container) -> None:
        texts = []
        report = container.report()
        for name in ("checked", "seen"):
            with open(f"{container.data}/{name}", encoding="utf-8") as file:
                texts.append(file.read())
        first, check = (_fields(text) for text in (report["status"], texts[0]))
        for key in ("Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"):
            require(check[key] == first[key], f"{key} of a check in {container.name}", check[key], first[key])
        # without supplementary groups it has fewer rights
        require(
            set(check["Groups"].split()) <= set(first["Groups"].split()), "groups", check["Groups"], first["Groups"]
        )
        seen = dict(item.partition("=")[::2] for item in texts[1].split("\0") if item)
        for key, value in ENVIRONMENT.items():
            require(seen.get(key) == value, f"{key} of a check", container.name, seen.get(key), value)
        require(not [key for key in seen if "ANSIBLE" in key or key == "SSH_CONNECTION"], "nothing of Ansible's", seen)

    def _require_no_process(self, words: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            left = [path for path in glob.glob("/proc/[0-9]*/cmdline") if words in _read_or_nothing(path)]
            if not left:
                return
            require(time.monotonic() < deadline, "a check has left processes", left)
            time.sleep(0.2)

    def _require_image_one(self, name: str) -> None:
        container = self.containers[name]
        report = container.report()
        require(report["version"] == "1\n", "image one is back", report["version"])
        require(container.is_running(), "it runs", container.name)

    def update(self) -> None:
        for container in self.containers.values():
            with open(f"{container.data}/own", "w", encoding="utf-8") as file:
                file.write("data\n")
            os.unlink(f"{container.data}/from-image")
        self._forget_reports()
        self.runs.succeed(src=self.image("two"))
        for name, container in self.containers.items():
            report = container.report()
            require(report["version"] == "2\n", "it is image two", report["version"])
            require(" own\n" in report["data"], "its data is there", report["data"])
            require("from-image" not in report["data"], "not filled", report["data"])
            drifted = [self.drifted[name]] if name in self.drifted else []
            require(_kept_beside(container) == drifted, "the tree of before is gone", _kept_beside(container))
            status = os.stat(f"{container.rootfs}/bin/setuid")
            require(bool(status.st_mode & 0o4000), "it has set-id bits", status)
        say("an update keeps the volumes, and removes the old tree")

    def stop(self) -> None:
        self._forget_signals()
        one = self.privileged[:1]
        changes = self.runs.succeed("--check", src=self.image("two"), state="stopped", only=one)
        require(all(changes.values()), "check mode predicts the stop", changes)
        require(self.containers[one[0]].is_running(), "and does not stop it", one)
        self.runs.succeed(src=self.image("two"), state="stopped", only=self.privileged)
        for container in self._without_map():
            self._require_stopped(container)
            require(os.path.exists(container.control), "it is there", container.name)
        say("it stops on its signal")

    def remove(self) -> None:
        purge = {name: {"container_purge": True} for name in self.privileged}
        self.runs.written = ""
        changes = self.runs.succeed(state="absent", extra=purge)
        require(all(changes.values()), "something is removed", changes)
        for name, container in self.containers.items():
            if container.is_mapped:
                self._require_stopped(container)
            require(not os.path.exists(container.rootfs), "the tree is gone", name)
            require(not os.path.exists(container.control), "the script is gone", name)
            kept = os.path.exists(container.volumes)
            require(kept is container.is_mapped, "volumes stay unless purged", name)
        changes = self.runs.succeed(state="absent", only=self.privileged[:1])
        require(not any(changes.values()), "and then nothing changes", changes)
        require("[WARNING]" not in self.runs.written, "no warning", self.runs.written)
        say("absent removes all but the volumes, and purge those, too")

    def stacks(self) -> None:
        """Containers that share layers as overlays, which are mounted for each of them alone."""
        runtimes = dict.fromkeys(item.runtime for item in self.containers.values())
        containers = [Container(self.number, runtime, case) for runtime in runtimes for case in _STACKED]
        hosts = {item.name: item.variables() for item in containers}
        runs = Runs(self.folder, hosts, self.path)
        store = f"{_LAYERS}/{self.number}"
        runs.succeed(src=self.image("one"), store_dir=store)
        for container in containers:
            parts = sorted(os.listdir(container.rootfs))
            require(parts == ["lower", "store", "upper", "work"], "it is a stack", parts)
            self._require_version(container, "1\n")
        changes = runs.succeed(src=self.image("one"), store_dir=store)
        require(not any(changes.values()), "a second run changes nothing", changes)
        self._start_with_node([item for item in containers if item.runtime == "lxc"])
        runs.succeed(src=self.image("two"), store_dir=store)
        for container in containers:
            self._require_version(container, "2\n")
            # what it has written itself
            with open(f"{container.rootfs}/upper/own", "w", encoding="utf-8"):
                pass
        errors = runs.fail("was started again, and runs", src=self.image("three"), store_dir=store)
        for container in containers:
            require("/bin/nothing" in errors[container.name], "the reason", errors)
            self._require_kept(container, errors[container.name], "app:2")
            self._require_version(container, "2\n")
            require(os.path.exists(f"{container.rootfs}/upper/own"), "its own upper is back", container.name)
        runs.succeed(state="absent", purge=True)
        for container in containers:
            require(not os.path.exists(container.rootfs), "the stack is gone", container.name)
        remove_below(_LAYERS, store)
        say("containers that share layers start, are updated and taken back")

    def _start_with_node(self, containers: list[Container]) -> None:
        """LXC starts its containers itself after the node has lost power, without the role, and mounts their stacks."""
        for container in containers:
            with open(f"{container.rootfs}/upper/own", "w", encoding="utf-8"):
                pass
            subprocess.run(["lxc-stop", "-k", "-n", container.name], check=True)
            require(not container.is_running(), "it does not run", container.name)
        if containers:
            subprocess.run(["lxc-autostart"], check=True, stdin=subprocess.DEVNULL)
        for container in containers:
            self._require_version(container, "1\n")
            require(os.path.exists(f"{container.rootfs}/upper/own"), "it is the same stack", container.name)

    def _require_version(self, container: Container, version: str) -> None:
        report = container.report()
        require(report["version"] == version, "its image", container.name, report["version"])
        require(container.is_running(), "it runs", container.name)
        container.forget_report()
        with open("/proc/self/mounts", encoding="utf-8") as file:
            require(container.rootfs not in file.read(), "nobody else sees its overlay", container.name)

    def attacks(self) -> None:
        """Containers that swap directories of their root for links while volumes are filled from it."""
        outside = os.path.join(self.folder, "outside")
        os.makedirs(outside, 0o700)
        with open(os.path.join(outside, CANARY), "w", encoding="utf-8") as file:
            file.write("the node's\n")
        # what another runtime's container can do is the same
        names = [item.runtime for item in self._without_map()][:2]
        containers = [Container(self.number, name, "attack") for name in names]
        hosts = {item.runtime: {**item.variables(), "container_src": self.image("five")} for item in containers}
        runs = Runs(self.folder, hosts, self.path)
        runs.succeed()
        for container in containers:
            require(container.is_running(), "it attacks", container.log())
            made = glob.glob(f"{container.volumes}/*")
            require(made == [], "no volume of the image's on procfs", made)
            self._fill_under_attack(container)
        runs.fail("lies in a volume", mounts=[{"source": f"{_VOLUMES}/other/data/sub", "target": "/mnt"}])
        shared = os.path.join(self.folder, "shared")
        os.makedirs(shared)
        mounts = [{"source": shared, "target": "/shared"}]
        runs.succeed(volumes=[{"target": "/tree"}], mounts=mounts)
        for container in containers:
            volume = f"{container.volumes}/tree"
            require(container.is_running(), "it runs again", container.log())
            # the volume is what it attacks now
            subprocess.run([container.control, "stop"], check=True)
            # it was stopped while it moved some of them
            require(len(os.listdir(volume)) > 8, "it is filled", os.listdir(volume))
            require(canaries(volume) == [], "nothing of the node's", container.name)
            container.clean()
        say("containers that swap directories for links get nothing of the node's")

    def _fill_under_attack(self, container: Container) -> None:
        volume = os.path.join(self.folder, f"volume-{container.name}")
        arguments = {"path": volume, "rootfs": container.rootfs, "target": "/tree"}
        refused = run_module(**arguments)
        require("in use by" in refused.get("msg", ""), "it is in use", refused)
        messages = set()
        for _round in range(_ROUNDS):
            result = run_module(**arguments, in_use="ignore")
            messages.add(result.get("msg", ""))
            require(canaries(volume) == [], "nothing of the node's", container.name)
            remove_below(self.folder, volume)
        wrong = [text for text in messages if text and "while it was being copied" not in text]
        require(wrong == [], "it is told what changed", wrong)

    def real_image(self) -> None:
        """One that others published, started without a word about it."""
        if not os.path.exists(self.real):
            say(f"SKIPPED: there is no image that others published: {self.real}")
            return
        script = "echo ready >/data/ready; trap 'exit 0' TERM; sleep 1000 & wait"
        names = {item.runtime for item in self._without_map()}
        containers = {name: Container(self.number, name, "real") for name in names}
        more = {
            "container_src": self.real,
            "container_command": ["sh", "-c", script],
            "container_volumes": [{"target": "/data"}],
        }
        hosts = {name: {**item.variables(), **more} for name, item in containers.items()}
        Runs(self.folder, hosts, self.path).succeed()
        for container in containers.values():
            deadline = time.monotonic() + _PATIENCE
            while not os.path.exists(f"{container.data}/ready"):
                require(time.monotonic() < deadline, "a real image runs", container.name, container.log())
                time.sleep(0.1)
            require(container.is_running(), "it goes on", container.name)
        say("a real image runs")

    def _without_map(self) -> list[Container]:
        return [self.containers[name] for name in self.privileged]

    def _forget_signals(self) -> None:
        for container in self.containers.values():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{container.data}/stopped")

    def _require_stopped(self, container: Container) -> None:
        name = container.name
        stopped = f"{container.data}/stopped"
        require(os.path.exists(stopped), "it got a signal", name, container.log())
        with open(stopped, encoding="utf-8") as file:
            signals = file.read()
        require(signals == "QUIT\n", "it got its signal", name, signals)
        require(not container.is_running(), "it ended", name)
        with open("/proc/self/mounts", encoding="utf-8") as file:
            require(name not in file.read(), "no mount is left", name)
        status = os.stat("/dev/null")
        owner = (status.st_uid, status.st_gid)
        require(owner == (0, 0), "the node's /dev/null is its own", name, str(owner))

    def _forget_reports(self) -> None:
        for container in self.containers.values():
            container.forget_report()


def clean(folder: str, runtimes: list[str]) -> None:
    """Remove what a test left, also one that was killed."""
    number = number_of(folder)
    for runtime in runtimes:
        for case in ("privileged", "mapped", "real", "attack", *_STACKED):
            Container(number, runtime, case).clean()
    remove_below(_LAYERS, f"{_LAYERS}/{number}")
    for folder in (_STATE, _VOLUMES, _BUNDLES, _LAYERS, "/var/log/hypervisor.oci"):
        # other containers may be there
        with contextlib.suppress(OSError):
            os.rmdir(folder)
    line_of_lxc = f"root:{_base(number)}:{_COUNT}\n"
    for path in filter(os.path.exists, _RANGES):
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
        if line_of_lxc in lines:
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(line for line in lines if line != line_of_lxc)


def main() -> int:
    """Test runtimes; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("runtimes", nargs="+")
    parser.add_argument("--real", default="")
    parser.add_argument("--clean", action="store_true")
    given = parser.parse_args()
    if given.clean:
        clean(given.folder, given.runtimes)
    else:
        Cases(given.runtimes, given.folder, given.real).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

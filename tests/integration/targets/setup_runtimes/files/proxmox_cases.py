# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container of Proxmox VE, by a script that stands in for its tool: docs/behaviour.md, section 9.

proxmox_cases.py FOLDER    tests with the images in FOLDER; makes files in /etc/pve and removes them
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.abspath(__file__).partition("/ansible_collections/")[0])

from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below  # noqa: E402
from role_runs import Runs, number_of, open_to_others, require, say, watched_commands  # noqa: E402

_NUMBER = number_of(sys.argv[1])
_VMID = 900_000 + _NUMBER
_NAME = f"oci-test-{_NUMBER}-proxmox"
_FILE = f"/etc/pve/lxc/{_VMID}.conf"
_ROOTFS = f"/var/lib/lxc/{_VMID}/rootfs"
_STATE = f"/var/lib/hypervisor.oci/containers/{_NAME}"
_VOLUMES = f"/var/lib/hypervisor.oci/volumes/{_NAME}"
# where the module keeps what it knows of a mount point
_RECORD = "/var/lib/hypervisor.oci/rootfs-" + hashlib.sha256(_ROOTFS.encode()).hexdigest()[:16]
_BASE = 100000
_MAP = [f"0:{_BASE}:65536"]
_BEFORE = f"""\
#A container with a volume of its own
arch: amd64
cores: 1
hostname: old
memory: 512
mp0: local-lvm:vm-{_VMID}-disk-1,mp=/extra,size=1G
net0: name=eth0,bridge=vmbr0,ip=dhcp,type=veth
ostype: unmanaged
rootfs: local-lvm:vm-{_VMID}-disk-0,size=1G
swap: 512
unprivileged: 1

[snap]
arch: amd64
entrypoint: /sbin/old
rootfs: local-lvm:vm-{_VMID}-disk-0,size=1G
"""
# Proxmox VE mounts all volumes of a container, and none of one that runs.
_PCT = """\
#!/bin/sh
set -eu
state={folder}/state
root={rootfs}
echo "$1" >>{folder}/calls
[ "$2" = {vmid} ] || exit 2
case $1 in
    status) echo "status: $(cat "$state")" ;;
    mount)
        grep -q stopped "$state"
        # users of the node must not reach what is mounted there
        [ "$(stat -c %a "$(dirname "$root")")" = 700 ]
        mkdir -p "$root"
        mount -o loop {folder}/disk "$root"
        mkdir -p "$root/extra"
        mount -t tmpfs extra "$root/extra"
        echo data >"$root/extra/data"
        ;;
    unmount) umount -R "$root" ;;
    start)
        grep -q stopped "$state"
        ! grep -q " $root " /proc/self/mounts
        # what cannot start has ended when somebody looks
        grep -qs /bin/nothing {file} {wrapper} || [ -e {folder}/broken ] || echo running >"$state"
        ;;
    shutdown) echo stopped >"$state" ;;
    *) exit 2 ;;
esac
"""


class Stand:
    """What stands in for Proxmox VE."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.join(folder, "proxmox")
        self.path = os.path.join(self.folder, "bin")
        os.makedirs(self.path)
        os.makedirs(os.path.dirname(_FILE), exist_ok=True)
        self._write(_FILE, _BEFORE)
        self._write(f"{self.folder}/state", "stopped\n")
        pct = _PCT.format(folder=self.folder, rootfs=_ROOTFS, vmid=_VMID, file=_FILE, wrapper=f"{_STATE}/exec")
        self._write(f"{self.path}/pct", pct)
        os.chmod(f"{self.path}/pct", 0o755)
        disk = f"{self.folder}/disk"
        with open(disk, "wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)

    @staticmethod
    def _write(path: str, text: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def state(self) -> str:
        with open(f"{self.folder}/state", encoding="utf-8") as file:
            return file.read().strip()

    def calls(self) -> list[str]:
        """What the tool was asked since the last time, but for the state."""
        path = f"{self.folder}/calls"
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            calls = file.read().split()
        os.unlink(path)
        return [call for call in calls if call != "status"]

    def configuration(self) -> tuple[dict[str, list[str]], str]:
        """The values of each key of the main section, and the rest."""
        with open(_FILE, encoding="utf-8") as file:
            main, _blank, rest = file.read().partition("\n[")
        values: dict[str, list[str]] = {}
        for line in main.splitlines():
            key, _colon, value = line.partition(": ")
            values.setdefault(key, []).append(value)
        return values, rest

    def read(self, name: str) -> str:
        """A file of the volume, which is mounted for it elsewhere."""
        place = f"{self.folder}/look"
        os.makedirs(place, exist_ok=True)
        # as the stand-in mounts it: a namespace of another process may still have that mount
        command = ["mount", "-o", "loop", f"{self.folder}/disk", place]
        subprocess.run(command, check=True)
        try:
            with open(os.path.join(place, name), encoding="utf-8") as file:
                return file.read()
        finally:
            subprocess.run(["umount", place], check=True)

    def clean(self) -> None:
        """Everything that the test and the role made."""
        subprocess.run(["umount", "-R", _ROOTFS], check=False, capture_output=True)
        remove_below(os.path.dirname(self.folder), self.folder)
        remove_below("/var/lib/lxc", os.path.dirname(_ROOTFS))
        for path in (_STATE, _VOLUMES, _RECORD):
            remove_below("/var/lib/hypervisor.oci", path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_FILE)
        for folder in ("/etc/pve/lxc", "/etc/pve"):
            # another run may have its own there
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def run(folder: str, stand: Stand) -> None:
    """All cases, in order."""
    variables = {
        "name_of_container": _NAME,
        "container_runtime": "proxmox",
        "container_vmid": _VMID,
        "container_remote_src": True,
        "container_start_wait": 0,
        # the volume has a place for the other one, as one from a template has files
        "container_force": True,
        "container_uid_map": _MAP,
        "container_gid_map": _MAP,
        "container_proxmox_settings": {"memory": 1024},
    }
    runs = Runs(folder, {"proxmox": variables}, stand.path)

    def image(name: str) -> str:
        return os.path.join(folder, f"{name}.oci.tar")

    runs.succeed("--check", src=image("one"))
    require(stand.calls() == [], "check mode changes nothing")
    with open(_FILE, encoding="utf-8") as file:
        require(file.read() == _BEFORE, "check mode writes nothing")

    runs.succeed(src=image("one"))
    calls = stand.calls()
    require(calls == ["mount", "unmount", "start"], "its order", calls)
    mode = os.stat(os.path.dirname(_ROOTFS)).st_mode & 0o7777
    require(mode == 0o755, "the folder of the mount is as it was", oct(mode))
    require(stand.state() == "running", "it runs")
    require(stand.read("version") == "1\n", "the volume holds image one")
    _require_configuration(stand)
    status = os.stat(f"{_VOLUMES}/data/from-image")
    ids = (status.st_uid - _BASE, status.st_gid - _BASE)
    require(ids == (1000, 1001), "the image's volume is filled", ids)
    say("the volume is filled, described, and started")

    changes = runs.succeed(src=image("one"))
    require(not any(changes.values()), "a second run changes nothing", changes)
    require(stand.calls() == [], "and neither stops nor mounts")
    say("a second run changes nothing, and leaves the container running")

    runs.succeed(src=image("one"), env={"NEW": "value"})
    calls = stand.calls()
    require(calls == ["shutdown", "start"], "only started again", calls)
    values, _rest = stand.configuration()
    env = values["lxc.environment.runtime"]
    require("NEW=value" in env, "it has the variable", env)
    say("a changed override starts it again, without mounting")

    _require_judged(runs, stand, image("one"))
    _require_restored(runs, stand, image("one"))
    _require_secrecy(runs, image("one"))
    stand.calls()

    runs.fail("was started again", src=image("four"))
    calls = stand.calls()
    require(calls == ["shutdown", "mount", "unmount", "start"], "its order", calls)
    require(stand.read("version") == "1\n", "the old image is there")
    say("a damaged image leaves the old one, which runs again")

    os.rename(f"{_VOLUMES}/data/from-image", f"{_VOLUMES}/data/own")
    runs.succeed(src=image("two"))
    require(stand.read("version") == "2\n", "the volume holds image two")
    names = os.listdir(f"{_VOLUMES}/data")
    require(names == ["own"], "the volume is left alone", names)
    require(stand.state() == "running", "it runs")
    say("an update replaces what the volume holds")

    before = [_content(path) for path in (_FILE, f"{_STATE}/exec")]
    runs.fail("is not kept", src=image("three"), proxmox_settings={"memory": 64})
    require(stand.state() == "stopped", "it does not run")
    after = [_content(path) for path in (_FILE, f"{_STATE}/exec")]
    require(after == before, "its description is as it was", after)
    require(not os.path.exists(f"{_STATE}/volume.json"), "nothing says what the volume holds")
    runs.succeed(src=image("two"))
    require(stand.state() == "running", "the image of before runs again")
    stand.calls()
    say("an image that does not start is told, and the one of before can be had again")

    runs.succeed(src=image("two"), state="stopped")
    require(stand.calls() == ["shutdown"], "it is stopped")
    runs.succeed(state="absent", purge=True)
    require(stand.calls() == ["mount", "unmount"], "the volume is emptied")
    require(not os.path.exists(_STATE), "what the role made is gone")
    require(not os.path.exists(_VOLUMES), "volumes are gone")
    require(os.path.exists(_FILE), "the container of Proxmox VE stays")
    say("absent empties the volume")


def _require_judged(runs: Runs, stand: Stand, src: str) -> None:
    """What cannot be is told before anything is stopped or mounted, in check mode too."""
    for options in ((), ("--check",)):
        says = "container_command must be a list of strings"
        runs.fail(says, *options, src=src, command="httpd -f")
        runs.fail("container_env.FLAG", *options, src=src, env={"FLAG": True})
        runs.fail("container_x is not", *options, src=src, x=1)
    require(stand.calls() == [], "nothing is stopped")
    require(stand.state() == "running", "it goes on")
    say("what cannot be is told before anything is stopped")


def _require_restored(runs: Runs, stand: Stand, src: str) -> None:
    """A change after which the container does not start is undone: configuration, wrapper and note."""
    env = {"NEW": "value", "LINES": "a\nb"}
    runs.succeed(src=src, env=env)
    stand.calls()
    paths = (_FILE, f"{_STATE}/exec", f"{_STATE}/volume.json")
    before = [_content(path) for path in paths]
    runs.fail(
        "was started again, and runs",
        src=src,
        env={**env, "OTHER": "c\nd"},
        command=["a\nb"],
        entrypoint=["/bin/nothing"],
        working_dir="/tmp",
    )
    calls = stand.calls()
    wanted = ["shutdown", "mount", "unmount", "start", "start"]
    require(calls == wanted, "its order", calls)
    for path, text in zip(paths, before):
        require(_content(path) == text, "as it was", path)
    require(stand.state() == "running", "it runs")
    changes = runs.succeed(src=src, env=env)
    require(not any(changes.values()), "nothing is left to change", changes)
    with open(f"{stand.folder}/broken", "w", encoding="utf-8"):
        # from now on nothing starts
        pass
    runs.fail("was started again, and does not run", src=src, env={"NEW": "other"})
    os.unlink(f"{stand.folder}/broken")
    runs.succeed(src=src, env=env)
    say("a change that does not start is undone, and it is told whether the former container runs")


def _content(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _require_secrecy(runs: Runs, src: str) -> None:
    """The environment is in the configuration and in the wrapper, and nowhere where others look."""
    options = {"headers": {"X-Token": "header-s3cret"}, "url_password": "url-s3cret"}
    env = {"TOKEN": "env-s3cret", "LINES": "line-s3cret\nexport A='b-s3cret'"}
    for token, shown in (("env-s3cret", ""), ("other-s3cret", " (changed)")):
        env["TOKEN"] = token
        runs.written = ""
        with watched_commands() as commands:
            runs.succeed("--diff", "-vvv", src=src, env=env, rootfs_options=options)
        name = f"lxc.environment.runtime: TOKEN=********{shown}"
        require(name in runs.written, "it shows the name", name)
        for line in (*runs.written.splitlines(), *commands):
            require("s3cret" not in line, "no secret is seen", line[:2000])
    for path, text in open_to_others([_STATE]):
        require("s3cret" not in text, "no secret in a file for others", path)
    with open(f"{_STATE}/volume.json", encoding="utf-8") as file:
        note = file.read()
    require("url-s3cret" not in note, "the note has no password", note)
    require("header-s3cret" not in note, "the note has no header", note)
    say("secrets are in no diff, output, process list, or file for others")


def _require_configuration(stand: Stand) -> None:
    values, rest = stand.configuration()
    for key, wanted in {
        "arch": "amd64",
        "cmode": "console",
        "hostname": _NAME,
        "lxc.init.cwd": "/srv/work dir",
        "lxc.init.gid": "1001",
        "lxc.init.groups": "1002,1003",
        "lxc.init.uid": "1000",
        "lxc.signal.halt": "SIGQUIT",
        "memory": "1024",
        "mp0": f"local-lvm:vm-{_VMID}-disk-1,mp=/extra,size=1G",
        "onboot": "1",
        "rootfs": f"local-lvm:vm-{_VMID}-disk-0,size=1G",
        "unprivileged": "1",
    }.items():
        require(values.get(key) == [wanted], key, values.get(key), wanted)
    # two words of the image's command need the exec wrapper
    require(len(values["entrypoint"]) == 1, "entrypoint", values["entrypoint"])
    require("host-managed=1" in values["net0"][0], "net0", values["net0"])
    mounts = [value for key in values for value in values[key] if "mp=/data" in value]
    require(len(mounts) == 1, "the image's volume", mounts)
    require("lxc.hook.pre-start" not in values, "no line of the image's", values)
    require("lxc.hook.start-host" not in values, "no line of the image's", values)
    require("entrypoint: /sbin/old" in rest, "snapshots stay", rest)


def main() -> int:
    """Run the cases; returns the exit status."""
    folder = sys.argv[1]
    stand = Stand(folder)
    try:
        run(folder, stand)
    finally:
        stand.clean()
    return 0


if __name__ == "__main__":
    sys.exit(main())

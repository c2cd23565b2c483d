# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers of software: by runc, or by systemd-nspawn where the software is an init system. No network but a loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import typing as t

from .software import Software

_PATIENCE = 300
_PAUSE = 0.2
_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
]
_SETS = ("bounding", "effective", "permitted")


class Container(t.Protocol):
    """A container whose root is in the directory ``root`` of the host while it runs."""

    @property
    def root(self) -> str:
        """The path of its root, as its own processes see it."""

    def start(self) -> None:
        """Start it, and wait until its software is ready. Raises ``RuntimeError``."""

    def run(self, script: str) -> None:
        """Run a script of ``sh`` in it. Raises ``RuntimeError``."""

    def stop(self) -> None:
        """Stop it as its runtime does, and wait for its end."""


def container_of(software: Software, folder: str, rootfs: str) -> Container:
    """Return a container that does not run yet; its runtime's files lie in ``folder``."""
    return Nspawn(software, folder, rootfs) if software.boots else Runc(software, folder, rootfs)


def _name_for(folder: str) -> str:
    """Return a name that every runtime takes; that of a temporary folder may have an underscore."""
    return f"oci-drift-{os.stat(folder).st_ino}"


class _Process:
    """What both runtimes have: a process that is the container as long as it runs."""

    def __init__(self, software: Software, folder: str, rootfs: str) -> None:
        self._software = software
        self._rootfs = rootfs
        self._folder = folder
        self._log = os.path.join(folder, "log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> str:
        return f"/proc/{self._first()}/root"

    def _first(self) -> int:
        raise NotImplementedError

    def _inside(self, script: str) -> list[str]:
        raise NotImplementedError

    def _start(self, command: t.Sequence[str]) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.run(self._software.ready)
                return
            except (RuntimeError, OSError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self._software.name} does not start: {error}; {self._said()}") from error
            time.sleep(_PAUSE)

    def run(self, script: str) -> None:
        command = self._inside(f"export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{script}")
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
        if done.returncode:
            raise RuntimeError(f"{script.strip()[:80]}: {(done.stdout + done.stderr)[-1000:]}")

    def _end(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _said(self) -> str:
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return file.read()[-1000:]


class Runc(_Process):
    """A container of runc."""

    def __init__(self, software: Software, folder: str, rootfs: str) -> None:
        super().__init__(software, folder, rootfs)
        self._id = _name_for(folder)
        self._runc = ["runc", "--root", os.path.join(folder, "runc")]

    def _first(self) -> int:
        done = subprocess.run([*self._runc, "state", self._id], check=True, capture_output=True, text=True)
        return int(json.loads(done.stdout)["pid"])

    def _inside(self, script: str) -> list[str]:
        return [*self._runc, "exec", self._id, "sh", "-c", script]

    def start(self) -> None:
        path = os.path.join(self._folder, "config.json")
        if not os.path.exists(path):
            subprocess.run(["runc", "spec", "--bundle", self._folder], check=True)
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        process = config["process"]
        process.update(terminal=False, args=list(self._software.command), noNewPrivileges=False)
        process["capabilities"] = dict.fromkeys(_SETS, _CAPABILITIES)
        process["env"] = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        config["root"] = {"path": self._rootfs, "readonly": False}
        mounts = {item["destination"]: item for item in config["mounts"]}
        own = {volume: self._volume(number, volume) for number, volume in enumerate(self._software.volumes)}
        for target, source in {**own, "/etc/hosts": self._hosts()}.items():
            mounts[target] = {"destination": target, "type": "bind", "source": source, "options": ["rbind", "rw"]}
        config["mounts"] = list(mounts.values())
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        self._start([*self._runc, "run", "--bundle", self._folder, self._id])

    def _volume(self, number: int, volume: str) -> str:
        """Return the folder of a volume, filled from the image."""
        own = os.path.join(self._folder, f"volume{number}")
        if not os.path.exists(own):
            subprocess.run(["cp", "-a", self._rootfs + volume, own], check=True)
        return own

    def _hosts(self) -> str:
        path = os.path.join(self._folder, "hosts")
        with open(path, "w", encoding="ascii") as file:
            file.write("127.0.0.1 localhost\n")
        return path

    def stop(self) -> None:
        subprocess.run([*self._runc, "kill", self._id, "TERM"], check=False, capture_output=True)
        self._end()
        subprocess.run([*self._runc, "delete", "--force", self._id], check=False, capture_output=True)


class Nspawn(_Process):
    """A container of systemd-nspawn that boots."""

    def _first(self) -> int:
        process = self._process
        if process is None:
            raise RuntimeError("it does not run")
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            children = file.read().split()
        if not children:
            raise RuntimeError("it has not begun")
        return int(children[0])

    def _inside(self, script: str) -> list[str]:
        return ["nsenter", "--all", "--target", str(self._first()), "--wd=/", "sh", "-c", script]

    def start(self) -> None:
        self._start(
            [
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--private-network"),
                *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"),
                *("--machine", _name_for(self._folder), "--directory", self._rootfs),
            ]
        )

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            # what it takes for a request to shut down
            os.kill(self._first(), signal.SIGRTMIN + 4)
        self._end()

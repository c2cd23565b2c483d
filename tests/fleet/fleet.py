# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes on one machine: each has an address, a host name, a root and a disk of its own, and an sshd.

Only to be used inside of ``namespaces.enter``, which is what ends and removes all of this. A node's root is a
copy-on-write view of the machine's. It survives ``Node.kill``, and so does the disk, as they would a power cut.
Files below the fleet's folder, where the controller has its images, are not seen from a node.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import time
import typing as t
from dataclasses import dataclass, field

# Where every node has its disk: a file system that can exchange directories, as overlayfs cannot.
DISK = "/srv/disk"
HUB = "10.77.0.1"
_BRIDGE = "fleet0"
# Of a packet of TCP with time stamps: Ethernet, IPv4, TCP.
HEADERS = 14 + 20 + 32
_PATIENCE = 30


class FleetError(Exception):
    """A node or a program of the fleet did not do what it had to; the text says which and what."""


@dataclass(frozen=True)
class Spec:
    """What a node is to be: ``python`` is a path, ``disk`` ``tmpfs`` or ``ext4``, ``rate`` in the words of tc."""

    name: str
    python: str = "/usr/bin/python3"
    user: str = "root"
    disk: str = "tmpfs"
    disk_size: str = "1G"
    rate: str | None = None
    sshd: bool = True


@dataclass(frozen=True)
class Counters:
    """What a node's link has carried since it was made, headers of every packet (Ethernet, IP, TCP) included."""

    to_node: int = 0
    from_node: int = 0
    packets: int = 0

    def __sub__(self, other: Counters) -> Counters:
        return Counters(self.to_node - other.to_node, self.from_node - other.from_node, self.packets - other.packets)

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.to_node + self.from_node

    @property
    def payload(self) -> int:
        """The same without the headers of the packets, which are 4.5 % of a large transfer whatever is sent."""
        return self.total - HEADERS * self.packets


def run(words: t.Sequence[str], timeout: float = _PATIENCE, text: str = "") -> str:
    """What a program printed; raises ``FleetError`` if it failed or took too long."""
    try:
        done = subprocess.run(
            list(words),
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise FleetError(f"{shlex.join(words)}: no end in {timeout} s") from None
    if done.returncode:
        raise FleetError(f"{shlex.join(words)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_for(what: str, done: t.Callable[[], t.Any], seconds: float = _PATIENCE) -> t.Any:
    """The first true answer of a function that is asked again and again; raises ``FleetError``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = done()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise FleetError(f"{what}: not seen within {seconds} s")
        time.sleep(0.02)


def without_ipv6(inside: t.Sequence[str] = ()) -> None:
    """Let a network namespace send nothing of its own accord."""
    path = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
    run([*inside, "sh", "-c", f"[ ! -e {path} ] || echo 1 >{path}"])


# In the node's own namespaces. It ends as the node's process 1, which reaps what is left to it.
_BOOT = r"""
set -eu
read -r pid _ </proc/self/stat
mount --make-rprivate /
hostname "$NODE_NAME"
root=$NODE_FOLDER/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$NODE_FOLDER/upper,workdir=$NODE_FOLDER/work" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
for name in run tmp; do mount -t tmpfs -o mode=0755 tmpfs "$root/$name"; done
chmod 1777 "$root/tmp"
mkdir -p "$root/run/sshd" "$root/run/node"
# nothing of the controller's own home
mount -t tmpfs -o mode=0700 tmpfs "$root/root"
for folder in $NODE_PYTHON; do
    mkdir -p "$root/$folder"
    mount --bind "$folder" "$root/$folder"
    mount -o remount,bind,ro "$root/$folder"
done
mkdir -p "$root$NODE_DISK"
mount --bind "$NODE_FOLDER/disk" "$root$NODE_DISK"
cp "$NODE_FOLDER"/keys/* "$root/run/node/"
printf '127.0.0.1 localhost %s\n' "$NODE_NAME" >"$root/etc/hosts"
if [ "$NODE_USER" != root ] && ! chroot "$root" id "$NODE_USER" >/dev/null 2>&1; then
    chroot "$root" useradd -m -s /bin/sh -p '*' "$NODE_USER"
    printf '%s ALL=(ALL) NOPASSWD: ALL\n' "$NODE_USER" >"$root/etc/sudoers.d/fleet"
    chmod 0440 "$root/etc/sudoers.d/fleet"
fi
echo "$pid"
exec chroot "$root" /bin/bash -c 'sleep infinity & wait'
"""

_SSHD = """\
Port 22
PidFile none
HostKey /run/node/host
AuthorizedKeysFile /run/node/authorized
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100:30:200
Subsystem sftp internal-sftp
"""


@dataclass
class Node:
    """One node. ``pid`` is its process 1 as seen from here."""

    spec: Spec
    address: str
    folder: str
    link: str
    pid: int = 0
    _init: subprocess.Popen[str] | None = None
    _sshd: subprocess.Popen[bytes] | None = None
    _others: list[subprocess.Popen[t.Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The host name."""
        return self.spec.name

    @property
    def disk(self) -> str:
        """The node's disk, as a path here."""
        return os.path.join(self.folder, "disk")

    def create(self, public_key: str) -> None:
        """What stays when the node is killed: its disk, its root, its keys."""
        for name in ("upper", "work", "root", "disk", "keys"):
            os.makedirs(os.path.join(self.folder, name))
        if self.spec.disk == "tmpfs":
            words = ["-t", "tmpfs", "-o", f"mode=0755,size={self.spec.disk_size}"]
            run(["mount", *words, "tmpfs", self.disk])
        else:
            image = os.path.join(self.folder, "disk.image")
            run(["truncate", "-s", self.spec.disk_size, image])
            run(["mkfs.ext4", "-q", "-F", image])
            # the loop device goes with the mount
            run(["mount", "-o", "loop", image, self.disk])
        keys = os.path.join(self.folder, "keys")
        host = os.path.join(keys, "host")
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", host])
        for name, text in (("authorized", public_key), ("sshd_config", _SSHD)):
            with open(os.path.join(keys, name), "w", encoding="ascii") as file:
                file.write(text)

    def host_key(self) -> str:
        """The line of known_hosts."""
        path = os.path.join(self.folder, "keys", "host.pub")
        with open(path, encoding="ascii") as file:
            return f"{self.address} {' '.join(file.read().split()[:2])}"

    def start(self) -> None:
        """Boot: namespaces, mounts, network, sshd."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "NODE_NAME": self.name,
            "NODE_FOLDER": self.folder,
            "NODE_DISK": DISK,
            "NODE_USER": self.spec.user,
            "NODE_PYTHON": _python_prefix(self.spec.python),
        }
        words = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork"]
        self._init = subprocess.Popen(
            [*words, "--kill-child", "bash", "-c", _BOOT],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        stdout = self._init.stdout
        said = stdout.readline().strip() if stdout else ""
        if not said.isdigit():
            rest = stdout.read() if stdout else ""
            raise FleetError(f"{self.name} does not boot: {said} {rest}".strip())
        self.pid = int(said)
        self._plug_in()
        # it tells its pid just before it changes its root, in which programs are started
        wait_for(f"{self.name}: its root", lambda: os.path.exists(f"/proc/{self.pid}/root/run/node/host"))
        if self.spec.sshd:
            self.start_sshd()

    def _plug_in(self) -> None:
        inside = ["nsenter", "-t", str(self.pid), "-n", "--"]
        # what a killed node had goes away a little later than the node itself
        subprocess.run(["ip", "link", "del", self.link], check=False, stderr=subprocess.DEVNULL)
        without_ipv6(inside)
        peer = ["peer", "name", "eth0", "netns", str(self.pid)]
        # a node that comes back is known by the address of before
        hardware = f"02:00:0a:4d:00:{int(self.address.rpartition('.')[2]):02x}"
        run(["ip", "link", "add", self.link, "type", "veth", *peer, "address", hardware])
        run([*inside, "ip", "addr", "add", f"{self.address}/24", "dev", "eth0"])
        run(["ip", "link", "set", self.link, "master", _BRIDGE])
        for where, device in (([], self.link), (inside, "eth0")):
            # packets as a wire carries them, so that each of their headers is counted
            run([*where, "ip", "link", "set", device, "gso_max_segs", "1"])
            run([*where, "ip", "link", "set", device, "up"])
        if self.spec.rate:
            self._limit(self.spec.rate)
        run([*inside, "ip", "link", "set", "lo", "up"])

    def kill(self) -> None:
        """A power cut: no process of it runs on, and nobody tells its peers."""
        if self._init is None:
            return
        run(["ip", "link", "set", self.link, "down"])
        os.kill(self.pid, signal.SIGKILL)
        self._init.wait(_PATIENCE)
        if self._init.stdout:
            self._init.stdout.close()
        for process in [self._sshd, *self._others]:
            if process is not None:
                process.wait(_PATIENCE)
        self._init = self._sshd = None
        self._others = []
        self.pid = 0

    # -- programs on the node

    def _inside(self, words: t.Sequence[str]) -> list[str]:
        spaces = ["-m", "-u", "-i", "-n", "-p", "-r", "-w"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["nsenter", "-t", str(self.pid), *spaces, "env", "-i", path, *words]

    def run(self, *words: str, timeout: float = _PATIENCE) -> str:
        """What a program printed that root ran on the node; raises ``FleetError`` if it failed."""
        return run(self._inside(words), timeout)

    def popen(self, *words: str, **options: t.Any) -> subprocess.Popen[t.Any]:
        """A program that runs on the node until it ends, or the node does."""
        process = subprocess.Popen(self._inside(words), **options)
        self._others.append(process)
        return process

    def start_sshd(self) -> None:
        """Start sshd and wait until it answers."""
        command = ["/usr/sbin/sshd", "-D", "-f", "/run/node/sshd_config"]
        self._sshd = process = subprocess.Popen(
            self._inside([*command, "-E", "/run/node/log"]), stdin=subprocess.DEVNULL
        )
        try:
            # one that has ended will not answer
            wait_for(f"{self.name}: sshd", lambda: self.listens(22) or process.poll() is not None)
        except FleetError as error:
            raise FleetError(f"{error}; its log: {self.sshd_log()}") from error
        if process.poll() is not None:
            raise FleetError(f"{self.name}: sshd ended with {process.returncode}; its log: {self.sshd_log()}")

    def sshd_log(self) -> str:
        """The end of what sshd has written, on one line."""
        try:
            return " | ".join(self.run("tail", "-n", "20", "/run/node/log").splitlines()) or "empty"
        except FleetError as error:
            return str(error)

    def listens(self, port: int) -> bool:
        """Whether something answers there."""
        try:
            with socket.create_connection((self.address, port), 1):
                return True
        except OSError:
            return False

    def stop_sshd(self, sessions: bool) -> None:
        """End the sshd that listens; with ``sessions`` also those of connections at work."""
        listener = self._children("sshd")
        for pid in self.processes("sshd") if sessions else listener:
            # one may end by itself as soon as its parent has
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._sshd is not None:
            self._sshd.wait(_PATIENCE)
            self._sshd = None

    def _children(self, command: str) -> list[int]:
        """Those of our own children of children that run a command: nsenter stands between."""
        nsenter = self._sshd.pid if self._sshd is not None else 0
        return [pid for pid in self.processes(command) if stat_of(pid).parent == nsenter]

    def processes(self, command: str = "") -> list[int]:
        """The pids, as seen from here, of the node's processes, or of those with this command name."""
        space = _namespace(self.pid)
        return [pid for pid in pids() if _namespace(pid) == space and (not command or stat_of(pid).command == command)]

    def cpu(self) -> float:
        """Seconds of processor time of the sshd that listens, and of all that its closed connections ran."""
        return sum(stat_of(pid).cpu_with_children for pid in self._children("sshd"))

    # -- the link

    @contextlib.contextmanager
    def slowed(self, rate: str) -> t.Iterator[None]:
        """Let the link have another rate both ways, in the words of tc."""
        self._limit(rate, "replace")
        try:
            yield
        finally:
            self._limit(self.spec.rate or "10gbit", "replace")

    def _limit(self, rate: str, verb: str = "add") -> None:
        inside = ["nsenter", "-t", str(self.pid), "-n", "--"]
        places: tuple[tuple[list[str], str], ...] = (([], self.link), (inside, "eth0"))
        for where, device in places:
            limit = ["rate", rate, "burst", "16kb", "latency", "100ms"]
            run([*where, "tc", "qdisc", verb, "dev", device, "root", "tbf", *limit])

    def counters(self) -> Counters:
        """Bytes and packets since the node was started."""
        shown = json.loads(run(["ip", "-j", "-s", "link", "show", "dev", self.link]))
        statistics = shown[0]["stats64"]
        sent, received = statistics["tx"], statistics["rx"]
        return Counters(sent["bytes"], received["bytes"], sent["packets"] + received["packets"])


@dataclass(frozen=True)
class Stat:
    """Some of what /proc says of a process; times in seconds."""

    command: str
    parent: int
    cpu: float
    cpu_with_children: float


def pids() -> list[int]:
    """All processes in our namespace and below."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def stat_of(pid: int) -> Stat:
    """Of a process that has just ended: nothing, by the name of ``gone``."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return Stat("gone", 0, 0.0, 0.0)
    # the name stands in parentheses, and may hold any
    command = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in fields[11:15]]
    return Stat(command, int(fields[1]), ticks[0] + ticks[1], sum(ticks))


def arguments_of(pid: int) -> bytes:
    """The command line of a process, each argument ended by NUL; nothing of one that has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _namespace(pid: int, kind: str = "pid") -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def on_controller(pid: int) -> bool:
    """Whether a process belongs to no node."""
    return _namespace(pid, "net") == _namespace(os.getpid(), "net")


def _python_prefix(python: str) -> str:
    """The folder that a Python lies in, if the machine's own /usr does not hold it."""
    real = os.path.realpath(python)
    if real.startswith("/usr/bin/"):
        return ""
    return os.path.dirname(os.path.dirname(real))


class Fleet:
    """Nodes, and the network between them and the controller, which is here."""

    def __init__(self, folder: str, specs: t.Sequence[Spec]) -> None:
        self.folder = folder
        self.key = os.path.join(folder, "key")
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key])
        with open(f"{self.key}.pub", encoding="ascii") as file:
            public = file.read()
        without_ipv6()
        run(["ip", "link", "add", _BRIDGE, "type", "bridge"])
        run(["ip", "link", "set", _BRIDGE, "gso_max_segs", "1"])
        run(["ip", "addr", "add", f"{HUB}/24", "dev", _BRIDGE])
        run(["ip", "link", "set", _BRIDGE, "up"])
        self.nodes: dict[str, Node] = {}
        for number, spec in enumerate(specs, 11):
            place = os.path.join(folder, "nodes", spec.name)
            node = Node(spec, f"10.77.0.{number}", place, f"node{number}")
            node.create(public)
            self.nodes[spec.name] = node
        self._known = os.path.join(folder, "known_hosts")
        with open(self._known, "w", encoding="ascii") as file:
            for node in self.nodes.values():
                file.write(node.host_key() + "\n")

    def start(self) -> None:
        """Boot all nodes."""
        for node in self.nodes.values():
            node.start()

    @property
    def managed(self) -> list[str]:
        """The names of the nodes that have an sshd."""
        return [node.name for node in self.nodes.values() if node.spec.sshd]

    def inventory(self, names: t.Iterable[str]) -> dict[str, t.Any]:
        """For Ansible; an ordinary user becomes root by sudo."""
        hosts = {}
        for name in names:
            node = self.nodes[name]
            hosts[name] = {
                "ansible_host": node.address,
                "ansible_user": node.spec.user,
                "ansible_become": node.spec.user != "root",
                "ansible_python_interpreter": node.spec.python,
            }
        arguments = [
            *("-F", "/dev/null", "-o", f"UserKnownHostsFile={self._known}"),
            # a node that lost its power says nothing: notice it
            *("-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3"),
        ]
        variables = {
            "ansible_ssh_private_key_file": self.key,
            "ansible_ssh_common_args": shlex.join(arguments),
            "fleet_disk": DISK,
        }
        return {"fleet": {"hosts": hosts, "vars": variables}}

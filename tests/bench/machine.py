# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What machine this is, with which versions, and how busy it was with other things."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import typing as t
import zlib

from .images import COMPRESSIONS

# How each tool says its version.
_VERSIONS = {
    "umoci": ["umoci", "--version"],
    "skopeo": ["skopeo", "--version"],
    "buildah": ["buildah", "--version"],
    "GNU tar": ["tar", "--version"],
    "bsdtar": ["bsdtar", "--version"],
    "gzip": ["gzip", "--version"],
    "zstd": ["zstd", "--version"],
    "podman": ["podman", "--version"],
    "btrfs-progs": ["btrfs", "--version"],
}
_LIBRARIES = ("ansible-core", "zstandard", "isal", "zlib-ng")
_SHA_FLAGS = {"sha_ni", "sha2"}


def describe(inflaters: t.Sequence[str]) -> dict[str, str]:
    """Texts by name, for the page."""
    cpu = _read("/proc/cpuinfo")
    facts = {
        "Processor": f"{model(cpu)}, {len(os.sched_getaffinity(0))} cores",
        "SHA instructions": "yes" if has_sha() else "no",
        "Memory": f"{_memory() / 1024**2:.0f} GiB",
        "System": f"{_distribution()}, Linux {platform.release()}",
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}, zlib {zlib.ZLIB_RUNTIME_VERSION}",
        "gzip is inflated by": ", ".join(inflaters),
    }
    for library in _LIBRARIES:
        try:
            facts[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            facts[library] = "not installed"
    for name, command in _VERSIONS.items():
        facts[name] = _version(command)
    return facts


def has_sha() -> bool:
    """Whether the processor has instructions for sha256."""
    return bool(_SHA_FLAGS & set(flags(_read("/proc/cpuinfo"))))


def compressions() -> list[str]:
    """Those that images can be made in, and read from, here."""
    known = importlib.util.find_spec("zstandard") is not None
    return [name for name in COMPRESSIONS if name != "zstd" or known]


def model(cpu: str) -> str:
    """The processor's name in the text of ``/proc/cpuinfo``, which has none on some."""
    match = re.search(r"^model name\s*: (.*)$", cpu, re.MULTILINE)
    return " ".join(match.group(1).split()) if match else platform.machine()


def flags(cpu: str) -> list[str]:
    """The processor's flags in the text of ``/proc/cpuinfo``."""
    match = re.search(r"^(?:flags|Features)\s*: (.*)$", cpu, re.MULTILINE)
    return match.group(1).split() if match else []


def load() -> tuple[float, float, float]:
    """The load average, and the jiffies of all processors: stolen by the hypervisor, and in all."""
    jiffies = [int(word) for word in _read("/proc/stat").split("\n")[0].split()[1:9]]
    return os.getloadavg()[0], float(jiffies[7]), float(sum(jiffies))


def unrest(before: tuple[float, float, float], after: tuple[float, float, float]) -> dict[str, float]:
    """The load before we started, and the share of time that others on the same host took."""
    whole = after[2] - before[2]
    return {"before": before[0], "stolen": (after[1] - before[1]) / whole if whole else 0.0}


def _version(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    said = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    ).stdout
    match = re.search(r"\d+(?:\.\d+)+", said)
    return match.group() if match else "unknown"


def _memory() -> int:
    """In KiB."""
    match = re.search(r"^MemTotal:\s+(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) if match else 0


def _distribution() -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read("/etc/os-release"), re.M)
    return match.group(1) if match else sys.platform


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""

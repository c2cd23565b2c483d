# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Installs the programs that a fleet is made of, where they are missing, without starting any of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import typing as t

# Programs, and the Debian packages that bring them.
NEEDED = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "sftp": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sudo": "sudo",
    "ip": "iproute2",
    "tc": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# A package that is installed must not start its service on the machine of the test.
_POLICY = "/usr/sbin/policy-rc.d"


def missing() -> list[str]:
    """The Debian packages whose programs are not there."""
    # nodes see /usr, whatever else is on the PATH
    return sorted(
        {
            package
            for program, package in NEEDED.items()
            if shutil.which(program, path=_PATH) is None
        }
    )


def install() -> list[str]:
    """Install what is missing, where root can; returns the packages that are missing still."""
    packages = missing()
    if not packages or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return packages
    print("Installing Debian packages: " + " ".join(packages), flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=300"]
    with _no_services():
        for words in (
            [*apt, "update"],
            [*apt, "install", "--no-install-recommends", *packages],
        ):
            done = subprocess.run(
                words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=900,
            )
            if done.returncode:
                print(done.stdout.strip(), flush=True)
    return missing()


@contextlib.contextmanager
def _no_services() -> t.Iterator[None]:
    """Packages start nothing; a policy of the machine's own stays as it is."""
    try:
        with open(_POLICY, "x", encoding="ascii") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(_POLICY, 0o755)
    except FileExistsError:
        yield
        return
    try:
        yield
    finally:
        os.unlink(_POLICY)

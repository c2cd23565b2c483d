# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verb is given the system's own directories: docs/behaviour.md, section 7, what is never touched.

Those of a stand-in. The real ones would be lost where the refusal fails, so a process that has another root directory
is the one that asks.
"""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.provision import provision
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_oci_archive
from ansible_collections.hypervisor.oci.tests.tools.arguments import arguments, options_of
from ansible_collections.hypervisor.oci.tests.unit.support import IS_ROOT, tree

DESTS = ["/", "/etc", "/etc/", "/usr/../etc", "//usr/lib", "/link/etc", "/link/usr/lib", "/var/lib/machines", "/etc/own.d",
         "/usr/lib/new", "/link/etc/new", "/var/lib/dpkg", "/proc/new", "/bin/new"]  # fmt: skip


def fill(root: Path) -> None:
    """Make the root directory of a small system."""
    for name in ("etc", "usr/lib", "var/lib/machines", "proc", "tmp"):
        (root / name).mkdir(parents=True)
        (root / name / "own").write_text("of the system\n")
    (root / "link").symlink_to("/")
    write_oci_archive(root / "one.tar", Image([Layer(file("f", b"of the image"))]))


def answers(root: Path, requests: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """Return what the verb says to each request in a process with that root directory."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.chroot(root)
            os.chdir("/")
            said = [_ask(request) for request in requests]
            os.write(writing, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return t.cast("list[str]", json.loads(text))


def _ask(request: t.Mapping[str, t.Any]) -> str:
    check_mode = request["check_mode"]
    words = {key: value for key, value in request.items() if key != "check_mode"}
    try:
        provision(options_of(arguments(**words)), check_mode)
    except OciError as error:
        return error.message
    return "done"


@pytest.mark.skipif(not IS_ROOT, reason="only root can have another root directory")
def test_the_directories_of_a_system_stay(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    fill(root)
    # what is imported late is not to be found in there
    for state in ("present", "staged", "previous", "absent"):
        _ask({"dest": f"{tmp_path}/rootfs", "src": str(root / "one.tar"), "state": state, "check_mode": False})
    before = tree(root)
    requests = [
        {"dest": dest, "src": "/one.tar", "state": state, "force": True, "check_mode": check_mode}
        for dest in DESTS
        for state in ("present", "staged", "absent")
        for check_mode in (True, False)
    ]
    for request, said in zip(requests, answers(root, requests)):
        assert "is a directory of the system;" in said, request
    assert tree(root) == before

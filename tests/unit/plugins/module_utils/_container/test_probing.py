# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A check is run, bounded, and leaves no process behind (docs/behaviour.md, section 15)."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._container.probing import Command, Probe, run_probe
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors


def probe(script: str, timeout: float = 10.0, stdin: str = "") -> Probe:
    """Run a script as a program of the node that runs a check; none of its processes may be left."""
    mark = f"CHECK_OF_A_TEST={uuid.uuid4().hex}"
    before = open_descriptors()
    found = run_probe(Command(("env", mark, "sh", "-c", script), mark, stdin), timeout)
    assert open_descriptors() == before
    assert alive(mark) == []
    return found


def alive(mark: str) -> list[str]:
    """The numbers of processes with the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_status_and_output() -> None:
    found = probe("echo well; echo and more >&2")
    assert found.succeeded
    assert (found.status, found.output) == (0, b"well\nand more\n")
    assert not probe("exit 1").succeeded
    assert probe("exit 7").status == 7
    assert not probe("kill -KILL $$").succeeded


def test_the_end_of_much_output() -> None:
    found = probe("head -c 3000000 /dev/zero; echo; printf end")
    assert found.succeeded
    assert len(found.output) == 4096
    assert found.output.endswith(b"\0\nend")


@pytest.mark.parametrize(
    "script",
    [
        "sleep 60",
        "trap '' TERM INT HUP; while :; do sleep 60; done",
        "trap '' TERM; (setsid sleep 60 &) ; sleep 60",
        "exec 1>&- 2>&-; sleep 60",
        "while :; do echo more; done",
    ],
)
def test_one_that_takes_too_long(script: str) -> None:
    before = time.monotonic()
    found = probe(script, 0.5)
    assert found.status is None
    assert not found.succeeded
    assert 0.5 <= time.monotonic() - before < 5


@pytest.mark.parametrize(
    "script",
    [
        "(setsid sh -c 'trap \"\" TERM HUP; sleep 60' &) ; exit 0",
        "for i in 1 2 3; do (sleep 60 &) ; done; exit 0",
        "(setsid sh -c 'while :; do (sleep 60 &) ; sleep 0.01; done' &) ; sleep 0.2; exit 0",
    ],
)
def test_one_that_leaves_processes_behind(script: str) -> None:
    """They hold the output open, which is not waited for."""
    before = time.monotonic()
    assert probe(script).succeeded
    assert time.monotonic() - before < 5


def test_one_that_starts_when_it_is_to_end(tmp_path: Path) -> None:
    """As on a busy node: the time is over before the program of the node has started the check."""
    mark = f"CHECK_OF_A_TEST={uuid.uuid4().hex}"
    started = tmp_path / "started"
    check = f"env {mark} sh -c 'echo >{started}; exec sleep 60' >/dev/null 2>&1 &"
    script = f'trap "{check} while [ ! -s {started} ]; do sleep 0.01; done; exit 0" TERM; while :; do sleep 0.01; done'
    seconds = 0.25
    # until the shell knows its trap in time
    while not started.exists() and seconds < 60:
        seconds *= 2
        assert run_probe(Command(("sh", "-c", script), mark), seconds).status is None
    assert started.exists()
    assert alive(mark) == []


def test_what_it_reads() -> None:
    assert probe("cat").output == b""
    assert probe("cat", stdin="export A='b'\n").output == b"export A='b'\n"
    large = "x" * 3_000_000
    assert probe("wc -c", stdin=large).output.split() == [b"3000000"]


def test_nothing_of_ansible_s_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    assert b"s3cret" not in probe("env").output


def test_other_processes_live_on() -> None:
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, "CHECK_OF_A_TEST": "other"})
    try:
        probe("sleep 60", 0.2)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_program_that_is_missing() -> None:
    with pytest.raises(RootfsError) as caught:
        run_probe(Command(("/no/such/program",), "A=b"), 1.0)
    assert "'/no/such/program': no such file" in caught.value.message

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control script: docs/behaviour.md, section 10."""

from __future__ import annotations

import os
import re
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.unit.container_plans import file_of, node_of, planned

_SAYS = "a shell without a terminal ends at once: set container_command to what is to run"
_RUNC = """\
#!/bin/sh
[ "$1" = run ] || exit 0
cat {folder}/words
read -r status <{folder}/status
exit "$status"
"""
# what LXC's own log holds of a start, in its words
_LXC_START = """\
#!/bin/sh
cat {folder}/words >>{folder}/web.log.lxc
"""
_LXC_STOPPED = "#!/bin/sh\necho STOPPED\n"
_LINE = "lxc-start web 20260101000000.000 "
_FAILED = f"""\
{_LINE}WARN     start - start.c:lxc_spawn:1 - File exists - Failed to allocate
{_LINE}ERROR    start - start.c:start:1 - No such file or directory - Failed to exec "/x"
{_LINE}ERROR    sync - sync.c:sync_wait:1 - An error occurred in another process
{_LINE}ERROR    lxc_start - lxc_start.c:main:1 - The container failed to start
{_LINE}ERROR    start - start.c:__lxc_start:1 - Failed to spawn container
{_LINE}WARN     start - start.c:lxc_abort:1 - No such process
"""
_STARTED = f'{_LINE}NOTICE   start - start.c:post_start:1 - Started "/bin/sh" with pid "7"\n'
_ENDED = f"{_LINE}INFO     error - error.c:lxc_error_set_and_log:1 - Child <7> ended on "
# journalctl of a journal that is a file: each line has a time, and the name of systemd or of the container
_JOURNALCTL = """\
#!/bin/sh
since=0 writer=
for word; do
    case $word in
        --since=@*) since=${word#--since=@} ;;
        --sync) exit ;;
        _PID=1) writer=systemd ;;
        _SYSTEMD_UNIT=*) writer=web ;;
    esac
done
awk -v since="$since" -v writer="$writer" '$1 >= since && (writer == "" || writer == $2)' {folder}/journal |
    sed 's/^[^ ]* [^ ]* //'
"""
# systemctl of a unit that has been forgotten, or that a test describes
_SYSTEMCTL = """\
#!/bin/sh
[ "$1" = show ] || exit 3
grep "^${2#--property=}=" {folder}/unit || echo "${2#--property=}=0"
"""


class Served:
    """A container that systemd or Proxmox VE runs; its script only tells how it ended."""

    def __init__(self, folder: Path, runtime: str, **variables: t.Any) -> None:
        self.folder = folder
        node = node_of(systemd=runtime != "proxmox")
        text = file_of(planned(runtime, node=node, log_folder=str(folder), **variables), "/control")["content"]
        text = text.replace("/run/hypervisor.oci", f"{folder}/run")
        programs = {
            "control": text,
            "journalctl": _JOURNALCTL,
            "systemctl": _SYSTEMCTL,
            "pct": "#!/bin/sh\necho 'status: stopped'\n",
        }
        for name, content in programs.items():
            (folder / name).write_text(content.replace("{folder}", str(folder)))
            (folder / name).chmod(0o755)
        (folder / "journal").touch()
        (folder / "unit").touch()

    def begin(self) -> None:
        """What comes before each start."""
        self._control("begin")

    def write(self, name: str, text: str) -> None:
        """Add to a file that the container, its runtime or systemd writes to."""
        with (self.folder / name).open("a") as file:
            file.write(text)

    def journal(self, *lines: str) -> None:
        """Add lines to the journal."""
        self.write("journal", "".join(f"{time.time():.6f} {line}\n" for line in lines))

    def log(self) -> list[str]:
        """What its log says of the last start."""
        return self._control("log").splitlines()

    def _control(self, verb: str) -> str:
        env = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"}
        command = [str(self.folder / "control"), verb]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


class Started:
    """A container of a runtime that does nothing but say its words and end."""

    def __init__(self, folder: Path, runtime: str, **variables: t.Any) -> None:
        self._folder = folder
        text = file_of(planned(runtime, log_folder=str(folder), **variables), "/control")["content"]
        programs = {"runc": {"runc": _RUNC}, "lxc": {"lxc-start": _LXC_START, "lxc-info": _LXC_STOPPED}}[runtime]
        programs["control"] = text.replace("run=/run/hypervisor.oci\n", f"run={folder}/run\n")
        for name, content in programs.items():
            (folder / name).write_text(content.replace("{folder}", str(folder)) if name != "control" else content)
            (folder / name).chmod(0o755)

    def log_of_start(self, words: str, status: int = 0) -> list[str]:
        """Start it, and return what its log says once it has ended."""
        (self._folder / "words").write_text(words)
        (self._folder / "status").write_text(f"{status}\n")
        self._control("start")
        deadline = time.monotonic() + 20
        while self._is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
        return self._control("log").splitlines()

    def _is_running(self) -> bool:
        has_status = (self._folder / "run/web.ended").exists() or (self._folder / "lxc-start").exists()
        return not has_status

    def _control(self, verb: str) -> str:
        env = {**os.environ, "PATH": f"{self._folder}:{os.environ['PATH']}"}
        return subprocess.run(
            [self._folder / "control", verb], env=env, check=True, capture_output=True, text=True
        ).stdout


@pytest.mark.parametrize("runtime", ["lxc", "nspawn", "runc", "crun"])
def test_it_is_a_shell_script(runtime: str) -> None:
    result = planned(runtime, log_folder="/var/log/it's $HOME `id` %n")
    script = file_of(result, "/control")
    assert script["mode"] == "0700"
    assert "@" not in script["content"].replace("printf '%s@'", "")
    done = subprocess.run(["sh", "-n"], input=script["content"], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "signal=QUIT\n" in script["content"]
    assert "log='/var/log/it'\"'\"'s $HOME `id` %n/web.log'\n" in script["content"]


def test_its_log_is_that_of_the_last_start(tmp_path: Path) -> None:
    container = Started(tmp_path, "runc")
    assert container.log_of_start("one\n", 7) == ["exit status 7", "one"]
    assert container.log_of_start("two\x1b[2J\n", 130) == ["exit status 130", "two?[2J"]
    # rotated
    (tmp_path / "web.log").write_text("")
    assert container.log_of_start("three\n") == ["exit status 0", "three"]


@pytest.mark.parametrize(
    ("command", "status", "is_explained"),
    [
        (["/bin/sh"], 0, True),
        (["bash", "-l"], 0, True),
        (["/bin/sh"], 1, False),
        (["/bin/sh", "-c", "true"], 0, False),
        (["/bin/sh", "script"], 0, False),
        (["/bin/true"], 0, False),
    ],
)
def test_a_shell_without_a_terminal_ends(tmp_path: Path, command: list[str], status: int, is_explained: bool) -> None:
    container = Started(tmp_path, "runc", command=command)
    assert container.log_of_start("", status) == [f"exit status {status}", *([_SAYS] if is_explained else [])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (_STARTED + _ENDED + "error (3)\n", ["exit status 3"]),
        (_STARTED + _ENDED + "signal SIGKILL(9)\n", ["exit status 137"]),
        (_STARTED + _ENDED + "signal (15)\n", ["exit status 143"]),
        (_STARTED, ["exit status 0"]),
        (
            _FAILED,
            [
                'No such file or directory - Failed to exec "/x"',
                "An error occurred in another process",
                "Failed to spawn container",
            ],
        ),
    ],
)
def test_what_lxc_says_of_the_last_start(tmp_path: Path, words: str, expected: list[str]) -> None:
    container = Started(tmp_path, "lxc")
    container.log_of_start(_FAILED)
    assert container.log_of_start(words) == expected


@pytest.mark.parametrize("runtime", ["nspawn", "runc", "crun"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Main process exited, code=exited, status=7/n/a", "exit status 7"),
        ("Main process exited, code=exited, status=1/FAILURE", "exit status 1"),
        ("Main process exited, code=killed, status=9/KILL", "exit status 137"),
        ("Main process exited, code=dumped, status=11/SEGV", "exit status 139"),
        ("Deactivated successfully.", "exit status 0"),
    ],
)
def test_how_a_container_under_systemd_ended(tmp_path: Path, runtime: str, said: str, expected: str) -> None:
    container = Served(tmp_path, runtime)
    container.journal("web earlier", "systemd web.service: Main process exited, code=exited, status=99/n/a")
    container.begin()
    container.journal("systemd Started web.", "web two\x1b[2J", f"systemd web.service: {said}")
    assert container.log() == [expected, "two?[2J"]
    container.begin()
    assert container.log() == []


@pytest.mark.parametrize(("code", "status", "expected"), [(1, 7, "7"), (1, 0, "0"), (2, 9, "137"), (3, 11, "139")])
def test_what_systemd_shows_needs_no_journal(tmp_path: Path, code: int, status: int, expected: str) -> None:
    """It may be told to log less."""
    container = Served(tmp_path, "runc")
    container.begin()
    container.write("unit", f"ExecMainCode={code}\nExecMainStatus={status}\n")
    assert container.log() == [f"exit status {expected}"]


def test_a_unit_that_systemd_cannot_start(tmp_path: Path) -> None:
    """Neither the container nor its runtime has written anything."""
    container = Served(tmp_path, "runc")
    container.begin()
    failed = "web.service: Failed to locate executable runc"
    container.journal(f"systemd {failed}")
    assert container.log() == [failed]
    container.write("unit", "ExecMainCode=1\nExecMainStatus=203\n")
    assert container.log() == ["exit status 203", failed]


def test_a_container_cannot_tell_how_it_ended(tmp_path: Path) -> None:
    """Only lines of systemd itself count."""
    container = Served(tmp_path, "runc")
    container.begin()
    forged = "web.service: Main process exited, code=exited, status=$(id)/n/a"
    container.journal(f"web {forged}", "systemd web.service: Main process exited, code=exited, status=3/n/a")
    assert container.log() == ["exit status 3", forged]


@pytest.mark.parametrize("runtime", ["nspawn", "runc", "lxc", "proxmox"])
def test_a_shell_under_another_service(tmp_path: Path, runtime: str) -> None:
    container = Served(tmp_path, runtime, command=["/bin/sh"])
    container.begin()
    container.journal("systemd web.service: Deactivated successfully.")
    container.write("web.log.lxc", _STARTED)
    assert container.log() == ["exit status 0", _SAYS]


@pytest.mark.parametrize("runtime", ["lxc", "proxmox"])
def test_what_lxc_says_under_another_service(tmp_path: Path, runtime: str) -> None:
    container = Served(tmp_path, runtime)
    container.write("web.log", "earlier\n")
    container.write("web.log.lxc", _FAILED)
    container.begin()
    container.write("web.log", "ended\r\n")
    container.write("web.log.lxc", _STARTED + _ENDED + "error (3)\n")
    assert container.log() == ["exit status 3", "ended"]


def test_what_pct_says_if_lxc_was_not_reached(tmp_path: Path) -> None:
    container = Served(tmp_path, "proxmox")
    container.begin()
    container.write("run/web.said", "storage 'local' does not exist\n")
    assert container.log() == ["storage 'local' does not exist"]
    container.write("web.log.lxc", _STARTED + _ENDED + "error (3)\n")
    assert container.log() == ["exit status 3"]


@pytest.mark.parametrize("runtime", ["lxc", "nspawn", "runc", "crun", "proxmox"])
def test_the_script_that_tells_is_a_shell_script(runtime: str) -> None:
    node = node_of(systemd=runtime != "proxmox")
    script = file_of(planned(runtime, node=node, log_folder="/var/log/it's $HOME `id` %n"), "/control")
    assert script["mode"] == "0700"
    assert not re.search("@[a-z]+@", script["content"])
    done = subprocess.run(["sh", "-n"], input=script["content"], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the role for several containers at once, as a user would, and reads what Ansible says of each."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import typing as t
from dataclasses import dataclass

_PLAYBOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "container.yml")
_RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=\d+\s+failed=(\d+)", re.MULTILINE)
_FATAL = re.compile(r"^fatal: \[(\S+)\]: FAILED! => (\{.*\})$", re.MULTILINE)
# A run that hangs must not hang the tests.
_PATIENCE = 900
# Seconds after which a container that goes on has started. What ends on a busy machine may take longer: runs that are to
# fail have the role's own default.
_START_WAIT = 1

Variables = t.Dict[str, t.Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one container: tasks that changed something, and the last error, empty where there was none."""

    changed: int
    error: str


def _in_background() -> None:
    """As jobs of cron and the like are started: what they ignore, a container must not."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


class Runs:
    """``hosts`` are names of containers' hosts in the inventory, each with its variables; all of them are this machine."""

    def __init__(self, folder: str, hosts: dict[str, Variables], path: str | None = None) -> None:
        self.hosts = hosts
        # all that Ansible has written of the last runs
        self.written = ""
        self._folder = folder
        self._width = os.cpu_count() or 1
        self._environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORKS": "4",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_DISPLAY_FAILED_STDERR": "0",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
        }
        if path is not None:
            self._environment["PATH"] = path + os.pathsep + os.environ["PATH"]

    def __call__(
        self,
        *options: str,
        only: t.Sequence[str] | None = None,
        extra: dict[str, Variables] | None = None,
        **changed: t.Any,
    ) -> dict[str, Outcome]:
        """One run with ``changed`` variables for all, and ``extra`` ones by host."""
        names = list(self.hosts if only is None else only)
        # what Ansible does between tasks is done by one process for all hosts of a run
        groups = [names[start :: self._width] for start in range(self._width)]
        with concurrent.futures.ThreadPoolExecutor(self._width) as threads:
            waiting = [
                threads.submit(self._run, number, group, options, extra or {}, changed)
                for number, group in enumerate(filter(None, groups))
            ]
            found = [future.result() for future in waiting]
        return {name: outcome for part in found for name, outcome in part.items()}

    def _run(
        self, number: int, names: list[str], options: t.Sequence[str], extra: dict[str, Variables], changed: Variables
    ) -> dict[str, Outcome]:
        inventory = {
            "all": {
                "hosts": {name: {**self.hosts[name], **extra.get(name, {})} for name in names},
                "vars": {
                    "ansible_python_interpreter": sys.executable,
                    **{f"container_{key}": value for key, value in changed.items()},
                },
            }
        }
        path = os.path.join(self._folder, f"inventory{number}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(inventory, file)
        done = subprocess.run(
            ["ansible-playbook", "--inventory", path, *options, _PLAYBOOK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            env=self._environment,
            timeout=_PATIENCE,
            preexec_fn=_in_background,
        )
        self.written += done.stdout + done.stderr
        outcomes = dict.fromkeys(names, Outcome(-1, done.stdout + done.stderr))
        errors = {host: json.loads(text) for host, text in _FATAL.findall(done.stdout)}
        for name, count, failed in _RECAP.findall(done.stdout):
            error = errors.get(name, {}).get("msg", done.stdout)
            outcomes[name] = Outcome(int(count), error if int(failed) else "")
        return outcomes

    def succeed(self, *options: str, **changed: t.Any) -> dict[str, int]:
        """A run in which nothing may fail; returns how much changed, by host."""
        outcomes = self(*options, **{"start_wait": _START_WAIT, **changed})
        for name, outcome in outcomes.items():
            if outcome.error:
                sys.exit(f"{name}: {outcome.error}")
        return {name: outcome.changed for name, outcome in outcomes.items()}

    def fail(self, says: str, *options: str, **changed: t.Any) -> dict[str, str]:
        """A run in which every container fails with a message that holds ``says``."""
        outcomes = self(*options, **changed)
        for name, outcome in outcomes.items():
            if says not in outcome.error:
                sys.exit(f"{name}: no error with {says!r}: {outcome.error}")
        return {name: outcome.error for name, outcome in outcomes.items()}


@contextlib.contextmanager
def watched_commands() -> t.Iterator[set[str]]:
    """The arguments of every process that runs meanwhile, as other users see them."""
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for name in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                    seen.add(file.read().decode("utf-8", "replace"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def open_to_others(paths: t.Sequence[str]) -> t.Iterator[tuple[str, str]]:
    """Files at and below the paths that group or others may read by their mode, with their content."""
    for path in paths:
        found = [path]
        for folder, _names, files in os.walk(path):
            found += [os.path.join(folder, name) for name in files]
        for name in found:
            if os.path.isfile(name) and os.stat(name).st_mode & 0o044:
                with open(name, encoding="utf-8", errors="replace") as file:
                    yield name, file.read()


class _Silent(http.server.SimpleHTTPRequestHandler):
    """Its log would be taken for what Ansible writes."""

    def log_message(self, *_arguments: t.Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def served(folder: str) -> t.Iterator[str]:
    """A web server of a folder, on this machine alone; gives its address."""
    handler = functools.partial(_Silent, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def number_of(folder: str) -> int:
    """A number below 10,000 of this run of the tests, so that two at once do not meet."""
    return int(hashlib.sha256(folder.encode()).hexdigest(), 16) % 10_000


def require(condition: bool, what: str, *seen: t.Any) -> None:
    """Ends the test where something is not as it should be."""
    if not condition:
        sys.exit(f"not so: {what}: {', '.join(map(repr, seen))}")


def say(what: str) -> None:
    """What was seen to be so, for the log of the tests."""
    print(what, flush=True)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A secret of its own for each server: who gets it, and where else it turns up (docs/behaviour.md, section 11).

ansible-playbook itself runs, so that what it shows with -vvv, writes and starts is searched as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _fetch
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file
from ansible_collections.hypervisor.oci.tests.unit.authority import Authority
from ansible_collections.hypervisor.oci.tests.unit.registry import (
    Handler,
    Registry,
    Server,
    Store,
    TokenServer,
    basic,
    serving,
)

BIG = Layer(file("big", os.urandom(400_000)))
IMAGE = Image([BIG])
# unlike the names of tests, which are in the environment of pytest
MARK = "xq7c1f"
COLLECTIONS = Path(_fetch.__file__).parents[5]


def secret(whose: str) -> str:
    """The password that belongs to one server."""
    return f"{MARK}-{whose}"


def login(whose: str) -> str:
    """How that password looks in a header or in a file with credentials."""
    return basic("user", secret(whose))


class Servers:
    """All servers, by name; those that ask for a password have a user with their own one."""

    def __init__(self, authority: Authority, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._tls = authority.context()
        self.all: dict[str, Server] = {}
        self.registries: dict[str, Registry] = {}

    def serve(self, name: str, server: t.Any, address: str, secure: bool = True) -> t.Any:
        """Serve by TLS, for as long as the test runs."""
        self.all[name] = server
        return self._stack.enter_context(serving(server, address, self._tls if secure else None))

    def registry(self, name: str, tokens: TokenServer | None) -> Registry:
        """Serve a registry with the image, which sends its clients to ``tokens``."""
        registry = self.serve(name, Registry(), "127.0.0.1")
        registry.push("app", "1", IMAGE)
        registry.auth, registry.tokens = "bearer", tokens
        if tokens is not None:
            tokens.anonymous, tokens.users = False, {"user": secret(name)}
        self.registries[name] = registry
        return t.cast(Registry, registry)


@pytest.fixture(name="servers")
def fixture_servers(authority: Authority) -> t.Iterator[Servers]:
    """A registry that is well, and three that send their clients to where no password may go."""
    with contextlib.ExitStack() as stack:
        servers = Servers(authority, stack)
        good = servers.registry("good", servers.serve("realm", TokenServer(), "127.0.0.1"))
        good.store = servers.serve("store", Store(), "127.0.0.2")
        mirror = servers.serve("mirror", Registry(), "127.0.0.3")
        mirror.push("cache/app", "1", IMAGE)
        del mirror.blobs["cache/app", BIG.digest]
        mirror.auth, mirror.users = "basic", {"user": secret("mirror")}
        thief = servers.serve("thief", Server(), "127.0.0.4")
        redirecting = servers.serve("redirecting realm", TokenServer(), "127.0.0.1")
        servers.registry("redirected", redirecting)
        redirecting.handle = lambda handler: _redirect(handler, f"{thief.url}/token")
        servers.registry("plain", servers.serve("plain realm", TokenServer(), "127.0.0.1", secure=False))
        first = servers.serve("first realm", TokenServer(), "127.0.0.5")
        second = servers.serve("second realm", TokenServer(), "127.0.0.6")
        changing = servers.registry("changing", first)
        changing.handle = lambda handler: _change(changing, first, second, handler)
        yield servers


def _redirect(handler: Handler, location: str) -> bool:
    handler.send(307, Location=location)
    return True


def _change(registry: Registry, first: TokenServer, second: TokenServer, handler: Handler) -> bool:
    """Send clients elsewhere once they have the manifest."""
    registry.tokens = second if "/blobs/" in handler.path else first
    return False


@pytest.fixture(name="authority", scope="module")
def fixture_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority for all servers."""
    return Authority(tmp_path_factory.mktemp("tls"))


def tasks_for(servers: Servers, authority: Authority, folder: Path) -> list[dict[str, t.Any]]:
    """A task for each registry and each side that fetches, and one with a wrong password."""
    hosts = {name: server.host for name, server in servers.all.items()}
    entries = {hosts[name]: login(f"entry for the {name}") for name in ("store", "thief", "plain realm")}
    entries[f"{hosts['mirror']}/cache"] = login("mirror")
    entries.update({registry.host: login(name) for name, registry in servers.registries.items()})
    (folder / "auth.json").write_text(json.dumps({"auths": {key: {"auth": entry} for key, entry in entries.items()}}))
    common: dict[str, t.Any] = {
        "ca_path": authority.ca,
        "platform": "linux/amd64",
        "url_retries": 0,
        "use_proxy": False,
    }
    tasks = []
    for fetch in ("node", "controller"):
        for name, registry in servers.registries.items():
            args = {**common, "registry_auth_file": str(folder / "auth.json"), "fetch": fetch}
            args.update(src=f"docker://{registry.host}/app:1", dest=str(folder / "trees" / f"{name}-{fetch}" / "root"))
            if name == "good":
                args.update(registry_mirrors=[f"{hosts['mirror']}/cache"], headers={"X-Tenant": secret("header")})
            tasks.append({"hypervisor.oci.oci_rootfs": args, "ignore_errors": True})
        wrong = {"url_username": "user", "url_password": secret("wrong"), "fetch": fetch}
        args = {**common, **wrong, "src": f"docker://{hosts['good']}/app:1", "dest": str(folder / "trees" / "wrong")}
        tasks.append({"hypervisor.oci.oci_rootfs": args, "ignore_errors": True})
    return tasks


def play(folder: Path, tasks: list[dict[str, t.Any]]) -> tuple[str, list[str]]:
    """Run a playbook with -vvv; return all that it shows, and what of processes held a secret meanwhile."""
    playbook = folder / "playbook.json"
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    for name in ("home", "tmp", "trees"):
        (folder / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = {
        **{name: value for name, value in kept.items() if not name.lower().endswith("_proxy")},
        "HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "home" / "cache"), "TMPDIR": str(folder / "tmp"),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_CONFIG": str(folder / "none.cfg"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"), "ANSIBLE_REMOTE_TEMP": str(folder / "tmp"),
        "ANSIBLE_LOG_PATH": str(folder / "home" / "log"), "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }  # fmt: skip
    (folder / "none.cfg").write_text("")
    interpreter = ["-e", f"ansible_python_interpreter={sys.executable}"]
    words = ["-i", "localhost,", "-c", "local", "-vvv", *interpreter, str(playbook)]
    program = [sys.executable, "-c", "import sys; from ansible.cli.playbook import main; main(sys.argv)"]
    over = threading.Event()
    seen: list[str] = []
    watcher = threading.Thread(target=watch, args=(over, seen))
    watcher.start()
    try:
        done = subprocess.run(
            [*program, *words], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        over.set()
        watcher.join()
    return done.stdout + done.stderr, seen


def watch(over: threading.Event, seen: list[str]) -> None:
    """Note arguments and environments of processes that hold a secret."""
    while not over.wait(0.1):
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            for name in ("cmdline", "environ", "comm"):
                with contextlib.suppress(OSError):
                    data = Path("/proc", pid, name).read_bytes()
                    if MARK.encode() in data:
                        seen.append(f"{name}: {data!r}")


def test_every_secret_stays_where_it_belongs(servers: Servers, authority: Authority, tmp_path: Path) -> None:
    tasks = tasks_for(servers, authority, tmp_path)
    shown, seen = play(tmp_path, tasks)
    assert shown.count("changed: [localhost]") == 2, shown
    for words in (
        "which gets no credentials",
        "is not protected by https",
        "sends credentials to",
        "gives 'user' no token",
    ):
        assert shown.count(words) >= 2, (words, shown)
    logs = {name: server.log() for name, server in servers.all.items()}
    where = {
        login("good"): {"realm"},
        login("wrong"): {"realm"},
        login("mirror"): {"mirror"},
        login("redirected"): {"redirecting realm"},
        login("changing"): {"first realm"},
        secret("header"): {"good"},
        login("plain"): set(),
        **{login(f"entry for the {name}"): set() for name in ("store", "thief", "plain realm")},
    }
    for value, places in where.items():
        assert {name for name, log in logs.items() if value in log} == places, value
    assert {name for name, log in logs.items() if MARK in log} == {"good"}
    assert logs["thief"] == logs["plain realm"] == logs["second realm"] == ""
    values = (MARK, *filter(lambda value: not value.startswith(MARK), where), *servers.all["realm"].valid)  # type: ignore[attr-defined]
    assert not any(value in shown for value in values)
    assert seen == []
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("auth.json", "playbook.json")]
    assert any(path.name == "record.json" for path in left) and any("cache" in str(path) for path in left)
    for path in left:
        data = path.read_bytes()
        assert not any(value.encode() in data for value in values), path

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of what the controller fetches for a fleet (docs/behaviour.md, section 7).

One pull for all nodes, no credential on any of them, and whatever is interrupted goes on at the byte.
"""

from __future__ import annotations

import base64
import os
import signal
import typing as t

from .controller import Playbook, play, rootfs
from .fleet import DISK, HUB, arguments_of, pids, run, wait_for
from .lab import ALPHA, BRAVO, CROWD, Broken, Lab, failed, require
from .registry import Registry
from .samples import Sample, sample, write
from .sending import MODULE_RUNS, NEW_IMAGE, within

_MB = 1_000_000
_BLOB = 20 * _MB
_HERE: dict[str, t.Any] = {"fetch": "controller"}
# What may be fetched again of a blob that was interrupted at 90 %, and what an archive's index and documents take.
_REST = 0.11
_DOCUMENTS = 60_000
# Bytes on a node's link beside those of a push from a file, and without a run of the module.
_ABOUT = 1.05
_NOTHING = 50_000
_CANARIES = {name: f"canary-{name.lower()}-7c1f" for name in ("USER", "PASSWORD", "QUERY", "HEADER")}
# bcrypt's, of the password
_HASH = "$2y$05$abcdefghijklmnopqrstuu0Wsj/BKoxaD5kq4fX8JfDhTjKhdbIvK"


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _cache(lab: Lab) -> str:
    return os.path.join(lab.controller.folder, "home", ".cache", "hypervisor.oci")


def kept_on_controller(lab: Lab) -> int:
    """The bytes that the controller has of blobs."""
    try:
        return sum(entry.stat().st_size for entry in os.scandir(_cache(lab)))
    except FileNotFoundError:
        return 0


def _one_pull(lab: Lab, alone: list[dict[str, t.Any]], what: str) -> int:
    """The bytes that the web server sent; raises ``Broken`` if that was more than what one node costs."""
    answers = lab.web.served()
    sent, most = (sum(answer["sent"] for answer in one) for one in (answers, alone))
    require(len(answers) <= len(alone), f"{what}: {len(answers)} requests, one node costs {len(alone)}")
    require(sent <= most, f"{what}: {sent} bytes, one node costs {most}")
    clients = {answer["client"] for answer in answers}
    require(clients == {HUB}, f"{what}: {clients} asked the web server")
    return sent


def fetched_once(lab: Lab) -> str:
    """Eight nodes cost the server what one costs, at once and by batches, and each node what a push costs."""
    amd64 = sample("fetched", _MB, layers=3)
    arm64 = sample("fetched", _MB, layers=2, platform="linux/arm64")
    path = write(lab.images, "fetched.oci.tar", amd64, arm64)
    dest = f"{DISK}/fetched/rootfs"
    pushes = [lab.provision(ALPHA, src=path, dest=f"{DISK}/pushed/rootfs").must() for _turn in range(2)]
    new, same = (_ABOUT * run_.counters[ALPHA].total for run_ in pushes)
    lab.web.start()
    try:
        url = lab.web.url("fetched.oci.tar")
        lab.web.served()
        lab.provision(ALPHA, src=url, dest=f"{DISK}/alone/rootfs").must()
        alone = lab.web.served()
        many = lab.provision(*CROWD, src=url, dest=dest, **_HERE).must()
        sent = _one_pull(lab, alone, "eight at once")
        again = lab.provision(*CROWD, src=url, dest=dest, **_HERE).must()
        documents = _one_pull(lab, alone, "eight that are up to date")
        batches = [play(rootfs(src=url, dest=f"{DISK}/batches/rootfs", **_HERE), serial=2)]
        lab.controller.run(batches, CROWD).must()
        _one_pull(lab, alone, "four batches")
    finally:
        lab.web.stop()
    require(documents <= _DOCUMENTS, f"{documents} bytes for nodes that were up to date")
    for name in CROWD:
        for run_, push, what in ((many, new, "new"), (again, same, "up to date")):
            total = run_.counters[name].total
            require(total <= push, f"{name}: {what}: {total} bytes, at most {push:.0f} for a push from a file")
        require(not again.of(name).changed, f"{name}: a second run changed something")
        for place in (dest, f"{DISK}/batches/rootfs"):
            lab.shows(name, place, amd64)
            lab.is_tidy(name, place)
    return f"{sent} bytes served to {len(CROWD)} nodes of {amd64.size} bytes each, {documents} when up to date"


def fetched_from_registry(lab: Lab) -> str:
    """Eight nodes cost a registry what one costs; a tag that is known costs a question, a digest nothing."""
    part = sample("registry", _MB, layers=3)
    registry = Registry(lab.fleet)
    plain: dict[str, t.Any] = {"registry_plain_http": True}
    dest = f"{DISK}/registry/rootfs"
    registry.start()
    try:
        registry.push(write(lab.images, "registry.oci.tar", part), "fleet:registry", "app:1")
        url = registry.url("app:1")
        lab.provision(ALPHA, src=url, dest=f"{DISK}/registry-alone/rootfs", **plain).must()
        alone = registry.served()
        many = lab.provision(*CROWD, src=url, dest=dest, **plain, **_HERE).must()
        together = registry.served()
        lab.provision(*CROWD, src=url, dest=dest, **plain, **_HERE).must()
        known = registry.served()
        pinned = f"{registry.url('app')}@{many.of(ALPHA).result['manifest_digest']}"
        last = lab.provision(*CROWD, src=pinned, dest=dest, **plain, **_HERE).must()
        nothing = registry.served()
    finally:
        registry.stop()
    require(len(together) <= len(alone), f"{len(together)} requests, one node costs {len(alone)}: {together}")
    sent = sum(answer.sent for answer in together)
    require(sent <= sum(answer.sent for answer in alone), f"{sent} bytes, more than one node costs")
    require({answer.client.partition(":")[0] for answer in together} == {HUB}, f"asked by others: {together}")
    require([answer.method for answer in known] == ["HEAD"], f"the same tag again: {known}")
    require(not nothing, f"a digest that is known: {nothing}")
    for name in CROWD:
        within(many, name, NEW_IMAGE * part.size + MODULE_RUNS, "new image")
        require(not last.of(name).changed, f"{name}: another name of the same image changed something")
        lab.shows(name, dest, part)
        lab.is_tidy(name, dest)
    return f"{len(together)} requests and {sent} bytes for {len(CROWD)} nodes of {part.size} bytes each"


def fetched_for_whom(lab: Lab) -> str:
    """Of two hosts with credentials of their own, the one that is not entitled gets nothing."""
    part = sample("entitled", _MB)
    write(lab.images, "entitled.oci.tar", part)
    dest = f"{DISK}/entitled/rootfs"
    password = "{{ 'right' if inventory_hostname == 'alpha' else 'wrong' }}"
    lab.web.start(authorization=_basic("user", "right"))
    try:
        url = lab.web.url("entitled.oci.tar")
        for _turn in range(2):
            run_ = lab.provision(ALPHA, BRAVO, src=url, dest=dest, url_username="user", url_password=password, **_HERE)
            require(run_.of(ALPHA).status == "ok", f"the one that may: {run_.output}")
            message = failed(run_, BRAVO)
            require("answered 401" in message, f"another error: {message}")
    finally:
        lab.web.stop()
    lab.shows(ALPHA, dest, part)
    top = os.path.dirname(lab.path(BRAVO, dest))
    require(not os.path.exists(top), "the one that may not has got something")
    within(run_, BRAVO, _NOTHING, "not entitled")
    return repr(message[:100])


# -- canaries


def _found(lab: Lab, name: str, canaries: t.Collection[str]) -> list[str]:
    """The files of the controller and of a node that hold a canary or its encoded form, or are named after one."""
    node = lab.fleet.nodes[name]
    secrets = [*canaries, _basic(_CANARIES["USER"], _CANARIES["PASSWORD"])[6:]]
    found = []
    for top in (lab.controller.folder, node.disk, os.path.join(node.folder, "upper")):
        for folder, _folders, names in os.walk(top):
            for path in (os.path.join(folder, one) for one in names):
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        content = file.read() + path.encode()
                    found += [path for secret in secrets if secret.encode() in content]
    options = [word for secret in secrets for word in ("-e", secret)]
    folders = 'for one in /tmp /run /root /dev/shm; do grep -rlaF "$@" $one; done 2>/dev/null; true'
    return found + node.run("sh", "-c", folders, "sh", *options).split()


def _watch(playbook: Playbook) -> None:
    """Look at the arguments of all processes until a playbook ends; raises ``Broken``."""
    secrets = [secret.encode() for secret in _CANARIES.values()]

    def ended() -> bool:
        for pid in pids():
            words = arguments_of(pid)
            if any(secret in words for secret in secrets):
                raise Broken(f"a secret among the arguments of a process: {words!r}")
        return os.waitid(os.P_PID, playbook.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    wait_for("the end of the playbook", ended, 120)


def _fetch_in_secret(lab: Lab, part: Sample, refusal: str, **options: t.Any) -> str:
    """Provision a node, fail to do so with a wrong password, and search for secrets; raises ``Broken``."""
    settings = {f"CANARY_{name}": secret for name, secret in _CANARIES.items()}
    settings["ANSIBLE_LOG_PATH"] = os.path.join(lab.controller.folder, "canary.log")
    plays = [play(rootfs(**options, cache_dir=f"{DISK}/cache", **_HERE))]
    lab.controller.disconnect()
    playbook = lab.controller.start(plays, [ALPHA], ["-vvv"], **settings)
    lab.wait_until_sent(playbook, ALPHA, part.size // 2)
    secrets = {*_CANARIES.values(), "wr0ng"}
    during = _found(lab, ALPHA, secrets)
    _watch(playbook)
    done = lab.finish(playbook).must()
    lab.shows(ALPHA, options["dest"], part)
    # a failure tells none either
    refused = lab.controller.run(plays, [ALPHA], ["-vvv"], **{**settings, "CANARY_PASSWORD": "wr0ng"})
    require(refusal in failed(refused, ALPHA), f"another error: {refused.output}")
    # a registry's refusal says whom it refuses
    named = secrets - ({_CANARIES["USER"]} if "url_username" in options else set())
    for what, found in (("during", during), ("after", _found(lab, ALPHA, named))):
        require(not found, f"{what} the run, secrets are in {found}")
    for which, one, hidden in (("done", done, secrets), ("refused", refused, named)):
        output = one.output + repr(one.tasks)
        shown = [secret for secret in hidden if secret in output]
        require(not shown, f"{which}: {shown} in the output of -vvv")
    return f"nothing of {len(_CANARIES)} secrets in the files and processes of the controller and of a node"


def _canary(name: str) -> str:
    """An expression for a secret, so that the playbook itself holds none."""
    return f"{{{{ lookup('ansible.builtin.env', 'CANARY_{name}') }}}}"


def fetched_in_secret(lab: Lab) -> str:
    """No credential is on a node, in a log, in the output of -vvv, in a process list or in a temporary file."""
    part = sample("secret", 4 * _MB)
    write(lab.images, "secret.oci.tar", part)
    url = lab.web.url("secret.oci.tar").replace("//", f"//{_canary('USER')}:{_canary('PASSWORD')}@")
    lab.web.start(authorization=_basic(_CANARIES["USER"], _CANARIES["PASSWORD"]))
    try:
        return _fetch_in_secret(
            lab,
            part,
            "answered 401",
            src=f"{url}?{_canary('QUERY')}",
            dest=f"{DISK}/secret/rootfs",
            headers={"X-Canary": _canary("HEADER")},
        )
    finally:
        lab.web.stop()


def fetched_in_secret_from_registry(lab: Lab) -> str:
    """The same with a registry that wants a password."""
    part = sample("secret-registry", 4 * _MB)
    registry = Registry(lab.fleet)
    registry.start()
    registry.push(write(lab.images, "secret-registry.oci.tar", part), "fleet:secret-registry", "secret:1")
    registry.stop()
    registry.start(f"{_CANARIES['USER']}:{_HASH}")
    try:
        return _fetch_in_secret(
            lab,
            part,
            "may not pull",
            src=registry.url("secret:1"),
            dest=f"{DISK}/secret-registry/rootfs",
            url_username=_canary("USER"),
            url_password=_canary("PASSWORD"),
            headers={"X-Canary": _canary("HEADER")},
            registry_plain_http=True,
        )
    finally:
        registry.stop()


# -- interrupted


class _Fetch(t.NamedTuple):
    """A node that has the old image, and is to get the new one, of one large blob, from the web server."""

    name: str
    dest: str
    url: str
    old: Sample
    new: Sample

    def start(self, lab: Lab, **options: t.Any) -> Playbook:
        """Let the controller fetch it."""
        lab.web.served()
        return lab.start(self.name, src=self.url, dest=self.dest, **_HERE, **options)

    def converges(self, lab: Lab, most: float) -> str:
        """A rerun makes it right, for which the server sends at most so many bytes of the blob."""
        lab.web.served()
        lab.converges(self.name, self.url, self.dest, self.new, **_HERE)
        sent = lab.web.sent()
        # the second run of the rerun reads documents, too
        require(sent <= most + 2 * _DOCUMENTS, f"the rerun took {sent} bytes of {self.new.size} from the server")
        return f"the rerun took {sent} bytes of {self.new.size} from the server"


def _fetch(lab: Lab, case: str, name: str = ALPHA) -> _Fetch:
    old = sample(f"{case}-old", 100_000)
    new = sample(f"{case}-new", _BLOB)
    dest = f"{DISK}/{case}/rootfs"
    lab.provision(name, src=write(lab.images, f"{case}-old.oci.tar", old), dest=dest).must()
    write(lab.images, f"{case}.oci.tar", new)
    return _Fetch(name, dest, lab.web.url(f"{case}.oci.tar"), old, new)


def wait_until_kept(playbook: Playbook, kept: t.Callable[[], int], size: float) -> None:
    """Until so many bytes of blobs are kept; raises ``Broken`` if the playbook ended before."""

    def there() -> bool:
        if kept() >= size:
            return True
        if playbook.process.poll() is not None:
            raise Broken(f"ended before {size:.0f} bytes came: {playbook.output()}")
        return False

    wait_for(f"{size:.0f} bytes of blobs", there, 120)


def _interrupted(lab: Lab, number: signal.Signals, case: str) -> str:
    fetch = _fetch(lab, case)
    lab.web.start()
    try:
        before = kept_on_controller(lab)
        playbook = fetch.start(lab)
        wait_until_kept(playbook, lambda: kept_on_controller(lab) - before, 0.9 * fetch.new.size)
        playbook.interrupt(number)
        run_ = lab.finish(playbook)
        require(run_.status != 0, f"it went well:\n{run_.output}")
        lab.shows(fetch.name, fetch.dest, fetch.old)
        lab.forgive_ansible(fetch.name)
        return fetch.converges(lab, _REST * fetch.new.size)
    finally:
        lab.web.stop()


def fetch_interrupted(lab: Lab) -> str:
    """Ctrl-C when the controller has 90 % of a blob."""
    return _interrupted(lab, signal.SIGINT, "fetch-interrupted")


def fetch_killed(lab: Lab) -> str:
    """The controller's processes are killed when it has 90 % of a blob."""
    return _interrupted(lab, signal.SIGKILL, "fetch-killed")


def fetch_node_killed(lab: Lab) -> str:
    """A node loses its power while the blob is sent: the server is not asked for it again."""
    fetch = _fetch(lab, "fetch-node")
    node = lab.fleet.nodes[fetch.name]
    lab.web.start()
    try:
        playbook = fetch.start(lab)
        lab.wait_until_sent(playbook, fetch.name, _BLOB // 4)
        node.kill()
        message = failed(lab.finish(playbook), fetch.name)
        node.start()
        lab.shows(fetch.name, fetch.dest, fetch.old)
        return f"{message.splitlines()[0][:80]!r}; {fetch.converges(lab, 0)}"
    finally:
        lab.web.stop()


def fetch_server_restarted(lab: Lab) -> str:
    """The web server dies in the middle of the blob, and is back soon: the same run goes on."""
    fetch = _fetch(lab, "fetch-server")
    lab.web.start(die_after=_BLOB // 2)
    try:
        playbook = fetch.start(lab)
        wait_for("the end of the web server", lab.web.died)
        lab.web.stop()
        lab.web.start()
        lab.finish(playbook).must()
        lab.shows(fetch.name, fetch.dest, fetch.new)
        # what it had sent before it died was not counted
        sent = lab.web.sent()
        require(sent <= 0.55 * fetch.new.size, f"{sent} bytes after the restart")
        return f"{fetch.converges(lab, 0)}, {sent} after the restart"
    finally:
        lab.web.stop()


def fetch_disk_full(lab: Lab) -> str:
    """The folder for what comes of blobs is full: the error names it, and a rerun with room converges."""
    fetch = _fetch(lab, "fetch-full")
    small = os.path.join(lab.fleet.folder, "small")
    os.mkdir(small)
    run(["mount", "-t", "tmpfs", "-o", "mode=0700,size=4m", "tmpfs", small])
    lab.web.start()
    try:
        lab.controller.settings["XDG_CACHE_HOME"] = small
        message = failed(lab.finish(fetch.start(lab)), fetch.name)
        del lab.controller.settings["XDG_CACHE_HOME"]
        require("no room left" in message and "set XDG_CACHE_HOME" in message, f"another error: {message}")
        lab.shows(fetch.name, fetch.dest, fetch.old)
        lab.is_tidy(fetch.name, fetch.dest)
        return f"{message[:100]!r}; {fetch.converges(lab, fetch.new.size)}"
    finally:
        lab.web.stop()


def fetch_of_what_changes(lab: Lab) -> str:
    """The archive is replaced while it is fetched: the node has the old tree or a new one, and a rerun the newest."""
    fetch = _fetch(lab, "fetch-changes")
    newest = sample("fetch-changes-newest", _MB)
    lab.web.start()
    try:
        before = kept_on_controller(lab)
        playbook = fetch.start(lab)
        wait_until_kept(playbook, lambda: kept_on_controller(lab) - before, 0.3 * fetch.new.size)
        path = write(lab.images, "fetch-changes-newest.oci.tar", newest)
        os.replace(path, os.path.join(lab.images, "fetch-changes.oci.tar"))
        done = lab.finish(playbook)
        shown = lab.shows(fetch.name, fetch.dest, *([fetch.old] if done.status else [fetch.new]))
        lab.is_tidy(fetch.name, fetch.dest)
        return f"{shown.version.strip()!r}; {fetch._replace(new=newest).converges(lab, newest.size)}"
    finally:
        lab.web.stop()


CHECKS: tuple[t.Callable[[Lab], str], ...] = (
    fetched_once,
    fetched_from_registry,
    fetched_for_whom,
    fetched_in_secret,
    fetched_in_secret_from_registry,
    fetch_interrupted,
    fetch_killed,
    fetch_node_killed,
    fetch_server_restarted,
    fetch_disk_full,
    fetch_of_what_changes,
)

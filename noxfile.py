# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# /// script
# dependencies = ["nox>=2026.8.10", "antsibull-nox", "ansible-core"]
# ///

from __future__ import annotations

import atexit
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import antsibull_nox
import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests" / "tools"))

import confinement  # noqa: E402
import module_code  # noqa: E402
import pythons  # noqa: E402
import removal  # noqa: E402

RESULTS = ROOT / ".nox" / "results"
NEWEST = max(pythons.NODES)
BLACK = "black == 26.10.1"

# Targets that prove what the node does, or the role: once, with the ansible-core that is named here, since they take
# minutes. All others run with each.
ONCE = {
    "compare_trees": "2.21",
    "examples": "2.21",
    "oci_rootfs_crash": "2.21",
    "oci_rootfs_disks": "2.21",
    "oci_rootfs_fleet": "2.19",
    "oci_rootfs_real_images": "2.21",
    "oci_rootfs_transfer": "2.21",
    "role_container": "2.21",
}

# Topics of the target oci_rootfs in which Ansible has a part: with each. The others are about the node's disk.
TOPICS_WITH_EACH = ["first_run", "replace", "selection", "errors", "controller_source", "ordinary_user", "spelling"]

# Unit tests that look at this ansible-core's own work: with each. The others speak of images, trees and disks alone, and
# run with the newest.
WITH_EACH = ["tests/unit/plugins/", "tests/unit/roles/", "tests/unit/fleet/"]

# Unit tests that Pythons between the oldest and the newest run: of all that Ansible calls itself. What is below it is the
# same code at both ends.
BETWEEN = [
    "tests/unit/plugins/modules/",
    "tests/unit/plugins/action/",
    "tests/unit/plugins/filter/",
    "tests/unit/plugins/plugin_utils/",
    "tests/unit/roles/",
    "tests/unit/fleet/",
]

PIP_SETTINGS = ("cert", "extra-index-url", "find-links", "index-url", "proxy", "timeout", "trusted-host")
SEEDING = """
import ensurepip
import os
import sys

ensurepip.bootstrap(default_pip=True, upgrade=True)
with open(os.path.join(sys.prefix, "pip.conf"), "w", encoding="utf-8") as config:
    config.write("[global]\\n")
    for name, value in sorted(SETTINGS.items()):
        config.write(f"{name} = {value}\\n")
"""

# ansible-test looks for interpreters on PATH alone, so the real ones come first.
os.environ["PATH"] = os.pathsep.join([*pythons.interpreter_folders(), os.environ["PATH"]])
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

antsibull_nox.load_antsibull_nox_toml()


@nox.session(name="format-check")
def format_check(session: nox.Session) -> None:
    """Check the format of every Python file: black."""
    session.install(BLACK)
    session.run("black", "--quiet", "--check", "--diff", ".")


@nox.session(name="format", default=False)
def format_files(session: nox.Session) -> None:
    """Format every Python file: black."""
    session.install(BLACK)
    session.run("black", *(session.posargs or ["."]))


def pip_settings() -> dict[str, str]:
    """Where pip shall download from and whom it trusts: what the environment says, else the system's authorities."""
    settings = {}
    for name in PIP_SETTINGS:
        value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
        if value:
            settings[name] = value
    authorities = ssl.get_default_verify_paths().cafile
    if authorities:
        settings.setdefault("cert", authorities)
    return settings


def seed_pip() -> None:
    """Let ansible-test make its virtual environments from what Python brings, without a download.

    That pip is an old one with authorities of its own, and ansible-test clears the environment: so the virtual
    environment gets a configuration with what this process would use.
    """
    cache = Path.home() / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in ("24_2", "25_2"):
        script = cache / f"get_pip_{version}.py"
        if not script.exists() or "ensurepip.bootstrap" in script.read_text():
            # whole at once, since other sessions may read it at this moment
            fresh = script.with_name(f".{script.name}-{os.getpid()}")
            fresh.write_text(f"SETTINGS = {pip_settings()!r}\n{SEEDING}")
            fresh.replace(script)


def keep_module_code(name: str) -> None:
    """Let the Python that runs integration targets build and compile each of the modules once."""
    environment = ROOT / ".nox" / name.replace(".", "-")
    (packages,) = environment.glob("lib/python3*/site-packages")
    module_code.install(str(environment), str(packages))


def keep_results(source: Path, name: str) -> None:
    """Keep what a session of ansible-test has noted of each of its tests, for the summary."""
    if source.is_dir():
        shutil.copytree(source, RESULTS / name, dirs_exist_ok=True)


def add(kind: str, core: str, params: list[str], part: str = "") -> None:
    """A session of ansible-test on this machine, in the copy that antsibull-nox makes."""
    name = f"{kind}-{core}{part}"

    def before() -> None:
        # runs in the copy, which is removed at exit: what is registered later runs earlier, and after a failure too
        atexit.register(keep_results, Path.cwd() / "tests" / "output" / "junit", name)
        seed_pip()
        if kind == "units" and os.environ.get("OCI_SIGNATURES"):
            # ansible-test hides the environment from its tests
            Path("tests", "unit", "signatures_folder.txt").write_text(os.path.abspath(os.environ["OCI_SIGNATURES"]))
        if kind == "integration":
            keep_module_code(name)
            some = ["--topics", *TOPICS_WITH_EACH] if newest_runs_more(core) else []
            subprocess.run([sys.executable, "tests/tools/integration_config.py", *some], check=True)

    def after() -> None:
        # left behind by ansible-test, and in the way of antsibull-nox
        output = Path.cwd() / "tests" / "output"
        removal.remove_below(output, output / ".tmp")

    antsibull_nox.add_ansible_test_session(
        name=name,
        description=f"Run {kind} tests with ansible-core {core} on this machine",
        ansible_test_params=[kind, "--color", "no", *params],
        default=True,
        ansible_core_version=core,
        ansible_core_source="pypi",
        register_name=kind,
        callback_before=before,
        callback_after=after,
    )


def add_skipped(name: str, reason: str) -> None:
    """A session that cannot run here, and says so."""

    @nox.session(name=name, python=False)
    def skipped(session: nox.Session) -> None:
        session.skip(reason)

    skipped.__doc__ = f"Not here: {reason}"


def runs(core: str) -> bool:
    """Whether this ansible-core finds a Python here."""
    return any(map(pythons.find, pythons.CONTROLLERS[core]))


def newest_runs_more(core: str) -> bool:
    """Whether what Ansible has no part in can be left to the newest ansible-core."""
    return core != NEWEST and runs(NEWEST)


def left_out(core: str) -> list[str]:
    """Parameters that leave out the targets which another ansible-core runs here."""
    folder = ROOT / "tests" / "integration" / "targets"
    params = []
    for target in sorted(path.name for path in folder.iterdir()):
        for name, other in ONCE.items():
            if target.startswith(name) and other != core and runs(other):
                params += ["--exclude", target]
    return params


def add_units(core: str) -> None:
    """The unit tests of one ansible-core: all of them with the oldest and the newest Python of this machine."""
    ends = pythons.ends(filter(runs, pythons.NODES))
    everything = WITH_EACH if newest_runs_more(core) else []
    for part, tests, is_end in (("", everything, True), ("-between", BETWEEN, False)):
        targets = []
        for version in pythons.NODES[core]:
            path = pythons.find(version)
            if path and (version in ends) is is_end:
                targets += ["--target-python", f"venv/{version}@{path}"]
        if targets:
            add("units", core, ["--requirements", *targets, *tests], part)
    for version in pythons.NODES[core]:
        if not pythons.find(version):
            add_skipped(f"units-{core}-python-{version}", f"there is no Python {version}")


def add_all(core: str) -> None:
    """All sessions of one ansible-core."""
    if not runs(core):
        reason = f"ansible-core {core} needs Python {' or '.join(pythons.CONTROLLERS[core])}"
        for kind in ("units", "integration"):
            add_skipped(f"{kind}-{core}", reason)
        return
    if core == NEWEST:
        # once: units of the older one compile and import every file with its own Pythons
        add("sanity", core, ["--junit"])
    refused = confinement.why_not_here()
    if refused:
        # sanity looks at files only
        add_skipped(f"units-{core}", refused)
        add_skipped(f"integration-{core}", refused)
        return
    add_units(core)
    if os.geteuid() == 0:
        # one target that fails hides no other
        params = ["--requirements", "--local", "--allow-destructive", "--continue-on-error"]
        add("integration", core, [*params, *left_out(core)])
    else:
        add_skipped(f"integration-{core}", "integration tests need root")


for _core in pythons.NODES:
    add_all(_core)

if __name__ == "__main__":
    nox.main()

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# /// script
# dependencies = ["nox>=2026.8.10", "antsibull-nox", "ansible-core"]
# ///

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import antsibull_nox
import nox

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests" / "tools"))

import pythons  # noqa: E402
import summary  # noqa: E402

SUMMARY = ROOT / ".nox" / "summary"
REAL_IMAGES = ROOT.parent / "shared" / "images" / "real"

# ansible-test looks for interpreters on PATH alone, so the real ones come first.
os.environ["PATH"] = os.pathsep.join(
    [*pythons.interpreter_folders(), os.environ["PATH"]]
)
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

antsibull_nox.load_antsibull_nox_toml()


def seed_pip() -> None:
    """Let ansible-test make its virtual environments from what Python brings, without a download."""
    cache = Path.home() / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in ("24_2", "25_2"):
        script = cache / f"get_pip_{version}.py"
        if not script.exists():
            script.write_text(
                "import ensurepip\n\nensurepip.bootstrap(default_pip=True, upgrade=True)\n"
            )


def configure_integration() -> None:
    """Tell the integration targets where real images are, if they are there."""
    env = dict(os.environ)
    if REAL_IMAGES.is_dir():
        env.setdefault("OCI_REAL_IMAGES", str(REAL_IMAGES))
    subprocess.run(
        [sys.executable, "tests/tools/integration_config.py"], env=env, check=True
    )


def add(kind: str, core: str, versions: list[str], params: list[str]) -> None:
    """A session of ansible-test on this machine, in the copy that antsibull-nox makes."""
    name = f"{kind}-{core}"

    def before() -> None:
        seed_pip()
        if kind == "integration":
            configure_integration()

    def after() -> None:
        summary.note(str(SUMMARY), name, versions, "tests/output/junit")
        # left behind by ansible-test, and in the way of antsibull-nox
        shutil.rmtree("tests/output/.tmp", ignore_errors=True)

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


for _core, _wanted in pythons.NODES.items():
    _nodes = pythons.available(_wanted)
    if not _nodes or not pythons.available(pythons.CONTROLLERS[_core]):
        # named in the summary
        continue
    _targets = [
        word for version in _nodes for word in ("--target-python", f"venv/{version}")
    ]
    add("units", _core, _nodes, ["--requirements", *_targets])
    if _core == max(pythons.NODES):
        add("sanity", _core, [], ["--exclude", "Makefile"])
    if os.geteuid() == 0:
        add(
            "integration",
            _core,
            [],
            ["--requirements", "--local", "--allow-destructive"],
        )

if __name__ == "__main__":
    nox.main()

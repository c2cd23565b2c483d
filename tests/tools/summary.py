# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says what a run of all checks really ran, and fails where something required did not.

Every session leaves a file of what it ran; nothing here is taken from what was planned.

    summary.py FOLDER [--require SESSION:PYTHON ...]
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import typing as t
from xml.etree import ElementTree

import pythons


def note(folder: str, session: str, versions: list[str], junit: str) -> None:
    """Leave the file of one session; C(junit) is a folder of result files."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for path in glob.glob(os.path.join(junit, "*.xml")):
        for suite in ElementTree.parse(path).iter("testsuite"):
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped = int(suite.get("skipped", suite.get("disabled", 0)))
            counts["failed"] += failed
            counts["skipped"] += skipped
            counts["passed"] += int(suite.get("tests", 0)) - failed - skipped
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, session + ".json"), "w", encoding="utf-8") as file:
        json.dump({"session": session, "pythons": versions, **counts}, file)


def main() -> int:
    """Print the summary; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--require", action="append", default=[])
    options = parser.parse_args()
    ran = {item["session"]: item for item in _read(options.folder)}
    for session, item in sorted(ran.items()):
        nodes = f" (Python {', '.join(item['pythons'])})" if item["pythons"] else ""
        print(
            f"ran {session}{nodes}: {item['passed']} passed, {item['failed']} failed, {item['skipped']} skipped"
        )
    for core, versions in pythons.NODES.items():
        if not pythons.available(pythons.CONTROLLERS[core]):
            print(f"missing: no Python that runs ansible-core {core}")
        for version in versions:
            if pythons.find(version) is None:
                print(f"missing: Python {version}, a node of ansible-core {core}")
    if os.geteuid() != 0:
        print("skipped: integration, which needs root")
    status = 0
    for wanted in options.require:
        session, _colon, version = wanted.partition(":")
        if version not in ran.get(session, {}).get("pythons", []):
            print(f"required, but did not run: {session} with Python {version}")
            status = 1
    total = {
        key: sum(item[key] for item in ran.values())
        for key in ("passed", "failed", "skipped")
    }
    print(
        f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped"
    )
    return status


def _read(folder: str) -> t.Iterator[dict[str, t.Any]]:
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        with open(path, encoding="utf-8") as file:
            yield json.load(file)


if __name__ == "__main__":
    raise SystemExit(main())

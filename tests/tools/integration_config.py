# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes tests/integration/integration_config.yml, by which ansible-test hands variables to integration targets.

    python3 tests/tools/integration_config.py [--topics NAME...]

ansible-test hides the environment from its targets. Run this in the folder that ansible-test runs in, with
``OCI_REAL_IMAGES`` set to the absolute path of a folder of images that others published; without it the target that
compares them says that it skipped. ``--topics`` are those of the target oci_rootfs to run, instead of all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

CONFIG = os.path.join("tests", "integration", "integration_config.yml")
VARIABLE = "OCI_REAL_IMAGES"


def main() -> int:
    """Write the file for what the environment says; returns the exit status."""
    if not os.path.isdir(os.path.dirname(CONFIG)):
        print("run this in the collection's own folder", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser()
    parser.add_argument("--topics", nargs="+", default=[], metavar="NAME")
    topics = parser.parse_args().topics
    folder = os.environ.get(VARIABLE, "")
    variables: dict[str, object] = {}
    if folder:
        variables["oci_rootfs_real_images_folder"] = os.path.abspath(folder)
    if topics:
        variables["oci_rootfs_topics"] = topics
    if not variables:
        if os.path.exists(CONFIG):
            os.unlink(CONFIG)
        print(f"nothing to say: no {CONFIG}")
        return 0
    # JSON is YAML, and quotes any path
    with open(CONFIG, "w", encoding="utf-8") as file:
        json.dump(variables, file, indent=2)
        file.write("\n")
    print(f"wrote {CONFIG}: {', '.join(sorted(variables))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

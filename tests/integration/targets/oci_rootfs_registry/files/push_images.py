# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pushes the images of a folder to a registry by skopeo, and prints a list of them as JSON.

push_images.py FOLDER HOST:PORT WORK   an image is real/NAME:1 there; WORK is a folder for what skopeo cannot read as it is
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys


def source(path: str, work: str) -> str:
    """Return an image's name as skopeo wants it."""
    if os.path.isdir(path):
        return f"oci:{path}"
    if path.endswith(".gz"):
        unpacked = os.path.join(work, os.path.basename(path)[:-3])
        with gzip.open(path) as compressed, open(unpacked, "wb") as file:
            shutil.copyfileobj(compressed, file)
        path = unpacked
    return f"docker-archive:{path}" if ".docker." in path else f"oci-archive:{path}"


def main() -> None:
    """Push all of them."""
    folder, registry, work = sys.argv[1:]
    pushed = []
    for name in sorted(os.listdir(folder)):
        short = re.sub(r"[^a-z0-9]+", "-", name.lower())
        words = ["skopeo", "--insecure-policy", "copy", "-q", "--all", "--dest-tls-verify=false"]
        target = f"{registry}/real/{short}:1"
        subprocess.run([*words, source(os.path.join(folder, name), work), f"docker://{target}"], check=True)
        architecture = "arm64" if "arm64" in name else "amd64"
        pushed.append({"name": short, "target": target, "architecture": architecture})
    print(json.dumps(pushed))


if __name__ == "__main__":
    main()

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images and helpers of the tests that run ``provision``."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    directory,
    file,
    whiteout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import run

PASSWD = "root:x:0:0::/:\napp:x:1000:1000::/:\n"
GROUP = "staff:x:50:app\n"
ONE = Image(
    [
        Layer(
            directory(".", 0o755, mtime=1),
            directory("etc", 0o755, mtime=2),
            file("etc/passwd", PASSWD),
            file("etc/group", GROUP),
            file("bin/app", "one", 0o755, mtime=3),
        ),
        Layer(whiteout("etc/nothing"), file("data/one", "1", 0o600)),
    ],
    {"Entrypoint": ["/bin/app"], "User": "app", "Env": ["A=1"], "Labels": {"v": "1"}},
    ref="demo:1",
)
TWO = Image(
    [ONE.layers[0], Layer(file("bin/app", "two", 0o755), file("data/two", "2"))],
    {"Entrypoint": ["/bin/app"], "User": "app", "Env": ["A=2"], "Labels": {"v": "1"}},
    ref="demo:2",
)
GOOD = Layer(file("good", b"x"))


def archive(tmp_path: Path, *layers: t.Any, **image: t.Any) -> str:
    """An archive of an image of these layers."""
    return write_oci_archive(tmp_path / "image.tar", Image(layers, **image))


def refused(dest: Path, **changes: t.Any) -> str:
    """The one sentence of a run that fails."""
    with pytest.raises(OciError) as caught:
        run(dest, **changes)
    message = caught.value.message
    assert "\n" not in message
    return message


def beside_of(dest: Path) -> Path:
    """The private folder."""
    return dest.parent / f".{dest.name}.oci_rootfs"


def names_beside(dest: Path) -> list[str]:
    """What the private folder holds, without the journals of the trees that its record names."""
    beside = beside_of(dest)
    record = json.loads((beside / "record.json").read_text()) if (beside / "record.json").exists() else {}
    trees = [record.get("tree"), record.get("next"), *record.get("generations", [])]
    journals = {f"{tree['papers']}.journal" for tree in trees if tree and tree["papers"]}
    return sorted(set(os.listdir(beside)) - journals)


def everything(top: Path) -> dict[str, t.Any]:
    """All that is on disk, with inode numbers and times of change: any write shows."""
    found: dict[str, t.Any] = {}
    for folder, folders, files in os.walk(top):
        for name in [".", *folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            found[path] = (status.st_ino, status.st_mode, status.st_ctime_ns)
    return found

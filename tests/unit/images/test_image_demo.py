# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example image of the demo: the script as it is run, and what is in its archive."""

from __future__ import annotations

import gzip
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

from ansible_collections.hypervisor.oci.tests.images import build_demo


def run(path: pathlib.Path, seed: str) -> bytes:
    """Run the script in a process of its own."""
    subprocess.run(
        [sys.executable, "-B", build_demo.__file__, str(path)],
        check=True,
        timeout=60,
        cwd=str(path.parent),
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    return path.read_bytes()


def test_two_runs_write_the_same(tmp_path: pathlib.Path) -> None:
    """Byte for byte, in other processes, by another order of hashes; and small."""
    first = run(tmp_path / "first.oci.tar", "1")
    second = run(tmp_path / "second.oci.tar", "2")
    assert first == second
    assert len(first) < 300_000


def test_what_it_holds(tmp_path: pathlib.Path) -> None:
    """docs/behaviour.md, sections 2, 5 and 8: two platforms, whiteouts, a full config."""
    data = run(tmp_path / "demo.oci.tar", "0")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        blobs = {info.name: stream.read() for info in archive if (stream := archive.extractfile(info)) is not None}

    (listed,) = json.loads(blobs["index.json"])["manifests"]
    manifests = json.loads(blobs[blob_name(listed["digest"])])["manifests"]
    assert [entry["platform"]["architecture"] for entry in manifests] == ["amd64", "arm64"]
    layers = []
    for entry in manifests:
        manifest = json.loads(blobs[blob_name(entry["digest"])])
        layers.append([layer["digest"] for layer in manifest["layers"]])
        config = json.loads(blobs[blob_name(manifest["config"]["digest"])])
        assert config["architecture"] == entry["platform"]["architecture"]
        assert set(config["config"]) == {
            "Entrypoint",
            "Cmd",
            "Env",
            "User",
            "WorkingDir",
            "Labels",
            "ExposedPorts",
            "Volumes",
            "StopSignal",
            "Healthcheck",
        }
    assert layers[0] == layers[1] and len(layers[0]) == 3
    names: list[str] = []
    for digest in layers[0]:
        blob = blobs[blob_name(digest)]
        plain = gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob
        with tarfile.open(fileobj=io.BytesIO(plain)) as layer:
            names += layer.getnames()
            kinds = {info.type for info in layer}
            assert kinds <= {b"0", b"1", b"2", b"5"}
    assert {"etc/passwd", "etc/group", "etc/.wh.motd", "bin/app-admin"} <= set(names)
    assert "var/cache/packages/.wh..wh..opq" in names


def blob_name(digest: str) -> str:
    """Where an image layout holds a blob."""
    return "blobs/" + digest.replace(":", "/")

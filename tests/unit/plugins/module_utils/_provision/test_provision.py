# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole runs, and runs that change nothing (docs/behaviour.md, sections 7 and 8)."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._source import range_reader
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    directory,
    file,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import Watched, contents, needs_user, run, tree
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import (
    PASSWD,
    GROUP,
    ONE,
    archive,
    refused,
    names_beside,
    everything,
)


def test_the_first_run(dest: Path, one: str) -> None:
    result = run(dest, src=one)
    assert result["changed"] is True
    assert contents(dest) == {
        "bin": None, "bin/app": b"one", "data": None, "data/one": b"1", "etc": None,
        "etc/group": GROUP.encode(), "etc/passwd": PASSWD.encode(),
    }  # fmt: skip
    assert tree(dest)["."].mtime == 10**9
    assert result["dest"] == str(dest)
    assert result["manifest_digest"] == ONE.manifest_digest
    assert result["config_digest"] == ONE.config_digest
    assert result["platform"] == "linux/amd64"
    assert result["ref"] == "demo:1"
    assert result["layers"] == [
        {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size, "media_type": layer.media_type}
        for layer in ONE.layers
    ]
    image = result["image"]
    assert image["argv"] == ["/bin/app", "/bin/sh"]
    assert (image["user"], image["uid"], image["gid"], image["groups"]) == ("app", 1000, 1000, [50])  # fmt: skip
    assert image["home"] == "/"
    report = result["report"]
    assert (report["entries"], report["files"], report["whiteouts"]) == (7, 4, 1)
    assert report["counts"] == {"whiteouts_of_nothing": 1}
    assert result["warnings"] == []
    json.dumps(result)


def test_a_run_that_changes_nothing_opens_no_layer(dest: Path, one: str, sources: list[Watched]) -> None:
    """Section 7: it reads the documents and the record."""
    layers = {layer.path for layer in ONE.layers}
    first = run(dest, src=one)
    assert layers <= set(sources[0].reads)
    before = everything(dest.parent)
    for check_mode in (False, True, False):
        again = run(dest, src=one, check_mode=check_mode)
        assert again["changed"] is False
        # the same facts, from the record
        for result in (first, again):
            result.pop("changed", None)
            result.pop("diff", None)
        assert again == first
    for source in sources[1:]:
        assert source.reads
        assert not layers & set(source.reads)
    # nothing was written; the folder's own time shows only that it was looked for leftovers
    assert everything(dest).items() <= before.items()


@pytest.mark.parametrize("form", ["archive", "directory", "docker", "old docker"])
def test_a_run_that_changes_nothing_costs_the_same_whatever_the_image(
    tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Section 7: the bytes read do not grow with layers."""
    read: list[int] = []
    real = range_reader.FileAccess.read_at

    def read_at(self: t.Any, offset: int, count: int) -> bytes:
        data = real(self, offset, count)
        read.append(len(data))
        return data

    monkeypatch.setattr(range_reader.FileAccess, "read_at", read_at)
    costs = []
    for size in (1000, 4_000_000):
        noise = os.urandom(size)
        image = Image([Layer(file("noise", noise), compression="none")])
        src = str(tmp_path / str(size))
        if form == "directory":
            write_layout(src, image)
        elif form == "archive":
            write_oci_archive(src, image)
        else:
            write_docker_archive(src, image, style="old" if form == "old docker" else "new")  # fmt: skip
        run(dest, src=src)
        del read[:]
        assert run(dest, src=src)["changed"] is False
        costs.append(sum(read))
    assert 0 < costs[1] < costs[0] + 3000
    assert costs[1] < 100_000


def test_the_same_facts_for_every_form_of_source(tmp_path: Path, dest: Path) -> None:
    """Section 1; one image is one image, whatever holds it."""
    sources = {
        "archive": write_oci_archive(tmp_path / "a.tar", ONE),
        "compressed": write_oci_archive(tmp_path / "a.tar.gz", ONE, compression="gzip"),
        "layout": write_layout(tmp_path / "layout", ONE),
        "docker": write_docker_archive(tmp_path / "d.tar", ONE, repo_tags=[["demo:1"]]),
    }
    digests = set()
    for form, src in sources.items():
        result = run(dest, src=src)
        digests.add((result["manifest_digest"], result["config_digest"]))
        assert result["changed"] is (form == "archive")
    assert digests == {(ONE.manifest_digest, ONE.config_digest)}


def test_an_old_docker_archive_has_no_manifest(tmp_path: Path, dest: Path) -> None:
    """Section 1: the config's digest is its identity, and that of a layer its diff_id."""
    src = write_docker_archive(tmp_path / "d.tar", ONE, style="old")
    result = run(dest, src=src)
    assert result["manifest_digest"] is None
    assert result["config_digest"] == ONE.config_digest
    assert [layer["digest"] for layer in result["layers"]] == ONE.diff_ids
    again = run(dest, src=src)
    assert (again["changed"], again["layers"]) == (False, result["layers"])


@pytest.mark.parametrize("compression", ["gzip", "zstd-stored"])
def test_an_archive_compressed_as_a_whole(tmp_path: Path, dest: Path, compression: t.Any) -> None:
    """Section 1: unpacked through a nameless file; nothing of it stays."""
    src = write_oci_archive(tmp_path / "a", ONE, compression=compression)
    assert run(dest, src=src, check_mode=True)["changed"] is True
    assert os.listdir(dest.parent) == []
    assert run(dest, src=src)["changed"] is True
    assert contents(dest)["bin/app"] == b"one"
    assert sorted(os.listdir(dest)) == ["bin", "data", "etc"]
    assert names_beside(dest) == ["record.json"]
    assert run(dest, src=src)["changed"] is False


def test_the_ref_is_todays(tmp_path: Path, dest: Path, one: str) -> None:
    """The same image may go by another name: nothing changes but what is said of it."""
    assert run(dest, src=one)["ref"] == "demo:1"
    renamed = write_oci_archive(tmp_path / "renamed.tar", ONE.listed(ref="other:9"))
    result = run(dest, src=renamed)
    assert (result["changed"], result["ref"]) == (False, "other:9")


@needs_user
def test_an_ordinary_user(dest: Path, one: str) -> None:
    """Section 6: everything is his own, and all states work."""
    run(dest, src=one)
    assert {node.uid for node in tree(dest).values()} == {os.geteuid()}
    closed = Image([Layer(directory(".", 0o555), directory("d", 0o500), file("d/f", mode=0o400))])  # fmt: skip
    src = write_oci_archive(dest.parent / "closed.tar", closed)
    for _time in range(2):
        assert run(dest, src=src)["changed"] is True
        assert run(dest, src=src)["changed"] is False
        assert run(dest, src=one)["changed"] is True
        assert run(dest, state="previous")["changed"] is True
        assert tree(dest)["."].mode == 0o555
        run(dest, src=one)
    assert run(dest, state="absent")["changed"] is True
    assert os.listdir(dest.parent) == ["closed.tar"]


def test_a_missing_source_touches_nothing(dest: Path, one: str) -> None:
    run(dest, src=one)
    before = everything(dest.parent)
    assert "missing.tar" in refused(dest, src=str(dest.parent / "missing.tar"))
    assert everything(dest.parent) == before


def test_a_source_that_changes_on_the_way(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that is shortened while it is read is an error, not half a tree."""
    content = os.urandom(8 * 1024 * 1024)
    src = archive(tmp_path, Layer(file("f", content), compression="none"))
    real = os.write

    def write(fd: int, data: bytes) -> int:
        os.truncate(src, 20_000)
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    message = refused(dest, src=src)
    assert message == (f"'{src}' became shorter while it was read; run again when the file is complete")
    assert os.listdir(dest.parent) == []

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests remove what they made, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.tools import removal
from ansible_collections.hypervisor.oci.tests.tools.removal import (
    NotOurs,
    make_folder,
    remove_below,
    remove_content,
    remove_folder,
)

COLLECTION = Path(removal.ROOT)
# Where trees are removed otherwise, and why.
RAW = {
    # the helper itself
    "tests/tools/removal.py",
    # by a program of a container, in the container
    "tests/integration/targets/setup_runtimes/files/build_container_images.py",
    # on a node, in the temporary folder of its user
    "tests/fleet/lab.py",
    # the words that are looked for
    "tests/unit/tools/test_remove_below.py",
    "tests/unit/tools/test_sandbox.py",
}
WORDS = re.compile(
    r"""rmtree\(|removedirs\(
    | \brm["']?,?\s+["']?(-\w*[rR]|--recursive)
    | \bfind\b.*\s-delete\b
    | ansible\.builtin\.file:(\n\s+(?!-)\S.*)*\n\s+state:\ absent
    """,
    re.VERBOSE,
)


@pytest.fixture(name="system")
def fixture_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for a system, in which tests work below its /tmp alone."""
    for name in ("etc", "tmp/test/tree", "tmp/other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    monkeypatch.setattr(removal, "PLACES", (str(tmp_path / "tmp"),))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    return tmp_path


def names(top: Path) -> list[str]:
    """Everything below a folder."""
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def test_what_lies_below_a_folder_of_the_tests_is_removed(system: Path) -> None:
    folder = system / "tmp/test"
    remove_below(folder, folder / "tree")
    remove_below(folder, folder / "file")
    remove_below(folder, folder / "not there")
    assert names(folder) == []
    remove_below(system / "tmp", folder)
    assert names(system / "tmp") == ["other", "other/file"]


def test_bytes_and_names_of_any_kind(system: Path) -> None:
    folder = os.fsencode(system / "tmp/test")
    path = folder + b"/\xff\n name"
    os.mkdir(path)
    remove_below(folder, path)
    assert not os.path.lexists(path)


def test_a_link_is_removed_and_not_what_it_leads_to(system: Path) -> None:
    link = system / "tmp/test/link"
    link.symlink_to(system / "etc")
    remove_below(system / "tmp/test", link)
    assert not os.path.lexists(link)
    assert (system / "etc/file").exists()


@pytest.mark.parametrize(
    "folder, path",
    [
        ("tmp/test", "etc"),
        ("tmp/test", "tmp/other"),
        ("tmp/test", "tmp/test"),
        ("tmp/test", "tmp"),
        ("tmp/test", "tmp/test/../other"),
        ("tmp/test", "tmp/test/out/file"),
        ("tmp/test", "tmp/test/."),
        ("etc", "etc/file"),
        (".", "etc"),
        (".", "tmp/test"),
        ("tmp/out", "tmp/out/file"),
    ],
)
def test_all_else_is_refused(system: Path, folder: str, path: str) -> None:
    (system / "tmp/test/out").symlink_to(system / "etc")
    (system / "tmp/out").symlink_to(system / "etc")
    before = names(system)
    with pytest.raises(NotOurs):
        remove_below(f"{system}/{folder}", f"{system}/{path}")
    assert names(system) == before


@pytest.mark.parametrize("path", ["", "tree", "./tree", "/", "//", "/.", "/.."])
def test_words_that_name_nothing_below(system: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(system / "tmp/test")
    before = names(system)
    with pytest.raises(NotOurs):
        remove_below(system / "tmp/test", path)
    with pytest.raises(NotOurs):
        remove_content(path)
    assert names(system) == before


def test_a_folder_is_made_and_removed(system: Path) -> None:
    made = make_folder("made-")
    assert os.path.dirname(made) == str(system / "tmp")
    remove_folder(made)
    assert not os.path.exists(made)
    with pytest.raises(NotOurs):
        make_folder("made-", str(system / "etc"))
    assert names(system / "etc") == ["file"]
    for folder in ("etc", "tmp", "."):
        with pytest.raises(NotOurs):
            remove_folder(system / folder)


def test_the_content_of_a_folder(system: Path) -> None:
    (system / "tmp/test/.hidden").mkdir()
    (system / "tmp/test/out").symlink_to(system / "etc")
    remove_content(system / "tmp/test")
    assert names(system / "tmp/test") == []
    assert names(system / "etc") == ["file"]


def test_the_command_removes_nothing_if_one_path_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def status(*words: t.Any) -> int:
        command = [sys.executable, removal.__file__, *map(str, words)]
        return subprocess.run(command, check=False, capture_output=True).returncode

    assert status(tmp_path / "a", tmp_path / "a/x", tmp_path / "b") != 0
    assert status(tmp_path, tmp_path / "a", "/etc/not there") != 0
    assert names(tmp_path) == ["a", "b"]
    assert status(tmp_path, tmp_path / "a", tmp_path / "b") == 0
    assert names(tmp_path) == []


def _sources() -> t.Iterator[Path]:
    for suffix in ("py", "sh", "yml"):
        yield from (COLLECTION / "tests").rglob(f"*.{suffix}")
    yield from filter(Path.is_file, [COLLECTION / "noxfile.py"])


def test_no_test_removes_trees_by_other_means() -> None:
    found = {
        str(path.relative_to(COLLECTION)): match[0]
        for path in _sources()
        if "output" not in path.relative_to(COLLECTION).parts
        for match in [WORDS.search(path.read_text(encoding="utf-8"))]
        if match
    }
    assert {name: found[name] for name in set(found) - RAW} == {}


@pytest.mark.parametrize(
    "text",
    [
        "shutil.rmtree(path)",
        "rm -rf -- * .[!.]*",
        "rm -r x",
        '["rm", "-fr", x]',
        "find /x -type f -delete",
        "ansible.builtin.file:\n    path: x\n    state: absent",
    ],
)
def test_the_words_are_found(text: str) -> None:
    assert WORDS.search(text)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one command that looks at a node, as it runs (docs/behaviour.md, section 10)."""

from __future__ import annotations

import base64
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Node
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.look import look_command, parse_look


def look(**wanted: t.Sequence[str]) -> Node:
    """Return what is found on this machine, without words on standard error."""
    command = look_command(**{**dict.fromkeys(("programs", "version", "paths", "texts"), ()), **wanted})
    done = subprocess.run(command, check=True, capture_output=True, encoding="ascii", timeout=60)
    assert done.stderr == ""
    return parse_look(done.stdout)


def test_nothing() -> None:
    assert look() == Node()


def test_programs() -> None:
    assert look(programs=["sh", "no-such-program", "cat", "nor-this"]).missing == ("no-such-program", "nor-this")
    assert look(programs=["sh", "cat"]).missing == ()


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo 6.0.4", "6.0.4"),
        ("echo 1.1; echo commit: x; echo noise >&2", "1.1\ncommit: x"),
        ("echo path eA==; exit 3", "path eA=="),
        ("printf '\\377'", "\udcff"),
        ("exit 1", None),
    ],
)
def test_the_version(tmp_path: Path, script: str, version: str | None) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\n[ "$*" = "--version -v" ] || exit 9\n{script}\n')
    program.chmod(0o755)
    assert look(version=[str(program), "--version", "-v"]) == Node(version=version)


def test_a_program_without_a_version() -> None:
    assert look(version=["no-such-program", "--version"]).version is None


def test_paths_that_exist(tmp_path: Path) -> None:
    """Of whatever kind, as they are: a link to nothing is there."""
    names = ["file", "folder", "dangling", "with space", "with\nline end", "-n", "ä"]
    for name in names:
        if name == "dangling":
            os.symlink("nowhere", tmp_path / name)
        elif name == "folder":
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_bytes(b"")
    paths = [str(tmp_path / name) for name in names]
    assert look(paths=[*paths, str(tmp_path / "missing"), str(tmp_path / "with")]).paths == frozenset(paths)


def test_texts(tmp_path: Path) -> None:
    """Of regular files alone, since others may never end; links are followed."""
    contents = {
        "empty": b"",
        "binary": bytes(range(256)),
        "large": b"x" * 300_000,
        "lines": b"missing sh\nversion eA==\ntext eA== eA==\n",
        "with\nline end": b"a",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.symlink("lines", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    names = [*contents, "link", "fifo", ".", "missing"]
    node = look(texts=[str(tmp_path / name) for name in names])
    expected = {**contents, "link": contents["lines"]}
    assert node == Node(
        texts={str(tmp_path / name): text.decode("utf-8", "surrogateescape") for name, text in expected.items()}
    )


def test_all_at_once(tmp_path: Path) -> None:
    here = str(tmp_path)
    (tmp_path / "f").write_bytes(b"x\xff")
    node = look(programs=["no-such"], version=["echo", "6.0.4"], paths=[here], texts=[f"{here}/f", f"{here}/g"])
    assert node == Node(("no-such",), "6.0.4", frozenset([here]), {f"{here}/f": "x\udcff"})


@pytest.mark.parametrize(
    "output",
    ["", "\n", "noise", "path", "text", "version", "text eA==", "text ? ?", "path \xff", "text eA== eA== eA=="],
)
def test_output_that_is_not_its_own(output: str) -> None:
    """A login script may print before it; nothing of that ends the run."""
    node = parse_look(output)
    assert (node.missing, node.version) == ((), None)
    assert not any(node.texts.values())


def test_a_word_that_is_not_base64() -> None:
    text = base64.b64encode(b"/c").decode()
    assert parse_look(f"text {text} ?").texts == {"/c": ""}

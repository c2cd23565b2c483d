# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a diff shows of a container's files: names of variables, never their values (docs/behaviour.md, section 9)."""

from __future__ import annotations

import json

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._container.diff import diff_of

OLD, NEW, GONE = "old-s3cret", "new-s3cret", "gone-s3cret"


def shown(kind: str, old: str, new: str) -> list[str]:
    """The lines that are taken out and added; no secret is among them."""
    text = diff_of("/f", kind, old.encode(), new.encode())
    assert "s3cret" not in text
    return [line for line in text.splitlines()[2:] if line[0] in "+-"]


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("lxc.environment = {}={}\n", "lxc.environment = {}="),
        ('lxc.environment.runtime = "{}={}"\n', 'lxc.environment.runtime = "{}='),
        ("lxc.environment.runtime: {}={}\n", "lxc.environment.runtime: {}="),
        ("Environment={}={}\n", "Environment={}="),
        ('Environment="{}={}"\n', 'Environment="{}='),
        ("Environment='{}={}'\n", "Environment='{}="),
        ("env: {}={}\n", "env: {}="),
    ],
)
def test_lines_of_settings(pattern: str, name: str) -> None:
    before = "first = 1\n" + pattern.format("A", OLD) + pattern.format("B", GONE)
    after = "first = 2\n" + pattern.format("A", NEW) + pattern.format("C", NEW)
    assert shown("settings", before, after) == [
        "-first = 1",
        "-" + name.format("A") + "********",
        "-" + name.format("B") + "********",
        "+first = 2",
        "+" + name.format("A") + "******** (changed)",
        "+" + name.format("C") + "********",
    ]


def test_a_line_that_goes_on_is_not_shown() -> None:
    """A file that somebody else wrote before."""
    before = f"Environment=A=1 \\\n B={OLD}\\\n C={OLD}\nBoot=no\n"
    assert shown("settings", before, "Boot=yes\n") == [
        "-Environment=A=********",
        "-********",
        "-********",
        "-Boot=no",
        "+Boot=yes",
    ]


def test_a_line_of_an_environment_without_a_name() -> None:
    found = shown("settings", "", f"lxc.environment = {NEW}\n")
    assert found[0] == "+lxc.environment =********"


def spec(*env: object, cwd: str = "/") -> str:
    hooks = {"prestart": [{"path": "/h", "env": list(env)}]}
    return json.dumps({"process": {"env": list(env), "cwd": cwd}, "hooks": hooks})


def test_a_spec() -> None:
    """Variables are wherever a key is called env: hooks have their own."""
    before = spec(f"A={OLD}", "SAME=s3cret", f"B={GONE}")
    after = spec(f"A={NEW}", "SAME=s3cret", NEW, {"D": NEW}, cwd="/c")
    gone = ["A=********", "B=********"]
    added = ["A=******** (changed)", "********", "********"]
    for field in ("process.env", "hooks.prestart[0].env"):
        found = [line for line in shown("spec", before, after) if field in line]
        assert [line for line in found if line[0] == "-"] == [f"-{field}: {text}" for text in gone]
        assert [line for line in found if line[0] == "+"] == [f"+{field}: {text}" for text in added]
    assert '+process.cwd: "/c"' in shown("spec", before, after)


def script(*exports: str, argv: str = "'run'") -> str:
    return "\n".join(["#!/bin/sh", "# Made", *exports, f"exec {argv}"]) + "\n"


def test_a_wrapper() -> None:
    """A value may have lines that look like something else, and quotes."""
    quoted = "'\\''"
    before = script(f"export A='{OLD}\nexport B={quoted}{OLD}\nexec {OLD}'")
    after = script(f"export A='{NEW}\n{quoted}'", f"export C='{NEW}'", argv="'a b'")
    assert shown("script", before, after) == [
        "-export A=********",
        "-exec 'run'",
        "+export A=******** (changed)",
        "+export C=********",
        "+exec 'a b'",
    ]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("none", f"A={OLD}\n"),
        ("unknown", f"A={OLD}\n"),
        ("spec", f"A={OLD}\n"),
        ("spec", "[" * 10**5),
        ("script", f"A={OLD}\n"),
        ("script", f"#!/bin/sh\nexport A={OLD}\nexec 'x'\n"),
        ("script", f"#!/bin/sh\nexport A='{OLD}"),
    ],
)
def test_what_is_not_understood_is_not_shown(kind: str, content: str) -> None:
    for old, new in ((content, "other"), ("other", content), ("", content)):
        found = diff_of("/f", kind, old.encode(), new.encode())
        assert found == "/f: the content changes but is not shown\n"
    assert diff_of("/f", kind, content.encode(), content.encode()) == ""


def test_a_diff_is_visible_and_bounded() -> None:
    content = b"\x1b[2J\xc2\x9b\n" + b"x" * 10**6 + b"\ny" * 10**5
    lines = diff_of("/f", "all", b"", content).splitlines()
    assert len(lines) == 502
    assert lines[-2] == "... and 503 more lines"
    assert lines[-1] == "... lines after the first 1000 of the file are not compared"
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 1100

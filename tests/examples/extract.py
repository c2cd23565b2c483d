# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Extract the examples of the documentation: YAML and INI blocks of pages, and EXAMPLES of plugins.

Commands of a shell and snippets in option descriptions are not extracted.
"""

from __future__ import annotations

import os
import re
import textwrap
import typing as t
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
_PAGES = ("README.md", "docs/*.md", "docs/docsite/rst/*.rst", "roles/*/README.md")
_PLUGINS = ("plugins/*/*.py", "plugins/*/*.yml")
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"^( *)\.\. code-block:: ([\w+]+)\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
_EXAMPLES = re.compile(r'^EXAMPLES = r?"""\n(.*?)^"""', re.MULTILINE | re.DOTALL)
_YAML = ("yaml", "yaml+jinja")
# Shown, but not for Ansible: commands, diagrams, and code of the tests.
_OTHERS = ("", "bash", "console", "json", "python", "sh", "shell", "text")


class Unknown(Exception):
    """A block whose kind is unknown."""


@dataclass(frozen=True)
class Example:
    """One block: its page, and the value of its YAML, or the text of an INI file."""

    page: str
    text: str
    value: t.Any

    @property
    def is_play(self) -> bool:
        """Whether it is a playbook."""
        return isinstance(self.value, list) and all("hosts" in item for item in self.value)

    @property
    def is_tasks(self) -> bool:
        """Whether it is a list of tasks."""
        return isinstance(self.value, list) and not any("hosts" in item for item in self.value)


def examples() -> dict[str, list[Example]]:
    """Return all examples by page. Plays and variables that several pages show are left to the first. Raises ``Unknown``."""
    found: dict[str, list[Example]] = {}
    shown: list[t.Any] = []
    for patterns, blocks_of in ((_PAGES, _blocks_of_page), (_PLUGINS, _blocks_of_plugin)):
        for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
            page = os.fspath(path.relative_to(ROOT))
            for language, text in blocks_of(path):
                if language in _OTHERS:
                    continue
                example = _example(page, language, text)
                if not example.is_tasks and example.value in shown:
                    continue
                shown.append(example.value)
                found.setdefault(page, []).append(example)
    return found


def _example(page: str, language: str, text: str) -> Example:
    if language == "ini":
        return Example(page, text, text)
    if language not in _YAML:
        raise Unknown(f"{page} has a block of the unknown language {language!r}")
    value = yaml.safe_load(text)
    if not isinstance(value, dict) and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise Unknown(f"{page} has a block that is neither tasks, plays nor variables:\n{text}")
    return Example(page, text, value)


def _blocks_of_page(path: Path) -> t.Iterator[tuple[str, str]]:
    pattern = _DIRECTIVE if path.suffix == ".rst" else _FENCED
    for _indent, language, text in pattern.findall(path.read_text("utf-8")):
        yield language, textwrap.dedent(text).strip("\n") + "\n"


def _blocks_of_plugin(path: Path) -> t.Iterator[tuple[str, str]]:
    text = path.read_text("utf-8")
    if path.suffix == ".yml":
        yield "yaml", yaml.safe_load(text)["EXAMPLES"]
    for block in _EXAMPLES.findall(text):
        yield "yaml", block

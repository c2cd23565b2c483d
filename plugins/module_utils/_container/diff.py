# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Render what ``--diff`` shows of images and container files, without values of environment variables.

Variables are shown by name, with a mark if the value changed. Content that cannot be parsed is not shown
(docs/behaviour.md, sections 8 and 9).
"""

from __future__ import annotations

import difflib
import json
import re
import typing as t
from collections import Counter
from dataclasses import dataclass

from .._errors import visible
from .._secrets import CHANGED, MASK

# Lines that are compared, which can take quadratic time, and lines that are shown.
_MOST_COMPARED = 1000
_MOST_LINES = 500
_LONGEST_LINE = 1000
# settings of LXC (with ':' in Proxmox VE) and systemd-nspawn
_ENVIRONMENT = re.compile(r"[ \t]*(?:lxc\.environment(?:\.[a-z]+)?|Environment|env)[ \t]*[=:]")
# an export of the exec wrapper: a name, and text in single quotes with escaped quotes in between
_EXPORT = re.compile(r"export ([A-Za-z_][A-Za-z0-9_]*)=((?:'[^']*'|\\')*)\n")


@dataclass(frozen=True)
class _Line:
    """A line: ``text`` may be shown; ``secret``, which follows it, may not."""

    text: str
    secret: str | None = None


def diff_of(path: str, kind: str, old: bytes | None, new: bytes | None) -> str:
    """Return a unified diff of a file's content, as far as its ``kind`` allows; empty if nothing changes."""
    if old == new:
        return ""
    before, after = (_lines(kind, content or b"") for content in (old, new))
    if before is None or after is None:
        return f"{visible(path, _LONGEST_LINE)}: the content changes but is not shown\n"
    is_cut = max(len(before), len(after)) > _MOST_COMPARED
    before, after = before[:_MOST_COMPARED], after[:_MOST_COMPARED]
    known = Counter(before)
    names = {line.text for line in before if line.secret is not None}
    texts = (
        [_shown(line, MASK) for line in before],
        [_shown(line, CHANGED if line.text in names and not known[line] else MASK) for line in after],
    )
    names_of_files = (f"{path} (before)", f"{path} (after)")
    lines = list(difflib.unified_diff(*texts, *names_of_files, lineterm=""))
    shown = [visible(line, _LONGEST_LINE) for line in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(f"... and {len(lines) - _MOST_LINES} more lines")
    if is_cut:
        shown.append(f"... lines after the first {_MOST_COMPARED} of the file are not compared")
    return "".join(f"{line}\n" for line in shown)


def _shown(line: _Line, mask: str) -> str:
    return line.text if line.secret is None else line.text + mask


def _lines(kind: str, content: bytes) -> list[_Line] | None:
    """Parse a text into lines; return ``None`` if it cannot be parsed."""
    readers = {"all": _plain, "settings": _settings, "spec": _spec, "script": _script}
    if not content:
        return []
    reader = readers.get(kind)
    return None if reader is None else reader(content.decode("utf-8", "replace"))


def _plain(text: str) -> list[_Line] | None:
    return [_Line(line) for line in text.splitlines()]


def _settings(text: str) -> list[_Line] | None:
    """Parse ``key = value`` and ``Key=value``; a continuation belongs to the line before."""
    found = []
    hidden = False
    for line in text.split("\n"):
        match = _ENVIRONMENT.match(line)
        if match is not None:
            name, equals, value = line[match.end() :].partition("=")
            found.append(_Line(f"{line[: match.end()]}{name}=", value) if equals else _Line(line[: match.end()], name))
        elif hidden:
            found.append(_Line("", line))
        else:
            found.append(_Line(line))
        hidden = (hidden or match is not None) and line.endswith("\\")
    return found


def _spec(text: str) -> list[_Line] | None:
    """Parse ``config.json``; everything below a key ``env``, at any level, is an environment."""
    try:
        document = json.loads(text)
        pending: list[_Line] = []
        _walk(document, "", pending, False)
    except (ValueError, RecursionError):
        return None
    return pending


def _walk(value: t.Any, where: str, found: list[_Line], hidden: bool) -> None:
    """Append a line for each value, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = f"{where}.{key}" if where else key
            _walk(item, name, found, hidden or key == "env")
    elif isinstance(value, list) and hidden:
        for item in value:
            name, equals, rest = item.partition("=") if isinstance(item, str) else ("", "", item)
            if equals:
                found.append(_Line(f"{where}: {name}=", rest))
            else:
                found.append(_Line(f"{where}: ", json.dumps(item)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _walk(item, f"{where}[{number}]", found, False)
    elif hidden:
        found.append(_Line(f"{where}: ", json.dumps(value)))
    else:
        found.append(_Line(f"{where}: {json.dumps(value)}"))


def _script(text: str) -> list[_Line] | None:
    """Parse the exec wrapper: comments, exports, and the command."""
    found = []
    place = 0
    while text.startswith("#", place):
        end = text.find("\n", place) + 1 or len(text)
        found.append(_Line(text[place:end].rstrip("\n")))
        place = end
    while True:
        match = _EXPORT.match(text, place)
        if match is None:
            break
        found.append(_Line(f"export {match.group(1)}=", match.group(2)))
        place = match.end()
    if not text.startswith("exec ", place):
        return None
    return found + [_Line(line) for line in text[place:].splitlines()]

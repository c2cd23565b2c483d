# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""What ``--diff`` may show of an image and of the files that describe a container: never the value of a variable.

A variable is shown by its name, and by whether its value changed. What cannot be understood is not shown at all
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

MASK = "********"
CHANGED = f"{MASK} (changed)"

# What is compared, which may take time by the square of it, and what is shown.
_MOST_COMPARED = 1000
_MOST_LINES = 500
_LONGEST_LINE = 1000
# How much of an image's value.
_MOST_ITEMS = 100
_LONGEST_ITEM = 500
# LXC's, with ':' in Proxmox VE, and systemd-nspawn's
_ENVIRONMENT = re.compile(
    r"[ \t]*(?:lxc\.environment(?:\.[a-z]+)?|Environment|env)[ \t]*[=:]"
)
# as the exec wrapper is made: a name, and pieces in single quotes with escaped ones between them
_EXPORT = re.compile(r"export ([A-Za-z_][A-Za-z0-9_]*)=((?:'[^']*'|\\')*)\n")


@dataclass(frozen=True)
class _Line:
    """``text`` may be shown; ``secret``, where there is one, stands behind it and may not."""

    text: str
    secret: str | None = None


def diff_of(path: str, kind: str, old: bytes | None, new: bytes | None) -> str:
    """A unified diff of a file's content, as its ``kind`` allows; empty where it is the same."""
    if old == new:
        return ""
    before, after = (_lines(kind, content or b"") for content in (old, new))
    if before is None or after is None:
        return (
            f"{visible(path, _LONGEST_LINE)}: the content changes, and is not shown\n"
        )
    is_cut = max(len(before), len(after)) > _MOST_COMPARED
    before, after = before[:_MOST_COMPARED], after[:_MOST_COMPARED]
    known = Counter(before)
    names = {line.text for line in before if line.secret is not None}
    texts = (
        [_shown(line, MASK) for line in before],
        [
            _shown(line, CHANGED if line.text in names and not known[line] else MASK)
            for line in after
        ],
    )
    names_of_files = (f"{path} (before)", f"{path} (after)")
    lines = list(difflib.unified_diff(*texts, *names_of_files, lineterm=""))
    shown = [visible(line, _LONGEST_LINE) for line in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(f"... and {len(lines) - _MOST_LINES} more lines")
    if is_cut:
        shown.append(f"... what follows the first {_MOST_COMPARED} lines of the file")
    return "".join(f"{line}\n" for line in shown)


def _shown(line: _Line, mask: str) -> str:
    return line.text if line.secret is None else line.text + mask


def _lines(kind: str, content: bytes) -> list[_Line] | None:
    """The lines of a text that is understood; ``None`` for what is not."""
    readers = {"all": _plain, "settings": _settings, "spec": _spec, "script": _script}
    if not content:
        return []
    reader = readers.get(kind)
    return None if reader is None else reader(content.decode("utf-8", "replace"))


def _plain(text: str) -> list[_Line] | None:
    return [_Line(line) for line in text.splitlines()]


def _settings(text: str) -> list[_Line] | None:
    """``key = value`` and ``Key=value``; a line that is continued belongs to the one before."""
    found = []
    hidden = False
    for line in text.split("\n"):
        match = _ENVIRONMENT.match(line)
        if match is not None:
            name, equals, value = line[match.end() :].partition("=")
            found.append(
                _Line(f"{line[: match.end()]}{name}=", value)
                if equals
                else _Line(line[: match.end()], name)
            )
        elif hidden:
            found.append(_Line("", line))
        else:
            found.append(_Line(line))
        hidden = (hidden or match is not None) and line.endswith("\\")
    return found


def _spec(text: str) -> list[_Line] | None:
    """``config.json``: what stands below a key ``env``, wherever it is, is an environment."""
    try:
        document = json.loads(text)
        pending: list[_Line] = []
        _walk(document, "", pending, False)
    except (ValueError, RecursionError):
        return None
    return pending


def _walk(value: t.Any, where: str, found: list[_Line], hidden: bool) -> None:
    """A line for each value, with the way to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = f"{where}.{key}" if where else key
            _walk(item, name, found, hidden or key == "env")
    elif isinstance(value, list) and hidden:
        for item in value:
            name, equals, rest = (
                item.partition("=") if isinstance(item, str) else ("", "", item)
            )
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
    """The exec wrapper: comments, exports, and what it becomes."""
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


def bounded(value: t.Any) -> t.Any:
    """Return an image's value as a diff shows it: visible, and not larger than anybody reads."""
    if isinstance(value, str):
        return visible(value, _LONGEST_ITEM)
    if isinstance(value, dict):
        shown = {
            visible(key, _LONGEST_ITEM): bounded(item)
            for key, item in list(value.items())[:_MOST_ITEMS]
        }
        return {**shown, **_rest(len(value), "...")}
    if isinstance(value, (list, tuple)):
        rest = _rest(len(value), "")
        return [*map(bounded, value[:_MOST_ITEMS]), *rest.values()]
    return value


def _rest(number: int, key: str) -> dict[str, str]:
    return {key: f"and {number - _MOST_ITEMS} more"} if number > _MOST_ITEMS else {}

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A reader of ``.nspawn`` files by systemd's own rules: the other side of the renderer's quoting.

The rules are those of systemd 252 (config_parse, extract_first_word, bind_mount_parse, tmpfs_mount_parse):
lines end with newline, carriage return or NUL; ``#`` and ``;`` begin a comment; a backslash that none before it
escapes, at the end of a line, joins the next one; a line that is no valid UTF-8 is dropped; values are
trimmed; there are no specifiers; words of lists are unquoted and keep their backslashes. What systemd only
logs is ``Misread`` here.
"""

from __future__ import annotations

import re
import typing as t


def _words(text: str) -> set[str]:
    return set(text.split())


# What this collection writes and systemd reads, from 249 on (nspawn-gperf.gperf of a release before 261).
KNOWN = {
    "Exec": _words("""
        Boot Parameters Environment User WorkingDirectory KillSignal Hostname PrivateUsers ResolvConf Timezone LinkJournal
        """),
    "Files": _words("PrivateUsersOwnership Bind BindReadOnly TemporaryFileSystem"),
    "Network": _words("Private VirtualEthernet"),
}
SECTIONS = ("Exec", "Network", "Files")
_BLANK = " \t\n\r"
_LINE_LIMIT = 1024 * 1024
_LISTS = ("Parameters", "Environment")


class Misread(Exception):
    """Something that systemd would drop, with a line in its log."""


class Bind(t.NamedTuple):
    """One bind mount or, without a source, one temporary file system."""

    source: str | None
    target: str
    options: str


def read(text: str) -> dict[tuple[str, str], list[t.Any]]:
    """Section and key -> values in their order; words of a list key are joined over all of its lines."""
    values: dict[tuple[str, str], list[t.Any]] = {}
    for section, key, value in _assignments(text):
        found = values.setdefault((section, key), [])
        if section == "Exec" and key in _LISTS:
            if value:
                found += words(value)
            else:
                found.clear()
        elif section == "Files" and key in ("Bind", "BindReadOnly"):
            found.append(bind(value))
        elif section == "Files" and key == "TemporaryFileSystem":
            found.append(tmpfs(value))
        else:
            found.append(value)
    return values


def _assignments(text: str) -> t.Iterator[tuple[str, str, str]]:
    section = None
    for line in _logical_lines(text):
        line = line.strip(_BLANK)
        if not line:
            continue
        _require_utf8(line)
        if line[0] == "[":
            if line[-1] != "]" or line[1:-1] not in SECTIONS:
                raise Misread(f"section {line!r}")
            section = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        if section is None or not equals or not key:
            raise Misread(f"assignment {line!r}")
        yield section, key.strip(_BLANK), value.strip(_BLANK)


def _logical_lines(text: str) -> t.Iterator[str]:
    joined = None
    for line in re.split(r"\r\n|\n\r|[\n\r\0]", text):
        if len(line.encode("utf-8", "surrogatepass")) >= _LINE_LIMIT:
            raise Misread("a line is too long")
        if line.lstrip(_BLANK)[:1] in ("#", ";"):
            continue
        line = line if joined is None else joined + line
        joined = None
        escaped = False
        for c in line:
            escaped = c == "\\" and not escaped
        if escaped:
            joined = line[:-1] + " "
        else:
            yield line
    if joined is not None:
        yield joined


def _require_utf8(line: str) -> None:
    for c in line:
        code = ord(c)
        if 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
            raise Misread(f"no valid UTF-8: U+{code:04X}")


def words(value: str) -> list[str]:
    """Words between blanks; quotes may begin and end anywhere in one; backslashes are letters."""
    found: list[str] = []
    word: list[str] | None = None
    quote = ""
    for c in value:
        if not quote and c in _BLANK:
            if word is not None:
                found.append("".join(word))
            word = None
            continue
        word = [] if word is None else word
        if quote:
            if c == quote:
                quote = ""
            else:
                word.append(c)
        elif c in "\"'":
            quote = c
        else:
            word.append(c)
    if quote:
        raise Misread(f"unbalanced quotes: {value!r}")
    return found if word is None else [*found, "".join(word)]


def _until_colon(value: str) -> tuple[str, str | None]:
    """The text before the first bare colon, its backslashes taken off, and what follows."""
    taken = ""
    escaped = False
    for position, c in enumerate(value):
        if escaped:
            taken += c
            escaped = False
        elif c == "\\":
            escaped = True
        elif c == ":":
            return taken, value[position + 1 :]
        else:
            taken += c
    if escaped:
        raise Misread(f"a backslash at the end: {value!r}")
    return taken, None


def bind(value: str) -> Bind:
    """SOURCE[:TARGET[:OPTIONS]]; options stand as they are."""
    source, rest = _until_colon(value)
    target, options = (source, None) if rest is None else _until_colon(rest)
    if not source.startswith("/") or not target.startswith("/"):
        raise Misread(f"bind {value!r}")
    return Bind(source, target, options or "")


def tmpfs(value: str) -> Bind:
    """TARGET[:OPTIONS]; options stand as they are."""
    target, options = _until_colon(value)
    if not target.startswith("/"):
        raise Misread(f"tmpfs {value!r}")
    return Bind(None, target, options or "mode=0755")

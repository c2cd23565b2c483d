# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Look at the node once: the command that the role runs there, and what its output says.

Each task costs a node the start of a module, so one command looks for all of it.
"""

from __future__ import annotations

import base64
import binascii
import typing as t

from .known import Node

# Pairs of a kind and a word, answered by a line each. A file's content is not a line, and a path may hold a line end.
_SCRIPT = """\
encode() { base64 | tr -d '\\n'; }
while [ $# -gt 1 ]; do
    case $1 in
        program) command -v "$2" >/dev/null || echo "missing $2" ;;
        version) echo "version $($2 2>/dev/null | encode)" ;;
        path) ! [ -e "$2" ] && ! [ -L "$2" ] || echo "path $(printf %s "$2" | encode)" ;;
        text) ! [ -f "$2" ] || ! [ -r "$2" ] || echo "text $(printf %s "$2" | encode) $(encode <"$2")" ;;
    esac
    shift 2
done
"""


def look_command(
    programs: t.Iterable[str], version: t.Sequence[str], paths: t.Iterable[str], texts: t.Iterable[str]
) -> list[str]:
    """Return a command that looks for programs, paths and the content of files, and asks a program for its version.

    The words of ``version`` are free of spaces; without any, no version is asked for.
    """
    wanted = [
        *(("program", name) for name in programs),
        *([("version", " ".join(version))] if version else []),
        *(("path", path) for path in paths),
        *(("text", path) for path in texts),
    ]
    return ["sh", "-c", _SCRIPT, "sh", *(word for pair in wanted for word in pair)]


def parse_look(output: str) -> Node:
    """Return what the output of ``look_command`` says. Other lines are passed over."""
    found: dict[str, list[list[str]]] = {}
    for line in output.splitlines():
        kind, _space, words = line.partition(" ")
        found.setdefault(kind, []).append(words.split(" "))
    versions = [_decoded(words[0]).strip() for words in found.get("version", ())]
    return Node(
        missing=tuple(words[0] for words in found.get("missing", ())),
        version=versions[0] or None if versions else None,
        paths=frozenset(_decoded(words[0]) for words in found.get("path", ())),
        texts={_decoded(words[0]): _decoded(words[1]) for words in found.get("text", ()) if len(words) == 2},
    )


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return ""

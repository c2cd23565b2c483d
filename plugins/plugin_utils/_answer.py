# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What a node answers, checked before anything on the controller uses it: a node may be in somebody else's hands.

Its paths go into the commands of sftp, which is a program of the controller (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..module_utils._errors import OciError, show
from ..module_utils._source.sent import is_upload_path, is_plain_path

# With these in its result any module adds hosts and groups to the controller's inventory, or to its statistics.
_NOT_OURS = ("add_host", "add_group", "ansible_stats")
_FACT = "oci_rootfs"
# Ansible's own, from which it has removed what the node says.
_INTERPRETER = ("discovered_interpreter_", "ansible_discovered_interpreter_")


class AnswerError(OciError):
    """A node answers what the module never would."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the node's answer is not one of this module: {what}; nothing is sent to it, look for what changes the"
            " results of its modules"
        )


@dataclass(frozen=True)
class UploadRequest:
    """What a node lacks: the ``names`` of layers that it was offered, and the folder to send them to.

    ``folder`` is ``None`` where that is the temporary folder of the task.
    """

    folder: str | None
    names: tuple[str, ...]


def parse_request(value: object, layers: t.Mapping[str, int]) -> UploadRequest:
    """Check what the module answers; ``layers`` are offered, by name in bytes. Raises ``AnswerError``."""
    if not isinstance(value, dict) or set(value) != {"folder", "blobs"}:
        raise AnswerError("what it needs is not a folder and blobs")
    folder = value["folder"]
    if folder is not None and not (isinstance(folder, str) and is_upload_path(folder)):
        raise AnswerError(f"{_shown(folder)} is not the path of a folder for blobs")
    blobs = value["blobs"]
    if not isinstance(blobs, list) or not 0 < len(blobs) <= len(layers):
        raise AnswerError(f"its blobs are not a list of 1 to {len(layers)}")
    names = [_name_of(blob, layers) for blob in blobs]
    if len(set(names)) != len(names):
        raise AnswerError("it needs a blob twice")
    return UploadRequest(None if folder is None else str(folder), tuple(names))


def _name_of(blob: object, layers: t.Mapping[str, int]) -> str:
    if not isinstance(blob, dict) or set(blob) != {"name", "size"}:
        raise AnswerError("a blob is not a name and a size")
    name, size = blob["name"], blob["size"]
    if not isinstance(name, str) or name not in layers:
        raise AnswerError(f"it needs {_shown(name)}, which it was not offered")
    if isinstance(size, bool) or not isinstance(size, int) or size != layers[name]:
        raise AnswerError(
            f"it needs {_shown(name)} of {_shown(size)} bytes, and was offered {layers[name]}"
        )
    return str(name)


def _shown(value: object) -> str:
    """A text or number for a message; of anything else, which may be of any depth and size, the type."""
    if isinstance(value, (str, int, float)):
        return show(str(value))
    return f"a {type(value).__name__}"


def check_tmp(path: object) -> str:
    """The temporary folder that a node has made, as a path that can be told to programs. Raises ``AnswerError``."""
    if not isinstance(path, str) or not is_plain_path(path):
        raise AnswerError(
            f"{_shown(path)} is not an absolute path without quotes, backslashes and control characters, as its"
            " temporary folder must have (remote_tmp)"
        )
    return str(path)


def without_foreign(result: dict[str, t.Any]) -> dict[str, t.Any]:
    """A module's result without what would change more on the controller than the host's own facts of this module."""
    kept = {key: value for key, value in result.items() if key not in _NOT_OURS}
    facts = kept.get("ansible_facts")
    if facts is not None:
        items = facts.items() if isinstance(facts, dict) else ()
        kept["ansible_facts"] = {
            key: value
            for key, value in items
            if key == _FACT or str(key).startswith(_INTERPRETER)
        }
    return kept

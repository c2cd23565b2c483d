# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Validate what a node answers before the controller uses it: the node may be compromised.

Its paths become part of commands of sftp, which runs on the controller (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ..module_utils._errors import OciError, show
from ..module_utils._source.sent import is_upload_path, is_plain_path

# With these keys in its result, any module can change the controller's inventory or statistics.
_FOREIGN_KEYS = ("add_host", "add_group", "ansible_stats")
_FACT = "oci_rootfs"
# Facts that Ansible itself adds, after it has removed those of the node.
_INTERPRETER = ("discovered_interpreter_", "ansible_discovered_interpreter_")


class AnswerError(OciError):
    """The node answered something that the module never would."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the node's answer does not come from this module: {what}; nothing was sent, check what changes the"
            " results of modules on the node"
        )


@dataclass(frozen=True)
class UploadRequest:
    """The ``names`` of the offered layers that a node requests, and the folder to send them to.

    ``folder`` is ``None`` for the temporary folder of the task.
    """

    folder: str | None
    names: tuple[str, ...]


def parse_request(value: object, layers: t.Mapping[str, int]) -> UploadRequest:
    """Parse the module's request; ``layers`` has the offered sizes in bytes by name. Raises ``AnswerError``."""
    if not isinstance(value, dict) or set(value) != {"folder", "blobs"}:
        raise AnswerError("its request is not a folder and blobs")
    folder = value["folder"]
    if folder is not None and not (isinstance(folder, str) and is_upload_path(folder)):
        raise AnswerError(f"{_shown(folder)} is not the path of an upload folder")
    blobs = value["blobs"]
    if not isinstance(blobs, list) or not 0 < len(blobs) <= len(layers):
        raise AnswerError(f"its blobs are not a list of 1 to {len(layers)}")
    names = [_name_of(blob, layers) for blob in blobs]
    if len(set(names)) != len(names):
        raise AnswerError("it requests a blob twice")
    return UploadRequest(None if folder is None else str(folder), tuple(names))


def _name_of(blob: object, layers: t.Mapping[str, int]) -> str:
    if not isinstance(blob, dict) or set(blob) != {"name", "size"}:
        raise AnswerError("a requested blob is not a name and a size")
    name, size = blob["name"], blob["size"]
    if not isinstance(name, str) or name not in layers:
        raise AnswerError(f"it requests {_shown(name)}, which it was not offered")
    if isinstance(size, bool) or not isinstance(size, int) or size != layers[name]:
        raise AnswerError(f"it requests {_shown(size)} bytes of {_shown(name)}, which has {layers[name]}")
    return str(name)


def _shown(value: object) -> str:
    """Return a text or number for a message, but only the type of values that may be large or deeply nested."""
    if isinstance(value, (str, int, float)):
        return show(str(value))
    return f"a {type(value).__name__}"


def check_tmp(path: object) -> str:
    """Return the path of the task's temporary folder if it is safe for other programs. Raises ``AnswerError``."""
    if not isinstance(path, str) or not is_plain_path(path):
        raise AnswerError(
            f"{_shown(path)} is not a valid temporary folder: expected an absolute path without quotes, backslashes and"
            " control characters (remote_tmp)"
        )
    return str(path)


def remove_foreign_keys(result: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return a module's result without keys that change the inventory, statistics or facts of other modules."""
    kept = {key: value for key, value in result.items() if key not in _FOREIGN_KEYS}
    facts = kept.get("ansible_facts")
    if facts is not None:
        items = facts.items() if isinstance(facts, dict) else ()
        kept["ansible_facts"] = {
            key: value for key, value in items if key == _FACT or str(key).startswith(_INTERPRETER)
        }
    return kept

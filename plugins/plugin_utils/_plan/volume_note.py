# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The note beside a root volume: what it was filled with, so that a run that changes nothing mounts nothing."""

from __future__ import annotations

import hashlib
import json
import typing as t
from collections.abc import Mapping

from ...module_utils._fetch_arguments import FETCH_ARGUMENTS
from ...module_utils._options import SIGNATURE_ARGUMENTS
from .known import Facts, Node, Places, Root
from .request import Request
from .runtime import File, Runtime

# parts of a result that belong to one run
_PASSING = ("changed", "ansible_facts", "invocation", "diff", "warnings")
_FETCHING = {*FETCH_ARGUMENTS, *SIGNATURE_ARGUMENTS, "fetch"}
_OF_REQUEST = ("uid_map", "gid_map", "user", "working_dir", "mounts", "volumes", "image_volumes")


def read_note(node: Node, places: Places) -> Facts:
    """Return the note of the last run, empty if it does not exist or cannot be parsed."""
    try:
        note = json.loads(node.texts.get(places.note) or "{}")
    except ValueError:
        return {}
    return note if isinstance(note, Mapping) else {}


def former_targets(note: Facts) -> tuple[str, ...]:
    """Return the targets of the mounts that the last run noted."""
    noted = note.get("places")
    mounts = noted.get("mounts") if isinstance(noted, Mapping) else None
    return tuple(mount["target"] for mount in mounts or () if isinstance(mount, Mapping) and "target" in mount)


def volume_key(request: Request, runtime: Runtime, node: Node, root: Root) -> str:
    """Return a digest of all that decides the volume's content and what is found out while it is mounted."""
    key: dict[str, t.Any] = {
        "volume": runtime.volume(request, node),
        "image": [root.result.get(name) for name in ("manifest_digest", "config_digest", "platform")],
        # how the image is fetched and who signed it does not decide the content, and holds secrets
        "rootfs_options": {name: value for name, value in request.rootfs_options.items() if name not in _FETCHING},
        **{name: getattr(request, name) for name in _OF_REQUEST},
    }
    text = json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def note_file(places: Places, key: str, root: Root | None) -> File:
    """Return the file that holds the note."""
    text = ""
    if root is not None:
        result = {name: value for name, value in root.result.items() if name not in _PASSING}
        # not sorted: the order of the image's variables is the order in which they are set
        note = {"key": key, "root": result, "user_info": root.user_info, "places": {"mounts": root.mounts}}
        text = json.dumps(note)
    return File(places.note, text, "none", "0600")

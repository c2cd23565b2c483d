# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Quote words for shells and for command lines of systemd units, and count their seconds."""

from __future__ import annotations

import json
import shlex


def shell(word: str) -> str:
    """Return a word quoted for a POSIX shell."""
    return shlex.quote(word)


def systemd(word: str) -> str:
    """Return a word quoted for ExecStart=, in which neither specifiers nor variables are expanded."""
    return json.dumps(word.replace("%", "%%").replace("$", "$$"))

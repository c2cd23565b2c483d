# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``visible``: text that others wrote, as it may stand in a message."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ..plugin_utils._container.filters import filter_module
from ..module_utils._errors import visible as make_visible


def visible(text: t.Any, limit: t.Any = 500) -> str:
    """The text in one line, with at most ``limit`` characters of it."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise AnsibleFilterError("limit must be a number above 0")
    return make_visible(str(text), limit)


FilterModule = filter_module(visible)

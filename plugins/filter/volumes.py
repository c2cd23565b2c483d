# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``volumes``: which volumes a container has, and where they lie."""

from __future__ import annotations

import typing as t

from ansible.utils.display import Display

from ..plugin_utils._container.filters import adapted, filter_module
from ..plugin_utils._container.volumes import volumes_of


@adapted
def volumes(
    image: t.Any, folder: str, volumes: t.Any = (), mounts: t.Any = (), from_image: bool = True
) -> list[dict[str, t.Any]]:
    """Declared volumes and, with ``from_image``, the image's."""
    found = volumes_of(image if from_image else {}, folder, volumes, mounts)
    for warning in found.ignored:
        Display().warning(warning)
    return found.mounts


FilterModule = filter_module(volumes)

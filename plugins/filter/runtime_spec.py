# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``runtime_spec``: image facts and overrides as config.json of an OCI bundle."""

from __future__ import annotations

import typing as t

from ansible.utils.display import Display

from ..plugin_utils._container.filters import adapted, filter_module
from ..plugin_utils._container.merge import container_from
from ..plugin_utils._container.runtime_spec import label_warnings, spec_text
from ..plugin_utils._container.runtime_spec import runtime_spec as render_runtime_spec


@adapted
def runtime_spec(image: t.Any, network: str | None = "private", settings: t.Any = None, **overrides: t.Any) -> str:
    """Return the text of config.json."""
    container = container_from(image, overrides)
    document = render_runtime_spec(container, network=network, settings=settings)
    for warning in label_warnings(container):
        Display().warning(warning)
    return spec_text(document)


FilterModule = filter_module(runtime_spec)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``runtime_spec``: image facts and overrides as config.json of an OCI bundle."""

from __future__ import annotations

import json
import typing as t

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display

from ..module_utils._errors import show
from ..plugin_utils._container.merge import container_from
from ..plugin_utils._container.model import ContainerError
from ..plugin_utils._container.runtime_spec import dropped_labels, runtime_spec as render_runtime_spec

_MOST_SHOWN = 10


def runtime_spec(image: t.Any, network: str | None = "private", settings: t.Any = None, **overrides: t.Any) -> str:
    """The text of ``config.json``."""
    try:
        container = container_from(image, overrides)
        document = render_runtime_spec(container, network=network, settings=settings)
    except ContainerError as error:
        raise AnsibleFilterError(error.message) from error
    dropped = dropped_labels(container)
    if dropped:
        shown = ", ".join(map(show, dropped[:_MOST_SHOWN]))
        rest = len(dropped) - _MOST_SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        Display().warning(
            f"labels of the image did not become annotations, since a runtime would obey them: {shown}{more}"
        )
    # in ASCII: no byte of an image's stands in the file as it was
    return json.dumps(document, indent=2) + "\n"


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"runtime_spec": runtime_spec}

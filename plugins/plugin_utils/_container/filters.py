# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What makes a function a filter of Ansible's: one adapter for all of them."""

from __future__ import annotations

import functools
import typing as t

from ansible.errors import AnsibleFilterError

from .model import ContainerError

Filter = t.Callable[..., t.Any]


def filter_module(*functions: Filter) -> type:
    """Return the class in which Ansible finds the functions as filters, by their names."""
    filters = {function.__name__: function for function in functions}
    return type("FilterModule", (), {"filters": lambda self: dict(filters)})


def adapted(function: Filter) -> Filter:
    """Return the function with its ``ContainerError`` as an error of Ansible's, which is the sentence alone."""

    @functools.wraps(function)
    def adapter(*values: t.Any, **options: t.Any) -> t.Any:
        try:
            return function(*values, **options)
        except ContainerError as error:
            raise AnsibleFilterError(error.message) from error

    return adapter

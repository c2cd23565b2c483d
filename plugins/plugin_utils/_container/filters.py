# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Turns functions into filters: one adapter for all of them."""

from __future__ import annotations

import functools
import inspect
import typing as t
from dataclasses import fields

from ansible.errors import AnsibleFilterError

from ...module_utils._errors import OciError

Filter = t.Callable[..., t.Any]
Options = t.TypeVar("Options")


def filter_module(*functions: Filter) -> type:
    """Return the class in which Ansible finds the functions as filters, by their names."""
    filters = {function.__name__: function for function in functions}
    return type("FilterModule", (), {"filters": lambda self: dict(filters)})


def adapted(function: Filter) -> Filter:
    """Return the function with wrong arguments and ``OciError`` as errors of Ansible: one sentence each."""

    signature = inspect.signature(function)

    @functools.wraps(function)
    def adapter(*values: t.Any, **options: t.Any) -> t.Any:
        try:
            signature.bind(*values, **options)
        except TypeError as error:
            raise AnsibleFilterError(f"{function.__name__}: {error}") from error
        try:
            return function(*values, **options)
        except OciError as error:
            raise AnsibleFilterError(error.message) from error

    return adapter


def split(kind: type[Options], given: dict[str, t.Any]) -> tuple[Options, dict[str, t.Any]]:
    """Return the arguments that are fields of the dataclass ``kind``, as one of it, and the others."""
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    return (
        kind(**{name: value for name, value in given.items() if name in names}),
        {name: value for name, value in given.items() if name not in names},
    )

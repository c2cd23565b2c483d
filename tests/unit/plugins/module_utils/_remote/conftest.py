# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for archives behind a URL."""

from __future__ import annotations

import os
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.tests.unit.support import without_waiting
from ansible_collections.hypervisor.oci.tests.unit.web import Web, serving
from ansible_collections.hypervisor.oci.tests.unit.remote import MULTI


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are short, nothing is made durable, and no proxy or netrc of this machine is used."""
    without_waiting(monkeypatch)
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/nonexistent")


@pytest.fixture
def web() -> t.Iterator[Web]:
    """A server of ``MULTI``."""
    with serving(MULTI) as server:
        yield server

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File descriptors in with statements."""

from __future__ import annotations

import os

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import closed_on_error, opened


def is_open(fd: int) -> bool:
    """Return whether the descriptor is in use."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_opened_closes_at_the_end() -> None:
    """The block gets the descriptor, open."""
    with opened(os.open("/", os.O_RDONLY)) as fd:
        assert is_open(fd)
    assert not is_open(fd)


def test_opened_closes_when_the_block_fails() -> None:
    """The error goes on."""
    with pytest.raises(ValueError), opened(os.open("/", os.O_RDONLY)) as fd:
        raise ValueError
    assert not is_open(fd)


def test_closed_on_error_leaves_a_descriptor_open_for_the_caller() -> None:
    """A function that succeeds returns what it opened."""
    with closed_on_error(os.open("/", os.O_RDONLY)) as fd:
        pass
    assert is_open(fd)
    os.close(fd)


def test_closed_on_error_closes_when_the_block_fails() -> None:
    """Nobody gets the descriptor then."""
    with pytest.raises(ValueError), closed_on_error(os.open("/", os.O_RDONLY)) as fd:
        raise ValueError
    assert not is_open(fd)

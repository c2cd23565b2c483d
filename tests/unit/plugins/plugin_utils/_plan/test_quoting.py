# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Words for shells and units: docs/behaviour.md, section 10."""

from __future__ import annotations

import shlex

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.quoting import shell, systemd


@pytest.mark.parametrize("word", ["a", "", "a b", "it's", "$HOME `id`", "a\nb", "%n"])
def test_a_shell_gives_the_word_back(word: str) -> None:
    assert shlex.split(shell(word)) == [word]


@pytest.mark.parametrize(
    ("word", "quoted"), [("a b", '"a b"'), ("%n", '"%%n"'), ("$HOME", '"$$HOME"'), ('a"b\\', '"a\\"b\\\\"')]
)
def test_systemd_expands_nothing(word: str, quoted: str) -> None:
    assert systemd(word) == quoted

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Patterns of paths (docs/behaviour.md, section 13)."""

from __future__ import annotations

import time

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._inventory.patterns import PatternError, parse_pattern


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/usr/bin/su", "/usr/bin/su", True),
        ("/usr/bin/su", "/usr/bin/sudo", False),
        ("/usr/bin/su", "/usr/bin/su/x", False),
        ("/usr/bin/*", "/usr/bin/su", True),
        ("/usr/bin/*", "/usr/bin/x/su", False),
        ("/usr/bin/*", "/usr/bin", False),
        ("/*/bin/su", "/usr/bin/su", True),
        ("/tmp/**", "/tmp/a", True),
        ("/tmp/**", "/tmp/a/b/c", True),
        ("/tmp/**", "/tmp", True),
        ("/tmp/**", "/tmpfile", False),
        ("/**", "/any/thing", True),
        ("/**/su", "/su", True),
        ("/**/su", "/a/b/su", True),
        ("/**/su", "/a/b/sudo", False),
        ("/a/**/b/**/c", "/a/b/c", True),
        ("/a/**/b/**/c", "/a/1/b/2/3/c", True),
        ("/a/**/b/**/c", "/a/1/2/c", False),
        ("/lib*/x*y*z", "/lib64/x-y-z", True),
        ("/lib*/x*y*z", "/lib64/xyz", True),
        ("/lib*/x*y*z", "/lib64/xz", False),
        ("/a*a", "/a", False),
        ("/a*a", "/aa", True),
        ("/*ab*b", "/ab", False),
        # no other character is special
        ("/a?", "/ab", False),
        ("/[ab]", "/a", False),
        ("/a.c", "/abc", False),
    ],
)
def test_what_matches(pattern: str, path: str, expected: bool) -> None:
    assert parse_pattern(pattern).matches(path) is expected


@pytest.mark.parametrize(
    "text", ["", "usr/bin/su", "/usr/", "/", "/a//b", "/a/../b", "/./a", "/a**", "/**x/a", "/" + "a" * 5000]
)
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(PatternError):
        parse_pattern(text)


def test_hostile_paths_cost_little() -> None:
    """The path is the image's, and has as many components as it likes."""
    pattern = parse_pattern("/**/*a*a*a*a*a*b/**/*a*b/**/x")
    before = time.process_time()
    assert not pattern.matches(("/" + "a" * 200) * 2000)
    assert time.process_time() - before < 2

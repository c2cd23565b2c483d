# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Credentials in docker's and podman's files (docs/behaviour.md, section 11)."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.auth_file import (
    Credentials,
    find_credentials,
    has_entry,
)
from ansible_collections.hypervisor.oci.tests.unit.registry import basic


def written(tmp_path: Path, content: t.Any) -> str:
    """A file with this content."""
    path = tmp_path / "auth.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return str(path)


def auths(**entries: str) -> dict[str, t.Any]:
    """Entries with a user each, by the key with dots and slashes as they are."""
    return {"auths": {key: {"auth": basic(user, "sesame")} for key, user in entries.items()}}


@pytest.mark.parametrize(
    ("keys", "registry", "repository", "user"),
    [
        (["r.example"], "r.example", "a/b", "r.example"),
        (["r.example", "r.example/a", "r.example/a/b", "r.example/a/b/c"], "r.example", "a/b", "r.example/a/b"),
        (["r.example/a", "r.example"], "r.example", "ab", "r.example"),
        (["r.example/b"], "r.example", "a/b", None),
        (["r.example"], "r.example:5000", "a", None),
        (["r.example:5000"], "r.example:5000", "a", "r.example:5000"),
        (["https://r.example/v1/"], "r.example", "a", "https://r.example/v1/"),
        (["http://r.example/v2/"], "r.example", "a", "http://r.example/v2/"),
        (["r.example/"], "r.example", "a", "r.example/"),
        (["R.Example"], "r.example", "a", "R.Example"),
        (["https://index.docker.io/v1/"], "docker.io", "library/x", "https://index.docker.io/v1/"),
        (["registry-1.docker.io"], "docker.io", "library/x", "registry-1.docker.io"),
        (["docker.io/library"], "docker.io", "library/x", "docker.io/library"),
        ([], "r.example", "a", None),
    ],
)
def test_the_longest_key_counts(
    tmp_path: Path, keys: list[str], registry: str, repository: str, user: str | None
) -> None:
    path = written(tmp_path, auths(**{key: key.replace(":", ";") for key in keys}))
    found = find_credentials(path, registry, repository)
    assert (None if found is None else found.username) == (None if user is None else user.replace(":", ";"))
    assert found is None or found.password == "sesame"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": basic("u", "p:q")}, Credentials("u", "p:q")),
        ({"auth": basic("u", "p\0\0")}, Credentials("u", "p")),
        ({"username": "u", "password": "p"}, Credentials("u", "p")),
        ({"auth": basic("u", "p"), "identitytoken": "i"}, Credentials("u", "p", "i")),
        ({"identitytoken": "i"}, Credentials("", "", "i")),
        ({}, None),
        ({"auth": None, "email": "x"}, None),
    ],
)
def test_forms_of_an_entry(tmp_path: Path, entry: dict[str, t.Any], expected: Credentials | None) -> None:
    found = find_credentials(written(tmp_path, {"auths": {"r": entry}}), "r", "x")
    assert found == expected
    assert "p:q" not in repr(found) and "'i'" not in repr(found)


@pytest.mark.parametrize(
    ("content", "registry"),
    [
        ({"credHelpers": {"r": "secret"}}, "r"),
        ({"credHelpers": {"https://r/v1": "x"}, **auths(r="u")}, "r"),
        ({"credsStore": "desktop", "auths": {"r": {}}}, "r"),
        ({"credsStore": "desktop", "auths": {"https://index.docker.io/v1/": {}}}, "docker.io"),
    ],
)
def test_helpers_are_an_error(tmp_path: Path, content: t.Any, registry: str) -> None:
    with pytest.raises(SourceError, match="lookup.'ansible.builtin.pipe'"):
        find_credentials(written(tmp_path, content), registry, "x")


@pytest.mark.parametrize(
    ("content", "registry"),
    [
        ({"credHelpers": {"other": "x"}}, "r"),
        ({"credsStore": "desktop"}, "r"),
        ({"credsStore": "x", **auths(r="u")}, "r"),
    ],
)
def test_helpers_of_others_are_none(tmp_path: Path, content: t.Any, registry: str) -> None:
    find_credentials(written(tmp_path, content), registry, "x")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b" " * 2_000_000,
        {"auths": []},
        {"auths": {"r": []}},
        {"auths": {"r": {"auth": 7}}},
        {"auths": {"r": {"auth": "sesame!"}}},
        {"auths": {"r": {"auth": "c2VzYW1l"}}},
        {"auths": {"r": {"auth": "//8="}}},
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: t.Any) -> None:
    with pytest.raises(SourceError, match="registry_auth_file") as caught:
        find_credentials(written(tmp_path, content), "r", "x")
    assert "sesame" not in caught.value.message


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "fifo", ".", "nul\0"):
        with pytest.raises(SourceError, match="registry_auth_file"):
            find_credentials(f"{tmp_path}/{name}", "r", "x")


def test_a_host_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, auths(**{"https://auth.example/token": "u", "r.example/a": "v"}))
    assert has_entry(path, "auth.example")
    assert not has_entry(path, "r.example")

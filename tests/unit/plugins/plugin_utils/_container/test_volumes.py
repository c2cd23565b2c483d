# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which volumes there are, and where (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hypervisor.oci.plugins.filter.volumes import volumes


def places(image: t.Any, *declared: t.Any, **more: t.Any) -> dict[str, str]:
    """Target to source."""
    found = volumes({"volumes": image}, "/v", declared, **more)
    return {item["target"]: item["source"] for item in found}


def test_each_has_a_directory_of_its_own() -> None:
    assert places(["/var/lib/data", "/data/", "//data-2", "relative", "/ä b"]) == {
        "/data": "/v/data",
        "/data-2": "/v/data-2",
        "/relative": "/v/relative",
        "/var/lib/data": "/v/var%2Flib%2Fdata",
        "/ä b": "/v/%C3%A4%20b",
    }


def test_names_that_could_collide_do_not() -> None:
    found = places(["/a/b", "/a%2Fb", "/a-b", "/a/b/c"])
    assert len(set(found.values())) == 4


@pytest.mark.parametrize(
    "target", ["/../../etc", "/..", "/.", "/a/../..", "", "/\n/x", "/a\\..\\b"]
)
def test_none_leads_out_of_the_folder(target: str) -> None:
    try:
        found = places([target])
    except AnsibleFilterError as error:
        assert "root itself" in str(error) or "control character" in str(error)
        return
    for path in found.values():
        assert path.startswith("/v/")
        assert path.count("/") == 2
        assert path[3:] not in ("", ".", "..")
        assert path.isprintable()


def test_what_is_declared_wins() -> None:
    found = volumes(
        {"volumes": ["/data", "/cache", "/logs"]},
        "/v",
        [
            {"target": "/data/", "source": "/tank/data", "read_only": True},
            {"target": "/own"},
        ],
        [{"target": "/cache"}],
    )
    assert found == [
        {"target": "/data", "source": "/tank/data", "read_only": True},
        {"target": "/logs", "source": "/v/logs", "read_only": False},
        {"target": "/own", "source": "/v/own", "read_only": False},
    ]


def test_the_images_can_be_left_out() -> None:
    assert places(["/data"], {"target": "/own"}, from_image=False) == {"/own": "/v/own"}


def test_an_image_without_volumes() -> None:
    assert places(None) == {}


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ([{"target": "/a"}, {"target": "/a/"}], "two of them"),
        ([{"target": "/a", "size": 1}], "'size' is no key"),
        ([{"source": "/a"}], "is no path"),
        (["/a"], "must be mappings"),
        ("/a", "must be a list"),
        ([{"target": "/"}], "root itself"),
        ([{"target": "/a\0b"}], "NUL"),
    ],
)
def test_what_is_no_volume(declared: t.Any, says: str) -> None:
    with pytest.raises(AnsibleFilterError, match=says):
        volumes({}, "/v", declared)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which volumes there are, and where (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
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


@pytest.mark.parametrize("target", ["/../../etc", "/..", "/.", "/a/../..", "", "/\n/x", "/a\\..\\b"])
def test_none_leads_out_of_the_folder(target: str) -> None:
    try:
        found = places([target])
    except AnsibleFilterError as error:
        assert "control character" in str(error)
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
        [{"target": "/data/", "source": "/tank/data", "read_only": True}, {"target": "/own"}],
        [{"target": "/cache"}],
    )
    assert found == [
        {"target": "/data", "source": "/tank/data", "read_only": True},
        {"target": "/logs", "source": "/v/logs", "read_only": False, "from_image": True},
        {"target": "/own", "source": "/v/own", "read_only": False},
    ]


def test_the_images_can_be_left_out() -> None:
    assert places(["/data"], {"target": "/own"}, from_image=False) == {"/own": "/v/own"}


def test_an_image_without_volumes() -> None:
    assert places(None) == {}


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ([{"target": "/a"}, {"target": "/a/"}], "two volumes"),
        ([{"target": "/a", "size": 1}], "unknown key 'size'"),
        ([{"source": "/a"}], "must be a path"),
        (["/a"], "must be a list of mappings"),
        ("/a", "must be a list"),
        ([{"target": "/"}], "root directory"),
        ([{"target": "/a\0b"}], "NUL"),
        ([{"target": "/a", "source": 5}], "volumes.source must be a path"),
        ([{"target": "/a", "source": ["/b"]}], "volumes.source must be a path"),
        ([{"target": "/a", "read_only": "yes"}], "volumes.read_only must be true or false"),
        ([None], "must be a list of mappings"),
    ],
)
def test_what_is_no_volume(declared: t.Any, says: str) -> None:
    with pytest.raises(AnsibleFilterError, match=says):
        volumes({}, "/v", declared)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the filter says."""
    said: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, text: said.append(text))
    return said


@pytest.mark.parametrize("target", ["/", "/a/..", "/proc", "//proc/", "/sys/fs/cgroup", "/x/../dev/", "proc/sys"])
def test_places_that_no_image_gets(target: str, warnings: list[str]) -> None:
    assert places([target, "/data"]) == {"/data": "/v/data"}
    assert len(warnings) == 1
    assert "a volume of the image is ignored" in warnings[0]
    with pytest.raises(AnsibleFilterError, match="cannot be a volume"):
        places([], {"target": target})


def test_places_that_only_look_like_those(warnings: list[str]) -> None:
    targets = ["/development", "/etc", "/process", "/srv/proc", "/system"]
    assert list(places(targets)) == targets
    assert warnings == []


@pytest.mark.parametrize(
    ("declared", "mounts", "says"),
    [
        (
            [{"target": "/a", "source": "/srv/a"}, {"target": "/b", "source": "/srv/a/b"}],
            [],
            "'/srv/a/b' lies in '/srv/a'",
        ),
        ([{"target": "/a"}], [{"target": "/b", "source": "/v/a/b//c"}], "lies in '/v/a'"),
        ([], [{"target": "/proc/x", "source": "/srv"}], "is in /proc"),
        ([], ["/a"], "must be a list of mappings"),
    ],
)
def test_mounts_that_cannot_be(declared: t.Any, mounts: t.Any, says: str) -> None:
    """They are told before anything is stopped."""
    with pytest.raises(AnsibleFilterError, match=says):
        volumes({}, "/v", declared, mounts)


def test_mounts_that_can_be() -> None:
    declared = [{"target": "/a", "source": "/srv/a", "read_only": True}]
    mounts = [
        {"target": "/b", "source": "/srv/a/b"},
        {"target": "/host", "source": "/"},
        {"target": "/dev/shm", "type": "tmpfs"},
        {"target": "/dev/fuse", "source": "/dev/fuse"},
    ]
    assert len(volumes({}, "/v", declared, mounts)) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (({},), "missing a required argument: 'folder'"),
        (({}, "/v", [], [], True, "more"), "too many positional arguments"),
        (({}, 5), "folder must be a path"),
        (({}, None), "folder must be a path"),
        ((None, "/v"), "image must be a mapping"),
        (("image", "/v"), "image must be a mapping"),
        (({"volumes": {"/a": {}}}, "/v"), "image.volumes must be a list"),
        (({"volumes": [5]}, "/v"), "image.volumes: '5' must be a path"),
        (({}, "/v", 5), "volumes must be a list"),
        (({}, "/v", [], [{"source": "/a"}]), "mounts: 'None' must be a path"),
        (({}, "/v", [], [{"target": "/a", "read_only": 1}]), "mounts.read_only must be true or false"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: tuple[t.Any, ...], says: str) -> None:
    """No KeyError, TypeError or AttributeError, whatever a play gives."""
    with pytest.raises(AnsibleFilterError) as caught:
        volumes(*arguments)
    assert says in str(caught.value)

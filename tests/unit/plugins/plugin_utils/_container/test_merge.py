# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One container from the image's facts and the user's overrides (docs/behaviour.md, section 9)."""

from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.merge import (
    DEFAULT_PATH,
    OVERRIDES,
    container_from,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import (
    Container,
    ContainerError,
    IdRange,
    Mount,
    User,
)

IMAGE: dict[str, t.Any] = {
    "entrypoint": ["/entry", "-e"],
    "cmd": ["one", "two"],
    "argv": ["/entry", "-e", "one", "two"],
    "env": {"PATH": "/bin", "A": "1", "B": "2"},
    "env_dropped": 0,
    "working_dir": "/srv",
    "user": "app",
    "uid": 1000,
    "gid": 1001,
    "groups": [4, 20],
    "home": "/home/app",
    "stop_signal": "SIGQUIT",
    "exposed_ports": ["80/tcp"],
    "volumes": ["/data"],
    "labels": {"l": "a\nb"},
    "healthcheck": None,
    "architecture": "arm64",
    "os": "linux",
    "variant": None,
    "created": "2024-01-01T00:00:00Z",
    "history": [],
}
NAMED: dict[str, t.Any] = {"name": "web", "rootfs": "/srv/web"}


def merge(image: t.Mapping[str, t.Any] | None = None, **overrides: t.Any) -> Container:
    """IMAGE with other facts, and overrides."""
    return container_from({**IMAGE, **(image or {})}, {**NAMED, **overrides})


def refused(image: t.Mapping[str, t.Any] | None = None, **overrides: t.Any) -> str:
    """The message, one sentence in one line."""
    with pytest.raises(ContainerError) as caught:
        merge(image, **overrides)
    assert caught.value.message.isprintable()
    return caught.value.message


def test_the_image_alone() -> None:
    assert merge() == Container(
        name="web",
        rootfs="/srv/web",
        hostname="web",
        argv=("/entry", "-e", "one", "two"),
        env=(("PATH", "/bin"), ("A", "1"), ("B", "2"), ("HOME", "/home/app")),
        working_dir="/srv",
        user=User("app", 1000, 1001, (4, 20), "/home/app"),
        stop_signal="SIGQUIT",
        architecture="arm64",
        os="linux",
        created="2024-01-01T00:00:00Z",
        volumes=("/data",),
        exposed_ports=("80/tcp",),
        # labels stay facts, and pass as they are
        labels=(("l", "a\nb"),),
    )


def test_none_is_not_given() -> None:
    nothing = dict.fromkeys(set(OVERRIDES) - {"name", "rootfs"})
    assert merge(**nothing) == merge()


def test_an_image_that_says_little() -> None:
    """Section 9: PATH is Docker's default, and HOME is / without an account, as runc has it."""
    facts = dict.fromkeys(IMAGE)
    container = merge({**facts, "cmd": ["/app"], "uid": 0, "gid": 0})
    assert container.argv == ("/app",)
    assert container.env == (("PATH", DEFAULT_PATH), ("HOME", "/"))
    assert DEFAULT_PATH == ("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    assert (container.working_dir, container.stop_signal) == ("/", "SIGTERM")
    assert container.user == User("", 0, 0)
    assert container_from({"cmd": ["a"], "uid": 0, "gid": 0}, NAMED).os == "linux"


# -- argv


@pytest.mark.parametrize(
    ("overrides", "argv"),
    [
        ({}, ["/entry", "-e", "one", "two"]),
        # an entrypoint drops the image's cmd
        ({"entrypoint": ["/other"]}, ["/other"]),
        ({"entrypoint": ("/other", "x")}, ["/other", "x"]),
        # a command replaces it
        ({"command": ["three"]}, ["/entry", "-e", "three"]),
        ({"command": []}, ["/entry", "-e"]),
        ({"entrypoint": ["/other"], "command": ["three"]}, ["/other", "three"]),
        ({"entrypoint": [], "command": ["three"]}, ["three"]),
        # what YAML makes of unquoted words
        ({"command": [60, 1.5]}, ["/entry", "-e", "60", "1.5"]),
        # what looks like more than one word is one, and empty ones stay
        ({"command": ["a b", ""]}, ["/entry", "-e", "a b", ""]),
    ],
)
def test_argv(overrides: dict[str, t.Any], argv: list[str]) -> None:
    """Section 9: Docker's rules."""
    assert merge(**overrides).argv == tuple(argv)


def test_an_empty_argv() -> None:
    """Section 9: an error."""
    for image, overrides in (
        ({"entrypoint": [], "cmd": []}, {}),
        ({"entrypoint": None, "cmd": None}, {}),
        ({}, {"entrypoint": []}),
        ({}, {"entrypoint": [], "command": []}),
        ({}, {"entrypoint": [""]}),
    ):
        assert "nothing to run" in refused(image, **overrides)


@pytest.mark.parametrize("field", ["entrypoint", "command"])
@pytest.mark.parametrize("bad", ["sh -c x", {"a": 1}, 5, [True], [None], [["a"]]])
def test_commands_that_are_no_lists_of_words(field: str, bad: t.Any) -> None:
    assert refused(**{field: bad}).startswith(field)


# -- environment


def test_env_merges_by_name() -> None:
    """Section 9: over the image's, in its place; new names after."""
    container = merge(env={"B": "b", "C": 3, "HOME": ""})
    assert container.env == (("PATH", "/bin"), ("A", "1"), ("B", "b"), ("C", "3"), ("HOME", ""))
    assert merge(env=["B=b", "C=3", "HOME="]) == container
    assert dict(merge(env={"PATH": "/p"}).env)["PATH"] == "/p"
    assert dict(merge(env=["A=x=y"]).env)["A"] == "x=y"


def test_names_that_shells_do_not_take() -> None:
    """As in Docker: a name is anything without '='."""
    names = {"a.b": "1", " ": "2", "ä": "3", "-": "4"}
    assert dict(merge(env=names).env).items() >= names.items()


@pytest.mark.parametrize(
    ("env", "what"),
    [
        (["A"], "env[0] has no '='"),
        (["=x"], "invalid variable name ''"),
        ({"A=secret": "x"}, "invalid variable name 'A'"),
        ({"": "x"}, "invalid variable name ''"),
        ({"A": None}, "env.A has no value"),
        ({"A": True}, "env.A must be a string"),
        ({"A": ["x"]}, "env.A must be a string"),
        ({"A\n": None}, "env.A\\n has no value"),
        ("A=B", "env must be a list"),
        (5, "env must be a list"),
        ({"A": "a\0b"}, "env.A: the value contains a NUL"),
        ({"A\0": "a"}, "env: the value contains a NUL"),
        (["A\0=a"], "env: "),
        ({"A": "\ud800"}, "env.A: "),
    ],
)
def test_env_that_is_none(env: t.Any, what: str) -> None:
    """Section 9: an entry without '=' would read the host's variable."""
    message = refused(env=env)
    assert message.startswith("env")
    assert what in message


def test_an_images_env_is_judged_alike() -> None:
    assert refused({"env": {"A": "a\0b"}}).startswith("image.env.A: ")
    assert refused({"env": {"A=": "a"}}).startswith("image.env: ")
    assert refused({"env": ["A=b"]}).startswith("image.env must be a mapping")


# -- user


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("0", User("0", 0, 0)),
        (1000, User("1000", 1000, 0)),
        ("1000:50", User("1000:50", 1000, 50)),
        ({"name": "web", "uid": 33, "gid": 34, "groups": [7], "home": "/w"}, User("web", 33, 34, (7,), "/w")),
        ({"name": "web", "uid": "33", "gid": 0, "groups": None, "home": None}, User("web", 33, 0)),
        ({"uid": 5, "gid": 6}, User("", 5, 6)),
    ],
)
def test_users(user: t.Any, expected: User) -> None:
    container = merge(user=user)
    assert container.user == expected
    assert dict(container.env)["HOME"] == (expected.home or "/")


@pytest.mark.parametrize("uid", [None, "x", -1, 2**32 - 1, True, 1.5, [1]])
def test_users_that_are_not_known(uid: t.Any) -> None:
    """Section 9: an error that names the user, never root."""
    message = refused({"uid": uid})
    assert message.startswith("image.user: ")
    given = {"name": "who", "uid": uid, "gid": 0}
    assert refused(user=given).startswith("user: ")
    if uid is None:
        assert "'app'" in message
        assert "'who'" in refused(user=given)


def test_facts_without_a_user() -> None:
    """Facts of check mode, or of oci_image_info: the user is not known yet."""
    facts = {key: value for key, value in IMAGE.items() if key not in ("uid", "gid")}
    with pytest.raises(ContainerError, match="unknown user 'app'"):
        container_from(facts, NAMED)
    assert container_from(facts, {**NAMED, "user": "5:6"}).user.gid == 6


@pytest.mark.parametrize("user", ["app", "app:5", "5:", ":5", "5:6:7", "-1", "", "٣", "99999999999", "1.5"])
def test_names_of_users_are_looked_up_elsewhere(user: str) -> None:
    assert "oci_user_info" in refused(user=user)
    assert "invalid id" in refused(user="4294967295")


@pytest.mark.parametrize("groups", ["4,20", {"a": 1}, [None], [-1], [True], 5])
def test_groups_that_are_none(groups: t.Any) -> None:
    assert refused({"groups": groups}).startswith("image.user: groups")


# -- the rest


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "/srv"),
        ("/a//b/", "/a/b"),
        ("relative", "/relative"),
        ("../..", "/"),
        ("//x", "/x"),
        ("/a b", "/a b"),
        ("", "/"),
    ],
)
def test_working_dirs(given: str | None, expected: str) -> None:
    """Section 8: absolute, relative ones joined to /."""
    assert merge(working_dir=given).working_dir == expected


@pytest.mark.parametrize(
    ("given", "expected"), [("term", "SIGTERM"), (9, "SIGKILL"), ("rtmin+3", "SIGRTMIN+3"), ("34", "SIGRTMIN")]
)
def test_signals(given: t.Any, expected: str) -> None:
    """Section 9: normalised."""
    assert merge(stop_signal=given).stop_signal == expected
    assert merge({"stop_signal": given}).stop_signal == expected


@pytest.mark.parametrize("bad", ["SIGNOTHING", "0", "SIGTERM\n# x", "-9", "TERM x", [9]])
def test_signals_that_are_none(bad: t.Any) -> None:
    if bad != "SIGTERM\n# x":
        assert re.match("stop_signal(: | must be a string)", refused(stop_signal=bad))
    assert re.match("image.stop_signal(: | must be a string)", refused({"stop_signal": bad}))


@pytest.mark.parametrize("bad", ["", "-x", ".x", "a b", "a/b", "a\nb", "a\n", "x" * 65, "ä", "..", "a:b", True, []])
def test_names(bad: t.Any) -> None:
    assert re.match("name(: | must be a string)", refused(name=bad))
    assert re.match("hostname(: | must be a string)", refused(hostname=bad))
    assert "name is missing" in refused(name=None)


def test_good_names() -> None:
    assert merge(name="a_b-1.c").hostname == "a_b-1.c"
    assert merge(name="x" * 64).name == "x" * 64
    container = merge(name="a", hostname="a.example")
    assert (container.name, container.hostname) == ("a", "a.example")
    assert refused(hostname="a.").startswith("hostname: ")


@pytest.mark.parametrize("bad", ["", "/", "x", "/a/../b", "/..", "//", "/a\nb", "/a\0"])
def test_roots(bad: str) -> None:
    assert refused(rootfs=bad).startswith("rootfs: ")
    assert "rootfs is missing" in refused(rootfs=None)


def test_a_root_is_cleaned() -> None:
    assert merge(rootfs="//srv//web/./x/").rootfs == "/srv/web/x"


def test_mounts() -> None:
    container = merge(
        mounts=[
            {"source": "/srv/a b/", "target": "/data//x"},
            {"source": "/srv/b", "target": "/b", "read_only": True},
            {"source": "/srv/c", "target": "/c", "options": ["ro", "nosuid"]},
            {"source": "/srv/d", "target": "/d", "options": ["rw"], "read_only": None},
            {"target": "/tmp", "type": "tmpfs", "options": ["size=1m"]},
        ]
    )
    assert container.mounts == (
        Mount("/srv/a b", "/data/x"),
        Mount("/srv/b", "/b", True),
        Mount("/srv/c", "/c", True, options=("nosuid",)),
        Mount("/srv/d", "/d"),
        Mount("tmpfs", "/tmp", type="tmpfs", options=("size=1m",)),
    )


@pytest.mark.parametrize(
    ("mount", "what"),
    [
        ({"source": "/a"}, "mounts.target"),
        ({"target": "/a"}, "mounts.source"),
        ({"source": "a", "target": "/a"}, "mounts.source"),
        ({"source": "/a", "target": "a"}, "mounts.target"),
        ({"source": "/a", "target": "/"}, "mounts.target"),
        ({"source": "/a", "target": "/b/../.."}, "mounts.target"),
        ({"source": "/a/../b", "target": "/b"}, "mounts.source"),
        ({"source": "/a\nb", "target": "/b"}, "mounts.source"),
        ({"source": "/a", "target": "/b\rc"}, "mounts.target"),
        ({"source": "/a", "target": "/b", "type": "proc"}, "mounts.type"),
        ({"source": "/a", "target": "/b", "readonly": True}, "unknown key 'readonly'"),
        ({"source": "/a", "target": "/b", "read_only": "yes"}, "mounts.read_only"),
        ({"source": "/a", "target": "/b", "options": "ro"}, "mounts.options must be"),
        ({"source": "/a", "target": "/b", "options": ["a,b"]}, "mounts.options"),
        ({"source": "/a", "target": "/b", "options": ["a b"]}, "mounts.options"),
        ({"source": "/a", "target": "/b", "options": [""]}, "mounts.options"),
        ({"source": "/a", "target": "/b", "options": ["a\n"]}, "mounts.options"),
        ({"source": "/a", "target": "/b", "read_only": True, "options": ["rw"]}, "contradict"),
        ("/a:/b", "mounts must be a mapping"),
    ],
)  # fmt: skip
def test_mounts_that_are_none(mount: t.Any, what: str) -> None:
    assert what in refused(mounts=[mount])


def test_two_mounts_in_one_place() -> None:
    mounts = [{"source": "/a", "target": "/x"}, {"source": "/b", "target": "/x/"}]
    assert "two mounts have the target '/x'" in refused(mounts=mounts)


def test_id_maps() -> None:
    container = merge(uid_map=["1000:5000:1", "0:100000:1000"], gid_map=["0:100000:65536"])
    assert container.uid_map == (IdRange(0, 100000, 1000), IdRange(1000, 5000, 1))
    assert container.gid_map == (IdRange(0, 100000, 65536),)
    assert merge(uid_map=[], gid_map=[]).uid_map == ()


@pytest.mark.parametrize(
    ("uid_map", "gid_map", "what"),
    [
        (["0:100000:65536"], None, "belong together"),
        (None, ["0:100000:65536"], "belong together"),
        (["0:1"], ["0:1:1"], "uid_map"),
        (["0:100000:65536"], ["0:1:x"], "gid_map"),
        (["0:1:10", "5:100:1"], ["0:100000:65536"], "overlap"),
        ("0:100000:65536", ["0:100000:65536"], "uid_map must be a list"),
        # a process could not become its user
        (["0:100000:1000"], ["0:100000:65536"], "no range of uid_map contains the uid 1000"),
        (["0:100000:65536"], ["0:100000:1001"], "no range of gid_map contains the gid 1001"),
        (["0:100000:65536"], ["0:100000:5", "1001:1:1"], "no range of gid_map contains the gid 20"),
    ],
)
def test_id_maps_that_are_none(uid_map: t.Any, gid_map: t.Any, what: str) -> None:
    assert what in refused(uid_map=uid_map, gid_map=gid_map)


def test_other_overrides() -> None:
    assert "unknown override 'entry_point'" in refused(entry_point=["x"])
    for image in (None, "x", ["x"], 5):
        with pytest.raises(ContainerError, match="^image must be a mapping"):
            container_from(t.cast("t.Any", image), NAMED)


@pytest.mark.parametrize("field", ["volumes", "exposed_ports", "labels", "architecture", "os", "created"])
def test_facts_of_another_shape(field: str) -> None:
    """Facts may come from anywhere: an error, never a traceback."""
    values: list[t.Any] = [5, [[]], {"a": []}, "\0", True]
    for bad in values:
        try:
            merge({field: bad})
        except ContainerError as error:
            assert f"image.{field}" in error.message


@pytest.mark.parametrize(
    ("mounts", "says"),
    [
        ([{"source": "/a", "target": "/proc"}], "is in /proc, which belongs to the runtime"),
        ([{"source": "/a", "target": "//sys/fs/"}], "is in /sys"),
        ([{"source": "/sys", "target": "/proc"}], "is in /proc"),
        ([{"source": "/a", "target": "/dev/x"}], "is in /dev"),
        ([{"type": "tmpfs", "target": "/dev"}], "is in /dev"),
        ([{"source": "/srv/web/etc", "target": "/a"}], "lies in '/srv/web'"),
        (
            [{"source": "/a", "target": "/a"}, {"source": "/a/b/c", "target": "/c"}],
            "'/a/b/c' lies in '/a', to which the container can write",
        ),
    ],
)
def test_places_that_no_mount_gets(mounts: t.Any, says: str) -> None:
    assert says in refused(mounts=mounts)


def test_places_that_a_mount_gets() -> None:
    mounts = [
        {"source": "/a", "target": "/a", "read_only": True},
        {"source": "/a/b", "target": "/b"},
        {"source": "/a", "target": "/a2", "read_only": True},
        {"source": "/dev/fuse", "target": "/dev/fuse"},
        {"source": "/sys", "target": "/sys"},
        {"type": "tmpfs", "target": "/dev/shm"},
        # what the filter volumes lists
        {"source": "/v/proc", "target": "/proc", "from_image": True},
        {"source": "/v/etc", "target": "/etc", "from_image": True},
    ]
    targets = [mount.target for mount in merge(mounts=mounts).mounts]
    wanted = ["/a", "/b", "/a2", "/dev/fuse", "/sys", "/dev/shm", "/etc"]
    assert targets == wanted

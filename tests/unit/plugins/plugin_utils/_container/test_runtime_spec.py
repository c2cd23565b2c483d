# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""config.json of the OCI runtime-spec (docs/behaviour.md, section 9)."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.merge import container_from
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import (
    Container,
    ContainerError,
    IdRange,
    Mount,
    User,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.runtime_spec import dropped_labels, runtime_spec
from hypothesis import given
from hypothesis import strategies as st

PLAIN = Container(
    name="web",
    rootfs="/srv/web",
    hostname="web",
    argv=("/bin/app", "a b"),
    env=(("PATH", "/bin"), ("A", "x=y")),
    working_dir="/srv",
    user=User("app", 1000, 1001, (10, 20), "/home/app"),
    stop_signal="SIGQUIT",
    architecture="arm64",
    os="linux",
)
IMAGE = "org.opencontainers.image."
LETTERS = st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")
TEXT = st.text(LETTERS)


def spec(**fields: t.Any) -> dict[str, t.Any]:
    """The document of a plain container with other fields, as a runtime reads it."""
    document = runtime_spec(dataclasses.replace(PLAIN, **fields))
    return t.cast(t.Dict[str, t.Any], json.loads(json.dumps(document)))


def problem(fields: dict[str, t.Any], **arguments: t.Any) -> str:
    """Why it is refused, in one line."""
    with pytest.raises(ContainerError) as caught:
        runtime_spec(dataclasses.replace(PLAIN, **fields), **arguments)
    assert caught.value.message.isprintable()
    return caught.value.message


def mounts_of(document: dict[str, t.Any]) -> dict[str, t.Any]:
    """Mounts by their destination; none stands there twice."""
    mounts = {mount["destination"]: mount for mount in document["mounts"]}
    assert len(mounts) == len(document["mounts"])
    return mounts


def test_process_and_root() -> None:
    document = spec()
    assert document["ociVersion"] == "1.0.0"
    assert document["root"] == {"path": "/srv/web", "readonly": False}
    assert document["hostname"] == "web"
    process = document["process"]
    assert process["args"] == ["/bin/app", "a b"]
    assert process["env"] == ["PATH=/bin", "A=x=y"]
    assert process["cwd"] == "/srv"
    assert process["terminal"] is False
    assert process["noNewPrivileges"] is False
    assert process["user"] == {"uid": 1000, "gid": 1001, "additionalGids": [10, 20]}
    assert "rlimits" not in process


def test_only_root_holds_capabilities() -> None:
    """As the kernel would have it: a user that is not root executes a program without any."""
    other = spec()["process"]["capabilities"]
    root = spec(user=User("", 0, 0))["process"]
    assert list(other) == ["bounding"]
    assert root["user"] == {"uid": 0, "gid": 0}
    assert root["capabilities"] == dict.fromkeys(("bounding", "effective", "permitted"), other["bounding"])
    assert "CAP_CHOWN" in other["bounding"]
    assert len(other["bounding"]) == 14
    # neither of them is needed by an image, and both own the host
    assert not {"CAP_SYS_ADMIN", "CAP_SYS_MODULE"}.intersection(other["bounding"])


@given(st.lists(TEXT, min_size=1), st.dictionaries(TEXT, TEXT))
def test_json_holds_every_word(argv: list[str], env: dict[str, str]) -> None:
    process = spec(argv=tuple(argv), env=tuple(env.items()))["process"]
    assert process["args"] == argv
    assert process["env"] == [f"{key}={value}" for key, value in env.items()]


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
@pytest.mark.parametrize("field", ["hostname", "rootfs", "working_dir", "os", "architecture", "stop_signal", "created"])
def test_no_text_with_a_nul(field: str, bad: str) -> None:
    """NUL is refused everywhere; a lone surrogate is no UTF-8."""
    problem({field: bad})


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_no_list_with_a_nul(bad: str) -> None:
    assert "args[1]" in problem({"argv": ("/x", bad)})
    for fields in (
        {"env": ((bad, ""),)},
        {"env": (("A", bad),)},
        {"labels": ((bad, ""),)},
        {"labels": (("a", bad),)},
        {"exposed_ports": (bad,)},
        {"mounts": (Mount(bad, "/x"),)},
        {"mounts": (Mount("/x", bad),)},
        {"mounts": (Mount("/x", "/y", options=(bad,)),)},
    ):
        problem(fields)
    for settings in ({bad: "x"}, {"x": bad}, {"x": [{"y": bad}]}):
        assert problem({}, settings=settings).startswith("settings")


def test_standard_mounts_and_paths() -> None:
    document = spec()
    mounts = mounts_of(document)
    assert {target: mount["type"] for target, mount in mounts.items()} == {
        "/proc": "proc",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/dev/mqueue": "mqueue",
        "/sys": "sysfs",
        "/sys/fs/cgroup": "cgroup",
    }
    for target in ("/sys", "/sys/fs/cgroup"):
        assert "ro" in mounts[target]["options"]
    for target in set(mounts) - {"/dev"}:
        assert {"nosuid", "noexec"}.issubset(mounts[target]["options"])
    assert "/proc/kcore" in document["linux"]["maskedPaths"]
    assert "/proc/sys" in document["linux"]["readonlyPaths"]


def test_devices_are_closed_but_for_the_harmless() -> None:
    rules = spec()["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert {(rule["type"], rule["major"], rule["minor"]) for rule in rules[1:]} == {
        ("c", 1, 3),
        ("c", 1, 5),
        ("c", 1, 7),
        ("c", 1, 8),
        ("c", 1, 9),
        ("c", 5, 0),
        ("c", 5, 1),
    }
    assert all(rule["allow"] for rule in rules[1:])


def test_mounts_of_the_user() -> None:
    mounts = mounts_of(
        spec(
            mounts=(
                Mount("/a", "/a"),
                Mount("/b", "/b", True),
                Mount("/c", "/c", True, "bind", ("bind", "rw", "noexec", "rshared")),
                Mount("/d", "/d", False, "bind", ("ro", "create=dir", "rbind")),
                Mount("tmpfs", "/e", True, "tmpfs", ("create=dir",)),
                Mount("tmpfs", "/dev/shm", False, "tmpfs", ("size=1g",)),
            )
        )
    )
    assert {target: (mounts[target]["type"], mounts[target]["source"]) for target in ("/a", "/e")} == {
        "/a": ("bind", "/a"),
        "/e": ("tmpfs", "tmpfs"),
    }
    assert {key: mounts[key]["options"] for key in mounts if len(key) == 2} == {
        "/a": ["rbind", "rprivate", "rw"],
        "/b": ["bind", "rprivate", "ro"],
        "/c": ["bind", "noexec", "rshared", "rw"],
        "/d": ["rbind", "rprivate", "ro"],
        "/e": ["nosuid", "nodev", "mode=1777", "ro"],
    }
    # one of the standard mounts, replaced
    assert mounts["/dev/shm"]["options"] == ["size=1g", "rw"]


def namespaces(document: dict[str, t.Any]) -> dict[str, t.Any]:
    """The namespaces, by their type."""
    return {item["type"]: item.get("path") for item in document["linux"]["namespaces"]}


def test_namespaces() -> None:
    own = {"pid", "ipc", "uts", "mount", "cgroup"}
    assert set(namespaces(spec())) == {*own, "network"}
    assert set(namespaces(runtime_spec(PLAIN, network="host"))) == own
    path = namespaces(runtime_spec(PLAIN, network="/run/netns/web"))
    assert path["network"] == "/run/netns/web"
    assert problem({}, network="bridge").startswith("network: ")
    assert problem({}, network="/a\0").startswith("container.linux.namespaces")


def test_id_maps() -> None:
    uids = (IdRange(0, 100000, 1000),)
    gids = (IdRange(0, 200000, 5), IdRange(5, 300000, 10))
    document = spec(uid_map=uids, gid_map=gids)
    assert "user" in namespaces(document)
    assert document["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 100000, "size": 1000}]
    assert document["linux"]["gidMappings"] == [
        {"containerID": 0, "hostID": 200000, "size": 5},
        {"containerID": 5, "hostID": 300000, "size": 10},
    ]
    assert "gid=5" in mounts_of(document)["/dev/pts"]["options"]
    plain = spec()
    assert "user" not in namespaces(plain)
    assert "uidMappings" not in plain["linux"]


def test_mapped_containers_mount_what_the_kernel_lets_them() -> None:
    ids = (IdRange(0, 100000, 5),)
    document = spec(uid_map=ids, gid_map=ids)
    # group 5 is outside of the map
    assert "gid=5" not in mounts_of(document)["/dev/pts"]["options"]
    assert mounts_of(document)["/sys"]["type"] == "sysfs"
    mapped = dataclasses.replace(PLAIN, uid_map=ids, gid_map=ids)
    for network in ("host", "/run/netns/x"):
        sys = mounts_of(runtime_spec(mapped, network=network))["/sys"]
        assert sys["source"] == "/sys"
        assert {"rbind", "ro", "nosuid"}.issubset(sys["options"])


def test_annotations_as_conversion_says() -> None:
    annotations = spec(created="2024-01-02T03:04:05Z", exposed_ports=("80/tcp", "53/udp"))["annotations"]
    assert annotations == {
        f"{IMAGE}os": "linux",
        f"{IMAGE}architecture": "arm64",
        f"{IMAGE}created": "2024-01-02T03:04:05Z",
        f"{IMAGE}stopSignal": "SIGQUIT",
        f"{IMAGE}exposedPorts": "80/tcp,53/udp",
    }
    assert set(spec()["annotations"]) == {f"{IMAGE}os", f"{IMAGE}architecture", f"{IMAGE}stopSignal"}


def test_variant_of_the_platform_is_told() -> None:
    """conversion.md has it among what must be extracted."""
    assert spec(variant="v7")["annotations"][f"{IMAGE}variant"] == "v7"
    facts = {"architecture": "arm", "variant": "v7", "cmd": ["/x"], "uid": 0, "gid": 0}
    container = container_from(facts, {"name": "web", "rootfs": "/srv/web"})
    assert container.variant == "v7"


def test_labels_win_over_what_is_implied() -> None:
    annotations = spec(labels=((f"{IMAGE}os", "plan9"), ("a\nb", "{{ x }}"), ("", "nameless")))["annotations"]
    assert annotations[f"{IMAGE}os"] == "plan9"
    assert annotations["a\nb"] == "{{ x }}"
    assert "" not in annotations


@pytest.mark.parametrize(
    "label",
    [
        "run.oci.hooks.stdout",
        "run.oci.handler",
        "org.systemd.property.DeviceAllow",
        "org.criu.config",
        "module.wasm.image/variant",
        "krun.ram_mib",
        "io.katacontainers.config.hypervisor.path",
        "dev.gvisor.spec.rootfs.source",
    ],
)
def test_labels_that_a_runtime_would_obey(label: str) -> None:
    """conversion.md lets a converter leave out what is unsafe: an image must not command the host."""
    labelled = dataclasses.replace(PLAIN, labels=((label, "x"), ("a", "b")))
    annotations = runtime_spec(labelled)["annotations"]
    assert label not in annotations
    assert annotations["a"] == "b"
    assert dropped_labels(labelled) == (label,)
    # the administrator may
    given_by_admin = runtime_spec(labelled, settings={"annotations": {label: "y"}})
    assert given_by_admin["annotations"][label] == "y"


def test_settings_are_merged_deeply() -> None:
    document = runtime_spec(
        PLAIN,
        settings={
            "root": {"path": "rootfs"},
            "process": {
                "noNewPrivileges": True,
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}],
                "capabilities": {"bounding": ("CAP_CHOWN",)},
            },
            "hostname": None,
            "linux": {
                "maskedPaths": [],
                "readonlyPaths": None,
                "resources": {"memory": {"limit": 2**30}, "cpu": {"shares": 10}},
                "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
            },
        },
    )
    assert document["root"] == {"path": "rootfs", "readonly": False}
    assert document["process"]["args"] == list(PLAIN.argv)
    assert document["process"]["noNewPrivileges"] is True
    assert document["process"]["rlimits"][0]["hard"] == 2**64 - 1
    assert document["process"]["capabilities"] == {"bounding": ["CAP_CHOWN"]}
    assert "hostname" not in document
    assert document["linux"]["maskedPaths"] == []
    assert "readonlyPaths" not in document["linux"]
    assert document["linux"]["resources"]["memory"] == {"limit": 2**30}
    assert document["linux"]["resources"]["devices"]
    assert document["linux"]["sysctl"] == {"net.ipv4.ip_unprivileged_port_start": "0"}


def test_documents_share_nothing() -> None:
    """A change of one must not be seen in the next."""
    first = runtime_spec(PLAIN)
    first["linux"]["maskedPaths"].clear()
    first["process"]["capabilities"]["bounding"].clear()
    first["mounts"][0]["options"].clear()
    assert runtime_spec(PLAIN)["linux"]["maskedPaths"]
    assert runtime_spec(PLAIN)["process"]["capabilities"]["bounding"]
    assert runtime_spec(PLAIN)["mounts"][0]["options"]


def nested(depth: int) -> dict[str, t.Any]:
    """Mappings in mappings."""
    value: dict[str, t.Any] = {}
    for _level in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    "settings",
    [
        ["x"],
        "x",
        {7: "x"},
        {"a": {"b": object()}},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 2**64},
        {"a": b"x"},
        {"a": [None]},
        nested(40),
    ],
)
def test_settings_that_are_none(settings: t.Any) -> None:
    assert problem({}, settings=settings).startswith("settings")


def test_empty_argv_is_an_error() -> None:
    assert "command is empty" in problem({"argv": ()})

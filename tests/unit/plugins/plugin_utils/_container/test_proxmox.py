# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE's configuration (docs/behaviour.md, section 9), read back by its own grammar, and what LXC gets of it."""

from __future__ import annotations

import random
import re
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.lxc_values import quote_word
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import (
    Container,
    ContainerError,
    IdRange,
    Mount,
    User,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.proxmox import (
    ProxmoxOptions,
    needs_wrapper,
    render_proxmox,
)
from ansible_collections.hypervisor.oci.tests.unit import lxc_settings
from ansible_collections.hypervisor.oci.tests.unit.pve_settings import (
    Config,
    Refused,
    copied,
    lxc_config,
    mount_points,
    parse,
    write,
)
from ansible_collections.hypervisor.oci.tests.unit import containers
from ansible_collections.hypervisor.oci.tests.unit.containers import LINE
from hypothesis import given, settings
from hypothesis import strategies as st

MAP = (IdRange(0, 100000, 65536),)
PLAIN = replace(
    containers.PLAIN,
    rootfs="/rootfs",
    argv=("/bin/app", "-x"),
    env=(("PATH", "/bin"), ("A", "1")),
    working_dir="/srv",
    uid_map=MAP,
    gid_map=MAP,
)
NET = "name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01,ip=dhcp,type=veth"
CURRENT = f"""\
#A description%3A of two
#lines %25
arch: amd64
cores: 1
hostname: CT100
memory: 512
mp0: local-lvm:vm-100-disk-1,mp=/data,backup=1,size=8G
net0: {NET}
ostype: unmanaged
rootfs: local-lvm:vm-100-disk-0,size=4G
swap: 512
unprivileged: 1
lxc.cgroup2.devices.allow: c 10:200 rwm
lxc.mount.entry: /dev/fuse dev/fuse none bind,create=file 0 0

[pve:pending]
cores: 2
delete: swap

[before]
#an entrypoint of its own
arch: amd64
entrypoint: /bin/old
mp1: /srv/old,mp=/old
ostype: unmanaged
rootfs: local-lvm:vm-100-disk-0,size=4G
snaptime: 1700000000
lxc.environment.runtime: OLD=1
lxc.init.uid: 7
"""
MAIN, _SEPARATOR, REST = CURRENT.partition("\n[pve:pending]")
REST = "\n[pve:pending]" + REST

TEXT = st.text(st.one_of(LINE, st.sampled_from(" \t'\"\\=#$:,.[]ab")), max_size=10)


def render(container: Container, current: str = CURRENT, **more: t.Any) -> str:
    """The text, which Proxmox VE reads, and which comes back from itself and from what Proxmox VE makes of it."""
    text = render_proxmox(container, current, ProxmoxOptions(**more))
    parsed = parse(text)
    assert render_proxmox(container, text, ProxmoxOptions(**more)) == text
    rewritten = write(parsed)
    assert render_proxmox(container, rewritten, ProxmoxOptions(**more)) == rewritten
    return text


def refused(container: Container, current: str = CURRENT, **more: t.Any) -> str:
    """The message, in one line."""
    with pytest.raises(ContainerError) as caught:
        render_proxmox(container, current, ProxmoxOptions(**more))
    assert caught.value.message.isprintable()
    return caught.value.message


def lxc_of(config: Config) -> lxc_settings.Config:
    """What LXC is told by Proxmox VE."""
    return lxc_settings.read(lxc_config(config.main))


# -- what the reader itself is worth


def test_the_reader_reads_what_it_writes() -> None:
    assert write(parse(CURRENT)) == CURRENT


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "nosuch: 1",
        "lxc.nosuch: 1",
        "lxc.rootfs.path: /x",
        "unprivileged: maybe",
        "memory: 1G",
        "hostname: a_b",
        "hostname: a.",
        "cmode: none",
        "delete: swap",
        "net0: bridge=vmbr0",
        "net0: name=eth0,nosuch=1",
        "net0: name=eth0,name=eth1",
        "net0: name=eth0,ip6=auto,host-managed=1",
        "net32: name=eth0",
        "mp0: /srv",
        "mp0: /srv,mp=/a/../b",
        "mp0: /srv=x,mp=/a",
        "mp0: /srv,mp=/a,mountoptions=suid",
        "mp256: /srv,mp=/a",
        "[a b]",
    ],
)
def test_the_reader_is_strict(line: str) -> None:
    with pytest.raises(Refused):
        parse(CURRENT.replace("swap: 512\n", f"swap: 512\n{line}\n", 1))


# -- the whole file


def test_a_whole_file() -> None:
    """Section 9: what is ours, and nothing else."""
    container = replace(
        PLAIN,
        argv=("/entry", "-c", "echo 'a b'"),
        env=(("PATH", "/bin"), ("E", ""), ("Q", " 'x' "), ("T", "a\tb")),
        user=User("app", 1000, 1001, (4, 20)),
        working_dir="/a b",
        stop_signal="SIGRTMIN",
        mounts=(
            Mount("/srv/a b", "/a", True, options=("nosuid", "nodev")),
            Mount("tmpfs", "/tmp", type="tmpfs", options=("size=1m",)),
        ),
    )
    text = render(container)
    assert text == f"""\
#A description%3A of two
#lines %25
arch: amd64
cores: 1
hostname: web
memory: 512
mp0: local-lvm:vm-100-disk-1,mp=/data,backup=1,size=8G
net0: {NET},host-managed=1
ostype: unmanaged
rootfs: local-lvm:vm-100-disk-0,size=4G
swap: 512
unprivileged: 1
entrypoint: "/entry -c "echo 'a b'""
cmode: console
mp2: /srv/a b,mountoptions=nodev;nosuid,mp=/a,ro=1
lxc.cgroup2.devices.allow: c 10:200 rwm
lxc.mount.entry: /dev/fuse dev/fuse none bind,create=file 0 0
lxc.mount.entry: tmpfs tmp tmpfs size=1m,create=dir 0 0
lxc.init.cwd: /a b
lxc.init.uid: 1000
lxc.init.gid: 1001
lxc.init.groups: 4,20
lxc.signal.halt: SIGRTMIN+0
lxc.environment.runtime: PATH=/bin
lxc.environment.runtime: E=
lxc.environment.runtime: "Q= 'x' "
lxc.environment.runtime: T=a\tb
{REST}"""
    config = lxc_of(parse(text))
    assert config.init == [b"/entry", b"-c", b"echo 'a b'"]
    assert config.runtime == [(b"PATH", b"/bin"), (b"E", b""), (b"Q", b" 'x' "), (b"T", b"a\tb")]
    assert (config.uid, config.gid, config.groups) == (1000, 1001, [4, 20])
    assert (config.cwd, config.halt, config.uts) == (b"/a b", 34, b"web")


def test_everything_else_stays() -> None:
    """Section 9: volumes, networks, descriptions, pending changes and snapshots."""
    before, after = parse(CURRENT), parse(render(PLAIN))
    assert (after.pending, after.snapshots) == (before.pending, before.snapshots)
    assert after.main.description == before.main.description
    ours = {"hostname", "entrypoint", "cmode", "net0"}
    kept = {key: value for key, value in after.main.properties.items() if key not in ours}
    assert kept == {key: value for key, value in before.main.properties.items() if key not in ours}
    assert after.main.lxc[:2] == before.main.lxc
    assert render(PLAIN).endswith(REST)


def test_the_smallest_file() -> None:
    """A privileged container without sections; its end of line may be missing."""
    container = replace(PLAIN, uid_map=(), gid_map=(), env=())
    for current in ("rootfs: a:b", "rootfs: a:b\n", "rootfs: a:b\n\n\n"):
        assert render(container, current) == (
            "rootfs: a:b\nhostname: web\nentrypoint: /bin/app -x\ncmode: console\n"
            "lxc.init.cwd: /srv\nlxc.signal.halt: SIGTERM\n"
        )


def test_an_update_of_the_image() -> None:
    """What the old image had and the new one has not, goes."""
    first = replace(
        PLAIN,
        user=User("app", 1000, 1001, (4,)),
        env=(("OLD", "1"), ("A", "1"), ("B", "2")),
        uid_map=(IdRange(0, 200000, 65536),),
        gid_map=(IdRange(0, 200000, 65536),),
    )
    second = replace(PLAIN, argv=("/bin/new",), env=(("B", "2"),), stop_signal="SIGHUP")
    assert render(second, render(first)) == render(second)
    # where Proxmox VE has written the file since
    rewritten = write(parse(render(first)))
    assert parse(render(second, rewritten)) == parse(render(second))


def test_a_line_that_comes_twice() -> None:
    """The last one wins for Proxmox VE; one is left where it is wrong."""
    current = CURRENT.replace("hostname: CT100\n", "hostname: web\nhostname: b\n", 1)
    assert render(PLAIN, current).count("\nhostname: web\n") == 1
    assert "hostname: b" not in render(PLAIN, current)
    current = CURRENT.replace("hostname: CT100\n", "hostname: b\nhostname: web\n", 1)
    assert "hostname: b\nhostname: web\n" in render(PLAIN, current)


@pytest.mark.parametrize("line", ["unprivileged: yes", "unprivileged: On", "unprivileged:1"])
def test_other_spellings(line: str) -> None:
    """What says the same stays as it is."""
    current = CURRENT.replace("unprivileged: 1", line, 1)
    assert f"\n{line}\n" in render_proxmox(PLAIN, current)
    assert parse(render(PLAIN, current)).main.properties["unprivileged"] == "1"
    current = CURRENT.replace("unprivileged: 1", "unprivileged: 0", 1)
    assert "\nunprivileged: 1\n" in render(PLAIN, current)


@given(
    st.lists(TEXT, min_size=1, max_size=4),
    st.dictionaries(TEXT.map(lambda x: x.replace("=", "-")).filter(bool), TEXT, max_size=4),
    TEXT,
)  # fmt: skip
@settings(deadline=None)
def test_words_come_back(argv: list[str], env: dict[str, str], cwd: str) -> None:
    """Section 9: through Proxmox VE's grammar and LXC's, and through a file that Proxmox VE wrote."""
    argv = ["x" if word == "/sbin/init" else word for word in argv]
    container = replace(PLAIN, argv=tuple(argv), env=tuple(env.items()), working_dir=f"/{cwd}x")
    if needs_wrapper(container):
        assert any(quote_word(word) is None for word in argv)
        return
    text = render(container)
    for config in (parse(text), parse(write(parse(text)))):
        lxc = lxc_of(config)
        assert lxc.init == [word.encode() for word in argv]
        assert lxc.runtime == [(k.encode(), v.encode()) for k, v in env.items()]
        assert lxc.cwd == re.sub(rb"/+", b"/", f"/{cwd}x".encode())


# -- init systems


def test_a_system_with_an_init_of_its_own() -> None:
    """Section 9: no entrypoint for /sbin/init, no console mode, and no network of the host's."""
    container = replace(PLAIN, argv=("/sbin/init",))
    text = render(container)
    properties = parse(text).main.properties
    assert "entrypoint" not in properties
    assert "cmode" not in properties
    assert properties["net0"] == NET
    assert lxc_of(parse(text)).init == []
    # from a program to an init
    properties = parse(render(container, render(PLAIN))).main.properties
    assert "entrypoint" not in properties
    assert "cmode" not in properties
    # a console that is no business of ours
    current = CURRENT.replace("cores: 1", "cmode: shell\ncores: 1", 1)
    assert parse(render(container, current)).main.properties["cmode"] == "shell"


def test_arguments_of_an_init() -> None:
    """Proxmox VE has no place for them in its entrypoint, and LXC has one."""
    container = replace(PLAIN, argv=("/sbin/init", "--log level"))
    config = parse(render(container))
    assert "entrypoint" not in config.main.properties
    assert lxc_of(config).init == [b"/sbin/init", b"--log level"]
    # a raw line would win over an entrypoint
    config = parse(render(PLAIN, render(container)))
    assert config.main.values("lxc.init.cmd") == []
    assert lxc_of(config).init == [b"/bin/app", b"-x"]


# -- networks


@pytest.mark.parametrize("said", ["host-managed=0", "host-managed=1"])
def test_a_network_that_says_it_itself(said: str) -> None:
    current = CURRENT.replace(NET, f"name=eth0,{said},ip=dhcp", 1)
    assert f"\nnet0: name=eth0,{said},ip=dhcp\n" in render(PLAIN, current)


def test_several_networks() -> None:
    current = CURRENT.replace("ostype", "net1: name=eth1,ip6=fd00::2/64\nostype", 1)
    properties = parse(render(PLAIN, current)).main.properties
    assert properties["net0"] == f"{NET},host-managed=1"
    assert properties["net1"] == "name=eth1,ip6=fd00::2/64,host-managed=1"


def test_a_network_that_the_host_cannot_set() -> None:
    """Proxmox VE refuses to start such a container."""
    current = CURRENT.replace(NET, "name=eth0,ip6=auto", 1)
    assert refused(PLAIN, current).startswith("net0: the host cannot set ip6=auto")
    current = CURRENT.replace(NET, "name=eth0,ip6=auto,host-managed=0", 1)
    render(PLAIN, current)


# -- id maps


def test_the_usual_map_needs_no_line() -> None:
    text = render(replace(PLAIN), CURRENT.replace("unprivileged: 1\n", "", 1))
    assert parse(text).main.properties["unprivileged"] == "1"
    assert parse(text).main.values("lxc.idmap") == []
    assert lxc_of(parse(text)).idmap == [("u", 0, 100000, 65536), ("g", 0, 100000, 65536)]  # fmt: skip


def test_another_map() -> None:
    container = replace(PLAIN, uid_map=(IdRange(0, 100000, 1000), IdRange(1000, 1000, 1)))
    config = parse(render(container))
    assert lxc_of(config).idmap == [("u", 0, 100000, 1000), ("u", 1000, 1000, 1), ("g", 0, 100000, 65536)]
    # and back
    assert parse(render(PLAIN, render(container))).main.values("lxc.idmap") == []


@pytest.mark.parametrize("line", ["unprivileged: 1", "lxc.idmap: u 0 100000 65536"])
def test_no_image_makes_a_container_privileged(line: str) -> None:
    container = replace(PLAIN, uid_map=(), gid_map=())
    assert refused(container, f"rootfs: a:b\n{line}\n").startswith("uid_map is missing")
    render(container, "rootfs: a:b\nunprivileged: 0\n")


# -- mounts


def test_mount_points() -> None:
    """The lowest number that is free in every section; one that has the target is replaced."""
    container = replace(PLAIN, mounts=(Mount("/srv/a", "/a"), Mount("/srv/b", "/b")))
    text = render(container)
    assert mount_points(parse(text).main) == {
        "mp0": {
            "volume": "local-lvm:vm-100-disk-1", "mp": "/data", "backup": "1", "size": "8G",
        },
        # mp1 is a snapshot's
        "mp2": {"volume": "/srv/a", "mp": "/a"},
        "mp3": {"volume": "/srv/b", "mp": "/b"},
    }  # fmt: skip
    moved = replace(PLAIN, mounts=(Mount("/srv/c", "/b", True), Mount("/srv/a", "/a")))
    found = mount_points(parse(render(moved, text)).main)
    assert found["mp2"] == {"volume": "/srv/a", "mp": "/a"}
    assert found["mp3"] == {"volume": "/srv/c", "mp": "/b", "ro": "1"}
    # read-write again, and what the administrator added stays
    text = text.replace("mp3: /srv/b,mp=/b", "mp3: /srv/b,backup=1,mp=/b/,ro=1,shared=1")
    found = mount_points(parse(render(container, text)).main)
    assert found["mp3"] == {"volume": "/srv/b", "mp": "/b", "backup": "1", "shared": "1"}  # fmt: skip


def test_mounts_that_are_taken_out() -> None:
    """Nothing goes that is not named: it could be the administrator's."""
    mounts = (Mount("/srv/a", "/a"), Mount("/srv/b", "/b"), Mount("tmpfs", "/c d", type="tmpfs"))
    text = render(replace(PLAIN, mounts=mounts))
    assert render(PLAIN, text) == text
    assert render(PLAIN, text, drop_mounts=["/a/", "/b", "/c d"]) == render(PLAIN)
    left = replace(PLAIN, mounts=mounts[:1])
    assert parse(render(left, text, drop_mounts=["/a", "/b", "/c d", "/none"])) == parse(render(left))  # fmt: skip
    dropped = render(PLAIN, drop_mounts=["/dev/fuse"])
    assert parse(dropped).main.values("lxc.mount.entry") == []


def test_volumes_are_never_taken_out() -> None:
    """Their line is what Proxmox VE knows of them."""
    bind = replace(PLAIN, mounts=(Mount("/srv", "/data"),))
    tmpfs = replace(PLAIN, mounts=(Mount("tmpfs", "/data", type="tmpfs"),))
    for message in (refused(PLAIN, drop_mounts=["/data"]), refused(bind), refused(tmpfs)):
        assert "mp0 mounts the volume 'local-lvm:vm-100-disk-1' at '/data'" in message


def test_from_a_bind_to_a_tmpfs_and_back() -> None:
    bind = replace(PLAIN, mounts=(Mount("/srv/a", "/a"),))
    tmpfs = replace(PLAIN, mounts=(Mount("tmpfs", "/a", type="tmpfs"),))
    assert parse(render(tmpfs, render(bind))) == parse(render(tmpfs))
    assert parse(render(bind, render(tmpfs))) == parse(render(bind))


@pytest.mark.parametrize(
    ("mount", "what"),
    [
        (Mount("/srv/a,b", "/a"), "mounts.source"),
        (Mount("/srv/a=b", "/a"), "mounts.source"),
        (Mount("/srv/a", "/a,ro=0"), "mounts.target"),
        (Mount("/srv/a", "/a "), "mounts.target"),
        (Mount("/srv/a", "/a\u00a0"), "mounts.target"),
        (Mount("/dev/sda", "/a"), "mount the disk"),
        (Mount("/srv/a", "/a", options=("rbind",)), "option 'rbind'"),
        (Mount("/srv/a", "/a", options=("noatime;ro",)), "option 'noatime;ro'"),
        (Mount("/srv/a", "/a", True, options=("noatime",)), "option 'noatime'"),
    ],
)
def test_mounts_that_it_cannot_write(mount: Mount, what: str) -> None:
    message = refused(replace(PLAIN, mounts=(mount,)))
    assert message.startswith("mounts.")
    assert what in message


def test_more_mount_points_than_there_are() -> None:
    more = "".join(f"mp{n}: /srv/{n},mp=/m{n}\n" for n in range(1, 256))
    current = CURRENT.replace("net0:", f"{more}net0:", 1)
    render(PLAIN, current)
    assert "all 256" in refused(replace(PLAIN, mounts=(Mount("/a", "/a"),)), current)


# -- the wrapper

MIXED = replace(PLAIN, argv=("/bin/app", 'it\'s "x"'), env=(("A", "1"), ("B", "x\ny")))


def test_the_wrapper() -> None:
    """Section 9: what cannot be written otherwise, where the user allows it."""
    assert refused(MIXED).startswith("command: ")
    assert refused(replace(MIXED, argv=PLAIN.argv)).startswith("env.B: ")
    text = render(MIXED, wrapper="/var/lib/x/exec")
    config = lxc_of(parse(text))
    assert config.init == [b"/bin/sh", b"/dev/.hypervisor-oci-exec"]
    assert config.runtime == [(b"A", b"1")]
    assert config.mounts[1].source == b"/var/lib/x/exec"
    assert config.mounts[1].target == b"dev/.hypervisor-oci-exec"
    # it goes with its need, and moves with its path
    assert render(PLAIN, text, wrapper="/var/lib/x/exec") == render(PLAIN)
    moved = lxc_of(parse(render(MIXED, text, wrapper="/y")))
    assert [entry.source for entry in moved.mounts] == [b"/dev/fuse", b"/y"]


# -- versions


def test_versions() -> None:
    """The minimum version of each key."""
    app = replace(PLAIN, user=User("app", 1000, 0))
    for version in ("6.1.0", "6.1.10-1", "6.2", "7.0", "6.1.0~1", "6.1.0\n", None):
        render(app, version=version)
    for version in ("6.0.15", "6.0.19"):
        render(PLAIN, version=version)
        assert refused(app, version=version).startswith(f"user: pve-container '{version}'")
        for user in (User("", 0, 5), User("", 0, 0, (5,))):
            assert refused(replace(PLAIN, user=user), version=version).startswith("user")
    for version in ("6.0.14", "5.3.0", "6.0"):
        assert "update it to 6.0.15" in refused(PLAIN, version=version)
    for version in ("", "new", "6", "6.1.0\n\nx"):
        assert refused(PLAIN, version=version).startswith("version: ")


# -- the administrator's settings


def test_settings() -> None:
    given = {
        "memory": 1024,
        "cpulimit": 0.5,
        "onboot": True,
        "swap": None,
        "net1": "name=eth1,bridge=vmbr1",
        "net0": None,
        "lxc.cgroup2.devices.allow": ["c 10:200 rwm", "c 1:1 r"],
        "lxc.cap.drop": "sys_module",
        "lxc.prlimit.nofile": 1024,
    }
    section = parse(render(PLAIN, settings=given)).main
    assert section.properties["memory"] == "1024"
    assert section.properties["cpulimit"] == "0.5"
    assert section.properties["onboot"] == "1"
    assert "swap" not in section.properties
    assert "net0" not in section.properties
    assert section.properties["net1"] == "name=eth1,bridge=vmbr1,host-managed=1"
    assert section.values("lxc.cgroup2.devices.allow") == ["c 10:200 rwm", "c 1:1 r"]
    assert section.values("lxc.cap.drop") == ["sys_module"]
    assert section.values("lxc.prlimit.nofile") == ["1024"]
    text = render(PLAIN, settings=given)
    after = parse(render(PLAIN, text, settings={"lxc.cap.drop": None})).main
    assert after.values("lxc.cap.drop") == []


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"entrypoint": "/x"}, "entrypoint and command"),
        ({"lxc.init.uid": 0}, "set user"),
        ({"lxc.environment.runtime": "A=1"}, "set env"),
        ({"lxc.idmap": "u 0 0 1"}, "set uid_map"),
        ({"unprivileged": 0}, "set uid_map"),
        ({"lxc.mount.entry": "x"}, "set mounts"),
        ({"rootfs": "a:b"}, "its tools"),
        ({"lock": "backup"}, "its tools"),
        ({"mp0": "/x,mp=/y"}, "does not read the key"),
        ({"nosuch": 1}, "does not read the key"),
        ({"lxc.rootfs.path": "/x"}, "does not read the key"),
        ({"lxc.nosuch": "x"}, "does not read the key"),
        ({"lxc.net.0.type\nlxc.hook.start": "x"}, "does not read the key"),
        ({"net32": "name=x"}, "does not read the key"),
        ({5: "x"}, "does not read the key"),
        ({"memory": "1\nrootfs: /"}, "control character"),
        ({"tags": "a\rb"}, "control character"),
        ({"lxc.cap.drop": ["a\nlxc.hook.start: x"]}, "control character"),
        ({"memory": []}, "must be a string, a number"),
        ({"lxc.cap.drop": [{}]}, "must be a string, a number"),
        ({"memory": " "}, "is empty"),
        ("memory: 1", "must be a mapping"),
    ],
)
def test_settings_that_are_none(given: t.Any, what: str) -> None:
    message = refused(PLAIN, settings=given)
    assert message.startswith("settings")
    assert what in message


# -- what is no configuration


@pytest.mark.parametrize("current", ["", "\n", "[ab]\nrootfs: a:b\n", "#rootfs: a:b\n", "memory: 1\n"])
def test_texts_that_are_no_container(current: str) -> None:
    assert refused(PLAIN, current).startswith("current has no rootfs")


def test_other_arguments() -> None:
    assert refused(PLAIN, t.cast("t.Any", None)).startswith("current must be")
    assert refused(PLAIN, drop_mounts="/a").startswith("drop_mounts")
    assert refused(replace(PLAIN, hostname="a_b")).startswith("hostname: ")


def test_a_lock() -> None:
    """Something of Proxmox VE's own is at work: an error where something would change."""
    current = CURRENT.replace("memory", "lock: backup\nmemory", 1)
    assert "'backup'" in refused(PLAIN, current)
    done = render(PLAIN).replace("memory", "lock: backup\nmemory", 1)
    assert render_proxmox(PLAIN, done) == done


def test_any_order_of_lines() -> None:
    """Section 9: lines are compared by what they say, since Proxmox VE sorts them."""
    generator = random.Random(0)
    container = replace(PLAIN, mounts=(Mount("/srv/a", "/a", True),))
    config = parse(render(container))
    for _round in range(20):
        shuffled = copied(config)
        items = list(shuffled.main.properties.items())
        generator.shuffle(items)
        # lines of one key keep their order
        blocks = sorted({key for key, _value in shuffled.main.lxc})
        generator.shuffle(blocks)
        lines = [f"{key}: {value}" for key, value in items]
        lines += [f"lxc.environment.runtime = {value}" for value in shuffled.main.env]
        lines += [f"{k}={v}" for b in blocks for k, v in shuffled.main.lxc if k == b]
        text = "\n".join(lines) + "\n" + REST
        assert render_proxmox(container, text) == text

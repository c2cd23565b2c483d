# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LXC's configuration (docs/behaviour.md, section 9), read back by LXC's rules."""

from __future__ import annotations

import shutil
import subprocess
import typing as t
import unicodedata
from dataclasses import replace

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._image.config import normalise_signal
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.lxc import needs_wrapper, render_lxc
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.lxc_values import command_value, quote_word
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import (
    Container,
    ContainerError,
    IdRange,
    Mount,
    User,
)
from ansible_collections.hypervisor.oci.tests.unit.lxc_settings import Entry, Misread, items, read, words
from ansible_collections.hypervisor.oci.tests.unit import containers
from ansible_collections.hypervisor.oci.tests.unit.containers import LINE
from hypothesis import example, given, settings
from hypothesis import strategies as st

if t.TYPE_CHECKING:
    from pathlib import Path

PLAIN = replace(containers.PLAIN, rootfs="/var/lib/lxc/web/rootfs")
WRAPPER = "/var/lib/lxc/web/exec"
AWKWARD = (
    "",
    '"',
    "'",
    '""',
    "it's",
    'say "hi"',
    "\\",
    "a\\",
    '\\"',
    " ",
    "\t",
    "\t\t",
    " a ",
    '" ',
    " '",
    "$HOME ${HOME} `id` $(id)",
    "#",
    " #x",
    "=",
    "a=b",
    "lxc.hook.start = /bin/x",
    "ünï😀",
    "\u00a0",
    "\u2028",
    "{{ 7*7 }}",
    "%n",
    "-x",
)

TEXT = st.text(st.one_of(LINE, st.sampled_from(" \t'\"\\=#$:,.ab")), max_size=12)
ANY = st.text(st.one_of(LINE, st.sampled_from(" \t'\"\\=\n\r\x0b\x85\x7f\0a")), max_size=8)


def render(container: Container, **more: t.Any) -> str:
    """The text, which always ends its last line."""
    text = render_lxc(container, **more)
    assert text.endswith("\n")
    return text


def is_line(text: str) -> bool:
    """Independent of the product: nothing that a line of text cannot hold."""
    return all(c == "\t" or unicodedata.category(c) != "Cc" for c in text)


# -- what the reader itself is worth


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"one two", [b"one", b"two"]),
        (b'one two "three four"', [b"one", b"two", b"three four"]),
        (b"a'b c\"d", [b"a'b", b'c"d']),
        (b"'a\"b' \"c'd\"", [b'a"b', b"c'd"]),
        (b"\"\" x ''", [b"", b"x", b""]),
        (b'"a"b', [b"a", b"b"]),
        (b'"a\\" b', [b"a\\", b"b"]),
        (b'a "open', [b"a"]),
        (b"  \t ", []),
    ],
)
def test_the_readers_words(value: bytes, expected: list[bytes]) -> None:
    assert words(value) == expected


def test_the_readers_lines() -> None:
    text = (
        b'\n  lxc.a =  x \t\r lxc.b="y "\nlxc.c = \'"z\'\n# lxc.d = 1\nfoo = lxc.e\nlxc.f = "\n'
        b'lxc.g = ""h""\0lxc.i = 1'
    )
    assert list(items(text)) == [
        (b"lxc.a", b"x"),
        (b"lxc.b", b"y "),
        (b"lxc.c", b'"z'),
        (b"lxc.f", b'"'),
        (b"lxc.g", b'"h"'),
    ]
    with pytest.raises(Misread):
        list(items(b"lxc.hook.start"))


# -- the whole file


def test_a_plain_container() -> None:
    assert render(PLAIN) == (
        "lxc.uts.name = web\n"
        "lxc.rootfs.path = dir:/var/lib/lxc/web/rootfs\n"
        "lxc.environment = PATH=/bin\n"
        "lxc.init.cmd = /bin/app\n"
        "lxc.init.cwd = /\n"
        "lxc.init.uid = 0\n"
        "lxc.init.gid = 0\n"
        "lxc.signal.halt = SIGTERM\n"
    )


def test_all_that_there_is() -> None:
    container = replace(
        PLAIN,
        hostname="web.example",
        argv=("/bin/sh", "-c", "echo 'hi'"),
        env=(("A", ""), ("B", "x=y"), ("A B", "'")),
        working_dir="/a b",
        user=User("app", 1000, 1001, (4, 20), "/home/app"),
        stop_signal="SIGRTMIN+3",
        mounts=(
            Mount("/srv/a b\\c", "/data dir"),
            Mount("/srv/ro", "/ro", True, options=("nosuid", "create=file")),
            Mount("tmpfs", "/tmp", type="tmpfs", options=("size=1m",)),
            Mount("/srv/one", "/one", options=("bind",)),
        ),
        uid_map=(IdRange(0, 100000, 1000), IdRange(1000, 5000, 1)),
        gid_map=(IdRange(0, 100000, 65536),),
    )
    config = read(render(container, runtime_environment=True, settings=["lxc.net.0.type = empty", "lxc.include = /x"]))
    assert config.uts == b"web.example"
    assert config.rootfs == (b"dir", b"/var/lib/lxc/web/rootfs")
    assert config.init == [b"/bin/sh", b"-c", b"echo 'hi'"]
    assert config.runtime == [(b"A", b""), (b"B", b"x=y"), (b"A B", b"'")]
    assert config.environment == []
    assert config.cwd == b"/a b"
    assert (config.uid, config.gid, config.groups) == (1000, 1001, [4, 20])
    assert config.halt == 37
    assert config.mounts == [
        Entry(b"/srv/a b\\c", b"data dir", b"none", (b"rbind", b"create=dir")),
        Entry(b"/srv/ro", b"ro", b"none", (b"bind", b"ro", b"nosuid", b"create=file")),
        Entry(b"tmpfs", b"tmp", b"tmpfs", (b"size=1m", b"create=dir")),
        Entry(b"/srv/one", b"one", b"none", (b"bind", b"create=dir")),
    ]
    assert config.idmap == [("u", 0, 100000, 1000), ("u", 1000, 5000, 1), ("g", 0, 100000, 65536)]
    # inclusions first, so that they do not win over the container's own lines
    assert [key for key, _value in config.others] == [b"lxc.include", b"lxc.net.0.type"]


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["/bin/app", "-x"], "/bin/app -x"),
        (["a", "b c"], '"a "b c""'),
        (["a b"], '""a b""'),
        (["a", 'b "c"'], '"a \'b "c"\'"'),
        (["a", ""], '"a """'),
        (["a", "'"], '"a "\'""'),
        # quotes inside of a bare word stay
        (["a", "b'c\"d"], "a b'c\"d"),
        (["a\\", "$x"], "a\\ $x"),
    ],
)
def test_commands(argv: list[str], value: str) -> None:
    """Section 9: whole words are quoted, and then the whole value."""
    assert command_value(argv) == value
    text = render(replace(PLAIN, argv=tuple(argv)))
    assert f"lxc.init.cmd = {value}\n" in text
    assert read(text).init == [word.encode() for word in argv]


@pytest.mark.parametrize("word", ["'\" ", "\"'", "a b'c\"d", "a\nb", "\x85", "\x7f"])
def test_words_that_lxc_cannot_write(word: str) -> None:
    """Section 9: by the wrapper where the user allows it, else an error that names the field."""
    container = replace(PLAIN, argv=("/bin/app", word))
    with pytest.raises(ContainerError) as caught:
        render_lxc(container)
    assert caught.value.message.startswith("command: LXC cannot express the word '")
    assert "\n" not in caught.value.message
    assert needs_wrapper(container)
    config = read(render(container, wrapper=WRAPPER))
    assert config.init == [b"/bin/sh", b"/dev/.hypervisor-oci-exec"]
    assert config.mounts == [
        Entry(WRAPPER.encode(), b"dev/.hypervisor-oci-exec", b"none", (b"bind", b"ro", b"create=file"))
    ]


def test_no_wrapper_where_none_is_needed() -> None:
    assert not needs_wrapper(PLAIN)
    assert render(PLAIN, wrapper=WRAPPER) == render(PLAIN)


def test_a_wrapper_that_is_nowhere() -> None:
    with pytest.raises(ContainerError, match="not an absolute path"):
        render_lxc(replace(PLAIN, argv=("'\" ",)), wrapper="exec")


@given(st.lists(TEXT, min_size=1, max_size=5))
@example(list(AWKWARD[1:]))
@settings(deadline=None)
def test_argv_comes_back(argv: list[str]) -> None:
    """Section 9: each word as it is, or the wrapper; never another word."""
    container = replace(PLAIN, argv=tuple(argv))
    if needs_wrapper(container):
        assert any('"' in word and "'" in word for word in argv)
        assert any(quote_word(word) is None for word in argv)
        return
    assert read(render(container)).init == [word.encode() for word in argv]


@pytest.mark.parametrize("runtime", [False, True])
@given(data=st.data())
@settings(deadline=None)
def test_the_environment_comes_back(data: st.DataObject, runtime: bool) -> None:
    """Section 9: every name and value, with blanks and quotes at its ends."""
    names = TEXT.map(lambda text: text.replace("=", "-")).filter(bool)
    env = data.draw(st.dictionaries(names, TEXT, max_size=5))
    container = replace(PLAIN, env=tuple(env.items()))
    config = read(render(container, runtime_environment=runtime))
    found = config.runtime if runtime else config.environment
    assert found == [(key.encode(), value.encode()) for key, value in env.items()]
    assert (config.environment if runtime else config.runtime) == []


@given(TEXT, TEXT, TEXT, TEXT)
@settings(deadline=None)
def test_paths_come_back(cwd: str, rootfs: str, source: str, target: str) -> None:
    """Section 9: blanks and backslashes in paths, those of mounts by fstab's escapes."""
    clean = [text.replace("/", "_") for text in (cwd, rootfs, source, target)]
    cwd, rootfs, source, target = (f"/{text}x{text}" for text in clean)
    container = replace(PLAIN, working_dir=cwd, rootfs=rootfs, mounts=(Mount(source, target),))
    config = read(render(container))
    assert config.cwd == cwd.encode()
    assert config.rootfs == (b"dir", rootfs.encode())
    assert config.mounts[0][:2] == (source.encode(), target[1:].encode())


@given(st.lists(ANY, min_size=1, max_size=3), ANY, ANY, ANY)
@settings(deadline=None)
def test_nothing_becomes_a_line_of_its_own(argv: list[str], name: str, value: str, cwd: str) -> None:
    """Section 9: a control character is refused or carried by the wrapper, and never ends a line."""
    container = replace(PLAIN, argv=tuple(argv), env=((name, value),), working_dir="/" + cwd)
    fields = [*argv, name, value, cwd]
    try:
        text = render(container, wrapper=WRAPPER)
    except ContainerError as error:
        assert "\n" not in error.message
        assert (
            not all(is_line(field) for field in fields)
            or any(quote_word(word) is None for word in argv)
            or not name
            or "=" in name
        )
        return
    assert is_line(text.replace("\n", ""))
    assert is_line(name) and is_line(cwd)
    keys = [key for key, _value in items(text.encode())]
    env = 1 if is_line(value) else 0
    wrapped = 1 if needs_wrapper(container) else 0
    assert len(keys) == text.count("\n") == 7 + env + wrapped
    read(text)


@pytest.mark.parametrize(
    "signal",
    [
        *("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGWINCH", "SIGPWR"),
        *("SIGSYS", "SIGIO", "SIGPOLL", "SIGIOT", "SIGCLD", "SIGSTKFLT"),
        *("SIGRTMIN", "SIGRTMIN+3", "SIGRTMIN+30", "SIGRTMAX", "SIGRTMAX-1"),
    ],
)
def test_signals(signal: str) -> None:
    """Section 9: LXC reads the very signal, also those whose names it has in another way."""
    number = read(render(replace(PLAIN, stop_signal=signal))).halt
    aliases = {"SIGPOLL": "SIGIO", "SIGIOT": "SIGABRT", "SIGCLD": "SIGCHLD"}
    expected = aliases.get(signal, signal)
    if signal.startswith("SIGRTMAX"):
        expected = f"SIGRTMIN+{30 - int(signal[9:] or '0')}"
    assert normalise_signal(str(number)) == expected


def test_a_mount_entry_that_lxc_would_cut() -> None:
    mount = Mount("/" + "ä" * 2040, "/x")
    with pytest.raises(ContainerError, match="longer than the 4095 bytes"):
        render_lxc(replace(PLAIN, mounts=(mount,)))
    fits = "/" + "a" * 4000
    assert read(render(replace(PLAIN, mounts=(Mount(fits, "/x"),)))).mounts[0].source == fits.encode()  # fmt: skip


# -- who sees the environment

SECRET = (("LD_PRELOAD", "/evil.so"), ("PATH", "/bin"))
HOOKS = [
    "lxc.hook.start = /bin/hook",
    " lxc.hook.pre-mount=/bin/hook",
    "lxc.include = /usr/share/lxc/config/common.conf",
    "\tlxc.include=/x",
]


@pytest.mark.parametrize("line", HOOKS)
def test_hooks_do_not_see_the_environment(line: str) -> None:
    """Section 9: ``lxc.environment`` is set for hooks on the host, too."""
    container = replace(PLAIN, env=SECRET)
    with pytest.raises(ContainerError, match="^env: "):
        render_lxc(container, settings=[line])
    assert needs_wrapper(container, settings=[line])
    config = read(render(container, settings=[line], wrapper=WRAPPER))
    assert config.environment == config.runtime == []
    assert config.init == [b"/bin/sh", b"/dev/.hypervisor-oci-exec"]
    # a release that tells them apart needs no wrapper
    assert not needs_wrapper(container, settings=[line], runtime_environment=True)
    text = render(container, settings=[line], runtime_environment=True)
    assert read(text).runtime[0] == (b"LD_PRELOAD", b"/evil.so")


@pytest.mark.parametrize(
    "line", ["# lxc.hook.start = x", "lxc.net.0.type = empty", "lxc.hooks", "", "lxc.hook.pre-start = /bin/early"]
)
def test_other_settings_do_not_run_anything_with_it(line: str) -> None:
    container = replace(PLAIN, env=SECRET)
    assert not needs_wrapper(container, settings=[line])
    assert "lxc.environment = LD_PRELOAD=/evil.so\n" in render(container, settings=[line])


# -- what releases of LXC can do


@given(st.lists(TEXT, min_size=1, max_size=4))
@example(["'a", "b'"])
@example(["\ta", "b\t"])
@example(['"'])
@example(["- "])
@settings(deadline=None)
def test_words_before_lxc_6(argv: list[str]) -> None:
    """Split at blanks and nothing else: quotes are part of a word, and no word with a blank can be written."""
    container = replace(PLAIN, argv=tuple(argv))
    wrapped = any(" " in word or not word for word in argv)
    assert needs_wrapper(container, version="5.0.2") is wrapped
    if wrapped and argv[0].startswith("-"):
        with pytest.raises(ContainerError, match="for an option"):
            render_lxc(container, version="5.0.2", wrapper=WRAPPER)
        return
    text = render(container, version="5.0.2", wrapper=WRAPPER)
    words = [b"/bin/sh", b"/dev/.hypervisor-oci-exec"]
    if not wrapped:
        words = [word.encode() for word in argv]
    assert read(text, quoted_words=False).init == words


@pytest.mark.parametrize(
    ("version", "runtime", "groups", "quotes"),
    [
        (None, False, True, True),
        ("4.0.12", False, False, False),
        ("5.0.2", False, False, False),
        ("6.0.6", False, False, True),
        ("7.0.0", True, True, True),
        ("7.0", True, True, True),
        ("10.1.0-devel", True, True, True),
        ("5.0.2-1+deb12u4\n", False, False, False),
    ],
)
def test_releases(version: str | None, runtime: bool, groups: bool, quotes: bool) -> None:
    config = read(render(PLAIN, version=version))
    assert bool(config.runtime) is runtime
    assert bool(config.environment) is not runtime
    # what is known of a build wins over its version
    for known in (False, True):
        text = render(PLAIN, version=version, runtime_environment=known)
        assert bool(read(text).runtime) is known
    blank = replace(PLAIN, argv=("/bin/app", "a b"))
    assert needs_wrapper(blank, version=version) is not quotes
    mapped = replace(
        PLAIN, user=User("app", 1, 1, (2,)), uid_map=(IdRange(0, 100000, 65536),), gid_map=(IdRange(0, 100000, 65536),)
    )
    if groups:
        assert read(render(mapped, version=version)).groups == [2]
    else:
        with pytest.raises(ContainerError, match="^user: LXC .* does not give supple"):
            render_lxc(mapped, version=version)
    # without a map, or without groups, every release does it
    plain = replace(mapped, uid_map=(), gid_map=())
    assert read(render(plain, version=version)).groups == [2]
    render(replace(mapped, user=User("app", 1, 1)), version=version)


@pytest.mark.parametrize("version", ["", "six", "6", "v6.0", "6.0\n\nx", "6.x", "-1.0"])
def test_versions_that_are_none(version: str) -> None:
    for function in (render_lxc, needs_wrapper):
        with pytest.raises(ContainerError, match="^version: "):
            function(PLAIN, version=version)  # type: ignore[operator]


# -- the administrator's lines


def test_settings_stand_as_they_are() -> None:
    lines = ["lxc.net.0.type = veth", "  # a comment", "", "lxc.x='a \"b"]
    text = render(PLAIN, settings=lines)
    assert text == render(PLAIN) + "\n".join(lines) + "\n"
    assert render(PLAIN, settings=tuple(lines)) == text


@pytest.mark.parametrize("bad", ["a\nb", "a\r", "\0", "\x1b[m", "x\x85", "\ud800"])
def test_settings_with_control_characters(bad: str) -> None:
    for lines in ([bad], ["lxc.net.0.type = empty", bad]):
        with pytest.raises(ContainerError, match="^settings: "):
            render_lxc(PLAIN, settings=lines)


@pytest.mark.parametrize("bad", ["lxc.x = 1", 5, {"a": 1}, [1], [None], [["a"]]])
def test_settings_that_are_no_lines(bad: t.Any) -> None:
    with pytest.raises(ContainerError, match="^settings"):
        render_lxc(PLAIN, settings=bad)


# -- LXC itself


@pytest.mark.skipif(shutil.which("lxc-info") is None, reason="LXC is not installed")
def test_lxc_reads_it(tmp_path: Path) -> None:
    """Section 9: what the reader of these tests takes for LXC's rules is what LXC does."""
    argv = [word for word in AWKWARD if quote_word(word) is not None]
    container = replace(
        PLAIN,
        argv=tuple(argv),
        env=tuple((f"V{number}", word) for number, word in enumerate(AWKWARD)) + ((" '", " x "),),
        working_dir='/"a b\t',
        mounts=(Mount("/srv/a b", "/x y", True),),
        user=User("a", 5, 6, (7, 8)),
        stop_signal="SIGRTMAX",
        uid_map=(IdRange(0, 100000, 65536),),
        gid_map=(IdRange(0, 100000, 65536),),
    )
    text = render(container)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "config").write_text(text, encoding="utf-8")

    def ask(key: str) -> bytes:
        done = subprocess.run(
            ["lxc-info", "-P", tmp_path, "-n", "web", "-c", key], capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(key.encode() + b" = "), done.stdout
        return done.stdout[len(key) + 3 :]

    config = read(text)
    value = ask("lxc.init.cmd")
    assert value.endswith(b"\n")
    assert words(value[:-1]) == config.init == [word.encode() for word in argv]
    lines = ask("lxc.environment").rstrip(b"\n").split(b"\n")
    assert lines == [b"=".join(item) for item in config.environment]
    assert ask("lxc.init.cwd") == b'/"a b\t\n'
    assert ask("lxc.mount.entry").split() == [
        b"/srv/a\\040b", b"x\\040y", b"none", b"bind,ro,create=dir", b"0", b"0",
    ]  # fmt: skip
    assert (ask("lxc.init.uid"), ask("lxc.init.gid")) == (b"5\n", b"6\n")
    assert ask("lxc.init.groups") == b"7,8\n"
    assert ask("lxc.signal.halt") == b"64\n"
    assert ask("lxc.idmap") == b"u 0 100000 65536\ng 0 100000 65536\n"
    assert ask("lxc.uts.name") == b"web\n"
    # without its type, which lxc-info does not show
    assert ask("lxc.rootfs.path") == b"/var/lib/lxc/web/rootfs\n"


@pytest.mark.parametrize("key", ["lxc.cgroup.devices.deny", "lxc.cgroup.memory.limit_in_bytes"])
def test_keys_of_cgroup_v1_with_lxc_7(key: str) -> None:
    """LXC 7.0 does not load such a configuration, so the container would not start."""
    line = f"{key} = 1"
    with pytest.raises(ContainerError, match=f"^settings: LXC 7.0 does not load a configuration with '{key}'"):
        render_lxc(PLAIN, version="7.0.0", settings=[line])
    for version in (None, "6.0.4"):
        assert line in render_lxc(PLAIN, version=version, settings=[line])
    for kept in (
        "lxc.cgroup.dir = x",
        "lxc.cgroup.dir.container = x",
        "lxc.cgroup.relative = 1",
        "lxc.cgroup2.pids.max = 9",
    ):
        assert kept in render_lxc(PLAIN, version="7.0.0", settings=[kept])

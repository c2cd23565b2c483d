# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of systemd-nspawn (docs/behaviour.md, section 9), read back by systemd's rules."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import (
    Container,
    ContainerError,
    IdRange,
    Mount,
    User,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.nspawn import (
    needs_wrapper,
    render_nspawn,
    wrapper_script,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.wrapper import WRAPPER_TARGET
from ansible_collections.hypervisor.oci.tests.unit import systemd_settings
from ansible_collections.hypervisor.oci.tests.unit.systemd_settings import Bind, read
from ansible_collections.hypervisor.oci.tests.unit.containers import PLAIN
from hypothesis import example, given
from hypothesis import strategies as st

ROOT = User("", 0, 0)
APP = User("app", 1000, 1000, (10, 20), "/home/app")
NSS = {"getent": True, "uid": 1000, "gid": 1000, "groups": [20, 10]}
AWKWARD = (
    "",
    '"',
    "'",
    "it's",
    'say "it\'s"',
    "\\",
    "a\\",
    "\\n",
    "\"'\\",
    " ",
    "\t",
    " a ",
    "%n %% %h",
    "$HOME ${HOME} `id`",
    "#",
    ";x",
    "[Files]",
    "=",
    "ünï😀",
    "{{ 7*7 }}",
    "-x=y:z,.",
    "\ufeff",
    "\u2028",
)


def container(**fields: t.Any) -> Container:
    """A plain container with other fields."""
    return dataclasses.replace(PLAIN, **fields)


def problem(given_container: Container, **arguments: t.Any) -> str:
    """Why it is refused, in one line."""
    with pytest.raises(ContainerError) as caught:
        render_nspawn(given_container, **arguments)
    assert caught.value.message.isprintable()
    return caught.value.message


def text_without_controls() -> st.SearchStrategy[str]:
    """Whatever a line can hold, with more of what its parser knows than chance would give."""
    letters = st.characters(blacklist_categories=("Cc", "Cs", "Cn")) | st.just("\t")
    return st.text(st.sampled_from("\"'\\ \t:;#%=[]$a") | letters, max_size=12)


def test_whole_file() -> None:
    rendered = render_nspawn(
        container(
            argv=("/bin/sh", "-c", 'echo "$A"'),
            env=(("PATH", "/bin"), ("A", "b c")),
            working_dir="/srv",
            user=APP,
            stop_signal="SIGRTMIN+3",
            hostname="web-1",
            mounts=(
                Mount("/srv/data", "/data"),
                Mount("/etc/ssl", "/etc/ssl", read_only=True, options=("rbind",)),
                Mount("tmpfs", "/run", type="tmpfs"),
            ),
            uid_map=(IdRange(0, 131072, 65536),),
            gid_map=(IdRange(0, 131072, 65536),),
        ),
        nss=NSS,
        settings={
            "Exec": {"LimitNOFILE": 1024, "NoNewPrivileges": True},
            "Network": {"Zone": "web", "Port": ["tcp:80", "tcp:443"]},
            "Files": {"Bind": "/a:/b"},
        },
    )
    assert rendered == (
        "[Exec]\n"
        "Boot=no\n"
        "Parameters=/bin/sh -c 'echo \"$A\"'\n"
        "Environment=PATH=/bin\n"
        'Environment="A=b c"\n'
        "WorkingDirectory=/srv\n"
        "User=app\n"
        "KillSignal=SIGRTMIN+3\n"
        "Hostname=web-1\n"
        "PrivateUsers=131072:65536\n"
        "LimitNOFILE=1024\n"
        "NoNewPrivileges=yes\n"
        "\n"
        "[Files]\n"
        "PrivateUsersOwnership=off\n"
        "Bind=/srv/data:/data:\n"
        "BindReadOnly=/etc/ssl:/etc/ssl:rbind\n"
        "TemporaryFileSystem=/run:mode=1777,nosuid,nodev\n"
        "Bind=/a:/b\n"
        "\n"
        "[Network]\n"
        "Zone=web\n"
        "Port=tcp:80\n"
        "Port=tcp:443\n"
    )


def test_bare_words_stay_bare() -> None:
    word = "AZaz09=+_/;.:,-"
    rendered = render_nspawn(container(argv=("/x", word)))
    assert f"Parameters=/x {word}\n" in rendered


@given(
    st.lists(text_without_controls(), min_size=1, max_size=5),
    st.dictionaries(st.text("AZ_a.- \"'\\9", min_size=1), text_without_controls(), max_size=3),
)
@example(list(AWKWARD), {f"V{number}": word for number, word in enumerate(AWKWARD)})
def test_argv_and_environment_come_back(argv: list[str], env: dict[str, str]) -> None:
    values = read(render_nspawn(container(argv=tuple(argv), env=tuple(env.items()))))
    assert values[("Exec", "Parameters")] == argv
    assert values.get(("Exec", "Environment"), []) == [f"{key}={value}" for key, value in env.items()]
    assert values[("Exec", "Boot")] == ["no"]


@given(text_without_controls())
@example("a\\")
@example("a ")
@example("a\\\\")
def test_working_directory_comes_back(path: str) -> None:
    values = read(render_nspawn(container(working_dir=f"/{path}")))
    assert values[("Exec", "WorkingDirectory")][0].rstrip("/") == f"/{path}".rstrip("/")
    assert ("Exec", "KillSignal") in values


@given(text_without_controls(), text_without_controls(), st.booleans())
@example("a:b\\", "c:d\\ ", True)
def test_binds_come_back(source: str, target: str, read_only: bool) -> None:
    mount = Mount(f"/{source}", f"/{target}", read_only)
    values = read(render_nspawn(container(mounts=(mount,))))
    key = "BindReadOnly" if read_only else "Bind"
    assert values[("Files", key)] == [Bind(f"/{source}", f"/{target}", "")]


@given(text_without_controls())
@example("a:b\\ ")
def test_temporary_file_systems_come_back(target: str) -> None:
    mount = Mount("tmpfs", f"/{target}", True, "tmpfs", ("mode=0700", "size=10%"))
    values = read(render_nspawn(container(mounts=(mount,))))
    assert values[("Files", "TemporaryFileSystem")] == [Bind(None, f"/{target}", "mode=0700,size=10%,ro")]


@given(st.text(max_size=8), st.sampled_from("\n\r\0\x1b\x7f\x85\ufffe\ud800"))
def test_no_word_with_a_control_character(text: str, bad: str) -> None:
    for fields in (
        {"argv": ("/x", text + bad)},
        {"env": (("A", bad + text),)},
        {"env": ((text + bad, ""),)},
        {"working_dir": "/" + text + bad},
        {"hostname": "h" + bad},
        {"stop_signal": bad},
        {"mounts": (Mount("/" + bad, "/x"),)},
        {"mounts": (Mount("/x", "/" + bad),)},
    ):
        problem(container(**fields))


def test_control_characters_name_their_field() -> None:
    assert problem(container(argv=("/x", "a\nb"))).startswith("command[1]")
    assert problem(container(env=(("A", "a\nb"),))).startswith("env.A")
    assert "exec wrapper" in problem(container(argv=("a\rb",)))


def test_wrapper_carries_what_no_line_can() -> None:
    multi = container(argv=("/bin/sh", "-c", "a\nb"), env=(("A", "\x1b"), ("B", "b b")))
    values = read(render_nspawn(multi, wrapper="/srv/a:b"))
    assert values[("Exec", "Parameters")] == ["/bin/sh", WRAPPER_TARGET]
    assert values[("Exec", "Environment")] == ["B=b b"]
    assert values[("Files", "BindReadOnly")] == [Bind("/srv/a:b", WRAPPER_TARGET, "")]
    script = wrapper_script(multi)
    assert script is not None
    assert "export A='\x1b'\n" in script
    assert script.endswith("exec '/bin/sh' '-c' 'a\nb'\n")
    assert problem(multi, wrapper="relative").endswith("is not an absolute path")


def test_wrapper_is_used_where_it_must() -> None:
    awkward = container(argv=AWKWARD)
    assert not needs_wrapper(awkward)
    assert wrapper_script(awkward) is None
    assert render_nspawn(awkward, wrapper="/w") == render_nspawn(awkward)
    assert needs_wrapper(container(env=(("A", "\r"),)))
    # a shell would not pass on such a name
    problem(container(env=(("A\n", ""),)), wrapper="/w")


@pytest.mark.parametrize("user", [ROOT, User("root", 0, 0, (1, 2)), User("0:0", 0, 0)])
def test_root_needs_no_lookup(user: User) -> None:
    assert ("Exec", "User") not in read(render_nspawn(container(user=user)))


@pytest.mark.parametrize(
    ("user", "value"),
    [
        (APP, "app"),
        (User("1000", 1000, 1000, (20, 10)), "1000"),
        # the primary group may be listed among the others
        (User("app", 1000, 1000, (10, 20, 1000)), "app"),
    ],
)
def test_user_that_nspawn_finds_alike(user: User, value: str) -> None:
    values = read(render_nspawn(container(user=user), nss=NSS))
    assert values[("Exec", "User")] == [value]


@pytest.mark.parametrize(
    ("user", "nss"),
    [
        (APP, None),
        (APP, {**NSS, "getent": False}),
        (APP, {"getent": True, "uid": None, "gid": None, "groups": None}),
        (APP, {**NSS, "uid": 0}),
        (APP, {**NSS, "gid": 0}),
        (APP, {**NSS, "groups": [10]}),
        (User("app:staff", 1000, 50), NSS),
        (User("root:staff", 0, 50), {"getent": True, "uid": 0, "gid": 0, "groups": []}),
        (User("1000", 1000, 0), {**NSS, "uid": None}),
        (User("", 1000, 1000, (10, 20)), NSS),
        (User("a b", 1000, 1000, (10, 20)), NSS),
        (User("-x", 1000, 1000, (10, 20)), NSS),
        (User("a\nBoot=yes", 1000, 1000, (10, 20)), NSS),
    ],
)
def test_user_that_nspawn_would_take_for_another(user: User, nss: t.Any) -> None:
    message = problem(container(user=user), nss=nss)
    assert message.startswith("user: ")
    assert "runc" in message


@pytest.mark.parametrize(
    ("uids", "gids", "word"),
    [
        ([(0, 1000, 10)], [(0, 2000, 10)], "differ"),
        ([(0, 1000, 10)], [], "differ"),
        ([(0, 1000, 10), (10, 5000, 1)], [(0, 1000, 10), (10, 5000, 1)], "several"),
        ([(1, 1000, 10)], [(1, 1000, 10)], "from 0 on"),
    ],
)
def test_id_maps_that_nspawn_has_not(uids: t.Any, gids: t.Any, word: str) -> None:
    maps = [tuple(IdRange(*numbers) for numbers in ids) for ids in (uids, gids)]
    message = problem(container(uid_map=maps[0], gid_map=maps[1]))
    assert word in message
    assert "runc" in message


def test_no_map_is_said() -> None:
    values = read(render_nspawn(PLAIN))
    assert values[("Exec", "PrivateUsers")] == ["no"]
    assert values[("Files", "PrivateUsersOwnership")] == ["off"]


@pytest.mark.parametrize(
    ("signal", "value"), [("SIGQUIT", "SIGQUIT"), ("SIGIOT", "SIGABRT"), ("SIGPOLL", "SIGIO"), ("SIGCLD", "SIGCHLD")]
)
def test_signals(signal: str, value: str) -> None:
    values = read(render_nspawn(container(stop_signal=signal)))
    assert values[("Exec", "KillSignal")] == [value]


@pytest.mark.parametrize("name", ["a_b", "a..b", "a-.b", ".a", "a.", "-a", "a-", "ä"])
@pytest.mark.parametrize("field", ["name", "hostname"])
def test_names_that_systemd_does_not_take(field: str, name: str) -> None:
    assert problem(container(**{field: name})).startswith(f"{field}: ")


@pytest.mark.parametrize(
    "mount",
    [
        Mount("/a", "/b", options=("noexec",)),
        Mount("/a", "/b", options=("ro:x",)),
        Mount("a", "/b"),
        Mount("/a", "b"),
        Mount("/a", "/b", type="ext4"),
        Mount("tmpfs", "/b", type="tmpfs", options=("mode=1,x",)),
        Mount("tmpfs", "/b", type="tmpfs", options=('context="a"',)),
    ],
)
def test_mounts_that_nspawn_has_not(mount: Mount) -> None:
    assert problem(container(mounts=(PLAIN_MOUNT, mount))).startswith("mounts[1].")


PLAIN_MOUNT = Mount("/a", "/c")


@pytest.mark.parametrize(
    ("options", "read_only", "key", "words"),
    [
        (("ro", "bind"), False, "BindReadOnly", "norbind"),
        (("rw", "idmap", "create=file", "rbind"), True, "Bind", "idmap,rbind"),
    ],
)
def test_options_of_binds(options: t.Any, read_only: bool, key: str, words: str) -> None:
    mount = Mount("/a", "/b", read_only, "bind", options)
    values = read(render_nspawn(container(mounts=(mount,))))
    assert values[("Files", key)] == [Bind("/a", "/b", words)]


@pytest.mark.parametrize(
    "settings",
    [
        {"Files": {"Bind": "/a:/b\nBindReadOnly=/:/host"}},
        {"Files": {"Bind": ["/a", "\r"]}},
        {"Files": {"Bi nd": "x"}},
        {"Files": {"A=b": "x"}},
        {"Files": {"#A": "x"}},
        {"Files": {7: "x"}},
        {"Files\n": {"Bind": "/a"}},
        {"Service": {"ExecStart": "/x"}},
        {"Exec": {"Boot": True}},
        {"Exec": {"Parameters": "x"}},
        {"Files": {"PrivateUsersChown": True}},
        {"Exec": {"Capability": "x\\"}},
        {"Exec": {"Capability": {"a": 1}}},
        {"Exec": {"Capability": None}},
        {"Exec": "Capability=x"},
    ],
)
def test_settings_that_are_none(settings: t.Any) -> None:
    message = problem(PLAIN, settings=settings)
    # a line that would be continued is named by its key
    assert message.startswith(("settings", "Capability"))


def test_a_line_has_an_end() -> None:
    long = "x" * (1024 * 1024 - len("Environment=A="))
    assert "1 MiB" in problem(container(env=(("A", long),)))
    values = read(render_nspawn(container(env=(("A", long[:-1]),))))
    assert values[("Exec", "Environment")] == [f"A={long[:-1]}"]


def test_empty_argv_is_an_error() -> None:
    assert "command is empty" in problem(container(argv=()))


def test_the_reader_can_misread() -> None:
    """The other side of the round trips is no mirror of the renderer: it knows what is wrong."""
    for text in ("A=b", "[Exec]\nParameters=a\nb", "[Exec]\nParameters='a", "[Service]\n", "[Files]\nBind=a:b"):
        with pytest.raises(systemd_settings.Misread):
            read(text)
    assert read("[Exec]\nUser=a\\\n b\n#c\nUser=d\rUser=e") == {("Exec", "User"): ["a  b", "d", "e"]}
    assert systemd_settings.words('a"b c"\'d\' "" \\n') == ["ab cd", "", "\\n"]

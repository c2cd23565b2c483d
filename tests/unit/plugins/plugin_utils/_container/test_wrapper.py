# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exec wrapper (docs/behaviour.md, section 9), run by real shells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import Container, ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.wrapper import render_wrapper
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.wrapping import (
    RUNTIMES,
    needs_wrapper,
    wrapper_script,
)
from ansible_collections.hypervisor.oci.tests.unit.containers import PLAIN
from hypothesis import example, given, settings
from hypothesis import strategies as st

SHELLS = [
    [path] if name != "busybox" else [path, "sh"]
    for name, path in ((name, shutil.which(name)) for name in ("sh", "dash", "bash", "busybox"))
    if path is not None
]
# tells its own arguments and environment
TELL = [sys.executable, "-SEc", "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"]
HOSTILE = [
    "",
    "'",
    "''",
    "'\\''",
    "\\",
    "\\'",
    '"',
    "a\nb",
    "a\r\nb\n",
    "\n",
    "\t \v\f\b\x1b[31m\x7f",
    "$(touch ran)",
    "`touch ran`",
    "'; touch ran; '",
    "'\ntouch ran\n'",
    "\\'; touch ran #",
    "$HOME ${HOME} $0 $* !! ~ *",
    "-n",
    "--",
    "a=b",
    "#",
    "{{ 7*7 }} {% x %}",
    "lxc.hook.start = touch ran",
    "ünï😀\u0085\u2028",
    "\x81\x82\x88\x80",
    "EOF",
]
TEXT = st.text(
    st.one_of(
        st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"),
        st.sampled_from("'\"\\$`\n\r\t ;&|<>()*?[]#~!-a"),
    ),
    max_size=10,
)


def run(
    shell: t.Sequence[str], script: str, folder: Path, env: t.Mapping[str, str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """What a shell makes of the script: arguments and environment of the program."""
    path = folder / "exec"
    path.write_bytes(script.encode("utf-8"))
    done = subprocess.run(
        [*shell, str(path)],
        capture_output=True,
        check=False,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **(env or {})},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    argv, found = json.loads(done.stdout)
    return argv, found


@pytest.mark.parametrize("shell", SHELLS, ids=[os.path.basename(s[0]) for s in SHELLS])
def test_every_word_is_inert(shell: list[str], tmp_path: Path) -> None:
    """Section 9: whatever it holds, it is text, in arguments and in variables."""
    exported = [(f"V{number}", word) for number, word in enumerate(HOSTILE)]
    script = render_wrapper([*TELL, *HOSTILE], exported)
    argv, env = run(shell, script, tmp_path, {"KEPT": "x\ny"})
    assert argv == HOSTILE
    assert [env[name] for name, _value in exported] == HOSTILE
    assert env["KEPT"] == "x\ny"
    assert os.listdir(tmp_path) == ["exec"]


@given(st.lists(TEXT, max_size=4), TEXT)
@example(HOSTILE, "'")
@settings(max_examples=25, deadline=None)
def test_words_come_back(argv: list[str], value: str) -> None:
    """Section 9: the same in hypothesis' words."""
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    script = render_wrapper([*TELL, *argv], [("VALUE", value)])
    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        check=True,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        timeout=60,
    )
    found, env = json.loads(done.stdout)
    assert (found, env["VALUE"]) == (argv, value)


@pytest.mark.parametrize("shell", SHELLS, ids=[os.path.basename(s[0]) for s in SHELLS])
def test_a_program_is_looked_up_in_the_containers_path(shell: list[str], tmp_path: Path) -> None:
    """As LXC itself would do it, with the PATH of the script where it sets one."""
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "exec").symlink_to(sys.executable)
    script = render_wrapper(["exec", *TELL[1:], "x"], [("PATH", str(folder))])
    argv, env = run(shell, script, tmp_path)
    assert (argv, env["PATH"]) == (["x"], str(folder))


@pytest.mark.parametrize("name", ["a.b", "1A", "A-B", "A B", "A\nB", "ä", "'", "PPID", "UID", "EUID", "SHELLOPTS"])
@pytest.mark.parametrize("passed", [False, True])
def test_variables_that_no_shell_passes_on(name: str, passed: bool) -> None:
    """They would be missing without a word, whoever sets them."""
    exported, rest = [("A", "1")], [("B", "1")]
    (rest if passed else exported).append((name, "x"))
    with pytest.raises(ContainerError) as caught:
        render_wrapper(["/bin/app"], exported, rest)
    assert "a shell does not pass on a variable of this name" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("shell", SHELLS, ids=[os.path.basename(s[0]) for s in SHELLS])
def test_what_is_refused_is_really_lost(shell: list[str], tmp_path: Path) -> None:
    """The reason for the error above: at least one of the names does not arrive as it was."""
    names = ["a.b", "A-B", "PPID", "UID"]
    _argv, env = run(shell, render_wrapper(TELL, []), tmp_path, dict.fromkeys(names, "x"))
    assert [env.get(name) for name in names] != ["x"] * len(names)


def test_a_program_that_looks_like_an_option() -> None:
    with pytest.raises(ContainerError, match="would take the program"):
        render_wrapper(["-c", "x"], [])


@pytest.mark.parametrize("bad", ["a\0b", "\ud800"])
def test_what_no_process_can_be_given(bad: str) -> None:
    """Section 9: NUL is refused everywhere."""
    for argv, env in ((["/a", bad], []), (["/a"], [("V", bad)])):
        with pytest.raises(ContainerError):
            render_wrapper(argv, env)


# -- for each runtime

MIXED = replace(PLAIN, argv=("/bin/app", 'it\'s "x"'))
LINES = replace(PLAIN, argv=("/bin/sh", "-c", "one\ntwo"))
VALUE = replace(PLAIN, env=(("A", "1"), ("B", "x\ny")))


@pytest.mark.parametrize(
    ("container", "needing"),
    [
        (PLAIN, ()),
        (MIXED, ("lxc", "proxmox")),
        (LINES, ("lxc", "proxmox", "nspawn")),
        (VALUE, ("lxc", "proxmox", "nspawn")),
    ],
)
def test_who_needs_it(container: Container, needing: tuple[str, ...]) -> None:
    """Section 9: only who cannot write a word otherwise."""
    for runtime in RUNTIMES:
        assert needs_wrapper(container, runtime) is (runtime in needing)
        assert (wrapper_script(container, runtime) is not None) is (runtime in needing)


def test_what_it_carries() -> None:
    """The configuration goes on setting what it can, but where hooks would see it."""
    script = wrapper_script(VALUE, "lxc")
    assert script is not None
    assert "export B='x\ny'\n" in script
    assert "export A=" not in script
    hooked = wrapper_script(VALUE, "lxc", settings=["lxc.include = /x"])
    assert hooked is not None
    assert "export A='1'\nexport B='x\ny'\n" in hooked
    assert hooked.endswith("exec '/bin/app'\n")
    # Proxmox VE's LXC tells hooks and the container apart
    assert wrapper_script(PLAIN, "proxmox", settings=["lxc.include = /x"]) is None


def test_an_unknown_runtime() -> None:
    with pytest.raises(ContainerError, match="^runtime: unknown runtime 'docker'"):
        needs_wrapper(PLAIN, "docker")

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What reads the text of an image, a container or a node takes time by its length, not by its square.

docs/behaviour.md, section 7 (limits) and section 9.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import re
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._container import diff as _diff
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, visible
from ansible_collections.hypervisor.oci.plugins.module_utils._image.config import parse_config
from ansible_collections.hypervisor.oci.plugins.module_utils._image.names import matches
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import clean
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.url import parse_url
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.lxc import render_lxc, wrapper_script
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.merge import container_from
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.nspawn import render_nspawn
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.proxmox import ProxmoxOptions, render_proxmox
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.runtime_spec import runtime_spec
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.volumes import volumes_of

_PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
_PACKAGE = "ansible_collections.hypervisor.oci.plugins"

# One match of this many characters. What takes time by the square of them needs seconds for it.
_SIZE = 20_000
_SECONDS = 0.25
# What a match may have begun with, what comes over and over, and what ends it otherwise.
_BEGINNINGS = (
    "", "/", "a", "A", "0", "v", "-", "1:", "1.", "a:", "a.", "[", "[a", "lxc.a", "lxc.a =", "lxc.a:", "lxc.net.",
    "SIG", "SIGA", "net", "mp", "sha256:", "blobs/sha256/", "bundle-", "http://", "bytes 1-", "bytes 1-1/", "\\",
    "lxc.environment", "Environment", "export A=", "export A='",
)  # fmt: skip
_RUNS = (
    " ", "\t", "\n", "a", "A", "0", "-", ".", "_", "=", ":", "/", "\\", "'", "\\'", "''", "a.", "a-", ".a", "a/", "0.",
    "a ", "é", "\0", "\\000",
)  # fmt: skip
# These are looked for anywhere in a text, all others only at its beginning.
_SEARCHED = ("_CONTROL", "_SURROGATE", "_UNUSUAL", "_FSTAB_ESCAPE", "_NOT_IN_HOST", "_NOT_ZERO", "_ROOT_VOLUME", "_FIELD")  # fmt: skip
_ENDS = ("", "!", "\n")


def _modules() -> list[str]:
    found = []
    for path in sorted(_PLUGINS.rglob("*.py")):
        parts = path.relative_to(_PLUGINS).with_suffix("").parts
        if parts[-1] != "__init__" and parts[0] != "doc_fragments":
            found.append(".".join((_PACKAGE, *parts)))
    return found


def _patterns() -> dict[str, re.Pattern[t.Any]]:
    """Every expression of the plugins, by its name."""
    found = {}
    for name in _modules():
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if isinstance(value, re.Pattern):
                found[f"{name[len(_PACKAGE) + 1 :]}.{key}"] = value
    return found


@contextlib.contextmanager
def within(seconds: float) -> t.Iterator[None]:
    """Processor time of this process, whatever else the machine does."""
    begun = time.process_time()
    yield
    used = time.process_time() - begun
    assert used < seconds, f"{used:.2f} s"


PATTERNS = _patterns()


@pytest.mark.parametrize("name", PATTERNS)
def test_every_expression_takes_linear_time(name: str) -> None:
    pattern = PATTERNS[name]
    for beginning in _BEGINNINGS:
        for run in _RUNS:
            middle = (run * (_SIZE // len(run)))[:_SIZE]
            for end in _ENDS:
                text: t.Any = beginning + middle + end
                if isinstance(pattern.pattern, bytes):
                    text = text.encode()
                with within(_SECONDS):
                    pattern.match(text)
                if name.rpartition(".")[2] in _SEARCHED:
                    with within(_SECONDS):
                        pattern.search(text)


def test_every_expression_is_among_them() -> None:
    """Those that are compiled at the top of a module: no others are used, and none ends with what allows a line end."""
    assert len(PATTERNS) > 30
    for path in _PLUGINS.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        top = {id(value) for node in tree.body for value in ast.walk(node) if isinstance(node, ast.Assign)}  # fmt: skip
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr != "escape"
            ):
                assert node.func.attr == "compile", f"{path}: {node.lineno}"
                assert id(node) in top, f"{path}: {node.lineno}"
    for name, pattern in PATTERNS.items():
        text = pattern.pattern
        dollar = b"$" if isinstance(text, bytes) else "$"
        assert not text.endswith(dollar), name


MANY = 100_000


def _blanks(text: str = " ") -> tuple[str, ...]:
    return (text * MANY, f"a{text * MANY}b", f"{text * MANY}\\", f"'{text * MANY}\"")


@pytest.mark.parametrize("value", [*_blanks(), *_blanks("\t"), *_blanks("é'\"")])
def test_every_rendering_of_a_long_value(value: str) -> None:
    """The same blanks that took the filter for Proxmox VE 15 seconds at 16,000."""
    container = container_from(
        {"env": {"A": value}, "cmd": ["sh", value], "uid": 0, "gid": 0, "labels": {value: value}},
        {"name": "web", "rootfs": "/r"},
    )  # fmt: skip
    current = f"arch: amd64\nrootfs: a:b\nlxc.environment.runtime: A={value}\nx{value}\n[x]{value}!\n"
    with within(4):
        for render in (
            lambda: render_lxc(container, wrapper="/w"),
            lambda: wrapper_script(container),
            lambda: render_nspawn(container),
            lambda: json.dumps(runtime_spec(container)),
            lambda: render_proxmox(container, current, ProxmoxOptions(wrapper="/w")),
        ):
            with contextlib.suppress(OciError):
                render()


def test_many_variables_with_controls() -> None:
    """As many as an image may have, all of which go through the wrapper."""
    env = {f"E{number}": "a\nb" for number in range(10_000)}
    container = container_from({"env": env, "cmd": ["sh"], "uid": 0, "gid": 0}, {"name": "w", "rootfs": "/r"})
    with within(4):
        assert wrapper_script(container)
        assert render_lxc(container, wrapper="/w")


def test_many_mounts() -> None:
    mounts = [{"source": "/s", "target": f"/t{number}"} for number in range(10_000)]
    with within(4):
        container_from({"cmd": ["sh"], "uid": 0, "gid": 0}, {"name": "w", "rootfs": "/r", "mounts": mounts})
        volumes_of({"volumes": [mount["target"] for mount in mounts]}, "/v")


def test_a_large_configuration_of_proxmox() -> None:
    """The file is the node's, and may hold anything."""
    container = container_from({"cmd": ["sh"], "uid": 0, "gid": 0}, {"name": "w", "rootfs": "/r"})
    lines = "".join(f"lxc.environment.runtime: A{n}={' ' * 50}\n" for n in range(10_000))
    with within(4):
        render_proxmox(container, f"rootfs: a:b\n{lines}")


@pytest.mark.parametrize("text", ["\x1b", " ", "a", "\u202e", "a-", "a/", "../", ":", "@"])
def test_words_of_an_image(text: str) -> None:
    long = (text * 10**6)[: 6 * 10**5]
    config = {"os": "linux", "architecture": "a", "config": {"StopSignal": long}}
    with within(4):
        visible(long, 100)
        clean(long)
        matches("a:b", [long], True)
        parse_config(json.dumps(config).encode(), "it")
    with within(2), contextlib.suppress(OciError):
        parse_url(f"http://{long}")


@pytest.mark.parametrize("kind", ["all", "settings", "spec", "script"])
@pytest.mark.parametrize("text", [" ", "a\n", "\n", "\\\n", "'", "export A='", "Environment=\n"])  # fmt: skip
def test_a_diff_of_a_long_file(kind: str, text: str) -> None:
    content = (text * MANY)[:MANY].encode()
    with within(4):
        _diff.diff_of("/f", kind, content, content[1:] + b"x")

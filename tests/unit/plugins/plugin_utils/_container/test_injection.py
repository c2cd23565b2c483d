# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hostile text in every field of an image's config, through all renderers (docs/behaviour.md, section 9).

Each is refused, or stands in one value of the host's configuration, which reads back as what it was: no line and no key
of the configuration is there that a harmless image would not have, and no template is ever evaluated.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.config import parse_config
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.lxc import render_lxc
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.merge import container_from
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import Container, ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.nspawn import render_nspawn
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.proxmox import ProxmoxOptions, render_proxmox
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.runtime_spec import runtime_spec
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.wrapper import render_wrapper
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, directory, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.systemd_settings import Misread, read

PAYLOADS = {
    "newline": "\nlxc.hook.pre-start = /bin/touch /MARK",
    "carriage return": "\rlxc.hook.pre-start = /bin/touch /MARK",
    "both": "a\r\nlxc.include = /MARK\r\n",
    "hook without newline": "lxc.hook.pre-start = /bin/touch /MARK",
    "unit section": "\n[Files]\nBind=/:/host",
    "unit section inline": "[Files]",
    "unit key": "\nCapability=all\nPrivateUsers=no",
    "Proxmox section": "\n[snapshot]\nhookscript: local:snippets/x",
    "Proxmox key": "\nmp0: /etc,mp=/etc\nunprivileged: 0",
    "NUL": "a\0b",
    "NUL and line": "\0lxc.hook.stop = /MARK",
    "vertical tab": "\x0blxc.hook.stop = /MARK",
    "form feed": "\x0clxc.hook.stop = /MARK",
    "next line": "\x85lxc.hook.stop = /MARK",
    "line separator": "\u2028lxc.hook.stop = /MARK",
    "paragraph separator": "\u2029[Files]",
    "terminal title": "\x1b]0;owned\x07",
    "terminal clear": "\x1b[2J\x1b[H",
    "C1 sequence": "\x9b2J",
    "delete": "\x7f",
    "backspace": "ok\x08\x08",
    "bidirectional": "\u202egnp.exe",
    "byte order mark": "\ufeff[Exec]",
    "no character": "\uffff",
    "continuation": "a\\",
    "continuations": "a\\\\\\",
    "double quote": '"',
    "single quote": "'",
    "both quotes": "'\"'\"' \"' '",
    "quoted whole": '" lxc.include=/x "',
    "comment": "# ; x",
    "equals": "a= : , =",
    "blanks": "  a\t b ",
    "specifiers": "%n %H %% %{x}",
    "octal escapes": "\\012lxc.hook.stop\\040=\\x0a",
    "shell": "$(touch /MARK) `touch /MARK` ${PATH} ; touch /MARK #",
    "shell quotes": "'; touch /MARK; '",
    "JSON": '"},"hooks":{"prestart":[{"path":"/MARK"}]},"x":{"a":"',
    "expression": "{{ lookup('ansible.builtin.pipe', 'touch /MARK') }}",
    "statement": "{% for x in [1] %}{{ x }}{% endfor %}",
    "template comment": "{# x #}",
    "template lines": "\n#jinja2: trim_blocks: false\n{{ 7 * 191 }}",
    "YAML tag": "!unsafe '!vault x'",
    "traversal": "/../../../etc",
    "option": "-oProxyCommand=x",
    "long": "x" * 1000,
}
HARMLESS = "x"


def config_with(place: str, text: str) -> dict[str, t.Any]:
    """A config document with the text in one of its places."""
    run: dict[str, t.Any] = {
        "Entrypoint": ["/bin/app", "first"],
        "Cmd": ["last"],
        "Env": ["PATH=/bin", "HOME=/"],
        "WorkingDir": "/srv",
        "User": "app",
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"label": "value"},
    }
    document: dict[str, t.Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "author": "someone",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [{"created_by": "RUN x"}],
    }
    changes: dict[str, t.Callable[[], t.Any]] = {
        "entrypoint program": lambda: run.update(Entrypoint=[text]),
        "entrypoint word": lambda: run["Entrypoint"].append(text),
        "cmd": lambda: run.update(Cmd=[text, "z"]),
        "env name": lambda: run["Env"].append(f"{text}=value"),
        "env value": lambda: run["Env"].append(f"NAME={text}"),
        "env PATH": lambda: run["Env"].append(f"PATH={text}"),
        "working_dir": lambda: run.update(WorkingDir=text),
        "working_dir tail": lambda: run.update(WorkingDir=f"/{text}"),
        "user": lambda: run.update(User=text),
        "stop_signal": lambda: run.update(StopSignal=text),
        "stop_signal tail": lambda: run.update(StopSignal=f"SIGTERM{text}"),
        "port": lambda: run["ExposedPorts"].update({text: {}}),
        "volume": lambda: run["Volumes"].update({text: {}}),
        "label name": lambda: run["Labels"].update({text: "value"}),
        "label value": lambda: run["Labels"].update(name=text),
        "created": lambda: document.update(created=text),
        "author": lambda: document.update(author=text),
        "architecture": lambda: document.update(architecture=text),
        "os": lambda: document.update(os=text),
        "variant": lambda: document.update(variant=text),
        "history": lambda: document["history"].append({"created_by": text}),
        "healthcheck": lambda: run.update(Healthcheck={"Test": ["CMD", text]}),
        "rootfs type": lambda: document["rootfs"].update(type=text),
        "unknown field": lambda: run.update({text: text}),
    }
    changes[place]()
    return document


PLACES = [
    "entrypoint program",
    "entrypoint word",
    "cmd",
    "env name",
    "env value",
    "env PATH",
    "working_dir",
    "working_dir tail",
    "user",
    "stop_signal",
    "stop_signal tail",
    "port",
    "volume",
    "label name",
    "label value",
    "created",
    "author",
    "architecture",
    "os",
    "variant",
    "history",
    "healthcheck",
    "rootfs type",
    "unknown field",
]
# Names of platforms have a grammar that none of these texts is in.
_OF_PLATFORMS = ("architecture", "os", "variant")
_NSS = {"getent": True, "uid": 1000, "gid": 1000, "groups": [10]}
_PROXMOX = (
    "arch: amd64\nhostname: old\nnet0: name=eth0,bridge=vmbr0\nrootfs: local:1/x,size=1G\n"
    "unprivileged: 1\n\n[before]\nrootfs: local:1/y\n"
)


def container_of(place: str, text: str) -> Container:
    """The container of such an image, the way that facts take."""
    document = json.dumps(config_with(place, text)).encode()
    facts = parse_config(document, "the config").to_facts()
    facts.update(uid=1000, gid=1000, groups=[10], home=None)
    return container_from(
        json.loads(json.dumps(facts)),
        {"name": "web", "rootfs": "/srv/web", "uid_map": ["0:100000:65536"], "gid_map": ["0:100000:65536"]},
    )


class Lines(t.NamedTuple):
    """A line-based file: its keys in their order, and each key's values."""

    keys: list[str]
    values: dict[str, list[str]]


def lines_of(text: str, separator: str) -> Lines:
    """Every line by any rule of what ends one; what is no assignment is a key of its own."""
    keys = []
    values: dict[str, list[str]] = {}
    for line in re.split("[\n\r\0\v\f\x1c\x1d\x1e\x85]", text):
        key, found, value = line.partition(separator)
        key = key.strip() if found else line
        keys.append(key)
        values.setdefault(key, []).append(value.strip())
    return Lines(keys, values)


def lxc(container: Container, wrapper: str | None) -> Lines:
    return lines_of(render_lxc(container, runtime_environment=True, wrapper=wrapper), "=")


def lxc_without_runtime_environment(container: Container, wrapper: str | None) -> Lines:
    return lines_of(render_lxc(container, wrapper=wrapper), "=")


def lxc_with_hooks(container: Container, wrapper: str | None) -> Lines:
    """Hooks of the administrator's would see the environment, so nothing of it may be in the file."""
    text = render_lxc(container, wrapper=wrapper, settings=["lxc.hook.start = /usr/bin/own"])
    lines = lines_of(text, "=")
    assert lines.values["lxc.hook.start"] == ["/usr/bin/own"]
    return lines


def proxmox(container: Container, wrapper: str | None) -> Lines:
    lines = lines_of(render_proxmox(container, _PROXMOX, ProxmoxOptions(wrapper=wrapper)), ":")
    assert lines.keys[-4:] == ["", "[before]", "rootfs", ""]
    assert lines.values["unprivileged"] == ["1"]
    return lines


def nspawn(container: Container, wrapper: str | None) -> Lines:
    """Read by systemd's rules, too: argv and environment come back as they were."""
    text = render_nspawn(container, nss=_NSS, wrapper=wrapper)
    assigned = read(text)
    if wrapper is None:
        assert assigned[("Exec", "Parameters")] == list(container.argv)
        assert assigned[("Exec", "Environment")] == [f"{name}={value}" for name, value in container.env]
    return lines_of(text, "=")


LINE_BASED = [lxc, lxc_without_runtime_environment, lxc_with_hooks, proxmox, nspawn]
# Lines that the wrapper adds, moves or makes needless.
_OF_THE_WRAPPER = re.compile(r"lxc\.mount\.entry|BindReadOnly|lxc\.environment(?:\.runtime)?|Environment|mp[0-9]+")


def test_every_place_of_a_config_is_attacked() -> None:
    for place in PLACES:
        assert config_with(place, "\0") != config_with(PLACES[0], "\0") or (place == PLACES[0])
        assert "\\u0000" in json.dumps(config_with(place, "\0"))


@pytest.mark.parametrize("render", LINE_BASED)
@pytest.mark.parametrize("wrapper", [None, "/srv/wrapper"])
@pytest.mark.parametrize("place", PLACES)
def test_no_line_of_an_image(
    render: t.Callable[[Container, str | None], Lines], wrapper: str | None, place: str
) -> None:
    harmless = render(container_of(place, HARMLESS), "/srv/wrapper").keys
    rendered = 0
    for name, payload in PAYLOADS.items():
        try:
            keys = render(container_of(place, payload), wrapper).keys
        except OciError as error:
            assert error.message.isprintable(), name
            continue
        rendered += 1
        if keys != harmless:
            # the wrapper's mount is the one line more, variables the lines less
            assert wrapper is not None or render is lxc_with_hooks, name
            assert _without_wrapper(keys) == _without_wrapper(harmless), name
            assert len(keys) <= len(harmless) + 1, name
        assert not {key for key in keys if "MARK" in key}, name
    # a suite in which everything is refused would show nothing
    may_render = render is not lxc_with_hooks or wrapper is not None
    assert (rendered > 0) == (may_render and place not in _OF_PLATFORMS)


def _without_wrapper(keys: list[str]) -> list[str]:
    return [key for key in keys if not _OF_THE_WRAPPER.match(key)]


@pytest.mark.parametrize("render", LINE_BASED)
@pytest.mark.parametrize("bad", ["\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\x0b"])
@pytest.mark.parametrize("place", ["entrypoint word", "cmd", "env name", "env value", "working_dir"])
def test_controls_are_refused_where_no_wrapper_is_allowed(
    render: t.Callable[[Container, str | None], Lines], bad: str, place: str
) -> None:
    """The message names the field, and shows the character without sending it to a terminal."""
    with pytest.raises(ContainerError) as caught:
        render(container_of(place, f"a{bad}b"), None)
    message = caught.value.message
    assert message.isprintable()
    assert re.match(r"(?:image\.)?(?:command|cmd|entrypoint|env|working_dir)", message)


@pytest.mark.parametrize("place", PLACES)
def test_json_holds_it_and_nothing_more(place: str) -> None:
    shape = _shape(runtime_spec(container_of(place, HARMLESS)))
    for name, payload in PAYLOADS.items():
        try:
            container = container_of(place, payload)
            document = json.loads(json.dumps(runtime_spec(container)))
        except OciError as error:
            assert error.message.isprintable(), name
            continue
        assert "\0" not in payload or place in _NOT_RENDERED, name
        assert _shape(document) == shape, name
        assert document["process"]["args"] == list(container.argv), name
        assert document["process"]["env"] == [f"{key}={value}" for key, value in container.env], name
        assert document["process"]["cwd"] == container.working_dir, name


# What the model has no use for, what is read before it is rendered, and what stays a fact.
_NOT_RENDERED = (
    "user",
    "stop_signal",
    "stop_signal tail",
    "volume",
    "port",
    "author",
    "variant",
    "history",
    "healthcheck",
    "rootfs type",
    "unknown field",
)


def _shape(document: t.Any) -> t.Any:
    """Keys and types, but for annotations, which labels name."""
    if isinstance(document, dict):
        return {key: len(value) if key == "annotations" else _shape(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_shape(item) for item in document]
    return type(document)


_SHOW = "import os, sys; sys.stdout.write('\\0'.join([*sys.argv[1:], os.environ['V']]))"


@pytest.mark.parametrize("name", sorted(PAYLOADS))
def test_wrapper_is_text_to_a_shell(name: str, tmp_path: Path) -> None:
    """A real shell runs the script: the words come through, and no part of them is run."""
    payload = PAYLOADS[name].replace("/MARK", f"{tmp_path}/MARK")
    argv = [sys.executable, "-c", _SHOW, payload, f"a{payload}b"]
    try:
        script = render_wrapper(argv, [("V", payload)])
    except ContainerError as error:
        assert "\0" in payload, name
        assert error.message.isprintable()
        return
    path = tmp_path / "script"
    path.write_bytes(script.encode())
    run = subprocess.run(
        ["/bin/sh", str(path)],
        capture_output=True,
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1"},
        check=False,
        timeout=60,
    )
    assert run.stderr == b""
    assert run.stdout.decode().split("\0") == [payload, f"a{payload}b", payload]
    assert not (tmp_path / "MARK").exists()


def test_wrapper_has_no_names_of_an_image() -> None:
    """A name of a variable is code to a shell."""
    for payload in PAYLOADS.values():
        with pytest.raises(ContainerError) as caught:
            render_wrapper(["/x"], [(payload + ";", "")])
        assert caught.value.message.isprintable()


def test_the_suite_can_fail() -> None:
    """What the checks above rest on: they see a line that is too much."""
    hostile = "[Exec]\nBoot=no\nParameters=/x\n[Files]\nBind=/:/host\n"
    assert lines_of(hostile, "=").keys.count("[Files]") == 1
    assert lines_of("a = b\rlxc.hook.x = c", "=").keys == ["a", "lxc.hook.x"]
    assert lines_of("a: b\x85c: d", ":").keys == ["a", "c"]
    with pytest.raises(Misread):
        read("[Exec]\nParameters=/x 'a\n'")


_PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  vars:
    about: {name: web, rootfs: /srv/web, user: '0:0'}
    hostile: "{{ info.images[0].image }}"
    current: "arch: amd64\\nrootfs: local:1/x\\nhostname: web\\n"
    texts:
      lxc: "{{ hostile | hypervisor.oci.lxc_config(runtime_environment=true, **about) }}"
      proxmox: "{{ hostile | hypervisor.oci.proxmox_config(current=current, **about) }}"
      nspawn: "{{ hostile | hypervisor.oci.nspawn_settings(**about) }}"
      spec: "{{ hostile | hypervisor.oci.runtime_spec(**about) }}"
      model: "{{ hostile | hypervisor.oci.container(**about) | to_json(ensure_ascii=false) }}"
  tasks:
    - hypervisor.oci.oci_image_info:
        src: "{{ archive }}"
      register: info
    - ansible.builtin.copy:
        content: "{{ item.value }}"
        dest: "{{ folder }}/{{ item.key }}"
        mode: "0600"
      loop: "{{ texts | dict2items }}"
      loop_control:
        label: "{{ item.key }}"
    - ansible.builtin.set_fact:
        again: "{{ texts.spec }}"
    - ansible.builtin.copy:
        content: "{{ again }}"
        dest: "{{ folder }}/again"
        mode: "0600"
    - ansible.builtin.copy:
        content: "{{ 7 * 191 }}"
        dest: "{{ folder }}/control"
        mode: "0600"
    - ansible.builtin.debug:
        msg: "{{ hostile }}"
"""


def test_no_template_is_evaluated(tmp_path: Path) -> None:
    """Facts of an image go through the real templar, module to filter to file, and stay text all the way."""
    pytest.importorskip("ansible.template", reason="needs ansible-core's controller side")
    if not _has_trust_model():
        pytest.skip("ansible-core before 2.19 has no trust model of templates")
    collections = tmp_path / "collections" / "ansible_collections" / "hypervisor"
    collections.mkdir(parents=True)
    (collections / "oci").symlink_to(Path(__file__).resolve().parents[5])
    mark = tmp_path / "MARK"
    evil = f"{{{{ lookup('ansible.builtin.pipe', 'touch {mark}') }}}}"
    words = [evil, "{% if true %}evaluated{% endif %}", "{{ 7 * 191 }}", "{# gone #}"]
    write_oci_archive(
        tmp_path / "image.tar",
        Image(
            [Layer(directory("etc"))],
            {
                "Entrypoint": ["/bin/app", *words],
                "Cmd": None,
                "Env": ["PATH=/bin", f"A={evil}", "B={{ 7 * 191 }}"],
                "WorkingDir": "/{{ 7 * 191 }}",
                "Labels": {"{{ 7 * 191 }}": evil},
            },
        ),
    )
    (tmp_path / "play.yml").write_text(_PLAYBOOK)
    (tmp_path / "out").mkdir()
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from ansible.cli.playbook import main; main()",
            "-i",
            "localhost,",
            "-c",
            "local",
            "-e",
            json.dumps(
                {
                    "archive": str(tmp_path / "image.tar"),
                    "folder": str(tmp_path / "out"),
                    "ansible_python_interpreter": sys.executable,
                }
            ),
            str(tmp_path / "play.yml"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        },
        check=False,
        timeout=180,
    )
    assert run.returncode == 0, run.stdout.decode()
    assert not mark.exists()
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    # the same text in the playbook itself is a template
    assert written.pop("control") == "1337"
    assert set(written) == {"lxc", "proxmox", "nspawn", "spec", "model", "again"}
    assert written["again"] == written["spec"]
    for name, text in written.items():
        assert "1337" not in text, name
        assert "{{ 7 * 191 }}" in text, name
        assert "{% if true %}evaluated{% endif %}" in text, name
        assert "{# gone #}" in text, name
        assert evil in text, name
    assert json.loads(written["spec"])["process"]["args"] == ["/bin/app", *words]
    assert json.loads(written["model"])["argv"] == ["/bin/app", *words]
    assert read(written["nspawn"])[("Exec", "Parameters")] == ["/bin/app", *words]


def _has_trust_model() -> bool:
    from ansible import template

    return hasattr(template, "is_trusted_as_template")

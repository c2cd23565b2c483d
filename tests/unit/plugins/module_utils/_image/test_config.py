# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The normalised image config (docs/behaviour.md, section 8)."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.config import (
    ImageConfig,
    normalise_signal,
    parse_config,
)


def config(**document: t.Any) -> ImageConfig:
    """A parsed config."""
    return parse_config(json.dumps(document).encode(), "the config")


def run(**fields: t.Any) -> ImageConfig:
    """A parsed config with these fields in its inner ``config``."""
    return config(os="linux", architecture="amd64", config=fields)


def problem(**document: t.Any) -> str:
    """What is wrong with a config."""
    with pytest.raises(ImageError) as caught:
        config(**document)
    return caught.value.message


def test_all_facts() -> None:
    parsed = config(
        os="linux",
        architecture="arm",
        variant="v6",
        created="2024-01-02T03:04:05Z",
        config={
            "Entrypoint": ["/entry", "a b"],
            "Cmd": ["-x"],
            "Env": ["B=1", "A=2=3", "B=4", "EMPTY="],
            "WorkingDir": "/srv/../app/",
            "User": "www:www",
            "StopSignal": "quit",
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
            "Volumes": {"/data": {}, "/a": {}},
            "Labels": {"l": "v"},
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30, "Retries": 3},
            "Unknown": {"a": [1]},
        },
        rootfs={"type": "layers", "diff_ids": ["sha256:a", "sha256:b"]},
        history=[
            {"created_by": "x", "empty_layer": True, "unknown": 5},
            {"created": "2024-01-02T03:04:05Z", "author": "a", "comment": None},
        ],
    )
    facts = parsed.to_facts()
    assert facts == {
        "entrypoint": ["/entry", "a b"],
        "cmd": ["-x"],
        "argv": ["/entry", "a b", "-x"],
        "env": {"B": "4", "A": "2=3", "EMPTY": ""},
        "env_dropped": 0,
        "working_dir": "/app",
        "user": "www:www",
        "stop_signal": "SIGQUIT",
        "exposed_ports": ["53/udp", "80/tcp"],
        "volumes": ["/a", "/data"],
        "labels": {"l": "v"},
        "healthcheck": {"Test": ["CMD", "x"], "Interval": 30, "Retries": 3},
        "settings_dropped": 0,
        "architecture": "arm",
        "os": "linux",
        "variant": "v6",
        "created": "2024-01-02T03:04:05Z",
        "history": [{"created_by": "x", "empty_layer": True}, {"created": "2024-01-02T03:04:05Z", "author": "a"}],
    }
    # order is kept
    assert list(facts["env"]) == ["B", "A", "EMPTY"]
    assert parsed.diff_ids == ("sha256:a", "sha256:b")
    assert parsed.warnings == ()


NOTHING = {
    "entrypoint": [],
    "cmd": [],
    "argv": [],
    "env": {},
    "env_dropped": 0,
    "working_dir": "/",
    "user": "",
    "stop_signal": "SIGTERM",
    "exposed_ports": [],
    "volumes": [],
    "labels": {},
    "healthcheck": None,
    "settings_dropped": 0,
    "architecture": "amd64",
    "os": "linux",
    "variant": None,
    "created": None,
    "history": [],
}


def test_every_nullable_field_may_be_null() -> None:
    fields = [
        *("Entrypoint", "Cmd", "Env", "WorkingDir", "User", "StopSignal"),
        *("ExposedPorts", "Volumes", "Labels", "Healthcheck"),
    ]
    parsed = config(
        os="linux",
        architecture="amd64",
        variant=None,
        created=None,
        history=None,
        rootfs=None,
        config=dict.fromkeys(fields),
    )
    assert parsed.to_facts() == NOTHING
    assert parsed.diff_ids == ()
    assert config(os="linux", architecture="amd64", config=None).to_facts() == NOTHING
    assert config(os="linux", architecture="amd64").to_facts() == NOTHING


def test_environment_without_equals_is_dropped_and_counted() -> None:
    parsed = run(Env=["A=1", "HOME", "=x", ""])
    assert parsed.env == {"A": "1"}
    assert parsed.env_dropped == 3
    assert parsed.warnings == ("3 environment entries of the image have no '=' and were dropped",)


@pytest.mark.parametrize(
    ("given", "normal"),
    [("", "/"), ("app", "/app"), ("./app", "/app"), ("//app//x/", "/app/x"), ("/../..", "/"), ("../x", "/x")],
)
def test_working_dir(given: str, normal: str) -> None:
    assert run(WorkingDir=given).working_dir == normal


@pytest.mark.parametrize(
    ("text", "signal"),
    [
        ("SIGTERM", "SIGTERM"),
        ("term", "SIGTERM"),
        ("sigquit", "SIGQUIT"),
        (" SIGINT ", "SIGINT"),
        ("15", "SIGTERM"),
        ("9", "SIGKILL"),
        ("1", "SIGHUP"),
        ("31", "SIGSYS"),
        ("34", "SIGRTMIN"),
        ("37", "SIGRTMIN+3"),
        ("64", "SIGRTMIN+30"),
        ("SIGRTMIN+3", "SIGRTMIN+3"),
        ("RTMIN+3", "SIGRTMIN+3"),
        ("rtmin", "SIGRTMIN"),
        ("RTMIN+0", "SIGRTMIN"),
        ("RTMAX-1", "SIGRTMAX-1"),
        ("SIGRTMAX", "SIGRTMAX"),
        ("0", None),
        ("32", None),
        ("33", None),
        ("65", None),
        ("-15", None),
        ("RTMIN-1", None),
        ("RTMIN+31", None),
        ("RTMAX+1", None),
        ("SIGTERM+1", None),
        ("SIGNONSENSE", None),
        ("SIG", None),
        ("TERM\nX", None),
        ("\u0661", None),
        ("9" * 5000, None),
    ],
)
def test_signals(text: str, signal: str | None) -> None:
    assert normalise_signal(text) == signal


def test_a_signal_that_is_none_is_the_default_with_a_warning() -> None:
    parsed = run(StopSignal="SIGNONSENSE\n")
    assert parsed.stop_signal == "SIGTERM"
    assert parsed.warnings == ("unknown stop signal 'SIGNONSENSE\\n', using SIGTERM",)


@pytest.mark.parametrize(
    ("argv", "signal"),
    [
        (["/sbin/init"], "SIGRTMIN+3"),
        (["/usr/sbin/init"], "SIGRTMIN+3"),
        (["/lib/systemd/systemd", "--unit=x"], "SIGRTMIN+3"),
        (["/usr/lib/systemd/systemd"], "SIGRTMIN+3"),
        (["/usr/bin/systemd"], "SIGRTMIN+3"),
        (["/bin/sh", "/sbin/init"], "SIGTERM"),
        (["/sbin/initial"], "SIGTERM"),
        (["/opt/init"], "SIGTERM"),
        ([], "SIGTERM"),
    ],
)
def test_systemd_has_its_own_signal(argv: list[str], signal: str) -> None:
    assert run(Cmd=argv).stop_signal == signal
    assert run(Entrypoint=argv).stop_signal == signal
    assert run(Cmd=argv, StopSignal="SIGINT").stop_signal == "SIGINT"


@pytest.mark.parametrize(
    ("healthcheck", "kept", "left_out"),
    [
        ([], None, ["Healthcheck"]),
        ("CMD true", None, ["Healthcheck"]),
        ({"Test": "true", "Retries": 3}, {"Retries": 3}, ["Healthcheck.Test"]),
        ({"Test": ["CMD", 1]}, None, ["Healthcheck.Test"]),
        ({"Test": ["x" * 128 * 1024]}, None, ["Healthcheck.Test"]),
        (
            {"Test": ["NONE"], "Interval": "30s", "Timeout": 3.5, "StartPeriod": True},
            {"Test": ["NONE"]},
            ["Healthcheck.Interval", "Healthcheck.Timeout", "Healthcheck.StartPeriod"],
        ),
    ],
)
def test_a_wrong_healthcheck_is_left_out(healthcheck: t.Any, kept: t.Any, left_out: list[str]) -> None:
    """Section 8: what the specification does not have never stops an unpack."""
    parsed = run(Healthcheck=healthcheck)
    assert parsed.healthcheck == kept
    assert parsed.warnings == (f"invalid settings of the image were left out ({len(left_out)}): {', '.join(left_out)}",)
    assert parsed.to_facts()["settings_dropped"] == len(left_out)


@pytest.mark.parametrize(
    ("settings", "kept", "left_out"),
    [
        ({"Healthcheck": {"Test": ["CMD-SHELL", "x"]}, "Shell": ["/bin/bash", "-c"]}, ["/bin/bash", "-c"], 0),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "x"]}, "Shell": []}, None, 0),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "x"]}, "Shell": "/bin/bash"}, None, 1),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "x"]}, "Shell": [5]}, None, 1),
        ({"Healthcheck": {"Test": ["CMD", "x"]}, "Shell": "not read"}, None, 0),
    ],
)
def test_the_shell_of_a_check(settings: dict[str, t.Any], kept: list[str] | None, left_out: int) -> None:
    parsed = run(**settings)
    assert (parsed.healthcheck or {}).get("Shell") == kept
    assert parsed.to_facts()["settings_dropped"] == left_out


@pytest.mark.parametrize(
    ("port", "normal"),
    [
        ("8080", "8080/tcp"),
        ("8080/TCP", "8080/tcp"),
        ("53/udp", "53/udp"),
        ("080", "80/tcp"),
        ("8000-8010/udp", "8000-8010/udp"),
        ("65535/sctp", "65535/sctp"),
    ],
)
def test_ports_are_normalised(port: str, normal: str) -> None:
    assert run(ExposedPorts={port: {}}).exposed_ports == (normal,)
    assert run(ExposedPorts=[port, normal]).exposed_ports == (normal,)


@pytest.mark.parametrize("port", ["", "0", "65536", "8010-8000", "${PORT}", "80/http", "80:80", "http", "-1", "1-2-3"])
def test_a_wrong_port_is_left_out(port: str) -> None:
    parsed = run(ExposedPorts={port: {}, "80/tcp": {}})
    assert (parsed.exposed_ports, parsed.settings_dropped) == (("80/tcp",), 1)
    assert parsed.warnings == ("invalid settings of the image were left out (1): ExposedPorts",)


def test_sets_may_be_lists() -> None:
    assert run(ExposedPorts=["2/tcp", "1/tcp", "2/tcp"]).exposed_ports == ("1/tcp", "2/tcp")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Entrypoint": "sh"}, "the field 'Entrypoint' is not a list of strings"),
        ({"Cmd": [1]}, "the field 'Cmd' is not a list of strings"),
        ({"Env": {"A": "B"}}, "the field 'Env' is not a list of strings"),
        ({"WorkingDir": 1}, "the field 'WorkingDir' is not a string"),
        ({"User": 0}, "the field 'User' is not a string"),
        ({"StopSignal": 15}, "the field 'StopSignal' is not a string"),
        ({"ExposedPorts": "80"}, "the field 'ExposedPorts' is not an object"),
        ({"Volumes": [1]}, "the field 'Volumes' is not an object"),
        ({"Labels": {"a": 1}}, "the field 'Labels' is not an object of strings"),
    ],
)
def test_fields_of_another_shape(fields: dict[str, t.Any], message: str) -> None:
    assert problem(config=fields) == f"the config: {message}"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"config": []}, "the field 'config' is not an object"),
        ({"rootfs": []}, "the field 'rootfs' is not an object"),
        ({"rootfs": {"diff_ids": "x"}}, "the field 'diff_ids' is not a list of"),
        ({"created": 5}, "the field 'created' is not a string"),
        ({"history": {}}, "the field 'history' is not a list of objects"),
        ({"history": [{"author": []}]}, "the field 'author' is not a string"),
        ({"os": []}, "has a platform that is not a string"),
    ],
)
def test_documents_of_another_shape(document: dict[str, t.Any], message: str) -> None:
    said = problem(**document)
    assert message in said
    assert said.startswith("the config")


def test_nothing_deep_or_endless_reaches_the_facts() -> None:
    """What the result cannot hold as strict JSON stays out of it."""
    deep = b"[" * 900 + b"]" * 900
    data = b'{"config": {"Healthcheck": {"Deep": %s}}, "history": [{"x": %s, "y": 1e999}]}'
    facts = parse_config(data % (deep, deep), "the config").to_facts()
    assert facts["healthcheck"] is None
    assert facts["history"] == [{}]
    parsed = parse_config(b'{"config": {"Healthcheck": {"Interval": 1e999}}}', "the config")
    assert (parsed.healthcheck, parsed.settings_dropped) == (None, 1)


LONG = "x" * (128 * 1024)


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"Env": ["A=b"] * 10_001}, "Env has 10001 entries, more than 10000"),
        ({"Env": ["A=" + LONG]}, "Env holds a string of 131074 bytes, more than 131071"),
        ({"Entrypoint": ["a"] * 10_001}, "Entrypoint has 10001 entries"),
        ({"Cmd": [LONG]}, "Cmd holds a string of 131072 bytes"),
        ({"Volumes": {f"/{n}": {} for n in range(257)}}, "Volumes has 257 entries, more than 256"),
        ({"Volumes": [f"/{n}" for n in range(257)]}, "Volumes has 257 entries"),
        ({"Volumes": {"/" + "\u00e9" * 2048: {}}}, "Volumes holds a string of 4097 bytes"),
        ({"ExposedPorts": [str(n) for n in range(131_073)]}, "ExposedPorts has 131073 entries"),
        ({"ExposedPorts": {"1" * 65: {}}}, "ExposedPorts holds a string of 65 bytes"),
        ({"Labels": {str(n): "" for n in range(10_001)}}, "Labels has 10001 entries"),
        ({"Labels": {"l": LONG * 8 + "x"}}, "Labels holds a string of 1048577 bytes"),
        ({"Labels": {LONG * 8 + "x": "l"}}, "Labels holds a string of 1048577 bytes"),
        ({"User": "u" * 1025}, "User holds a string of 1025 bytes"),
        ({"WorkingDir": "/" * 4097}, "WorkingDir holds a string of 4097 bytes"),
    ],
)  # fmt: skip
def test_what_an_image_may_ask_for_is_bounded(fields: dict[str, t.Any], most: str) -> None:
    """Section 7, limits: each in one sentence that names the field, and nothing of its content."""
    message = problem(os="linux", architecture="amd64", config=fields)
    assert message.startswith(f"the config: {most}")
    assert "a fixed limit" in message
    assert len(message) < 200


def test_history_is_bounded() -> None:
    assert "history has 10001" in problem(history=[{}] * 10_001)
    assert "comment holds" in problem(history=[{"comment": LONG * 8 + "x"}])


def test_what_images_do_ask_for_is_within_bounds() -> None:
    """A media server's range of ports, build metadata in a label, a long script as an argument."""
    ports: dict[str, t.Any] = {f"{port}/udp": {} for port in range(16384, 32769)}
    parsed = run(
        Env=[f"E{n}={LONG[:100]}" for n in range(5000)],
        Cmd=["sh", "-c", LONG[:-1]],
        ExposedPorts=ports,
        Labels={"io.buildpacks.build.metadata": LONG * 4},
    )
    assert len(parsed.exposed_ports) == len(ports)
    assert len(parsed.env) == 5000
    assert parsed.cmd[2] == LONG[:-1]


def test_a_signal_of_megabytes_makes_a_short_warning() -> None:
    (warning,) = run(StopSignal="\x1b2J" * 400_000).warnings
    assert warning.isprintable()
    assert len(warning) < 1000

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths of tasks are UTF-8, whatever the node's locale (docs/behaviour.md, section 7)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._native_path import native_path, task_path
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_oci_archive

NAME = "größe-日本"
CODE = """
import json, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": json.loads(sys.argv[2])}).encode()
basic._ANSIBLE_PROFILE = "legacy"
assert sys.getfilesystemencoding() != "utf-8"
__import__("ansible_collections.hypervisor.oci.plugins.modules." + sys.argv[1], fromlist=["main"]).main()
"""


@pytest.fixture(name="locale", params=["ASCII", "ISO-8859-1"])
def fixture_locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment of a node with another locale than UTF-8."""
    environment = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    if request.param == "ASCII":
        return environment
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    folder = tmp_path / "locales"
    folder.mkdir()
    command = ["localedef", "-i", "de_DE", "-f", request.param, str(folder / "de_DE.ISO-8859-1")]
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        pytest.skip("the locale de_DE.ISO-8859-1 cannot be made here")
    return {**environment, "LC_ALL": "de_DE.ISO-8859-1", "LOCPATH": str(folder)}


def call(locale: dict[str, str], module: str, **arguments: t.Any) -> dict[str, t.Any]:
    """Run a module in a process with another locale."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, **locale, "PYTHONPATH": path}
    command = [sys.executable, "-c", CODE, module, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.stdout, done.stderr.decode()
    result: dict[str, t.Any] = json.loads(done.stdout)
    return result


def test_a_root_file_system(tmp_path: Path, locale: dict[str, str]) -> None:
    """The directory is the one that ansible.builtin.file makes, and results and errors name it as the task does."""
    src = write_oci_archive(tmp_path / f"{NAME}.tar", Image([Layer(file(NAME, b"x"))]))
    above = tmp_path / "above"
    above.mkdir(0o700)
    dest = str(above / NAME)
    options = {"src": src, "dest": dest, "platform": "linux/amd64"}
    for changed in (True, False):
        result = call(locale, "oci_rootfs", **options)
        assert (result.get("changed"), result.get("dest"), result.get("msg")) == (changed, dest, None)
    assert os.listdir(os.fsencode(dest)) == [NAME.encode()]
    assert set(os.listdir(os.fsencode(above))) == {NAME.encode(), f".{NAME}.oci_rootfs".encode()}
    (above / "foreign" / NAME).mkdir(parents=True)
    message = call(locale, "oci_rootfs", **{**options, "dest": str(above / "foreign" / NAME / "x/../../../foreign")})[
        "msg"
    ]
    assert message.startswith(f"'{above}/foreign' is not empty")
    message = call(locale, "oci_rootfs", **{**options, "src": f"{above}/missing-{NAME}"})["msg"]
    assert f"missing-{NAME}'" in message
    assert call(locale, "oci_rootfs", dest=dest, state="absent")["changed"]
    assert os.listdir(above) == ["foreign"]


def test_files_of_a_container(tmp_path: Path, locale: dict[str, str]) -> None:
    path = str(tmp_path / NAME)
    (tmp_path / "x").mkdir()
    result = call(
        locale, "oci_container_files", directories=[{"path": path}], files=[{"path": f"{path}/f", "content": "x"}]
    )
    assert result.get("changed_paths") == [path, f"{path}/f"]
    assert os.listdir(os.fsencode(path)) == [b"f"]


@pytest.mark.parametrize("path", ["", "/a", f"/{NAME}", "/\udcff", "/\ud800"])
def test_the_way_back(path: str) -> None:
    assert task_path(native_path(path)) == path
    assert task_path(native_path([{"a": path, "b": 1}])) == [{"a": path, "b": 1}]

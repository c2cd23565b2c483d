# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives and code of modules that are made once for a virtual environment."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing as t
import venv
import zipfile
from pathlib import Path

import pytest
from ansible.config import manager
from ansible.executor import module_common
from ansible.utils.path import cleanup_tmp_file
from ansible_collections.hypervisor.oci.tests.tools import module_code

# Says where its code says that it is from, and whether the code was kept.
SOURCE = (
    "import sys, zipimport\nprint({value}, (lambda: 0).__code__.co_filename, zipimport._compile_source.__module__)\n"
)


class Environment:
    """A virtual environment that keeps code."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        self.folder = folder / "venv" / "module-code" / "compiled"
        self.install()

    def install(self) -> None:
        """Install what keeps it."""
        (packages,) = self.python.parents[1].glob("lib/python3*/site-packages")
        module_code.install(str(self.python.parents[1]), str(packages))

    def imported(self, archive: Path, value: str) -> list[str]:
        """Return what a module of a new archive prints when it is imported."""
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("kept_or_not.py", SOURCE.format(value=value))
        command = [str(self.python), "-c", f"import sys; sys.path.insert(0, {str(archive)!r}); import kept_or_not"]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()

    def kept(self) -> dict[str, tuple[int, bytes]]:
        """Return the inode and the content of what is kept, by name."""
        return {path.name: (path.stat().st_ino, path.read_bytes()) for path in self.folder.iterdir()}


@pytest.fixture(name="environment", scope="module")
def fixture_environment(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Environment]:
    """It is made once, and each test has sources of its own."""
    yield Environment(tmp_path_factory.mktemp("environment"))


def test_code_is_compiled_once_and_named_after_its_own_archive(environment: Environment, tmp_path: Path) -> None:
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    module = "hypervisor_oci_module_code"
    assert environment.imported(one, "1") == ["1", f"{one}/kept_or_not.py", module]
    kept = environment.kept()
    assert kept
    assert environment.imported(two, "1") == ["1", f"{two}/kept_or_not.py", module]
    assert environment.kept() == kept


def test_another_source_is_compiled_anew(environment: Environment, tmp_path: Path) -> None:
    archive = tmp_path / "one.zip"
    assert [environment.imported(archive, value)[0] for value in ("20", "21", "20")] == ["20", "21", "20"]


@pytest.mark.parametrize(("value", "data"), [("30", b""), ("31", b"\xe3"), ("32", b"\0"), ("33", b"i\1\0\0\0")])
def test_what_is_not_code_is_replaced(environment: Environment, tmp_path: Path, value: str, data: bytes) -> None:
    before = set(environment.kept())
    environment.imported(tmp_path / "one.zip", value)
    (name,) = set(environment.kept()) - before
    good = environment.kept()[name][1]
    (environment.folder / name).write_bytes(data)
    assert environment.imported(tmp_path / "one.zip", value)[0] == value
    assert environment.kept()[name][1] == good


def test_a_new_installation_forgets(environment: Environment, tmp_path: Path) -> None:
    environment.imported(tmp_path / "one.zip", "4")
    archives = environment.folder.parent / "archives"
    (archives / "one").write_bytes(b"")
    environment.install()
    assert environment.kept() == {}
    assert list(archives.iterdir()) == []


def test_code_that_cannot_be_kept_runs(environment: Environment, tmp_path: Path) -> None:
    for path in environment.folder.iterdir():
        path.unlink()
    environment.folder.rmdir()
    # no folder for it
    environment.folder.write_bytes(b"")
    try:
        assert environment.imported(tmp_path / "one.zip", "5")[0] == "5"
    finally:
        environment.folder.unlink()
        environment.folder.mkdir()


def _plugin(environment: Environment, folder: Path, source: str) -> list[str]:
    """Return what a plugin of a collection in a folder prints when it is imported."""
    plugin = folder / "ansible_collections" / "a" / "b" / "plugins" / "plugin_utils" / "one.py"
    plugin.parent.mkdir(parents=True, exist_ok=True)
    plugin.write_text(source)
    code = (
        "from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder as Finder\n"
        f"Finder(paths=[{str(folder)!r}])._install()\n"
        "from ansible_collections.a.b.plugins.plugin_utils import one\n"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [str(environment.python), "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=variables)
    return done.stdout.split()


def test_the_code_of_plugins_is_kept_as_well(environment: Environment, tmp_path: Path) -> None:
    source = "print(60, (lambda: 0).__code__.co_filename)\n"
    end = "ansible_collections/a/b/plugins/plugin_utils/one.py"
    environment.install()
    assert _plugin(environment, tmp_path / "1", source) == ["60", f"{tmp_path}/1/{end}"]
    names = set(environment.kept())
    assert _plugin(environment, tmp_path / "2", source) == ["60", f"{tmp_path}/2/{end}"]
    assert set(environment.kept()) == names
    assert _plugin(environment, tmp_path / "2", source.replace("60", "61"))[0] == "61"
    (name,) = set(environment.kept()) - names
    # it is used, indeed
    for other in names:
        if b"<lambda>" in environment.kept()[other][1]:
            (environment.folder / other).write_bytes(environment.kept()[name][1])
    assert _plugin(environment, tmp_path / "2", source)[0] == "61"


@pytest.mark.parametrize(("prefix", "shared"), [("ansible-local-1", True), ("other-", False), (None, False)])
def test_each_playbook_has_the_cache_of_all(
    environment: Environment, tmp_path: Path, prefix: str | None, shared: bool
) -> None:
    code = f"import tempfile; print(tempfile.mkdtemp(prefix={prefix!r}, dir={str(tmp_path)!r}))"
    done = subprocess.run([str(environment.python), "-c", code], check=True, capture_output=True, text=True, timeout=60)
    made = Path(done.stdout.strip())
    assert made.parent == tmp_path and made.name.startswith(prefix or "tmp")
    assert made.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in made.iterdir()] == ["ansiballz_cache"] * shared
    if shared:
        archives = environment.folder.parent / "archives"
        (made / "ansiballz_cache" / "one").write_bytes(b"")
        cleanup_tmp_file(str(made))
        assert (archives / "one").exists() and not made.exists()


def test_ansible_keeps_its_archives_there() -> None:
    """The names of its folder and of its cache."""
    sources = [inspect.getsource(module) for module in (manager, module_common)]
    assert "prefix = 'ansible-local-" in sources[0] and "tempfile.mkdtemp(prefix=prefix" in sources[0]
    assert "'ansiballz_cache'" in sources[1]

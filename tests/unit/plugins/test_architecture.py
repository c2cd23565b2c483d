# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The house as ``docs/architecture.md`` shows it: every file has a row, and rooms import only from rooms above them."""

from __future__ import annotations

import ast
import os.path
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

COLLECTION = Path(__file__).parents[3]
PAGE = "docs/architecture.md"
HEADING = re.compile(r"### `((?:plugins|roles)/[^`]*/)`")
ROW = re.compile(r"\| `([^`]+)` \|")
PACKAGE = "ansible_collections.hypervisor.oci."


def rooms_of(page: str) -> list[list[str]]:
    """Return the rooms in the page's order, each as the paths that its rows name."""
    rooms: list[list[str]] = []
    folder = ""
    for line in page.splitlines():
        heading, row = HEADING.match(line), ROW.match(line)
        if line.startswith("#"):
            folder = heading.group(1) if heading else ""
            if heading:
                rooms.append([])
        elif row and folder:
            rooms[-1].append(os.path.normpath(folder + row.group(1)))
    return rooms


def product_of(root: Path) -> set[str]:
    """Return what needs a row: each Python file of the plugins, and each file and folder of a role's first level."""
    files = {*root.glob("plugins/**/*.py"), *root.glob("roles/*/*")}
    return {str(path.relative_to(root)) for path in files if path.name != "__pycache__"}


def imports_of(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the path of each file of the collection that a file imports, late imports too."""
    for node in ast.walk(ast.parse((root / path).read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                package = Path(path).parents[node.level - 1]
                base = str(package / module.replace(".", "/"))
            elif module.startswith(PACKAGE):
                base = module[len(PACKAGE) :].replace(".", "/")
            else:
                continue
            names = [f"{base}/{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [
                alias.name[len(PACKAGE) :].replace(".", "/") for alias in node.names if alias.name.startswith(PACKAGE)
            ]
            base = ""
        else:
            continue
        for name in names:
            places = (f"{name}.py", f"{name}/__init__.py", f"{base}.py", f"{base}/__init__.py")
            found = next((place for place in places if (root / place).is_file()), None)
            if found is None:
                raise AssertionError(f"{path}:{node.lineno}: {name} is not a file of the collection")
            yield node.lineno, found


def faults_of(root: Path, page: str) -> list[str]:
    """Return a sentence for each way in which the page and the tree differ."""
    rooms = rooms_of(page)
    floors: dict[str, int] = {}
    faults = []
    for floor, paths in enumerate(rooms):
        for path in paths:
            if path in floors:
                faults.append(f"{PAGE} names {path} twice")
            floors[path] = floor
    product = product_of(root)
    faults += [f"{PAGE} has no row for {path}; add it to its room" for path in sorted(product - floors.keys())]
    faults += [f"{PAGE} names {path}, which does not exist" for path in sorted(floors.keys() - product)]
    for path in sorted(floors.keys() & product):
        if path.endswith(".py"):
            faults += [
                f"{path}:{line} imports {imported}, which is in a room below its own in {PAGE}"
                for line, imported in imports_of(root, path)
                if floors.get(imported, 0) > floors[path]
            ]
    return faults


def test_the_page_shows_every_file_and_imports_point_one_way() -> None:
    assert faults_of(COLLECTION, (COLLECTION / PAGE).read_text()) == []


TREE_PAGE = (
    "### `plugins/a/`: first\n| `one.py` | |\n### `plugins/b/`: second\n| `two.py` | |\n## End\n| `other.py` | |\n"
)


@pytest.mark.parametrize(
    ("one", "two", "extra", "fault"),
    [
        ("", "from ..a.one import x\nfrom ..a import one\n", None, None),
        ("from ..b.two import x\n", "", None, "plugins/a/one.py:1 imports plugins/b/two.py"),
        ("def f():\n    from ..b import two\n", "", None, "plugins/a/one.py:2 imports plugins/b/two.py"),
        (f"from {PACKAGE}plugins.b.two import x\n", "", None, "plugins/a/one.py:1 imports plugins/b/two.py"),
        (f"import {PACKAGE}plugins.b.two\n", "", None, "plugins/a/one.py:1 imports plugins/b/two.py"),
        ("", "", "plugins/b/three.py", "has no row for plugins/b/three.py"),
        ("", "", "roles/c/tasks/main.yml", "has no row for roles/c/tasks"),
        ("", None, None, "names plugins/b/two.py, which does not exist"),
    ],
)
def test_what_differs_is_found(tmp_path: Path, one: str, two: str, extra: str, fault: str | None) -> None:
    files = {"plugins/a/one.py": one, "plugins/b/two.py": two, extra: ""}
    for name, text in files.items():
        if name is not None and text is not None:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    faults = faults_of(tmp_path, TREE_PAGE)
    assert len(faults) == (fault is not None)
    assert fault is None or fault in faults[0]

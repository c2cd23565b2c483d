# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What users install: galaxy.yml leaves out what only contributors need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
_FOLDERS = {"LICENSES", "changelogs", "docs", "meta", "playbooks", "plugins", "roles"}
_FILES = {"CONTRIBUTING.md", "COPYING", "FILES.json", "MANIFEST.json", "README.md", "SECURITY.md"}


def test_the_package_holds_the_users_part(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from ansible.cli.galaxy import main; main()"]
    command = [*program, "collection", "build", "--output-path", str(tmp_path), str(_ROOT)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "HOME": str(tmp_path)})
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        names = package.getnames()
    assert {name.partition("/")[0] for name in names} <= _FOLDERS | _FILES
    assert set(names) >= _FILES and "plugins/modules/oci_rootfs.py" in names
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|/\.|~$|\.orig$|changelogs/fragments", name)]


def test_links_of_the_readme_are_in_the_package() -> None:
    """A reader of the installed README can follow its links."""
    text = (_ROOT / "README.md").read_text("utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    for target in filter(None, targets):
        assert (_ROOT / target).is_file(), target
        assert target in _FILES or target.partition("/")[0] in _FOLDERS, target

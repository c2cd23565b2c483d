# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible sends a node with every task: a module with all that it imports (docs/architecture.md, docs/fleet.md)."""

from __future__ import annotations

import base64
import importlib
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

COLLECTION = Path(__file__).parents[3]
MODULES = "ansible_collections.hypervisor.oci.plugins.modules"
PREFIX = "ansible_collections/hypervisor/oci/plugins/module_utils/"
ZIP = re.compile(rb"[A-Za-z0-9+/]{10000,}={0,2}")
# Ansible's own part, about 165 kB, is among them.
MOST = 590_000
LEFT_OUT_ROOMS = {"_container", "_registry", "_remote"}
# What reads a source, or verifies signatures, in rooms of which other files are sent.
LEFT_OUT = {
    "_cache/fetched_scope", "_provision/node_source", "_provision/recall", "_provision/verify_signatures",
    "_signature/bundle", "_signature/keys", "_signature/payload", "_signature/strict", "_signature/verify",
    "_signed/client", "_signed/judge", "_signed/judging", "_signed/layout", "_signed/registry", "_signed/stored",
    "_source/archive", "_source/compressed", "_source/directory", "_source/partial", "_source/remote",
    "_source/sources", "_source/tar_index",
}  # fmt: skip
MAKE = """
import sys
from ansible.executor import module_common
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

name, path = sys.argv[1:]
init_plugin_loader([path.partition("/ansible_collections/")[0]])
made = module_common.modify_module(
    module_name="ansible_collections.hypervisor.oci.plugins.modules." + name,
    module_path=path,
    module_args={},
    templar=Templar(loader=DataLoader()),
    task_vars={"ansible_python_interpreter": "/usr/bin/python3"},
    module_compression="ZIP_DEFLATED",
)
sys.stdout.buffer.write(made.b_module_data if hasattr(made, "b_module_data") else made[0])
"""


def sent(name: str) -> bytes:
    """What Ansible sends of a module, made by Ansible in a process of its own."""
    path = importlib.import_module(f"{MODULES}.{name}").__file__
    done = subprocess.run([sys.executable, "-c", MAKE, name, str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def names_in(data: bytes) -> set[str]:
    """The collection's files in it, without the suffix, from ``module_utils`` on."""
    found = ZIP.search(data)
    assert found is not None
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(found.group()))) as archive:
        return {name[len(PREFIX) : -len(".py")] for name in archive.namelist() if name.startswith(PREFIX)}


@pytest.fixture(name="offered", scope="module")
def fixture_offered() -> bytes:
    """The module that an image of the controller needs."""
    return sent("oci_rootfs_offered")


def test_an_offer_is_sent_with_nothing_that_reads_a_source(offered: bytes) -> None:
    names = names_in(offered)
    assert {"_run", "_provision/offered", "_source/offer", "_transfer", "_unpack"} <= names
    assert {name for name in names if name.partition("/")[0] in LEFT_OUT_ROOMS} == set()
    assert names & LEFT_OUT == set()
    assert b"ansible/module_utils/urls" not in base64.b64decode(ZIP.search(offered).group())  # type: ignore[union-attr]


def test_an_offer_is_sent_with_little(offered: bytes) -> None:
    """The fleet's tests bound what a node's link carries; this fails first (tests/fleet/sending.py)."""
    assert len(offered) <= MOST


def test_what_is_left_out_exists() -> None:
    """A file that moves would be looked for in vain."""
    utils = COLLECTION / "plugins/module_utils"
    assert [name for name in sorted(LEFT_OUT) if not (utils / f"{name}.py").is_file()] == []
    assert [name for name in sorted(LEFT_OUT_ROOMS) if not (utils / name).is_dir()] == []


def test_a_source_of_the_nodes_is_sent_with_nothing_of_offers() -> None:
    names = names_in(sent("oci_rootfs"))
    assert names >= LEFT_OUT - {"_signed/client", "_signed/registry"}
    assert names & {"_provision/offered", "_source/offer", "_transfer"} == set()

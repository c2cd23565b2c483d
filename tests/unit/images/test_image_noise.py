# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image of noise: the script as it is run, and what is in its archive."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from ansible_collections.hypervisor.oci.tests.images import build_noise


def test_layers_that_no_compression_makes_smaller(tmp_path: pathlib.Path) -> None:
    """As many as were asked for, and the same each time."""
    written = []
    for name in ("first", "second"):
        path = tmp_path / name
        subprocess.run([sys.executable, "-B", build_noise.__file__, str(path), "3", "50000"], check=True, timeout=60)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert 150_000 < len(written[0]) < 170_000

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container for the tests of those who render one."""

from __future__ import annotations

from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import Container, User
from hypothesis import strategies as st

PLAIN = Container(
    name="web",
    rootfs="/srv/web",
    hostname="web",
    argv=("/bin/app",),
    env=(("PATH", "/bin"),),
    working_dir="/",
    user=User("", 0, 0),
    stop_signal="SIGTERM",
    architecture="amd64",
    os="linux",
)
# Characters that a line may hold.
LINE = st.characters(blacklist_categories=("Cs", "Cc"))

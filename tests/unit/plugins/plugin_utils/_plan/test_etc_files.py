# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's own files below /etc: docs/behaviour.md, section 10."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.etc_files import has_reachable_resolver
from ansible_collections.hypervisor.oci.tests.unit.container_plans import file_of, node_of, planned


def test_the_resolver_of_the_node_is_passed_on() -> None:
    text = file_of(planned("runc"), "/resolv.conf")["content"]
    assert text.endswith("\nnameserver 10.0.0.1\n")
    text = file_of(planned("runc", network="host"), "/resolv.conf")["content"]
    assert text.endswith("\nnameserver 127.0.0.1\n")
    text = file_of(planned("runc", dns=["9.9.9.9"], dns_search=["a", "b"]), "/resolv.conf")["content"]
    assert text.endswith("\nnameserver 9.9.9.9\nsearch a b\n")


def test_a_node_without_resolv_conf() -> None:
    text = file_of(planned("runc", node=node_of(texts={}), dns_options=["ndots:2"]), "/resolv.conf")["content"]
    assert text.endswith("\noptions ndots:2\n")


@pytest.mark.parametrize(
    ("text", "reachable"),
    [
        ("", False),
        ("nameserver 127.0.0.53\n", False),
        ("nameserver ::1\nnameserver 10.0.0.1", True),
        ("\n" * 100_000, False),
    ],
)
def test_reachable_resolvers(text: str, reachable: bool) -> None:
    assert has_reachable_resolver(text) is reachable


def test_a_mount_replaces_the_roles_file() -> None:
    result = planned("runc", mounts=[{"source": "/etc/hosts", "target": "/etc/hosts"}])
    assert [item["source"] for item in result["wanted_mounts"] if item["target"] == "/etc/hosts"] == ["/etc/hosts"]
    none = planned("runc", hosts=False, resolv_conf=False)
    assert not [item for item in none["files"] if item["path"].endswith(("hosts", "hostname", "resolv.conf"))]

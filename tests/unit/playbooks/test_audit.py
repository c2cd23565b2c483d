# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report of the playbook audit, from what nodes answer: docs/operations.md."""

from __future__ import annotations

import typing as t
from pathlib import Path

import jinja2
import pytest
from ansible_collections.hypervisor.oci.plugins.filter.visible import FilterModule

_TEMPLATE = Path(__file__).resolve().parents[3] / "playbooks" / "templates" / "audit.md.j2"
_UNFINISHED: dict[str, t.Any] = {"phase": None, "transfers": 0, "to_remove": []}
_ITEM: dict[str, t.Any] = {
    "dest": "/srv/web",
    "exists": True,
    "provisioned": True,
    "ref": "demo:1",
    "manifest_digest": "sha256:" + "0123456789abcdef" * 4,
    "made": "2026-11-29T08:15:00Z",
    "signed_by": ["sha256:1"],
    "report": {"inventory": {"setuid": {"count": 5}, "capabilities": {"count": 0}, "devices": {"count": 1}}},
    "unfinished": _UNFINISHED,
}


def report(*found: dict[str, t.Any]) -> list[list[str]]:
    """The cells of each line below the head; each node is named by its place."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    for name, function in FilterModule().filters().items():
        environment.filters[f"hypervisor.oci.{name}"] = function
    nodes = [{"inventory_hostname": f"node{place}", "audit_found": item} for place, item in enumerate(found)]
    text = environment.from_string(_TEMPLATE.read_text("utf-8")).render(audit_nodes=nodes)
    lines = text.splitlines()
    assert {line.count("|") for line in lines} == {12}
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]


def test_a_line_for_each_root_file_system() -> None:
    absent = {**_ITEM, "provisioned": False, "exists": False, "report": None, "made": None, "signed_by": None}
    absent.update(ref=None, manifest_digest=None)
    assert report({"rootfs": [_ITEM, absent]}, {"rootfs": []}) == [
        ["node0", "/srv/web", "demo:1", "sha256:0123456789ab", "2026-11-29T08:15:00Z", "1", "5", "0", "1", "–", "no"],
        ["node0", "/srv/web", "missing", "–", "–", "0", "–", "–", "–", "–", "no"],
    ]


@pytest.mark.parametrize(
    ("drift", "shown"),
    [
        (None, "–"),
        ({"verdict": "clean"}, "clean"),
        ({"verdict": "not verifiable", "changed": {"count": 0}}, "not verifiable"),
        (
            {"verdict": "drifted", "changed": {"count": 2}, "missing": {"count": 1}, "extra": {"count": 0}},
            "drifted: 2 changed, 1 missing, 0 extra",
        ),
        ({"verdict": "drifted"}, "drifted: – changed, – missing, – extra"),
    ],
)
def test_drift(drift: dict[str, t.Any] | None, shown: str) -> None:
    assert report({"rootfs": [{**_ITEM, "drift": drift}]})[0][-2] == shown


@pytest.mark.parametrize(
    ("unfinished", "shown"),
    [({"phase": "unpacking"}, "unpacking"), ({"transfers": 1}, "yes"), ({"to_remove": ["/srv/x"]}, "yes")],
)
def test_what_is_unfinished(unfinished: dict[str, t.Any], shown: str) -> None:
    assert report({"rootfs": [{**_ITEM, "unfinished": {**_UNFINISHED, **unfinished}}]})[0][-1] == shown


def test_nodes_that_give_no_answer() -> None:
    assert [line[:2] for line in report({"unreachable": True, "msg": "x"}, {"msg": "it is damaged"})] == [
        ["node0", "not reachable"],
        ["node1", "it is damaged"],
    ]


def test_a_node_that_answers_what_it_likes() -> None:
    """Only text, in its own cell."""
    hostile = "a|b\n| node9 | forged |\x1b[2J" + "x" * 500
    item = {
        **_ITEM,
        **dict.fromkeys(("dest", "ref", "manifest_digest", "made"), hostile),
        "report": {"inventory": {kind: {"count": hostile} for kind in ("setuid", "capabilities", "devices")}},
        "drift": {"verdict": hostile, **{kind: {"count": hostile} for kind in ("changed", "missing", "extra")}},
        "unfinished": {**_UNFINISHED, "phase": hostile},
    }
    lines = report({"rootfs": [item]}, {"msg": hostile})
    assert [line[0] for line in lines] == ["node0", "node1"]
    for cell in (cell for line in lines for cell in line):
        assert len(cell) < 300
        assert "\x1b" not in cell

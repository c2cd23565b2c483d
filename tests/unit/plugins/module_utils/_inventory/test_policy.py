# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a policy allows (docs/behaviour.md, section 13)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._inventory import inventory as inventories
from ansible_collections.hypervisor.oci.plugins.module_utils._inventory.inventory import KINDS, Collector, Inventory
from ansible_collections.hypervisor.oci.plugins.module_utils._inventory.policy import parse_policy

RAW = {"permitted": ["cap_net_raw"], "inheritable": [], "effective": True}
DETAILS: dict[str, dict[str, t.Any]] = {
    "setuid": {"uid": 0},
    "setgid": {"gid": 0},
    "capabilities": RAW,
    "devices": {"device": "c 1:3"},
    "world_writable": {"type": "file"},
    "unowned": {"uid": 5, "gid": 5},
}


def inventory(**files: t.Any) -> Inventory:
    """An inventory of paths by kind, or of pairs of path and detail."""
    collector = Collector()
    for kind, paths in files.items():
        for path in paths:
            name, detail = path if isinstance(path, tuple) else (path, DETAILS[kind])
            collector.add(kind, name, detail)
    return collector.inventory()


def refusal(policy: dict[str, t.Any], found: Inventory) -> str:
    with pytest.raises(RootfsError) as caught:
        parse_policy(policy).judge(found, "/srv/web")
    return caught.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_one_offender_of_each_kind(kind: str) -> None:
    found = inventory(**{kind: ["/a/x"]})
    nothing: t.Any = {} if kind == "capabilities" else []
    message = refusal({kind: nothing}, found)
    assert message.startswith(f"the image has files that policy does not allow: {kind}: /a/x")
    assert "'/srv/web' stays as it was" in message
    allowed: t.Any = {"/a/*": ["cap_net_raw"]} if kind == "capabilities" else ["/a/*"]
    parse_policy({kind: allowed}).judge(found, "/srv/web")


def test_a_kind_that_is_not_named_is_not_judged() -> None:
    found = inventory(setuid=["/a"], devices=["/b"])
    parse_policy({}).judge(found, "/srv/web")
    parse_policy({"setuid": ["/a"]}).judge(found, "/srv/web")


def test_the_last_of_many_offenders_counts() -> None:
    """A result shows 1,000 files of a kind, but a policy judges all."""
    found = inventory(setuid=[*(f"/ok/{number}" for number in range(1000)), "/z/su"])
    assert len(found.to_result()["setuid"]["files"]) == 1000
    assert refusal({"setuid": ["/ok/*"]}, found).count("/z/su") == 1


def test_many_offenders_are_counted() -> None:
    found = inventory(setuid=[f"/{number:03}" for number in range(50)])
    assert "/000, " in (message := refusal({"setuid": []}, found))
    assert "/019 and 30 more." in message


@pytest.mark.parametrize(
    ("detail", "allowed"),
    [
        (RAW, True),
        ({**RAW, "effective": False}, True),
        ({**RAW, "permitted": ["cap_net_raw", "cap_sys_admin"]}, False),
        ({**RAW, "inheritable": ["cap_sys_admin"]}, False),
        ({**RAW, "permitted": ["cap_63"]}, False),
        ({**RAW, "root_id": 1000}, False),
        ({"permitted": ["unknown"], "inheritable": [], "effective": True}, False),
    ],
)
def test_all_sets_of_capabilities_must_be_allowed(detail: dict[str, t.Any], allowed: bool) -> None:
    found = inventory(capabilities=[("/ping", detail)])
    policy = {"capabilities": {"/ping": ["cap_net_raw"]}}
    if allowed:
        parse_policy(policy).judge(found, "/srv/web")
    else:
        assert "capabilities: /ping (" in refusal(policy, found)


def test_two_patterns_do_not_add_up() -> None:
    """Each says what such a file may have at most."""
    both = {**RAW, "permitted": ["cap_chown", "cap_net_raw"]}
    found = inventory(capabilities=[("/ping", both)])
    assert refusal({"capabilities": {"/ping": ["cap_net_raw"], "/*": ["cap_chown"]}}, found)


def test_too_many_to_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "MOST_KEPT", 3)
    found = inventory(setuid=["/a", "/b", "/c", "/d"])
    parse_policy({"setgid": []}).judge(found, "/srv/web")
    assert "the image has 4 files of the kind setuid, too many" in refusal({"setuid": ["/**"]}, found)


def test_names_are_made_visible() -> None:
    assert "/a\\x1b[2J" in refusal({"setuid": []}, inventory(setuid=["/a\x1b[2J"]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"suid": []}, "policy: 'suid' is no kind of file"),
        ({"setuid": "/usr/bin/su"}, "policy: setuid is not a list of paths"),
        ({"setuid": {}}, "policy: setuid is not a list of paths"),
        ({"setuid": None}, "policy: setuid is not a list of paths"),
        ({"setuid": ["su"]}, "policy: setuid lists 'su', which is not an absolute path"),
        ({"setuid": [5]}, "policy: setuid lists '5', which is not a path"),
        ({"capabilities": ["/ping"]}, "policy: capabilities is not a mapping"),
        ({"capabilities": {"/ping": "cap_net_raw"}}, "policy: capabilities of '/ping' is not a list"),
        ({"capabilities": {"/ping": ["net_raw"]}}, "policy: capabilities of '/ping' names 'net_raw'"),
    ],
)
def test_a_policy_that_is_wrong(value: dict[str, t.Any], message: str) -> None:
    with pytest.raises(OciError) as caught:
        parse_policy(value)
    assert caught.value.message.startswith(message)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arguments that speak of each other, and defaults that depend on who runs (docs/behaviour.md, sections 4 and 6)."""

from __future__ import annotations

import os
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.tests.tools.arguments import arguments, options_of

MAPS = {"uid_map": ["0:100000:65536"], "gid_map": ["0:100000:65536"]}


@pytest.fixture(name="as_user")
def fixture_as_user(monkeypatch: pytest.MonkeyPatch) -> t.Callable[[int], None]:
    """Makes the module believe that it is run by this user."""

    def become(uid: int) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)

    return become


def options(**changes: t.Any) -> t.Any:
    """Options with these changes."""
    return options_of(arguments(dest="/srv/x", **changes))


@pytest.mark.parametrize(
    ("uid", "changes", "devices", "preserve"),
    [
        # root: safe devices and the archive's owners
        (0, {}, "safe", True),
        (0, {"devices": "create"}, "create", True),
        (0, {"devices": "skip"}, "skip", True),
        (0, {"devices": "fail"}, "fail", True),
        # with an id map: no devices, unless they are asked for
        (0, MAPS, "skip", True),
        (0, {**MAPS, "devices": "safe"}, "safe", True),
        # everything to the caller: no devices, which would be his own
        (0, {"ownership": "ignore"}, "skip", False),
        (0, {"ownership": "ignore", "devices": "create"}, "skip", False),
        (0, {"ownership": "ignore", "devices": "fail"}, "fail", False),
        # an ordinary user
        (1000, {}, "skip", False),
        (1000, {"devices": "safe"}, "skip", False),
        (1000, {"devices": "fail"}, "fail", False),
        (1000, {"ownership": "ignore"}, "skip", False),
    ],
)
def test_devices_and_owners(
    as_user: t.Callable[[int], None], uid: int, changes: dict[str, t.Any], devices: str, preserve: bool
) -> None:  # fmt: skip
    """Section 4, devices; section 6, ownership."""
    as_user(uid)
    unpack = options(**changes).unpack
    assert (unpack.devices, unpack.preserve) == (devices, preserve)


@pytest.mark.parametrize(
    ("uid", "changes", "message"),
    [
        (
            0,
            {"xattrs": ["user.a", "trusted.hypervisor_oci"]},
            "xattrs names the xattr that binds a tree to its record; leave it out",
        ),
        (1000, {"ownership": "preserve"}, "ownership: preserve needs root; run with become, or set ownership: ignore"),
        (0, {"uid_map": ["0:1:1"]}, "uid_map and gid_map must be given together"),
        (0, {"gid_map": ["0:1:1"]}, "uid_map and gid_map must be given together"),
        (
            0,
            {**MAPS, "ownership": "ignore"},
            "uid_map and gid_map need ownership: preserve, which needs root; run with become, or leave them out",
        ),
        (
            1000,
            MAPS,
            "uid_map and gid_map need ownership: preserve, which needs root; run with become, or leave them out",
        ),
        (0, {"keep": -1}, "keep is -1; give 0 or more"),
        (0, {"lock_timeout": -5}, "lock_timeout is -5; give 0 or more"),
        (0, {"max_size": 0}, "max_size is 0; give 1 or more"),
        (0, {"max_entries": -1}, "max_entries is -1; give 1 or more"),
    ],
)
def test_what_does_not_go_together(
    as_user: t.Callable[[int], None], uid: int, changes: dict[str, t.Any], message: str
) -> None:
    """The error names the option."""
    as_user(uid)
    with pytest.raises(OciError) as caught:
        options(**changes)
    assert caught.value.message == message


def test_everything_is_passed_on(as_user: t.Callable[[int], None]) -> None:
    as_user(0)
    found = options(
        state="staged", src="/i.tar", ref="a:1", digest="sha256:1", platform="linux/aarch64",
        force=True, recreate=True, in_use="ignore", keep=0, lock_timeout=0, xattrs=["trusted.a"],
        acl="drop", keep_dirlinks=True, max_size=1, max_entries=1, **MAPS,
    )  # fmt: skip
    assert (found.dest, found.state, found.origin.src) == ("/srv/x", "staged", "/i.tar")
    assert (found.ref, found.digest) == ("a:1", "sha256:1")
    assert str(found.platform) == "linux/arm64"
    assert (found.force, found.recreate, found.ignore_use) == (True, True, True)
    assert (found.keep, found.lock_timeout) == (0, 0.0)
    unpack = found.unpack
    assert (unpack.xattrs, unpack.drop_acls) == (("trusted.a",), True)
    assert (unpack.keep_dirlinks, unpack.max_size, unpack.max_entries) == (True, 1, 1)
    assert unpack.uids.to_list() == unpack.gids.to_list() == MAPS["uid_map"]


@pytest.mark.parametrize("value", [None, ""])
def test_what_is_empty_is_not_given(value: str | None) -> None:
    found = options(ref=value, digest=value, platform=value, src=value)
    assert (found.ref, found.digest, found.platform) == (None, None, None)
    assert found.origin.src == ""


def test_a_fingerprint_holds_what_changes_the_tree_alone(as_user: t.Callable[[int], None]) -> None:
    """Section 7, fingerprint: the limits only say whether there is a tree."""
    as_user(0)
    plain = options().unpack.to_fingerprint()
    for changes in ({"max_size": 5}, {"max_entries": 5}, {"keep": 5}, {"force": True}):
        assert options(**changes).unpack.to_fingerprint() == plain
    different: list[dict[str, t.Any]] = [
        MAPS, {"devices": "create"}, {"ownership": "ignore"}, {"acl": "drop"}, {"xattrs": ["trusted.a"]},
        {"keep_dirlinks": True},
    ]  # fmt: skip
    for changes in different:
        assert options(**changes).unpack.to_fingerprint() != plain
    one, other = (options(xattrs=names).unpack.to_fingerprint() for names in (["a", "b"], ["b", "a"]))
    assert one == other

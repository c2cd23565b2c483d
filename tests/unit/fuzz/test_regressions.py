# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the fuzzer found, one test each, and a short run of it that is the same every time."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.fuzz import drift, inputs
from ansible_collections.hypervisor.oci.tests.fuzz.checks import DEFAULTS, Outcome, Sandbox
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, oci_archive, symlink
from ansible_collections.hypervisor.oci.tests.images.tarfiles import Member


@pytest.fixture
def sandbox() -> t.Iterator[Sandbox]:
    """A folder with things around dest that nothing may touch."""
    made = Sandbox()
    yield made
    made.close()


def sound(sandbox: Sandbox, data: bytes, **options: t.Any) -> Outcome:
    """The outcome of an input for which everything held that must hold."""
    outcome = sandbox.check(data, options={**DEFAULTS, **options})
    assert outcome.problems == ()
    return outcome


def one_layer(*members: Member, **config: t.Any) -> bytes:
    """An archive of an image of one layer."""
    return oci_archive(Image([Layer(*members, compression="none")], config))


@pytest.mark.parametrize("target", sorted(inputs.TARGETS))
def test_a_short_run_finds_nothing(sandbox: Sandbox, target: str) -> None:
    """As ``make fuzz``, with inputs that are the same every time; some become trees, some errors."""
    outcomes = {
        number: sandbox.check(inputs.make(target, "unit", number)) for number in range(60 if target == "layer" else 30)
    }
    found = {number: outcome.problems for number, outcome in outcomes.items()}
    assert [item for item in found.items() if item[1]] == []
    assert {outcome.kind for outcome in outcomes.values()} == {"tree", "error"}


def test_papers_that_are_whole(sandbox: Sandbox) -> None:
    """Section 17: the fuzzer's own journal is that of its tree, so that its damaged ones lead far."""
    assert sound(sandbox, drift.DRIFT + b"j" + drift.whole()).message == "clean, clean, clean"


def test_the_name_of_a_broken_attribute_is_quoted(sandbox: Sandbox) -> None:
    """Section 8: names of the image neither break the line nor the terminal."""
    pax: t.Any = {"LIBARCHIVE.xattr.user.a%0a%1b[31m": "no base64!"}
    outcome = sound(sandbox, one_layer(file("f", pax=pax)))
    assert r"the extended attribute 'user.a\n\x1b[31m' is not valid base64" in outcome.message


def test_the_name_of_an_attribute_without_room_is_quoted(sandbox: Sandbox) -> None:
    """Section 8, the same where the system refuses it."""
    huge: t.Any = {"user.a\nb": b"x" * 70000}
    outcome = sound(sandbox, one_layer(file("f", xattrs=huge)))
    assert r"no room for the extended attribute 'user.a\nb'" in outcome.message


def test_an_image_without_a_platform_is_called_so(sandbox: Sandbox) -> None:
    """Section 2: where nothing is chosen, the list says of each what it is for."""
    nowhere = {"os": "", "architecture": None}
    image = Image([Layer()], config_document=nowhere, descriptor={"platform": None}, ref="f:1")
    outcome = sound(sandbox, oci_archive(image))
    assert "it holds 'f:1' for an unknown platform" in outcome.message


def test_a_message_lists_no_thousand_names(sandbox: Sandbox) -> None:
    """Section 8: every failure is one sentence, also where an image has a name in every descriptor."""
    arm = Image([Layer()], platform="linux/arm64")
    names = [arm.listed(ref=f"{'n' * 300}:{number}") for number in range(2000)]
    outcome = sound(sandbox, oci_archive(*names))
    assert "(and 1995 more names) for linux/arm64" in outcome.message
    assert len(outcome.message) < 2000


def test_an_acl_number_is_bounded_whatever_its_zeros(sandbox: Sandbox) -> None:
    """Section 6: an ACL that names somebody without a number that can be one is an error."""
    for digits in ("00000000000999999999999", "0" * 5000 + "1"):
        acl = f"user::rw-,user:{digits}:r--,group::r--,mask::r--,other::---"
        outcome = sound(sandbox, one_layer(file("f", acl_access=acl)))
        assert "has no valid id" in outcome.message


def test_accounts_behind_an_impossible_name_are_none(sandbox: Sandbox) -> None:
    """Section 8: a name that is not there is null with a warning, and no reason to fail."""
    data = one_layer(symlink("etc/passwd", "x" * 300), User="app")
    assert sound(sandbox, data).kind == "tree"


def test_no_link_makes_a_marker(sandbox: Sandbox) -> None:
    """Section 5: no marker lands in the tree, also not as a directory that a link names."""
    link = symlink("l", "a/.wh.b/c")
    outcome = sound(sandbox, one_layer(link, file("l/f", "x")))
    assert "leads through the whiteout '.wh.b'" in outcome.message

# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Describe an image, its tree and what a plan does to dest, as a run returns them."""

from __future__ import annotations

import os
import typing as t

from .._dest.record import Binding, Tree
from .._image.image import Image
from .._native_path import task_path
from .diff import diff_trees
from .outcome import Outcome
from .plan import ImagePlan, UseStaged, Unpack
from .target import Target

_NO_BINDING = Binding(None, 0, None)


def identity_facts(image: Image) -> dict[str, t.Any]:
    """Return what is known of an image before it is unpacked."""
    return {
        "manifest_digest": image.manifest_digest,
        "config_digest": image.config_digest,
        "ref": image.ref,
        "platform": image.platform.name,
        "layers": [layer.to_result() for layer in image.layers],
    }


def predicted_tree(plan: Unpack) -> Tree:
    """Return the tree that an image becomes, without the user and the report, which unpacking finds."""
    image = plan.wanted.image
    user = {"uid": None, "gid": None, "groups": None, "home": None}
    facts = {**image.config.to_facts(), **user}
    result = {**identity_facts(image), "image": facts, "report": None, "warnings": []}
    return Tree(binding=_NO_BINDING, result=result, signers=plan.signers or {})


def image_outcome(target: Target, plan: ImagePlan, tree: Tree, warnings: t.Sequence[str]) -> Outcome:
    """Return the outcome of a plan whose image becomes, or is, ``tree``."""
    wanted = plan.wanted
    facts = dict(tree.result)
    found = facts.pop("warnings", [])
    # the image may have another name today
    facts["ref"] = wanted.ref
    facts["signed_by"] = sorted(tree.signers if plan.signers is None else plan.signers)
    is_predicted = isinstance(plan, Unpack) and tree.binding == _NO_BINDING
    facts["store"] = wanted.fingerprint.get("form") if is_predicted else tree.form
    facts["mount"] = _mount_of(target, tree)
    if target.options.verifying is not None:
        # a new tree has nothing to be compared with
        facts["drift"] = None
    return Outcome(
        changed=isinstance(plan, (UseStaged, Unpack)),
        dest=task_path(target.options.dest),
        facts=facts,
        diff=diff_trees(task_path(target.options.dest), plan.current, tree),
        warnings=(*wanted.warnings, *found, *warnings, *target.dest.warnings),
    )


def restore_outcome(target: Target, current: Tree | None, previous: Tree, warnings: t.Sequence[str]) -> Outcome:
    """Return the outcome of a return to the previous tree."""
    facts = dict(previous.result)
    facts.pop("warnings", None)
    facts["signed_by"] = sorted(previous.signers)
    facts["store"] = previous.form
    facts["mount"] = _mount_of(target, previous)
    return Outcome(
        changed=True,
        dest=task_path(target.options.dest),
        facts=facts,
        diff=diff_trees(task_path(target.options.dest), current, previous),
        warnings=(*warnings, *target.dest.warnings),
    )


def _mount_of(target: Target, tree: Tree) -> dict[str, str] | None:
    """Return how the overlay of a stack at dest is mounted, as arguments of ansible.posix.mount; ``None`` for another tree."""
    if tree.form != "overlay":
        return None
    # imported late: most nodes have no stack
    from .._fs.overlay import OPTIONS

    dest = target.dest.path
    lower = ":".join(os.path.join(tree.store, "s", name) for name in reversed(tree.snapshots))
    return {
        "src": "overlay",
        "fstype": "overlay",
        "opts": f"{OPTIONS},lowerdir={lower},upperdir={dest}/upper,workdir={dest}/work",
    }


def absent_outcome(target: Target, changed: bool, current: Tree | None, warnings: t.Sequence[str]) -> Outcome:
    """Return the outcome of a removal."""
    return Outcome(
        changed=changed,
        dest=task_path(target.options.dest),
        diff=diff_trees(task_path(target.options.dest), current, None),
        warnings=(*warnings, *target.dest.warnings),
    )

# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recognise by its record that the image of a registry is there, without reading it (docs/behaviour.md, section 11)."""

from __future__ import annotations

import typing as t

from .._dest.record import FORMAT, Record, Tree
from .._source.source import Source
from .options import Options
from .plan import KnownPlan, Wanted, asked_platform, plan_known
from .target import Target

if t.TYPE_CHECKING:
    from .._registry.source import RegistrySource


def recall(target: Target, record: Record, source: Source) -> KnownPlan | None:
    """Return a plan for trees that exist, or ``None`` if the image has to be asked for.

    A digest that the task names needs no request; a tag needs one for its digest, if there is a tree to compare with.
    The registry's answer is believed for nothing else. Raises ``SourceError``.
    """
    registry = t.cast("RegistrySource", source)
    session, name = registry.client.registry.session, registry.name.registry
    trees = [tree for tree in (record.tree, record.next) if tree is not None]
    for tree in trees:
        session.known_realm = tree.selection.realms.get(name, session.known_realm)
    form = ""
    if trees and target.options.store_dir:
        # imported late: most nodes have no store
        from .sharing import form_of

        form = form_of(target, record)
    trees = [tree for tree in trees if _is_comparable(target.options, tree, form)]
    if target.options.recreate or not trees:
        return None
    digest = registry.wanted_digest or registry.client.current_digest(registry.name.tag)
    for tree in trees:
        if digest in digests_of(tree):
            selection = tree.selection
            wanted = Wanted(str(registry.name), selection.warnings, tree.fingerprint, selection)
            plan = plan_known(target, record, wanted)
            if plan is not None:
                return plan
    return None


def digests_of(tree: Tree) -> set[str]:
    """Return the digests that mean the tree's image for the platform that was asked for."""
    config = tree.fingerprint.get("config_digest")
    return {
        str(digest) for digest in (tree.fingerprint.get("manifest_digest"), config, *tree.selection.indexes) if digest
    }


def _is_comparable(options: Options, tree: Tree, form: str) -> bool:
    """Return whether a tree was made with the same options, for the same platform asked for."""
    made = tree.fingerprint
    return (
        made.get("format") == FORMAT
        and made.get("options") == options.unpack.to_fingerprint()
        and made.get("form", "") == form
        and tree.selection.platform == asked_platform(options)
    )

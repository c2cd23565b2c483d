# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``--diff`` shows of a change of images: never the value of an environment variable."""

from __future__ import annotations

import typing as t

from .._dest.record import Tree
from .._errors import visible
from .._secrets import CHANGED, MASK

_MISSING = object()
# The resolved user is not known before a tree is unpacked, and an image's history is not a setting.
_NOT_COMPARED = ("uid", "gid", "groups", "home", "history", "created")
_MOST_ITEMS = 100
_LONGEST_ITEM = 500

_Facts = t.Dict[str, t.Any]


def diff_trees(dest: str, before: Tree | None, after: Tree | None) -> _Facts:
    """Return digests, layers added and dropped, and the config fields that change."""
    old = _described(before)
    new = _described(after)
    adds, takes_away = _rights(old, new)
    return {
        "before_header": f"{dest} (before)",
        "after_header": f"{dest} (after)",
        "before": _side(old, new, MASK),
        # what check mode cannot know is on this side alone
        "after": {
            **_side(new, old, CHANGED),
            **({"adds": adds} if adds else {}),
            **({"takes away": takes_away} if takes_away else {}),
        },
    }


def _described(tree: Tree | None) -> _Facts:
    """Return the result of a tree with who has signed its image."""
    if tree is None:
        return {}
    return {**tree.result, "signed_by": sorted(tree.signers)} if tree.signers else tree.result


def _rights(old: _Facts, new: _Facts) -> tuple[list[str], list[str]]:
    """Return which files that give rights away a new tree adds, and which it takes away, as ``setuid /usr/bin/su``.

    They are known only of trees that were unpacked. Files beyond those that a result shows are not compared.
    """
    before, after = ((facts.get("report") or {}).get("inventory") for facts in (old, new))
    if before is None or after is None:
        return [], []
    one, other = _lines(before), _lines(after)
    return _bounded(sorted(other - one)), _bounded(sorted(one - other))


def _lines(inventory: _Facts) -> set[str]:
    return {f"{kind} {item['path']}" for kind, found in inventory.items() for item in found["files"]}


def _side(one: _Facts, other: _Facts, changed: str) -> _Facts:
    """Return what only one side has; the digests always.

    Values of environment variables may be secrets: ``changed`` stands for one that the other side has, too.
    """
    if not one:
        return {}
    shown: _Facts = {key: one.get(key) for key in ("manifest_digest", "config_digest", "platform")}
    if "signed_by" in one:
        shown["signed_by"] = one["signed_by"]
    others = [layer["digest"] for layer in other.get("layers", [])]
    layers = [layer["digest"] for layer in one.get("layers", [])]
    shown["layers"] = [digest for digest in layers if digest not in others]
    image = one.get("image", {})
    rest = other.get("image", {})
    shown["image"] = {
        key: _bounded(value)
        for key, value in image.items()
        if key not in (*_NOT_COMPARED, "env") and rest.get(key, _MISSING) != value
    }
    env, others = image.get("env", {}), rest.get("env", {})
    if env != others:
        shown["image"]["env"] = _bounded(
            {
                name: changed if name in others else MASK
                for name, value in env.items()
                if others.get(name, _MISSING) != value
            }
        )
    return shown


def _bounded(value: t.Any) -> t.Any:
    """Return an image's value with control characters visible and its size limited."""
    if isinstance(value, str):
        return visible(value, _LONGEST_ITEM)
    if isinstance(value, dict):
        shown = {visible(key, _LONGEST_ITEM): _bounded(item) for key, item in list(value.items())[:_MOST_ITEMS]}
        return {**shown, **_rest(len(value), "...")}
    if isinstance(value, (list, tuple)):
        rest = _rest(len(value), "")
        return [*map(_bounded, value[:_MOST_ITEMS]), *rest.values()]
    return value


def _rest(number: int, key: str) -> dict[str, str]:
    return {key: f"and {number - _MOST_ITEMS} more"} if number > _MOST_ITEMS else {}

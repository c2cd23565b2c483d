# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module's arguments as options, with the defaults that depend on who runs it."""

from __future__ import annotations

import os
import typing as t
from dataclasses import fields

from ._native_path import native_path
from ._errors import OciError, show
from ._image.platform import parse_platform
from ._provision.options import Options
from ._dest.record import is_token
from ._unpack_options import unpack_options_from

if t.TYPE_CHECKING:
    from ._drift.options import Verifying
    from ._inventory.policy import Policy
    from ._provision.origin import Origin
    from ._signed.signing import Signing

SIGNATURE_ARGUMENTS: dict[str, t.Any] = {
    # public keys are not secret, whatever the option's name looks like
    "signature_keys": {"type": "list", "elements": "str", "no_log": False},
    "signature_threshold": {"type": "int"},
    "signature_identity": {"type": "str"},
    "signatures": {"type": "list", "elements": "path"},
    "_verdict": {"type": "dict"},
}


def options_from(params: dict[str, t.Any], find_origin: t.Callable[[dict[str, t.Any]], Origin]) -> Options:
    """Check the module's arguments against each other. Raises ``OciError`` that names the option.

    ``find_origin`` returns where the image comes from, by the same arguments. An option with the name of an argument is
    the argument as it was given, unless it is listed here.
    """
    unpack = unpack_options_from(params)
    if any(map(is_token, unpack.xattrs)):
        raise OciError("xattrs names the xattr that binds a tree to its record; leave it out")
    for name, least in (("keep", 0), ("lock_timeout", 0), ("max_size", 1), ("max_entries", 1)):
        _require_at_least(params, name, least)
    cache_dir = native_path(params.get("cache_dir") or "")
    if cache_dir:
        _check_cache(cache_dir, params)
    given = {field.name: params[field.name] for field in fields(Options) if field.name in params}
    origin = find_origin(params)
    checked: dict[str, t.Any] = dict(
        # a result names it without a slash at the end
        dest=native_path(params["dest"].rstrip("/") or params["dest"]),
        unpack=unpack,
        origin=origin,
        ref=params["ref"] or None,
        digest=params["digest"] or None,
        platform=parse_platform(params["platform"]) if params["platform"] else None,
        ignore_use=params["in_use"] == "ignore",
        lock_timeout=float(params["lock_timeout"]),
        cache_dir=cache_dir,
        cache_max_size=params["cache_max_size"] if cache_dir else 0,
        cache_max_age=params["cache_max_age"] if cache_dir else 0,
        cache_scope=params.get("cache_scope") or "",
        signing=_signing_options(params, origin),
        policy=_policy(params),
        store_dir=_store_dir(params),
        store_max_age=float(params.get("store_max_age") or 0),
        verifying=_verifying(params),
    )
    return Options(**{**given, **checked})


def _signing_options(params: dict[str, t.Any], origin: Origin) -> Signing | None:
    if all(params.get(name) is None for name in SIGNATURE_ARGUMENTS):
        return None
    # imported late: most tasks have no keys
    from ._signature_arguments import signing_options

    return signing_options(params, origin.verifies)


def _store_dir(params: dict[str, t.Any]) -> str:
    path = native_path(params.get("store_dir") or "")
    if path and (not os.path.isabs(path) or os.path.realpath(path) == "/"):
        raise OciError(f"store_dir is {show(path)}; give the absolute path of a folder")
    if path and os.geteuid():
        raise OciError("store_dir needs root; run with become, or leave it out")
    if params.get("store_max_age") is not None:
        _require_at_least(params, "store_max_age", 0)
    return path


def _policy(params: dict[str, t.Any]) -> Policy | None:
    if params.get("policy") is None:
        return None
    # imported late: most tasks have no policy
    from ._inventory.policy import parse_policy

    return parse_policy(params["policy"])


def _verifying(params: dict[str, t.Any]) -> Verifying | None:
    if all((params.get(name) or "none") == "none" for name in ("verify", "repair")):
        return None
    # imported late: most tasks compare nothing
    from ._drift.options import verifying_from

    if params["state"] != "present":
        raise OciError(f"verify needs state: present, not {params['state']}")
    return verifying_from(params)


def _check_cache(path: str, params: dict[str, t.Any]) -> None:
    if not os.path.isabs(path) or os.path.realpath(path) == "/":
        raise OciError(f"cache_dir is {show(path)}; give the absolute path of a folder")
    _require_at_least(params, "cache_max_size", 1)
    _require_at_least(params, "cache_max_age", 0)


def _require_at_least(params: dict[str, t.Any], name: str, least: int) -> None:
    if params[name] < least:
        raise OciError(f"{name} is {params[name]}; give {least} or more")

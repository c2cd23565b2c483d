# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The module's arguments as options, with the defaults that depend on who runs it."""

from __future__ import annotations

import os
import typing as t

from ._errors import OciError, RootfsError, show
from ._remote.arguments import http_options
from ._image.platform import parse_platform
from ._provision.options import Options
from ._rootfs.ids import parse_id_maps
from ._dest.record import is_token
from ._unpack_options import UnpackOptions


def options_from(params: dict[str, t.Any]) -> Options:
    """Check arguments that speak of each other. Raises ``OciError`` that names the option."""
    is_root = os.geteuid() == 0
    ownership = params["ownership"] or ("preserve" if is_root else "ignore")
    if ownership == "preserve" and not is_root:
        raise RootfsError("ownership: preserve needs root; run with become, or set ownership: ignore")
    uids, gids = parse_id_maps(params["uid_map"], params["gid_map"])
    if uids.ranges and ownership == "ignore":
        raise OciError("uid_map and gid_map need ownership: preserve, and that needs root")
    devices = params["devices"]
    if devices is None:
        devices = "safe" if is_root and not uids.ranges else "skip"
    if ownership == "ignore" and devices != "fail":
        # without owners, a device would be the caller's own
        devices = "skip"
    if any(map(is_token, params["xattrs"])):
        raise OciError("xattrs names the token that binds a tree to its record; leave it out")
    for name in ("keep", "lock_timeout"):
        if params[name] < 0:
            raise OciError(f"{name} is {params[name]}; give 0 or more")
    for name in ("max_size", "max_entries"):
        if params[name] < 1:
            raise OciError(f"{name} is {params[name]}; give more than 0")
    cache_dir = params.get("cache_dir") or ""
    if cache_dir:
        _check_cache(cache_dir, params)
    return Options(
        dest=params["dest"],
        state=params["state"],
        src=params["src"] or "",
        ref=params["ref"] or None,
        digest=params["digest"] or None,
        platform=parse_platform(params["platform"]) if params["platform"] else None,
        force=params["force"],
        recreate=params["recreate"],
        ignore_use=params["in_use"] == "ignore",
        lock_timeout=float(params["lock_timeout"]),
        keep=params["keep"],
        reachable=params["reachable"],
        offer=params.get("_offer") or "",
        upload_folder=params.get("_upload_folder") or "",
        http=http_options(params),
        cache_dir=cache_dir,
        cache_max_size=params["cache_max_size"] if cache_dir else 0,
        cache_max_age=params["cache_max_age"] if cache_dir else 0,
        cache_scope=params.get("cache_scope") or "",
        unpack=UnpackOptions(
            devices=devices,
            preserve=ownership == "preserve",
            xattrs=tuple(params["xattrs"]),
            drop_acls=params["acl"] == "drop",
            keep_dirlinks=params["keep_dirlinks"],
            max_size=params["max_size"],
            max_entries=params["max_entries"],
            uids=uids,
            gids=gids,
        ),
    )


def _check_cache(path: str, params: dict[str, t.Any]) -> None:
    if not os.path.isabs(path) or os.path.realpath(path) == "/":
        raise OciError(f"cache_dir is {show(path)}; give the absolute path of a folder")
    if params["cache_max_size"] < 1:
        raise OciError(f"cache_max_size is {params['cache_max_size']}; give more than 0")
    if params["cache_max_age"] < 0:
        raise OciError(f"cache_max_age is {params['cache_max_age']}; give 0 or more")

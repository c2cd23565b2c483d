# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check the module's arguments for signatures, and parse them (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t

from ._errors import OciError
from ._signed.signing import Signing, fingerprints_of, to_policy
from ._signed.verdict import parse_verdict

_NEED_KEYS = ("signature_threshold", "signature_identity", "signatures")


def check_given(params: t.Mapping[str, t.Any], given: t.Container[str]) -> bool:
    """Return whether signatures are demanded. ``given`` has the names of the options that the task names.

    An empty list of keys, or an undefined one, never means that they are not. Raises ``OciError``.
    """
    if "signature_keys" not in given:
        for name in _NEED_KEYS:
            if params.get(name) is not None:
                raise OciError(f"{name} needs signature_keys, without which no signature is verified; give the keys")
        return False
    keys = params["signature_keys"]
    if isinstance(keys, str):
        keys = [keys]
    if not isinstance(keys, (list, tuple)) or not keys:
        raise OciError("signature_keys is empty; give at least one public key, or leave the option out")
    for number, key in enumerate(keys):
        if not isinstance(key, str) or not key.strip():
            raise OciError(f"signature_keys[{number}] is empty or undefined; give a public key or the path of one")
    return True


def signing_options(params: t.Mapping[str, t.Any], verifies: bool) -> Signing | None:
    """Return what a task asks of signatures, from checked arguments; ``verifies`` as in ``Signing``. Raises ``OciError``."""
    given = [name for name, value in params.items() if value is not None]
    if not check_given(params, given):
        return None
    keys = tuple(params["signature_keys"])
    threshold = params.get("signature_threshold")
    policy = to_policy(fingerprints_of(keys), 1 if threshold is None else threshold, params.get("signature_identity"))
    verdict = params.get("_verdict")
    paths = tuple(params.get("signatures") or ())
    return Signing(keys, policy, paths, None if verdict is None else parse_verdict(verdict), verifies=verifies)

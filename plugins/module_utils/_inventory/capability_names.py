# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""File capabilities by name, as ``capabilities(7)`` lists them, and the sets that an xattr holds."""

from __future__ import annotations

import struct
import typing as t

_WORDS = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service"
    " net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin"
    " sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override"
    " mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
# by their numbers
NAMES = tuple(f"cap_{word}" for word in _WORDS.split())

# A magic number, then permitted and inheritable, each as two 32-bit halves of which the low ones come first.
_SETS = struct.Struct("<5I")
_ROOT = struct.Struct("<I")
_EFFECTIVE = 1
_BITS = 64


def decode(value: bytes, root: int) -> dict[str, t.Any]:
    """Return ``permitted``, ``inheritable`` and ``effective`` of the xattr ``security.capability`` (version 2 or 3).

    A bit without a name is shown by its number. ``root_id`` is there if the file counts for another root than ``root``.
    A value of another version or length has only the capability ``unknown``.
    """
    if len(value) not in (_SETS.size, _SETS.size + _ROOT.size):
        return {"permitted": ["unknown"], "inheritable": [], "effective": True}
    magic, permitted_low, inheritable_low, permitted_high, inheritable_high = _SETS.unpack_from(value)
    found: dict[str, t.Any] = {
        "permitted": _names(permitted_high << 32 | permitted_low),
        "inheritable": _names(inheritable_high << 32 | inheritable_low),
        "effective": bool(magic & _EFFECTIVE),
    }
    if len(value) > _SETS.size:
        counts_for = _ROOT.unpack_from(value, _SETS.size)[0]
        if counts_for != root:
            found["root_id"] = counts_for
    return found


def _names(bits: int) -> list[str]:
    return [NAMES[bit] if bit < len(NAMES) else f"cap_{bit}" for bit in range(_BITS) if bits >> bit & 1]

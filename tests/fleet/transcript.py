# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible's log of a run with -vvv says of each node: ssh commands, and when blobs were on their way."""

from __future__ import annotations

import datetime
import re
import typing as t
from dataclasses import dataclass

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) .*?\| (?:<([\d.]+)> )?(.*)")
# What the action plugin sends before it knows what a node lacks.
_OFFER = "/offer"


@dataclass(frozen=True)
class Story:
    """Of one node: the ``commands`` of ssh and sftp, and when the first blob began and the last one had ``ended``.

    Both are seconds since the epoch, and 0 where there was no blob.
    """

    commands: int
    began: float
    ended: float


def read_log(lines: t.Iterable[str]) -> dict[str, Story]:
    """By the node's address."""
    commands: dict[str, int] = {}
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    sending: set[str] = set()
    for line in lines:
        match = _LINE.match(line)
        if match is None or match.group(2) is None:
            continue
        time, address, text = match.groups()
        now = datetime.datetime.strptime(time, "%Y-%m-%d %H:%M:%S,%f").timestamp()
        if text.startswith("SSH: EXEC "):
            commands[address] = commands.get(address, 0) + 1
        elif text.startswith("PUT "):
            if text.endswith(_OFFER):
                sending.discard(address)
            else:
                sending.add(address)
                began.setdefault(address, now)
        elif text.startswith("(") and address in sending:
            sending.discard(address)
            ended[address] = now
    return {
        address: Story(count, began.get(address, 0.0), ended.get(address, 0.0)) for address, count in commands.items()
    }

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The files that a container gets as its own /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

import re
import typing as t

from .known import RESOLV_CONF, UPLINK, Node
from .request import Request

MADE = "# Made by the role hypervisor.oci.container; changes here are lost.\n"

_HOSTS = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""
_KNOWN = re.compile(r"[ \t]*(nameserver|search|domain|options|sortlist)[ \t]")
# an address that only a container that shares the node's network can reach
_LOOPBACK = re.compile(r"[ \t]*nameserver[ \t]+(127\.|::1)")
_NAMESERVER = re.compile(r"[ \t]*nameserver[ \t]")


def hosts(hostname: str, extra: t.Mapping[str, t.Any]) -> str:
    """Return the text of /etc/hosts."""
    lines = [f"127.0.1.1 {hostname}"]
    lines += [f"{address} {name}" for name, address in extra.items()]
    return MADE + _HOSTS + "\n".join(lines) + "\n"


def has_reachable_resolver(resolv_conf: str) -> bool:
    """Return whether a container with a network of its own can reach a name server of the node's resolv.conf."""
    return any(_NAMESERVER.match(line) and not _LOOPBACK.match(line) for line in resolv_conf.splitlines())


def resolv_conf(request: Request, node: Node) -> str:
    """Return the text of /etc/resolv.conf: the node's own without what cannot be reached, and what was given instead."""
    shares = request.network == "host"
    own = node.texts.get(RESOLV_CONF, "")
    use_uplink = not shares and not has_reachable_resolver(own)
    text = (node.texts.get(UPLINK, "") if use_uplink else "") or own
    replaced = []
    if request.dns:
        replaced.append("nameserver")
    if request.dns_search:
        replaced += ["search", "domain"]
    if request.dns_options:
        replaced.append("options")
    lines = []
    for line in text.splitlines():
        match = _KNOWN.match(line)
        if match is None or match.group(1) in replaced:
            continue
        if shares or not _LOOPBACK.match(line):
            lines.append(line.strip())
    lines += [f"nameserver {address}" for address in request.dns]
    if request.dns_search:
        lines.append("search " + " ".join(request.dns_search))
    if request.dns_options:
        lines.append("options " + " ".join(request.dns_options))
    return MADE + "".join(f"{line}\n" for line in lines)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counts how often the controller had to wait for an answer of a node: the round trips of a run.

Each time that a packet with data goes to the node after one with data came from it, a turn begins. A link's delay
costs a run that delay times its turns, and more only where much is sent.
"""

from __future__ import annotations

import socket
import struct
import threading

_ETH_P_ALL = 0x0003
_OUTGOING = 4
_ETHERNET = 14
# Enough for the headers of Ethernet, IPv4 and TCP.
_SNAP = 128


class Turns:
    """Within a ``with`` statement, counts on one link; ``count`` and ``handshakes`` afterwards."""

    def __init__(self, link: str) -> None:
        self.count = 0
        self.handshakes = 0
        self._from_node = True
        self._stop = threading.Event()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._socket.bind((link, 0))
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Turns:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                packet, address = self._socket.recvfrom(_SNAP)
            except socket.timeout:
                continue
            self._see(packet, address[2] == _OUTGOING)

    def _see(self, packet: bytes, to_node: bool) -> None:
        size, handshake = tcp_payload(packet)
        if handshake and to_node:
            # whose answer is waited for, too
            self.handshakes += 1
        if size:
            if to_node and self._from_node:
                self.count += 1
            self._from_node = not to_node


def tcp_payload(packet: bytes) -> tuple[int, bool]:
    """How many bytes of data a frame carries by TCP over IPv4, and whether it opens a connection."""
    if len(packet) < _ETHERNET + 40 or packet[12:14] != b"\x08\x00":
        return 0, False
    internet = (packet[_ETHERNET] & 15) * 4
    if packet[_ETHERNET + 9] != socket.IPPROTO_TCP:
        return 0, False
    (total,) = struct.unpack_from(">H", packet, _ETHERNET + 2)
    start = _ETHERNET + internet
    if len(packet) < start + 14:
        return 0, False
    header = (packet[start + 12] >> 4) * 4
    flags = packet[start + 13]
    return max(0, total - internet - header), flags & 0x12 == 0x02

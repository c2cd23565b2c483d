# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two stages of reading a layer (docs/behaviour.md, section 3: one pass, bounded memory)."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.pipeline import read_ahead


def _threads() -> int:
    return sum(thread.name == "read-ahead" for thread in threading.enumerate())


def test_chunks_come_in_order_and_the_thread_ends() -> None:
    chunks = [bytes([number % 256]) for number in range(1000)]
    with read_ahead(chunks) as ahead:
        assert list(ahead) == chunks
    assert _threads() == 0


def test_an_error_comes_in_its_place() -> None:
    def broken() -> t.Iterator[bytes]:
        yield b"first"
        raise LayerError("it is broken", "sha256:0")

    taken = []
    with pytest.raises(LayerError, match="it is broken"), read_ahead(broken()) as ahead:
        for chunk in ahead:
            taken.append(chunk)
    assert taken == [b"first"]
    assert _threads() == 0


def test_a_consumer_that_gives_up_leaves_no_thread() -> None:
    def endless() -> t.Iterator[bytes]:
        while True:
            yield b"more"

    with pytest.raises(KeyboardInterrupt), read_ahead(endless()) as ahead:
        next(ahead)
        raise KeyboardInterrupt
    assert _threads() == 0


def test_the_reader_does_not_run_far_ahead() -> None:
    produced = []

    def counted() -> t.Iterator[bytes]:
        for number in range(100):
            produced.append(number)
            yield b"chunk"

    with read_ahead(counted()) as ahead:
        next(ahead)
        time.sleep(0.3)
        assert len(produced) <= 11
        assert len(list(ahead)) == 99


# -- steps, each in a thread of its own


def _doubled(chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    for chunk in chunks:
        yield chunk * 2


def _ended(chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    yield from chunks
    yield b"end"


def test_steps_follow_one_another() -> None:
    chunks = [bytes([number % 256]) for number in range(300)]
    with read_ahead(chunks, _doubled, _ended) as ahead:
        assert _threads() == 3
        assert list(ahead) == [*(chunk * 2 for chunk in chunks), b"end"]
    assert _threads() == 0


def test_errors_pass_through_steps() -> None:
    def broken(chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
        for chunk in chunks:
            yield chunk
            break
        raise LayerError("it is broken", "sha256:0")

    for steps in ((broken, _doubled), (_doubled, broken)):
        taken = []
        with pytest.raises(LayerError, match="it is broken"), read_ahead([b"a", b"b"], *steps) as ahead:  # fmt: skip
            for chunk in ahead:
                taken.append(chunk)
        assert taken == [b"aa"]
    assert _threads() == 0


def test_a_source_that_waits_holds_up_no_step() -> None:
    """As a server does that sends nothing: all threads end when the consumer has enough."""
    silent = threading.Event()

    def waiting() -> t.Iterator[bytes]:
        yield b"first"
        silent.wait(30)

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), read_ahead(waiting(), _doubled, _ended, cancel=silent.set) as ahead:  # fmt: skip
        next(ahead)
        raise KeyboardInterrupt
    assert time.monotonic() - begin < 10
    assert _threads() == 0

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sentences for the user (docs/behaviour.md, section 8)."""

from __future__ import annotations

import errno
import os

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    LayerError,
    OciError,
    os_advice,
    os_phrase,
    show,
    visible,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"etc/passwd", "'etc/passwd'"),
        ("etc/passwd", "'etc/passwd'"),
        (b"", "''"),
        ("größe ☃".encode(), "'größe ☃'"),
        (b"\xff\xfe", "'\\xff\\xfe'"),
        (b"a\nb\tc\r\0", "'a\\nb\\tc\\r\\x00'"),
        (b"\x1b[31mred\x07", "'\\x1b[31mred\\x07'"),
        # bidirectional marks, which turn what follows around
        ("\u202eevil\u2066", "'\\u202eevil\\u2066'"),
        ("\x9b\x7f", "'\\x9b\\x7f'"),
        ("a\udcff", "'a\\udcff'"),
        (b"x" * 200, "'" + "x" * 200 + "'"),
        (b"/" + b"x" * 200, "'/" + "x" * 139 + "..." + "x" * 60 + "'"),
        (b"x" * 10**6 + b"/end", "'" + "x" * 140 + "..." + "x" * 56 + "/end'"),
    ],
)
def test_names_of_an_archive_fit_into_one_line(name: bytes | str, shown: str) -> None:
    """A hostile name can break neither the line nor the terminal."""
    found = show(name)
    assert found == shown
    assert found.isprintable()
    found.encode("utf-8")


# What a terminal obeys, hides or turns around: C0, DEL, C1, bidirectional marks, no width, separators, no Unicode.
HOSTILE = "\x1b]0;pwned\x07\r\x7f\x9b2J\u202e\u2066\u200b\u2060\ufeff\u2028\u2029\udcff\n"


@pytest.mark.parametrize("text", [HOSTILE, HOSTILE.encode("utf-8", "surrogateescape")])
def test_text_that_is_not_ours_is_one_visible_line(text: bytes | str) -> None:
    found = visible(text, 100)
    assert found.isprintable()
    assert found.startswith("\\x1b]0;pwned\\x07\\r")
    assert len(visible(text * 10**5, 100)) < 1100


def test_no_message_is_obeyed_by_a_terminal() -> None:
    """Whatever is forgotten where a message is made: section 8."""
    for error in (OciError(f"it is {HOSTILE}"), LayerError("no " + HOSTILE * 10**5, "d")):
        assert error.message.isprintable()
        assert str(error) == error.message
        assert len(error.message) < 90_000


@pytest.mark.parametrize(
    ("entry", "advice", "message"),
    [
        (None, "", "layer sha256:1: it is wrong"),
        (None, "fetch it", "layer sha256:1: it is wrong; fetch it"),
        (b"a\n", "", "layer sha256:1, entry 'a\\n': it is wrong"),
        (b"", "fetch it", "layer sha256:1, entry '': it is wrong; fetch it"),
    ],
)
def test_errors_of_layers(entry: bytes | None, advice: str, message: str) -> None:
    """What is wrong, where, what to do."""
    error = LayerError("it is wrong", "sha256:1", entry, advice)
    assert isinstance(error, OciError)
    assert error.message == str(error) == message
    assert (error.layer, error.entry) == ("sha256:1", entry)


@pytest.mark.parametrize(
    ("code", "phrase", "advice"),
    [
        (errno.ENOSPC, "the file system has no room left (blocks or inodes)", "make room there"),
        (errno.EDQUOT, "the disk quota is used up", "raise the quota"),
        (errno.EFBIG, "a file is larger than the file system allows", ""),
        (errno.EROFS, "read-only file system", "mount it writable"),
        (errno.EIO, "input/output error", "the disk or its connection fails"),
        (errno.EACCES, "permission denied", "run as a user who may do this"),
        (errno.EPERM, "operation not permitted", "run as a user who may do this"),
        (errno.EMLINK, "too many links", "the file system allows no more links"),
        (errno.ENOENT, "no such file or directory", ""),
        (errno.ELOOP, "too many levels of symbolic links", ""),
    ],
)  # fmt: skip
def test_errors_of_the_system(code: int, phrase: str, advice: str) -> None:
    error = OSError(code, os.strerror(code))
    assert os_phrase(error) == phrase
    assert os_advice(error).startswith(advice)
    assert bool(os_advice(error)) is bool(advice)


def test_an_error_of_the_system_without_a_number() -> None:
    assert os_phrase(OSError("Something Odd")) == "something odd"
    assert os_advice(OSError("something odd")) == ""

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What earlier runs fetched of blobs on the controller (docs/behaviour.md, section 7)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import stat
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import FileAccess, RangeReader
from ansible_collections.hypervisor.oci.plugins.module_utils._source.verified import VerificationError
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _partial
from ansible_collections.hypervisor.oci.plugins.plugin_utils._partial import Blob, Partials, derive, open_partials
from ansible_collections.hypervisor.oci.tests.unit.clocks import Clock

DATA = os.urandom(1_000_000)
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
NAME = derive(b"secret", DIGEST)


class Server:
    """Where a blob comes from: ``asked`` are the offsets from which it was read, ``breaks_at`` is where it ends early."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "served"
        self.data = DATA
        self.asked: list[int] = []
        self.breaks_at: int | None = None

    def blob(self) -> Blob:
        """The blob as a run asks for it."""
        return Blob(DIGEST, len(DATA), self._open_at)

    def _open_at(self, offset: int) -> RangeReader:
        self.asked.append(offset)
        self._path.write_bytes(self.data)
        reader = _Breaking(FileAccess(str(self._path)), 0, len(self.data), owned=True)
        reader.breaks_at = self.breaks_at
        reader.skip(offset)
        return reader


class _Breaking(RangeReader):
    breaks_at: int | None = None

    def read(self, count: int = -1) -> bytes:
        """Read in small pieces, and only so far. Raises ``SourceError``."""
        if self.breaks_at is not None and self.length - self.remaining >= self.breaks_at:
            raise SourceError("the connection is lost")
        return super().read(10_000)


@pytest.fixture(name="server")
def fixture_server(tmp_path: Path) -> Server:
    """One that serves all of it."""
    return Server(tmp_path)


@pytest.fixture(name="cache", autouse=True)
def fixture_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, which is not made yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    return tmp_path / "home" / "cache"


@pytest.fixture(name="partials")
def fixture_partials() -> t.Iterator[Partials]:
    """The folder in there."""
    with contextlib.closing(open_partials()) as opened:
        yield opened


def kept(cache: Path) -> dict[str, int]:
    """The files and their sizes."""
    return {path.name: path.stat().st_size for path in (cache / "hypervisor.oci").iterdir()}


def interrupt(server: Server, partials: Partials, target: Path, at: int = 900_000) -> None:
    """Let a run end in the middle."""
    server.breaks_at = at
    with pytest.raises(SourceError, match="the connection is lost"):
        partials.stage(NAME, server.blob(), str(target))
    server.breaks_at = None
    assert not target.exists()


def test_a_run_goes_on_at_the_byte(server: Server, partials: Partials, cache: Path, tmp_path: Path) -> None:
    interrupt(server, partials, tmp_path / "target")
    assert kept(cache) == {NAME: 900_000}
    assert partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    assert server.asked == [0, 900_000]
    assert (tmp_path / "target").read_bytes() == DATA
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o600
    # a run that was ended while it sent the whole blob asks for nothing
    assert partials.stage(NAME, server.blob(), str(tmp_path / "again"))
    assert server.asked == [0, 900_000]
    assert (tmp_path / "again").read_bytes() == DATA


def test_an_orphan_leaves_the_rest_to_the_next_run(
    server: Server, partials: Partials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker outlives an ansible-playbook that is killed, and must not keep the file to itself."""
    target = str(tmp_path / "blob")
    with monkeypatch.context() as patched:
        parents = iter([100] * 11 + [1] * 100)
        patched.setattr(os, "getppid", lambda: next(parents))
        with pytest.raises(SourceError, match="has ended"):
            partials.stage(NAME, server.blob(), target)
    assert partials.stage(NAME, server.blob(), target)
    assert server.asked == [0, 100_000]
    assert Path(target).read_bytes() == DATA


@pytest.mark.parametrize("size", [1, 500_000, len(DATA), len(DATA) + 1, 3 * len(DATA)])
def test_a_poisoned_file_heals_in_one_run(
    server: Server, partials: Partials, cache: Path, tmp_path: Path, size: int
) -> None:
    poison = bytes([DATA[0] ^ 1]) + DATA[1:] + bytes(2 * len(DATA))
    (cache / "hypervisor.oci" / NAME).write_bytes(poison[:size])
    assert partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == DATA
    assert server.asked == ([size, 0] if size < len(DATA) else [0])
    assert kept(cache) == {NAME: len(DATA)}


def test_what_a_server_damages_is_never_a_blob(server: Server, partials: Partials, cache: Path, tmp_path: Path) -> None:
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(VerificationError):
        partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    assert (server.asked, kept(cache)) == ([0], {})
    # from an honest beginning on: twice, and then no more
    server.data = DATA
    interrupt(server, partials, tmp_path / "target")
    server.data = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(VerificationError):
        partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    assert (server.asked, kept(cache)) == ([0, 0, 900_000, 0], {})
    assert not (tmp_path / "target").exists()


def test_a_staged_file_is_never_changed(server: Server, partials: Partials, cache: Path, tmp_path: Path) -> None:
    """It is the same file as the kept one, and another run may find that damaged."""
    assert partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    path = cache / "hypervisor.oci" / NAME
    assert path.samefile(tmp_path / "target")
    other = Blob(DIGEST, len(DATA) - 1, server.blob().open_at)
    with pytest.raises(VerificationError):
        partials.stage(NAME, other, str(tmp_path / "other"))
    assert (tmp_path / "target").read_bytes() == DATA


def test_on_another_file_system_it_is_copied(
    server: Server, partials: Partials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: t.Any, **_keywords: t.Any) -> t.NoReturn:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == DATA
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o600


def test_two_runs_do_not_write_one_file(
    server: Server, partials: Partials, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that another run is stuck with is fetched by both."""
    monkeypatch.setattr(_partial, "_PATIENCE", 0.3)
    interrupt(server, partials, tmp_path / "target")
    with open(cache / "hypervisor.oci" / NAME, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    assert server.asked == [0]
    assert kept(cache) == {NAME: 900_000}


def test_a_run_waits_for_another_one_that_fetches(
    server: Server, partials: Partials, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may outlive an ansible-playbook that was killed, and fetch on."""
    clock = Clock(runs=False)
    monkeypatch.setattr(_partial, "time", clock)
    interrupt(server, partials, tmp_path / "target")
    path = cache / "hypervisor.oci" / NAME
    with concurrent.futures.ThreadPoolExecutor(1) as pool, open(path, "ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = pool.submit(partials.stage, NAME, server.blob(), str(tmp_path / "target"))
        for start in range(900_000, 1_000_000, 25_000):
            clock.wait_for_looks()
            clock.now += 0.9 * _partial._PATIENCE
            clock.wait_for_looks()
            other.write(DATA[start : start + 25_000])
            assert not waiting.done()
        fcntl.flock(other, fcntl.LOCK_UN)
        assert waiting.result()
    assert server.asked == [0]
    assert (tmp_path / "target").read_bytes() == DATA


def test_the_folder_is_bounded(
    server: Server, partials: Partials, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(server, partials, tmp_path / "target")
    folder = cache / "hypervisor.oci"
    now = time.time()
    ages = {"1" * 64: 8 * 86400, "2" * 64: 3 * 86400, "3" * 64: 2 * 86400, "4" * 64: 86400}
    for name, age in ages.items():
        (folder / name).write_bytes(bytes(400_000))
        os.utime(folder / name, (now - age, now - age))
    (folder / "foreign").write_bytes(bytes(5_000_000))
    # the oldest of all, but the one that is needed
    os.utime(folder / NAME, (now - 6 * 86400, now - 6 * 86400))
    monkeypatch.setattr(_partial, "_MOST", 1_800_000)
    assert partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    assert server.asked == [0, 900_000]
    assert set(kept(cache)) == {NAME, "3" * 64, "4" * 64, "foreign"}
    monkeypatch.setattr(_partial, "_MOST", len(DATA) - 1)
    assert not partials.stage("5" * 64, server.blob(), str(tmp_path / "other"))
    assert "5" * 64 not in kept(cache)


def test_a_disk_without_room_loses_old_files_first(
    server: Server, partials: Partials, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "hypervisor.oci" / ("1" * 64)).write_bytes(b"old")
    monkeypatch.setattr(Partials, "_free", lambda _self: 100)
    assert partials.stage(NAME, server.blob(), str(tmp_path / "target"))
    assert set(kept(cache)) == {NAME}


def test_the_folder_is_closed_to_others(cache: Path) -> None:
    open_partials().close()
    assert stat.S_IMODE((cache / "hypervisor.oci").stat().st_mode) == 0o700
    (cache / "hypervisor.oci").chmod(0o750)
    with pytest.raises(SourceError, match="belongs to another user or is open to others; remove it, or set XDG_CACHE"):
        open_partials()
    (cache / "hypervisor.oci").rename(cache / "moved")
    (cache / "hypervisor.oci").symlink_to("/")
    with pytest.raises(SourceError, match="is not a folder"):
        open_partials()


def test_a_folder_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(SourceError, match="'/proc/nowhere/hypervisor.oci' cannot be used: .*; set XDG_CACHE_HOME"):
        open_partials()


def test_without_a_cache_of_its_own_it_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        open_partials().close()
        assert (tmp_path / ".cache" / "hypervisor.oci").is_dir()


def test_names_tell_sources_credentials_and_digests_apart() -> None:
    names = {derive(secret, digest) for secret in (b"a", b"b") for digest in ("sha256:1", "sha256:2")}
    assert len(names) == 4
    assert derive(b"a", "sha256:1") in names

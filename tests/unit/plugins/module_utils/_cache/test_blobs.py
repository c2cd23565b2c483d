# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs that stay on the node (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import multiprocessing
import os
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._cache.blobs import BlobCache, KeptBlob
from ansible_collections.hypervisor.oci.plugins.module_utils._cache.fetched_scope import scope_of_url
from ansible_collections.hypervisor.oci.plugins.module_utils._cache.scope import (
    scope_named,
    scope_of_offer,
    scope_of_path,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.options import HttpOptions
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import RangeReader
from ansible_collections.hypervisor.oci.plugins.module_utils._source.verified import VerificationError, VerifiedReader
from ansible_collections.hypervisor.oci.tests.unit.support import mounted, needs_root

DATA = b"a blob" * 10_000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
OURS, THEIRS = scope_named("ours"), scope_named("theirs")
DAY = 24 * 60 * 60


@contextlib.contextmanager
def opened(
    path: Path, max_size: int = 2**30, max_age: int = 30, dry: bool = False, scope: str = OURS
) -> t.Iterator[BlobCache]:
    """A cache in a folder."""
    opened_cache = BlobCache(str(path), scope, max_size, max_age, dry)
    with contextlib.closing(opened_cache) as cache:
        yield cache


def digest_of(data: bytes) -> str:
    """Its sha256."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Chunks:
    """A blob in pieces, as a source gives it."""

    def __init__(self, chunks: t.Iterable[bytes]) -> None:
        self._chunks = iter(chunks)

    def read(self, _count: int = -1) -> bytes:
        """Return the next piece."""
        return next(self._chunks, b"")

    def close(self) -> None:
        """Close nothing."""


def keep(cache: BlobCache, digest: str, size: int, chunks: t.Iterable[bytes]) -> bool:
    """Verify a blob through the cache, as a layer is; return whether its file is there then."""
    kept = cache.keeping(t.cast(RangeReader, Chunks(chunks)), digest, size)
    with contextlib.closing(kept):
        try:
            VerifiedReader(kept, digest, size).drain()
        except VerificationError:
            return False
        if isinstance(kept, KeptBlob):
            kept.keep()
    # not cache.has(): a run does not use again what it found damaged
    return Path(cache.path, *digest.split(":")).is_file()


def add(cache: BlobCache, data: bytes = DATA, used: float | None = None) -> Path:
    """Keep a blob, used ``used`` seconds ago; returns its path."""
    digest = digest_of(data)
    assert keep(cache, digest, len(data), [data])
    path = Path(cache.path, *digest.split(":"))
    if used is not None:
        os.utime(path, (time.time() - used,) * 2)
    return path


def content(cache: BlobCache, data: bytes = DATA) -> bytes | None:
    """What the cache gives for the digest of ``data``."""
    blob = cache.open_blob(digest_of(data), len(data))
    if blob is None:
        return None
    with contextlib.closing(blob):
        return blob.read()


def files(path: Path) -> list[str]:
    """Everything in the folder that is no folder, and no proof."""
    return sorted(
        str(found.relative_to(path))
        for found in path.rglob("*")
        if (not found.is_dir() or found.is_symlink()) and found.parent.name != "proofs"
    )


def test_a_blob_is_kept_and_given_back(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "cache") as cache:
        assert not cache.has(DIGEST, len(DATA))
        assert content(cache) is None
        path = add(cache)
        assert cache.has(DIGEST, len(DATA))
        assert not cache.has(DIGEST, len(DATA) + 1)
        assert not cache.has(DIGEST, None)
        assert content(cache) == DATA
        assert (cache.damaged, cache.warnings) == (0, [])
    assert path.read_bytes() == DATA
    # nobody else looks into it
    for made in (path, path.parent, path.parent.parent):
        assert made.stat().st_mode & 0o077 == 0
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
    assert files(tmp_path / "a" / "cache") == [f"sha256/{DIGEST[7:]}"]


def test_sha512_has_a_folder_of_its_own(tmp_path: Path) -> None:
    digest = "sha512:" + hashlib.sha512(DATA).hexdigest()
    with opened(tmp_path / "cache") as cache:
        assert keep(cache, digest, len(DATA), [DATA[:9], DATA[9:]])
        assert cache.has(digest, len(DATA))
        assert not cache.has(DIGEST, len(DATA))
    assert files(tmp_path / "cache") == [f"sha512/{digest[7:]}"]


@pytest.mark.parametrize("digest", ["sha256:../x", "sha256:" + "A" * 64, "md5:" + "0" * 32, "partial:x", "", "sha256:"])
def test_other_names_are_no_blobs(tmp_path: Path, digest: str) -> None:
    with opened(tmp_path / "cache") as cache:
        assert cache.open_blob(digest, 1) is None
        assert cache.writer(digest, 1) is None
        assert not cache.has(digest, 1)


def test_what_is_not_its_digest_is_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as cache:
        assert not keep(cache, DIGEST, len(DATA), [DATA[:-1], b"?"])
        assert not keep(cache, DIGEST, len(DATA) + 1, [DATA])
        assert not cache.has(DIGEST, len(DATA))
    assert files(tmp_path / "cache") == []


def test_a_blob_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> t.Iterator[bytes]:
        yield DATA[:100]
        raise KeyboardInterrupt

    with opened(tmp_path / "cache") as cache, pytest.raises(KeyboardInterrupt):
        keep(cache, DIGEST, len(DATA), chunks())
    assert files(tmp_path / "cache") == []


def test_a_dry_run_makes_and_touches_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "cache", dry=True) as cache:
        assert not cache.has(DIGEST, len(DATA))
        assert cache.writer(DIGEST, len(DATA)) is None
        cache.prune()
    assert os.listdir(tmp_path) == []
    with opened(tmp_path / "cache") as cache:
        path = add(cache, used=99 * DAY)
    before = path.stat().st_mtime
    with opened(tmp_path / "cache", max_size=1, dry=True) as cache:
        assert cache.has(DIGEST, len(DATA))
        assert content(cache) == DATA
        cache.prune()
        fd = os.open(tmp_path, os.O_RDONLY)
        assert not cache.make_room(fd)
        os.close(fd)
    assert path.stat().st_mtime == before


# -- what is damaged


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty"])
def test_a_damaged_entry_is_found(tmp_path: Path, damage: str) -> None:
    with opened(tmp_path / "cache") as cache:
        path = add(cache)
        data = {"flip": b"A" + DATA[1:], "cut": DATA[:-1], "grow": DATA + b"!", "empty": b""}[damage]
        path.write_bytes(data)
        # asking alone reads nothing, so only a size tells
        assert cache.has(DIGEST, len(DATA)) is (damage == "flip")
        assert not cache.is_intact(DIGEST, len(DATA))
        assert (cache.damaged, path.exists()) == (0, True)
        blob = cache.open_blob(DIGEST, len(DATA))
        if damage == "flip":
            assert blob is not None
            cache.discard(blob)
            blob.close()
        else:
            assert blob is None
        assert (cache.damaged, path.exists()) == (1, False)
        # and it may come again, for the next run
        add(cache)
        assert content(cache) is None
    with opened(tmp_path / "cache") as cache:
        assert cache.is_intact(DIGEST, len(DATA))
        assert cache.damaged == 0


@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1, 2**70, None])
def test_a_descriptor_with_a_wrong_size_removes_nothing(tmp_path: Path, size: int | None) -> None:
    """An image may name the digest of another image's layer with any size."""
    with opened(tmp_path / "cache") as cache:
        path = add(cache)
        assert cache.open_blob(DIGEST, size) is None
        assert (cache.damaged, path.exists()) == (0, True)
        assert content(cache) == DATA


def test_the_reader_finds_it_while_it_reads(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as cache:
        path = add(cache)
        path.write_bytes(b"A" + DATA[1:])
        blob = cache.open_blob(DIGEST, len(DATA))
        assert blob is not None
        with contextlib.closing(blob):
            assert blob.read(10) == b"A" + DATA[1:10]
            assert not blob.is_intact()
            # where it was read to does not change by that
            assert blob.read(2) == DATA[10:12]
            cache.discard(blob)
        assert files(tmp_path / "cache") == []


def test_what_another_run_put_into_its_place_stays(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as cache:
        path = add(cache)
        path.write_bytes(b"A" + DATA[1:])
        blob = cache.open_blob(DIGEST, len(DATA))
        assert blob is not None
        with contextlib.closing(blob):
            with opened(tmp_path / "cache") as other:
                same = other.open_blob(DIGEST, len(DATA))
                assert same is not None
                with contextlib.closing(same):
                    other.discard(same)
                add(other)
            assert not blob.is_intact()
            cache.discard(blob)
    with opened(tmp_path / "cache") as cache:
        assert content(cache) == DATA


def test_a_link_or_device_is_no_blob(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as cache:
        path = add(cache)
        path.unlink()
        (tmp_path / "elsewhere").write_bytes(DATA)
        path.symlink_to(tmp_path / "elsewhere")
        assert not cache.has(DIGEST, len(DATA))
        assert content(cache) is None
        path.unlink()
        os.mkfifo(path)
        assert not cache.has(DIGEST, len(DATA))
        assert content(cache) is None
        path.unlink()
        path.mkdir()
        assert content(cache) is None
        cache.prune()
    assert (tmp_path / "elsewhere").read_bytes() == DATA


# -- the folder


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    cache = tmp_path / "above" / "cache"
    with opened(cache):
        pass
    below = [cache / name for name in ("sha256", "partial", "proofs")]
    for folder in (cache, *below, tmp_path / "above"):
        mode = folder.stat().st_mode
        for bits in (0o020, 0o002):
            folder.chmod(mode | bits)
            for dry in (False, True):
                with pytest.raises(RootfsError) as caught, opened(cache, dry=dry):
                    pass
                assert f"other users can change '{folder}'" in caught.value.message
            folder.chmod(mode)
    # as in /tmp, where nobody renames what is another's
    tmp_path.joinpath("above").chmod(0o1777)
    with opened(cache) as opened_cache:
        add(opened_cache)


@needs_root
def test_another_users_folder_is_refused(tmp_path: Path) -> None:
    for path, owner in ((tmp_path / "cache", 1234), (tmp_path / "a", 1234)):
        (path / "cache").mkdir(parents=True)
        os.chown(path, owner, 0)
        with pytest.raises(RootfsError) as caught, opened(path / "cache"):
            pass
        assert f"other users can change '{path}'" in caught.value.message


def test_links_above_are_the_administrators(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with opened(tmp_path / "link" / "cache") as cache:
        add(cache)
    assert files(tmp_path / "real" / "cache") == [f"sha256/{DIGEST[7:]}"]
    # what is below belongs to the cache alone
    (tmp_path / "other").mkdir()
    path = tmp_path / "real" / "cache" / "sha256"
    (path / DIGEST[7:]).unlink()
    path.rmdir()
    path.symlink_to(tmp_path / "other")
    with opened(tmp_path / "link" / "cache") as cache:
        assert not keep(cache, DIGEST, len(DATA), [DATA])
        assert "cannot be used" in cache.warnings[0]
    assert os.listdir(tmp_path / "other") == []


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with opened(tmp_path / "file" / "cache") as cache:
        assert not keep(cache, DIGEST, len(DATA), [DATA])
        assert not cache.has(DIGEST, len(DATA))
        cache.prune()
        assert cache.warnings == [
            f"the cache '{tmp_path}/file/cache' cannot be used and was left alone: not a directory"
        ]


# -- full disks


@needs_root
def test_a_full_disk_is_a_warning(tmp_path: Path) -> None:
    """The run goes on without; half a blob does not stay."""
    (tmp_path / "disk").mkdir()
    big = os.urandom(8 * 1024 * 1024)
    with mounted(tmp_path / "disk"):
        with opened(tmp_path / "disk" / "cache") as cache:
            assert not keep(cache, digest_of(big), len(big), [big, big[:0]])
            assert cache.warnings == [
                f"the cache '{tmp_path}/disk/cache' does not take blobs any more and was left alone:"
                " the file system has no room left (blocks or inodes)"
            ]
            assert not keep(cache, digest_of(big), len(big), [big])
            assert len(cache.warnings) == 1
            add(cache)
            assert content(cache) == DATA
        assert files(tmp_path / "disk" / "cache") == [f"sha256/{DIGEST[7:]}"]


@pytest.mark.parametrize("call", ["fsync", "rename", "open", "write"])
def test_a_disk_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    with opened(tmp_path / "cache") as cache:
        real = getattr(os, call)

        def fail(*args: t.Any, **kwargs: t.Any) -> t.Any:
            if call == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, call, fail)
        assert not keep(cache, DIGEST, len(DATA), [DATA])
        monkeypatch.undo()
        assert len(cache.warnings) == 1
        assert "input/output error" in cache.warnings[0]
    assert files(tmp_path / "cache") == []


# -- pruning


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    blobs = [bytes([number]) * 1000 for number in range(5)]
    with opened(tmp_path / "cache", max_size=2500) as cache:
        for number, data in enumerate(blobs):
            add(cache, data, used=100 - number)
        # reading is using
        assert content(cache, blobs[0]) == blobs[0]
        cache.prune()
        assert [content(cache, data) == data for data in blobs] == [
            True, False, False, False, True,
        ]  # fmt: skip


def test_what_was_not_used_for_long_goes(tmp_path: Path) -> None:
    with opened(tmp_path / "cache", max_age=3) as cache:
        old, fresh = add(cache, b"old", used=3.1 * DAY), add(cache, b"new", used=2 * DAY)
        cache.prune()
        assert (old.exists(), fresh.exists()) == (False, True)
    with opened(tmp_path / "cache", max_age=0) as cache:
        old = add(cache, b"old", used=3000 * DAY)
        cache.prune()
        assert old.exists()


def test_a_blob_larger_than_all_is_never_written(tmp_path: Path) -> None:
    with opened(tmp_path / "cache", max_size=len(DATA) - 1) as cache:
        assert cache.writer(DIGEST, len(DATA)) is None
        assert cache.warnings == []


def test_what_is_read_or_written_is_not_pruned(tmp_path: Path) -> None:
    with opened(tmp_path / "cache", max_size=10**6) as cache:
        path = add(cache, used=99 * DAY)
        blob = cache.open_blob(DIGEST, len(DATA))
        writer = cache.writer(digest_of(b"x"), 1)
        assert blob is not None
        assert writer is not None
        writer.write(b"x")
        partial = next((tmp_path / "cache" / "partial").iterdir())
        os.utime(path, (0, 0))
        os.utime(partial, (0, 0))
        with opened(tmp_path / "cache", max_size=0) as other:
            other.prune()
        assert path.exists()
        assert partial.exists()
        assert writer.commit()
        writer.close()
        blob.close()
        with opened(tmp_path / "cache", max_size=0) as other:
            other.prune()
        assert files(tmp_path / "cache") == []


def test_what_a_killed_run_was_writing_goes_later(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as cache:
        folder = tmp_path / "cache" / "partial"
        for name, age in (("fresh", 5), ("abandoned", 100), ("written", 100)):
            (folder / name).write_bytes(b"half")
            os.utime(folder / name, (time.time() - age,) * 2)
        with open(folder / "written", "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            cache.prune()
        assert sorted(os.listdir(folder)) == ["fresh", "written"]


def test_only_blobs_are_pruned(tmp_path: Path) -> None:
    with opened(tmp_path / "cache", max_size=0) as cache:
        for name in ("README", "sha256/notes", "other/" + DIGEST[7:]):
            path = tmp_path / "cache" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"mine")
            os.utime(path, (0, 0))
        cache.prune()
        assert files(tmp_path / "cache") == [
            "README", "other/" + DIGEST[7:], "sha256/notes",
        ]  # fmt: skip


def test_room_is_made_on_a_full_disk(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as cache:
        add(cache, b"one")
        used = add(cache, b"two")
        with opened(tmp_path / "cache") as other:
            blob = other.open_blob(digest_of(b"two"), 3)
            assert blob is not None
            fd = os.open("/proc", os.O_RDONLY)
            assert not cache.make_room(fd)
            os.close(fd)
            assert cache.has(digest_of(b"two"), 3)
            fd = os.open(tmp_path, os.O_RDONLY)
            assert cache.make_room(fd)
            os.close(fd)
            assert "was emptied" in cache.warnings[0]
            assert not cache.has(digest_of(b"two"), 3)
            assert cache.writer(DIGEST, len(DATA)) is None
            blob.close()
    assert files(tmp_path / "cache") == [f"sha256/{used.name}"]


# -- two at once


def _work(path: str, seed: int, rounds: int, results: t.Any) -> None:
    """Add, read, damage and prune the same few blobs as others do."""
    blobs = [bytes([number]) * 50_000 for number in range(6)]
    wrong = 0
    for number in range(rounds):
        data = blobs[(seed + number * 5) % len(blobs)]
        with opened(Path(path), max_size=150_000) as cache:
            blob = cache.open_blob(digest_of(data), len(data))
            if blob is None:
                keep(cache, digest_of(data), len(data), [data[:9], data[9:]])
            else:
                with contextlib.closing(blob):
                    found = blob.read()
                    if found != data:
                        wrong += not blob.is_intact()
                        wrong += 1000
            cache.prune()
            if cache.warnings or cache.damaged:
                wrong += 10
    results.put(wrong)


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Whole blobs or none, and never more than the limit once both are done."""
    path = tmp_path / "cache"
    context = multiprocessing.get_context("fork")
    results: t.Any = context.Queue()
    workers = [context.Process(target=_work, args=(str(path), seed, 150, results)) for seed in (0, 1)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _worker in workers]
    for worker in workers:
        worker.join(60)
    assert found == [0, 0]
    with opened(path, max_size=150_000) as cache:
        cache.prune()
    left = files(path)
    assert 0 < len(left) <= 3
    for name in left:
        data = (path / name).read_bytes()
        assert name == "sha256/" + digest_of(data)[7:]


# -- who may have what


def test_a_blob_is_given_to_who_brought_it(tmp_path: Path) -> None:
    """Section 7: for all others it is not there, whatever they know of it."""
    with opened(tmp_path / "cache") as cache:
        add(cache)
    with opened(tmp_path / "cache", scope=THEIRS) as cache:
        assert not cache.has(DIGEST, len(DATA))
        assert not cache.is_intact(DIGEST, len(DATA))
        assert content(cache) is None
        assert (cache.damaged, cache.warnings) == (0, [])
        # they have it, too, and have shown that
        add(cache)
        assert content(cache) == DATA
    with opened(tmp_path / "cache") as cache:
        assert content(cache) == DATA
    assert files(tmp_path / "cache") == [f"sha256/{DIGEST[7:]}"]


def test_a_cache_of_before_proves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "cache") as cache:
        path = add(cache)
        for proof in (tmp_path / "cache" / "proofs").iterdir():
            proof.unlink()
        assert content(cache) is None
        assert path.read_bytes() == DATA
        add(cache)
        assert content(cache) == DATA


def test_proofs_go_with_their_blobs(tmp_path: Path) -> None:
    proofs = tmp_path / "cache" / "proofs"
    with opened(tmp_path / "cache", max_size=len(DATA)) as cache:
        add(cache, b"old", used=100)
        add(cache)
        (proofs / "README").write_bytes(b"")
        assert len(os.listdir(proofs)) == 3
        cache.prune()
        assert sorted(os.listdir(proofs)) == sorted([f"{DIGEST[7:]}.{OURS}", "README"])


@pytest.mark.parametrize("what", ["link", "folder"])
def test_only_a_file_is_a_proof(tmp_path: Path, what: str) -> None:
    with opened(tmp_path / "cache") as cache:
        add(cache)
        proof = tmp_path / "cache" / "proofs" / f"{DIGEST[7:]}.{OURS}"
        proof.unlink()
        if what == "link":
            proof.symlink_to("/dev/null")
        else:
            proof.mkdir()
        assert not cache.has(DIGEST, len(DATA))
        assert content(cache) is None


def test_scopes_are_told_apart(tmp_path: Path) -> None:
    """By all that may decide what is read; never by a password."""
    url = "https://host/a.tar"
    scopes = [
        scope_of_path("/a"),
        scope_of_path("/b"),
        scope_of_offer("/a"),
        scope_named("/a"),
        scope_of_url(url, None),
        scope_of_url(url + "?id=1", None),
        scope_of_url(url + "?id=2", None),
        scope_of_url("https://user@host/a.tar", None),
        scope_of_url(url, HttpOptions(username="one")),
        scope_of_url(url, HttpOptions(username="two")),
        scope_of_url(url, HttpOptions(client_cert="/one.pem")),
        scope_of_url(url, HttpOptions(headers={"X-Tenant": "one"})),
        scope_of_url(url, HttpOptions(headers={"X-Tenant": "two"})),
    ]
    assert len(set(scopes)) == len(scopes)
    assert scope_of_url("https://user:one@host/a.tar", None) == scopes[7]
    assert scope_of_url(url, HttpOptions("one", "secret")) == scopes[8]
    (tmp_path / "link").symlink_to("/a")
    assert scope_of_path(str(tmp_path / "link")) == scopes[0]

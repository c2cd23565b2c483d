# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs that came in part, and runs that go on with them (docs/behaviour.md, section 11)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, SourceChangedError, SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._interrupt import interruptible
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.plugins.module_utils._source.partial import LEAST, PartialBlob, PartialBlobs
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import RangeReader
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, oci_archive
from ansible_collections.hypervisor.oci.tests.unit import registry as stub
from ansible_collections.hypervisor.oci.tests.unit import web as urls
from ansible_collections.hypervisor.oci.tests.unit.registry import Handler, Registry
from ansible_collections.hypervisor.oci.tests.unit.support import contents, run, without_waiting
from ansible_collections.hypervisor.oci.tests.unit.remote import noise
from ansible_collections.hypervisor.oci.tests.unit.web import Web

SIZE = 2_000_000
FIRST = Layer(file("first", noise(600_000, 1)), compression="none")
BIG = Layer(file("big", noise(SIZE, 2)), compression="none")
IMAGE = Image([FIRST, BIG])
ARCHIVE = oci_archive(IMAGE)
TREE = {"first": FIRST.tar[512 : 512 + 600_000], "big": BIG.tar[512 : 512 + SIZE]}
DIGEST = BIG.digest
# bytes of the second layer after which a registry waits for the test
_HELD = 1_500_000


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class Access:
    """A blob in memory that notes what is read of it, and fails at ``fails_at``."""

    name = "blob"

    def __init__(self, data: bytes, fails_at: int = -1, error: Exception | None = None) -> None:
        self.data = data
        self.size = len(data)
        self.reads: list[int] = []
        self.fails_at = fails_at
        self.error = error or SourceError("it broke off")

    def read_at(self, offset: int, count: int) -> bytes:
        """Return bytes, or fail."""
        self.reads.append(offset)
        if 0 <= self.fails_at < offset + count:
            raise self.error
        return self.data[offset : offset + count]

    def advise(self, in_order: bool) -> None:
        """Do nothing."""

    def cancel(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def opened(folder: Path, scope: str = "scope", helps: bool = False) -> t.Iterator[PartialBlobs]:
    """The partial blobs in a folder."""
    folder.mkdir(exist_ok=True)
    with contextlib.closing(PartialBlobs(os.open(folder, os.O_RDONLY), scope, lambda: helps)) as partials:
        yield partials


def read_from(partials: PartialBlobs, access: Access, digest: str = DIGEST, step: int = 100_000) -> bytes:
    """Read a blob in steps."""
    reader = partials.reading(RangeReader(access, 0, access.size), digest, access.size)
    with contextlib.closing(reader):
        return b"".join(iter(lambda: reader.read(step), b""))


def test_the_rest_alone_is_read(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    with opened(tmp_path / "p") as partials:
        with pytest.raises(SourceError, match="broke off"):
            read_from(partials, Access(data, 750_000))
        (path,) = (tmp_path / "p").iterdir()
        assert path.read_bytes() == data[:700_000] and stat.S_IMODE(path.stat().st_mode) == 0o600
        access = Access(data)
        assert read_from(partials, access, step=333_333) == data
        assert access.reads[0] == 700_000
        # whole, and not asked for again while the run lasts
        whole = Access(data, 0)
        assert read_from(partials, whole) == data and whole.reads == []


def test_all_at_once(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    with opened(tmp_path / "p") as partials:
        reader = partials.reading(RangeReader(Access(data), 0, len(data)), DIGEST, len(data))
        assert reader.read() == data
        reader.close()
        reader.close()


@pytest.mark.parametrize(("scope", "digest"), [("other", DIGEST), ("scope", FIRST.digest)])
def test_nobody_else_gets_it(tmp_path: Path, scope: str, digest: str) -> None:
    data = os.urandom(1_000_000)
    with opened(tmp_path / "p") as partials:
        read_from(partials, Access(data))
    with opened(tmp_path / "p", scope) as partials:
        access = Access(data)
        read_from(partials, access, digest)
        assert access.reads[0] == 0


def test_small_blobs_are_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partials:
        read_from(partials, Access(os.urandom(LEAST - 1)))
    assert not any((tmp_path / "p").iterdir())


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent")


def _twice(path: Path) -> None:
    os.link(path, path.with_name("twice"))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _longer(path: Path) -> None:
    path.write_bytes(os.urandom(1_000_001))


@pytest.mark.parametrize("change", [_link, _twice, _fifo, _folder, _longer])
def test_what_is_no_part_is_not_used(tmp_path: Path, change: t.Callable[[Path], None]) -> None:
    data = os.urandom(1_000_000)
    with opened(tmp_path / "p") as partials:
        with pytest.raises(SourceError):
            read_from(partials, Access(data, 500_000))
        change(next((tmp_path / "p").iterdir()))
        access = Access(data)
        assert read_from(partials, access) == data
        assert access.reads[0] == 0


def test_two_runs_do_not_share_a_file(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    with opened(tmp_path / "p") as partials:
        with pytest.raises(SourceError):
            read_from(partials, Access(data, 500_000))
        path = next((tmp_path / "p").iterdir())
        with open(path, "rb+") as file_of_another:
            fcntl.flock(file_of_another, fcntl.LOCK_EX)
            access = Access(data)
            assert read_from(partials, access) == data
            assert access.reads[0] == 0 and path.stat().st_size == 500_000


def test_a_blob_that_changed_is_forgotten(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    with opened(tmp_path / "p") as partials:
        with pytest.raises(SourceError):
            read_from(partials, Access(data, 500_000))
        with pytest.raises(SourceChangedError):
            read_from(partials, Access(data, 500_000, SourceChangedError("it is shorter")))
        assert not any((tmp_path / "p").iterdir())


@pytest.mark.parametrize("helps", [False, True])
def test_whether_another_try_may_help(tmp_path: Path, helps: bool) -> None:
    data = os.urandom(1_000_000)
    with opened(tmp_path / "p", helps=helps) as partials:
        reader = partials.reading(RangeReader(Access(data), 0, len(data)), DIGEST, len(data))
        with contextlib.closing(reader):
            reader.read(1000)
            assert partials.is_worth_a_second_try(reader) is helps
        assert not any((tmp_path / "p").iterdir())
        assert partials.is_worth_a_second_try(Access(data)) is helps
        with pytest.raises(SourceError):
            read_from(partials, Access(data, 500_000))
        reader = partials.reading(RangeReader(Access(data), 0, len(data)), DIGEST, len(data))
        with contextlib.closing(reader):
            assert isinstance(reader, PartialBlob) and partials.is_worth_a_second_try(reader)


def test_a_full_disk_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(1_000_000)

    def full(*_arguments: t.Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    with opened(tmp_path / "p") as partials:
        monkeypatch.setattr(os, "pwrite", full)
        assert read_from(partials, Access(data)) == data
        assert not any((tmp_path / "p").iterdir())
        monkeypatch.undo()
        read_from(partials, Access(data))
        assert partials.make_room() and not any((tmp_path / "p").iterdir())
        read_from(partials, Access(data))
        assert not partials.make_room() and not any((tmp_path / "p").iterdir())


def test_a_file_that_cannot_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(1_000_000)
    with opened(tmp_path / "p") as partials:
        with pytest.raises(SourceError):
            read_from(partials, Access(data, 500_000))
        real, calls = os.pread, [1]

        def broken(fd: int, count: int, offset: int) -> bytes:
            if not calls:
                raise OSError(errno.EIO, "broken")
            calls.pop()
            return real(fd, count, offset)

        monkeypatch.setattr(os, "pread", broken)
        access = Access(data)
        assert read_from(partials, access) == data and access.reads[0] == 100_000
        monkeypatch.undo()
        assert next((tmp_path / "p").iterdir()).read_bytes() == data


def test_other_images_are_removed(tmp_path: Path) -> None:
    with opened(tmp_path / "p") as partials:
        read_from(partials, Access(os.urandom(1_000_000)))
        read_from(partials, Access(os.urandom(1_000_000)), FIRST.digest)
        partials.keep_only([FIRST.digest])
        assert len(list((tmp_path / "p").iterdir())) == 1


# -- whole runs


def over_registry(tmp_path: Path, registry: Registry, **changes: t.Any) -> dict[str, t.Any]:
    """Provision from a registry, without retries."""
    src = f"docker://{registry.host}/app:1"
    changes = {"src": src, "registry_plain_http": True, "url_retries": 0, **changes}
    return run(tmp_path / "dest" / "root", **changes)


@contextlib.contextmanager
def a_registry() -> t.Iterator[Registry]:
    """A registry with the image."""
    with stub.serving(Registry()) as registry:
        registry.push("app", "1", IMAGE)
        yield registry


def kept(tmp_path: Path) -> list[int]:
    """Sizes of what an ended run left."""
    folder = tmp_path / "dest" / ".root.oci_rootfs" / "partial"
    if not folder.exists():
        return []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    return sorted(path.stat().st_size for path in folder.iterdir())


def failed_at(registry: Registry, tmp_path: Path, count: int = 1_800_000) -> None:
    """A run that ends at this byte of the second layer."""
    # the first layer is shorter than its cut, which is left for the second one
    registry.cuts = [count]
    with pytest.raises(OciError, match="broke off"):
        over_registry(tmp_path, registry)
    registry.asked.clear()


def test_a_registry_sends_the_rest_alone(tmp_path: Path) -> None:
    with a_registry() as registry:
        failed_at(registry, tmp_path)
        assert [len(FIRST.data)] == kept(tmp_path)[:1] and 1_500_000 < kept(tmp_path)[1] <= 1_800_000
        assert over_registry(tmp_path, registry)["changed"]
        assert contents(tmp_path / "dest" / "root") == TREE and kept(tmp_path) == []
        assert not (tmp_path / "dest" / ".root.oci_rootfs" / "partial").exists()
        assert sum(asked.sent for asked in registry.asked if "blobs" in asked.path) <= IMAGE.config.size + 0.25 * SIZE
        assert not any(FIRST.digest in asked.path for asked in registry.asked)


def test_a_url_sends_the_rest_alone(tmp_path: Path) -> None:
    with urls.serving(ARCHIVE) as web:
        with pytest.raises(OciError, match="too early"):
            _over_url(tmp_path, web, "short")
        assert len(kept(tmp_path)) == 2
        web.faults, web.healthy = [], 0
        web.asked.clear()
        run(tmp_path / "dest" / "root", src=web.url)
        assert contents(tmp_path / "dest" / "root") == TREE and kept(tmp_path) == []
        assert web.sent < 0.55 * len(ARCHIVE)


def _over_url(tmp_path: Path, web: Web, fault: str) -> None:
    # documents, the first layer, and half of the second one
    web.handle = lambda handler: _fail_second(web, handler, fault)
    run(tmp_path / "dest" / "root", src=web.url, url_retries=0)


def _fail_second(web: Web, handler: t.Any, fault: str) -> bool:
    start, _dash, end = handler.headers.get("Range", "bytes=0-0")[6:].partition("-")
    if int(end or 0) - int(start) > SIZE - 100_000:
        web.faults = [fault]
    return False


def test_a_killed_run_goes_on_at_its_byte(tmp_path: Path) -> None:
    with a_registry() as registry:
        registry.held_at = _HELD
        over = threading.Event()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                over_registry(tmp_path, registry)
            os._exit(0)
        end_at = time.monotonic() + 20
        while sum(kept(tmp_path)) < 1_500_000 and time.monotonic() < end_at:
            over.wait(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        arrived = sum(kept(tmp_path))
        registry.held_at = None
        registry.released.set()
        registry.asked.clear()
        over_registry(tmp_path, registry)
        assert contents(tmp_path / "dest" / "root") == TREE
        sent = sum(asked.sent for asked in registry.asked if "blobs" in asked.path)
        assert sent == IMAGE.config.size + len(FIRST.data) + len(BIG.data) - arrived


@pytest.mark.parametrize("where", [0, 1_000, 1_000_000])
def test_a_poisoned_part_heals_in_one_run(tmp_path: Path, where: int) -> None:
    with a_registry() as registry:
        failed_at(registry, tmp_path)
        path = max((tmp_path / "dest" / ".root.oci_rootfs" / "partial").iterdir(), key=lambda path: path.stat().st_size)
        data = bytearray(path.read_bytes())
        data[where] ^= 1
        path.write_bytes(data)
        over_registry(tmp_path, registry)
        assert contents(tmp_path / "dest" / "root") == TREE and kept(tmp_path) == []


def test_a_part_for_others_is_of_no_use(tmp_path: Path) -> None:
    """Registry B names the digest of what came from registry A."""
    with a_registry() as registry, a_registry() as other:
        failed_at(registry, tmp_path)
        del other.blobs["app", BIG.digest]
        with pytest.raises(OciError, match="does not exist"):
            over_registry(tmp_path, other)
        assert not (tmp_path / "dest" / "root").exists()
        assert f"GET /v2/app/blobs/{BIG.digest} 404" in other.paths()


@pytest.mark.parametrize(
    "change", [{"url_username": "other", "force_basic_auth": True}, {"headers": {"X-Tenant": "other"}}]
)
def test_a_part_for_others_credentials_is_of_no_use(tmp_path: Path, change: dict[str, t.Any]) -> None:
    with a_registry() as registry:
        failed_at(registry, tmp_path)
        over_registry(tmp_path, registry, **change)
        assert any(BIG.digest in asked.path and "range" not in asked.headers for asked in registry.asked)


@pytest.mark.parametrize("how", ["200", "206", "416", "longer"])
def test_servers_that_do_not_go_on_as_they_should(tmp_path: Path, how: str) -> None:
    with a_registry() as registry:
        failed_at(registry, tmp_path)

        def odd(handler: Handler) -> bool:
            if "Range" not in handler.headers:
                return False
            if how == "200":
                handler.send(200, BIG.data)
            elif how == "206":
                handler.send(206, BIG.data[1000:], Content_Range=f"bytes 1000-{len(BIG.data) - 1}/{len(BIG.data)}")
            elif how == "416":
                handler.send(416)
            else:
                handler.send(200, BIG.data + b"x")
            return True

        registry.handle = odd
        over_registry(tmp_path, registry, url_retries=1)
        assert contents(tmp_path / "dest" / "root") == TREE


def test_absent_removes_it(tmp_path: Path) -> None:
    with a_registry() as registry:
        failed_at(registry, tmp_path)
        assert over_registry(tmp_path, registry, state="absent", check_mode=True)["changed"]
        assert kept(tmp_path)
        assert over_registry(tmp_path, registry, state="absent")["changed"]
        assert not any((tmp_path / "dest").iterdir())
        assert not over_registry(tmp_path, registry, state="absent")["changed"]


def test_another_image_removes_it(tmp_path: Path) -> None:
    with a_registry() as registry:
        failed_at(registry, tmp_path)
        registry.push("app", "1", Image([Layer(file("small", b"x"))]))
        over_registry(tmp_path, registry)
        assert kept(tmp_path) == []


def test_an_unchanged_run_removes_it(tmp_path: Path) -> None:
    with a_registry() as registry:
        small = Image([Layer(file("small", b"x"))])
        registry.push("app", "1", small)
        over_registry(tmp_path, registry)
        registry.push("app", "1", IMAGE)
        failed_at(registry, tmp_path)
        assert kept(tmp_path)
        registry.push("app", "1", small)
        assert not over_registry(tmp_path, registry)["changed"]
        assert kept(tmp_path) == []


def test_an_interrupted_run_keeps_it(tmp_path: Path) -> None:
    with a_registry() as registry:
        registry.held_at = _HELD

        def interrupt() -> None:
            while sum(kept(tmp_path)) < 1_000_000:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        with pytest.raises(OciError), interruptible():
            over_registry(tmp_path, registry)
        thread.join()
        assert sum(kept(tmp_path)) >= 1_000_000
        registry.held_at = None
        registry.released.set()
        over_registry(tmp_path, registry)
        assert contents(tmp_path / "dest" / "root") == TREE


def test_a_disk_that_is_full_gets_the_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree needs it more than parts of blobs do."""
    from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import Applier

    real, failures = Applier.apply_layer, [1]

    def full(self: Applier, *arguments: t.Any) -> None:
        if failures and kept(tmp_path):
            failures.pop()
            raise OSError(errno.ENOSPC, "full")
        real(self, *arguments)

    monkeypatch.setattr(Applier, "apply_layer", full)
    with a_registry() as registry:
        over_registry(tmp_path, registry)
        assert contents(tmp_path / "dest" / "root") == TREE and not failures
        assert [asked.path.rpartition("/")[2] for asked in registry.asked].count(FIRST.digest) == 2

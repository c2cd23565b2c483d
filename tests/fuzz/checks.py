# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold for every input, whatever it is (docs/behaviour.md, sections 3 to 8).

One clean error or a tree that verifies; nothing changed outside of dest; nothing left beside it after an
error; memory, time and descriptors bounded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import time
import traceback
import typing as t
from dataclasses import dataclass

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.listing import list_images
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.provision import provision
from ansible_collections.hypervisor.oci.plugins.module_utils._result import to_json_safe
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.fuzz.drift import DRIFT, PAPERS, archive
from ansible_collections.hypervisor.oci.tests.fuzz.seeds import LAYOUT, TARGET
from ansible_collections.hypervisor.oci.tests.tools.arguments import arguments, options_of as checked
from ansible_collections.hypervisor.oci.tests.tools.compare_trees import Ignore, manifest, read_tree
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_below, remove_folder

_MIB = 1024 * 1024
# Beyond the idle process; a zstd window is allowed besides.
MEMORY = 64 * _MIB
WINDOW = 128 * _MIB
# What all layers may hold, so that bombs end soon.
MAX_SIZE = 16 * _MIB
MAX_ENTRIES = 3000
# Seconds of processor time for the smallest input, and for each MiB more.
_SECONDS = 3.0
_SECONDS_PER_MIB = 3.0
_LONGEST_MESSAGE = 32 * 1024
_FILE_LIMIT = 64 * _MIB
_ADDRESS_SPACE = 1024 * _MIB
_ZSTD = b"\x28\xb5\x2f\xfd"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

DEFAULTS = arguments(
    # looking at all processes takes longer than all the rest
    in_use="ignore",
    keep=0,
    max_size=MAX_SIZE,
    max_entries=MAX_ENTRIES,
)


_PLATFORMS = ("linux/arm64", "linux/arm/v7", None, *["linux/amd64"] * 61)
_REFS = ("fuzz:1", "fuzz", "1", "nested", *[None] * 60)


def options_of(data: bytes) -> dict[str, t.Any]:
    """Options that the input itself decides on, so that its bytes alone repeat a run."""
    bits = int.from_bytes(hashlib.sha256(data).digest()[:4], "big")
    options = dict(DEFAULTS)
    if data.startswith(DRIFT):
        return options if os.geteuid() == 0 else {**options, "ownership": "ignore"}
    options["keep_dirlinks"] = bits & 3 == 0
    options["devices"] = (None, None, "create", "skip")[bits >> 2 & 3]
    options["acl"] = "drop" if bits >> 4 & 1 else "preserve"
    if bits >> 5 & 1:
        options["xattrs"] = ["trusted.x", "security.selinux", "user.overlay.o"]
    if os.geteuid() == 0 and bits >> 6 & 3 == 0:
        options["uid_map"] = ["0:100000:65536"]
        options["gid_map"] = ["0:100000:1000", "1000:5000:1", "1001:101001:60000"]
    elif bits >> 6 & 3 == 1 or os.geteuid() != 0:
        options["ownership"] = "ignore"
    options["platform"] = _PLATFORMS[bits >> 8 & 63]
    options["ref"] = _REFS[bits >> 14 & 63]
    if bits >> 26 & 63 == 0:
        options["devices"] = "fail"
    if bits >> 20 & 63 == 0:
        options["digest"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return options


@dataclass(frozen=True)
class Outcome:
    """What came of one input; ``problems`` is empty where all held. CPU seconds, and bytes above the start."""

    kind: str
    message: str
    problems: tuple[str, ...]
    seconds: float
    memory: int


class Sandbox:
    """A folder with things around dest that nothing may touch; ``close`` removes it."""

    def __init__(self) -> None:
        shm = "/dev/shm"
        folder = shm if os.access(shm, os.W_OK) else None
        self.base = make_folder("oci-fuzz-", folder)
        self._lock = _make_target()
        self._parent = os.path.join(self.base, "above", "parent")
        self._src = os.path.join(self.base, "src")
        self._dest = os.path.join(self._parent, "dest")
        for above in (self.base, os.path.dirname(self._parent), self._parent):
            _fill(os.path.join(above, "target"))
            _write(os.path.join(above, "file"), b"beside dest")
        _fill(os.path.join(self._parent, ".other.oci_rootfs"))
        self._around = self._snapshot()

    def close(self) -> None:
        """Remove all of it."""
        remove_folder(self.base)
        os.close(self._lock)
        remove_target()

    def check(self, data: bytes, lists: bool = True, options: t.Mapping[str, t.Any] | None = None) -> Outcome:
        """Run one input and look at everything that must hold; options stand over those that it decides on."""
        self._write_source(data)
        paths = {"src": self._src, "dest": self._dest}
        options = {**options_of(data), **(options or {}), **paths}
        problems: list[str] = []
        descriptors = open_descriptors()
        _reset_peak()
        memory = _resident()
        start = time.process_time()
        kind, message = self._run(data, options, lists, problems)
        seconds = time.process_time() - start
        used = max(0, _peak() - memory)
        if seconds > _SECONDS + _SECONDS_PER_MIB * len(data) / _MIB:
            problems.append(f"it took {seconds:.1f} s of processor time")
        if used > MEMORY + (WINDOW if _ZSTD in data else 0):
            problems.append(f"it took {used / _MIB:.0f} MiB of memory")
        if open_descriptors() != descriptors:
            problems.append("it left descriptors open")
        if self._snapshot() != self._around:
            problems.append("something outside of dest changed")
        self._tidy(problems)
        return Outcome(kind, message, tuple(problems), seconds, used)

    def _write_source(self, data: bytes) -> None:
        """An archive, or the files of a layout directory."""
        remove_below(self.base, self._src)
        if data.startswith(DRIFT):
            _write(self._src, archive())
            return
        if not data.startswith(LAYOUT):
            _write(self._src, data)
            return
        os.mkdir(self._src)
        for name, content in json.loads(data[len(LAYOUT) :]).items():
            path = os.path.join(self._src, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if content is None:
                os.mkfifo(path)
            else:
                _write(path, content.encode("latin-1"))

    def _run(self, data: bytes, options: dict[str, t.Any], lists: bool, problems: list[str]) -> tuple[str, str]:
        if data.startswith(DRIFT):
            return self._compare(data, options, problems)
        try:
            if lists:
                self._list(problems)
            predicted = None
            if data[-1:] < b"\x40":
                predicted = self._provision(options, True, problems)
                if self._leftovers():
                    problems.append("check mode wrote something")
            first = self._provision(options, False, problems)
        except Exception:
            problems.append(f"an exception escaped:\n{traceback.format_exc()}")
            return "exception", ""
        if isinstance(first, str):
            if self._leftovers():
                problems.append(f"an error left {self._leftovers()} beside dest")
            return "error", first
        if isinstance(predicted, str):
            problems.append(f"check mode failed where the run did not: {predicted}")
        self._verify(options, first, problems)
        return "tree", ""

    def _compare(self, data: bytes, options: dict[str, t.Any], problems: list[str]) -> tuple[str, str]:
        """Compare and repair a tree with a paper that is damaged; return the error, or the verdicts."""
        said, verdicts = "", []
        try:
            self._provision(options, False, problems)
            state = os.path.join(self._parent, ".dest.oci_rootfs")
            kind, paper = data[len(DRIFT) : len(DRIFT) + 1], data[len(DRIFT) + 1 :]
            (journal,) = (name for name in os.listdir(state) if name.endswith(".journal"))
            _write(os.path.join(state, journal.partition(".")[0] + PAPERS[kind]), paper)
            for how in ({}, {"repair": "paths"}, {}):
                try:
                    done = provision(checked({**options, "verify": "content", **how}), False).to_result()
                except OciError as error:
                    said = error.message
                    _check_message(said, problems)
                else:
                    _check_json(done, problems)
                    verdicts.append(done["drift"]["verdict"])
            provision(checked({**options, "state": "absent"}), False)
        except Exception:
            problems.append(f"an exception escaped:\n{traceback.format_exc()}")
            return "exception", ""
        if self._leftovers():
            problems.append(f"absent left {self._leftovers()} beside dest")
        return ("error", said) if said else ("tree", ", ".join(verdicts))

    def _list(self, problems: list[str]) -> None:
        try:
            with contextlib.closing(open_source(self._src)) as source:
                images = list_images(source, None, None, None)
        except OciError as error:
            _check_message(error.message, problems)
            return
        for image in images:
            if image["problem"] is not None:
                _check_message(image["problem"], problems)
        _check_json(images, problems)

    def _provision(self, options: dict[str, t.Any], check_mode: bool, problems: list[str]) -> dict[str, t.Any] | str:
        """The result, or the error's message."""
        umask = os.umask(0o22)
        try:
            result = provision(checked(options), check_mode).to_result()
        except OciError as error:
            _check_message(error.message, problems)
            return error.message
        finally:
            if os.umask(umask) != 0o22:
                problems.append("the umask is another one")
        for warning in result["warnings"]:
            _check_message(warning, problems)
        _check_json(result, problems)
        if not result["changed"]:
            problems.append("a first run says that nothing changed")
        return result

    def _verify(self, options: dict[str, t.Any], first: dict[str, t.Any], problems: list[str]) -> None:
        """The tree: known again, without markers, and removed without a trace."""
        try:
            again = provision(checked(options), False).to_result()
            if again["changed"]:
                problems.append("a second run changes something")
            for key in ("image", "report", "layers", "manifest_digest", "ref"):
                if first[key] != again[key]:
                    problems.append(f"a second run says otherwise of {key}")
            marker = find_marker(self._dest)
            if marker is not None:
                problems.append(f"a marker is in the tree: {marker!r}")
            provision(checked({**options, "state": "absent"}), False)
        except Exception:
            problems.append(f"what follows a tree failed:\n{traceback.format_exc()}")
        if self._leftovers():
            problems.append(f"absent left {self._leftovers()} beside dest")

    def _leftovers(self) -> list[str]:
        expected = {"target", "file", ".other.oci_rootfs"}
        return sorted(set(os.listdir(self._parent)) - expected)

    def _tidy(self, problems: list[str]) -> None:
        """Make it as it was, for the next input."""
        for name in self._leftovers():
            remove_below(self.base, os.path.join(self._parent, name))
        if "something outside of dest changed" in problems:
            self._around = self._snapshot()

    def _snapshot(self) -> list[str]:
        """All there is around dest, by content and times: a line for each path."""
        state = os.path.join(self._parent, ".dest.oci_rootfs")
        ours = [os.fsencode(os.path.relpath(path, self.base)) for path in (self._src, self._dest, state)]
        # dest and the source come and go here
        times = [b".", os.fsencode(os.path.relpath(self._parent, self.base))]
        ignore = Ignore(paths=frozenset(ours), mtimes=frozenset(times))
        return manifest(read_tree(self.base, ignore), ignore) + manifest(read_tree(TARGET))


def find_marker(path: str) -> bytes | None:
    """A name in the tree that is a whiteout's, at any depth and without following a link."""
    top = os.open(path, _DIRECTORY)
    home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(top)
        pending = [_names_here()]
        while True:
            if not pending[-1]:
                pending.pop()
                if not pending:
                    return None
                os.chdir("..")
                continue
            name, is_directory = pending[-1].pop()
            if name.startswith(b".wh."):
                return name
            if is_directory:
                os.chdir(name)
                pending.append(_names_here())
    finally:
        os.fchdir(home)
        os.close(home)
        os.close(top)


def _names_here() -> list[tuple[bytes, bool]]:
    with os.scandir(b".") as found:
        return [(item.name, item.is_dir(follow_symlinks=False)) for item in found]


def _check_message(message: t.Any, problems: list[str]) -> None:
    """One sentence that fits into a line, and does nothing to a terminal."""
    if not isinstance(message, str) or not message:
        problems.append(f"the message is no text: {message!r}")
        return
    wrong = [
        words
        for bad, words in (
            (not message.isprintable(), "has control characters"),
            (len(message) > _LONGEST_MESSAGE, f"has {len(message)} characters"),
            ("Traceback" in message, "has a traceback"),
            (message.rstrip() != message, "ends in blanks"),
        )
        if bad
    ]
    for words in wrong:
        problems.append(f"the message {words}: {message[:300]!r}")


def _check_json(value: t.Any, problems: list[str]) -> None:
    try:
        json.dumps(to_json_safe(value), allow_nan=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        problems.append(f"the result is no JSON: {error}")


# -- what the process uses


def limit_process() -> None:
    """Limits behind the limits: a file, the address space, core files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_LIMIT, _FILE_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    limit = size + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _reset_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _peak() -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# -- what stands around dest


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _fill(folder: str) -> None:
    os.makedirs(os.path.join(folder, "folder"))
    os.chmod(folder, 0o755)
    _write(os.path.join(folder, "victim"), b"untouched")
    _write(os.path.join(folder, "folder", "x"), b"untouched too")


def _make_target() -> int:
    """The folder that absolute names lead to, shared by all runs at one time; returns a lock that keeps it."""
    while True:
        if not os.path.isdir(TARGET):
            # whole at once, and whoever comes first makes it
            fresh = make_folder("oci-fuzz-", os.path.dirname(TARGET))
            _fill(fresh)
            try:
                os.rename(fresh, TARGET)
            except OSError:
                remove_folder(fresh)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(TARGET, _DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.lstat(TARGET)):
                    return lock
            # removed while this one waited: once more
            os.close(lock)


def remove_target() -> None:
    """Remove the folder, unless another run still uses it."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        lock = os.open(TARGET, _DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # a new one can be made from here on, and this one is nobody's
            gone = make_folder("oci-fuzz-", os.path.dirname(TARGET))
            os.rename(TARGET, gone)
            remove_folder(gone)
        finally:
            os.close(lock)

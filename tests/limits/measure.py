# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the product on one image in a process of its own, and measures what that took."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
import traceback
import typing as t
from dataclasses import dataclass

from ansible_collections.hypervisor.oci.plugins.module_utils import _unpack
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.listing import list_images
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import node_source
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.provision import provision
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import Source
from ansible_collections.hypervisor.oci.tests.tools.arguments import arguments, options_of
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_folder

MIB = 1024 * 1024

_OPTIONS = arguments(in_use="ignore", keep=0, devices="skip")


@dataclass(frozen=True)
class Measured:
    """What came of it: ``error`` is empty where a tree came; processor seconds; bytes above the idle process.

    ``stored`` are the bytes of the image on disk, ``unpacked`` those of its documents and decompressed layers that
    were read before the end.
    ``left`` are the names that stand beside dest after an error, or after dest was made absent again.
    """

    error: str
    seconds: float
    memory: int
    stored: int
    unpacked: int
    left: tuple[str, ...]
    report: dict[str, t.Any]


def make_apart(make: t.Callable[[str], str], folder: str) -> str:
    """Make an image in a process of its own, so that its memory is not taken for the product's."""
    return _apart(lambda: make(folder))


def measure(src: str, folder: str, verb: str = "present", **options: t.Any) -> Measured:
    """Provision, make absent again, and say what it took; ``verb`` ``list`` lists the images instead.

    Raises ``AssertionError`` for any other exception than an error for the user.
    """
    text = _apart(lambda: _measure(src, folder, verb, {**_OPTIONS, **options}))
    values = json.loads(text)
    return Measured(**{**values, "left": tuple(values["left"])})


def _apart(action: t.Callable[[], str]) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        status = 1
        try:
            text = action()
            status = 0
        except BaseException:
            text = traceback.format_exc()
        with os.fdopen(writer, "w", encoding="utf-8") as stream:
            stream.write(text)
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        text = stream.read()
    status = os.waitpid(pid, 0)[1]
    if status:
        raise AssertionError(f"the process failed (status {status}):\n{text}")
    return text


def _measure(src: str, folder: str, verb: str, options: dict[str, t.Any]) -> str:
    base = make_folder("measured-", folder)
    options.update(src=src, dest=os.path.join(base, "dest"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    budgets: list[Budget] = []
    _unpack.Budget = _noted(budgets)  # type: ignore[misc]
    documents: list[int] = []
    node_source.open_source = _counting(documents)
    before = _start_of_peak()
    start = time.process_time()
    error = ""
    report = {}
    try:
        if verb == "list":
            with contextlib.closing(_counting(documents)(src)) as source:
                images = list_images(source, None, None, None)
            problems = [image["problem"] for image in images if image["problem"]]
            error = problems[0] if problems else ""
        else:
            report = provision(options_of(options), False).to_result()["report"]
    except OciError as found:
        error = found.message
    if report:
        provision(options_of({**options, "state": "absent"}), False)
    seconds = time.process_time() - start
    memory = max(0, _peak() - before)
    left = sorted(os.listdir(base))
    remove_folder(base)
    values = {
        "error": error,
        "seconds": seconds,
        "memory": memory,
        "left": left,
        "stored": _stored(src),
        "unpacked": sum(documents) + sum(budget.size for budget in budgets),
    }
    return json.dumps({**values, "report": report})


def _noted(budgets: list[Budget]) -> type[Budget]:
    """A class of budgets that adds each of its own to the list."""

    class Noted(Budget):
        def __init__(self, *arguments: t.Any) -> None:
            super().__init__(*arguments)
            budgets.append(self)

    return Noted


def _counting(documents: list[int]) -> t.Callable[..., Source]:
    """``open_source``, for sources that add the size of each document that they give to the list."""

    def opened(*arguments: t.Any) -> Source:
        source = open_source(*arguments)
        real = source.document

        def document(name: str) -> bytes:
            data = real(name)
            documents.append(len(data))
            return data

        source.document = document  # type: ignore[method-assign]
        return source

    return opened


def _stored(src: str) -> int:
    """The bytes of all files of an image."""
    if os.path.isfile(src):
        return os.path.getsize(src)
    return sum(
        os.path.getsize(os.path.join(folder, name)) for folder, _folders, names in os.walk(src) for name in names
    )


def _start_of_peak() -> int:
    """Forget the peak so far, which is the parent's; returns the memory that is resident now."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _peak()


def _peak() -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

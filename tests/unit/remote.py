# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives behind a URL, for the tests of those who read them."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.options import HttpOptions
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import Source
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Index, Layer, file, oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import give, run
from ansible_collections.hypervisor.oci.tests.unit.web import Web


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compression makes smaller, the same each time."""
    import random

    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "big")


BIG = Layer(file("big", noise(3_000_000)))
SMALL = Layer(file("small", b"small"))
IMAGE = Image([BIG, SMALL], ref="demo:1")
OTHERS = [
    Image([Layer(file("f", noise(2_000_000, 7)))], platform="linux/arm64"),
    Image([Layer(file("g", noise(2_000_000, 8)))], platform="linux/s390x"),
]
ARCHIVE = oci_archive(IMAGE)
MULTI = oci_archive(Index(IMAGE, *OTHERS))
TREE = {"big": noise(3_000_000), "small": b"small"}


@contextlib.contextmanager
def opened(url: str, **options: t.Any) -> t.Iterator[Source]:
    """The source behind a URL."""
    with contextlib.closing(open_source(url, HttpOptions(**options))) as source:
        yield source


def read(source: Source, layer: Layer) -> bytes:
    """A blob as a layer is read."""
    with contextlib.closing(source.open(layer.path)) as reader:
        return b"".join(iter(lambda: reader.read(64 * 1024), b""))


def problem(url: str, **options: t.Any) -> str:
    """What opening says."""
    with pytest.raises(OciError) as caught, opened(url, **options):
        pass
    return caught.value.message


def pull(web: Web, tmp_path: Path, **changes: t.Any) -> dict[str, t.Any]:
    """Provision from the server."""
    changes = {"src": web.url, "url_retries": 3, **changes}
    return run(tmp_path / "dest" / "root", **changes)


def left(tmp_path: Path) -> list[str]:
    """What lies beside dest, and in a cache, without the journal of a tree."""
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.suffix != ".journal"]
    return sorted(name for name in found if not name.startswith("dest/root/"))


def redirecting(target: str | None, status: int = 302) -> t.Callable[[t.Any], bool]:
    """Every request is sent elsewhere."""

    def redirect(handler: t.Any) -> bool:
        handler.status(status, **({"Location": target} if target else {}))
        return True

    return redirect


def waited(work: t.Callable[[], str], longest: float = 6.0) -> tuple[str, float]:
    """What an attack comes to, and after how long; an empty text where it does not end."""
    found: list[tuple[str, float]] = []
    began = time.monotonic()

    def attempt() -> None:
        found.append((work(), time.monotonic() - began))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(longest)
    return found[0] if found else ("", longest)


def call(
    module: t.Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], **params: t.Any
) -> tuple[dict[str, t.Any], str]:
    """What a module returns, and all that it writes."""
    give(monkeypatch, params)
    with pytest.raises(SystemExit):
        module.main()
    output = capfd.readouterr()
    result = json.loads(output.out)
    # how ansible-core 2.22 is told of secrets, which it takes out before it shows anything
    result.pop("_ansible_new_secrets", None)
    return result, json.dumps(result) + output.err

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must come of images that ask for too much, small enough for the unit tests, and in full size.

The bounds are of processor time and memory, several times what was measured.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.hypervisor.oci.tests.limits import images, layers
from ansible_collections.hypervisor.oci.tests.limits.layers import FIFO, FILE, HARD_LINK, SYMLINK
from ansible_collections.hypervisor.oci.tests.limits.measure import MIB, Measured

# The bounds of docs/behaviour.md, section 7, in processor seconds: for each MiB that is unpacked, above those that
# every image may take, and for each MiB that is stored, above those that the free entries may take. MiB of memory.
START_SECONDS = 1.0
UNPACKED_SECONDS = 0.5
FREE_SECONDS = 40.0
STORED_SECONDS = 150.0
MOST_MEMORY = 512

_STREAMS = "more than 65536 parts, and one for each KiB of its content, a fixed limit"
_SIZE = "bytes when decompressed; raise max_size"
_WHOLE = "bytes of max_size; raise max_size if you trust it"
_ENTRIES = "entries; raise max_entries"
_EXTENDED = "extended headers hold more than 1048576 bytes, a fixed limit"
_NAMES = "names of its members hold more than 33554432 bytes, a fixed limit"
_REGIONS = "more than 43690 regions, a fixed limit"
_STEPS = "lead through more than 1000000 links and levels, and 16 for each entry, a fixed limit"
_DOCUMENT = "bytes, more than 4194304, a fixed limit"
_DIRECTORIES = "the image's directories take more than 67108864 bytes, a fixed limit"
_VALUES = "more than 250000 values, a fixed limit"
_DOCUMENTS = "documents have more than 67108864 bytes together, counting 32 more for each value"


@dataclass(frozen=True)
class Case:
    """``make`` writes the image into a folder and returns its path.

    ``error`` stands in the message, and is empty where a tree must come; ``memory`` in MiB beyond the idle
    process and ``seconds`` of processor time are what it may take. ``verb`` is ``present`` or ``list``.
    ``outside`` says that bytes are decompressed outside of layers, where they are not counted.
    """

    name: str
    make: t.Callable[[str], str]
    error: str = ""
    memory: int = 48
    seconds: float = 10
    options: dict[str, t.Any] = field(default_factory=dict)
    verb: str = "present"
    outside: bool = False


def _case(name: str, make: t.Callable[..., str], *arguments: t.Any, **rest: t.Any) -> Case:
    def made(folder: str) -> str:
        return make(folder, *arguments)

    return Case(name, made, **rest)


def exceeded(case: Case, found: Measured) -> list[tuple[bool, str]]:
    """Whether each bound is, and in words."""
    # a blob of empty frames is read without anything that comes of it
    read = (found.unpacked + found.stored) / MIB
    return [
        (found.memory > case.memory * MIB, f"more than {case.memory} MiB"),
        (found.memory > MOST_MEMORY * MIB, f"more than {MOST_MEMORY} MiB"),
        (found.seconds > case.seconds, f"more than {case.seconds} s"),
        (
            found.seconds > START_SECONDS + UNPACKED_SECONDS * read and not case.outside,
            f"more than {UNPACKED_SECONDS} s for each MiB unpacked",
        ),
        (
            found.seconds > FREE_SECONDS + STORED_SECONDS * found.stored / MIB,
            f"more than {STORED_SECONDS} s for each MiB stored",
        ),
    ]


_SMALL = {"max_size": 200 * images.MIB}
_RECORDS = "more than 1000000 records, and 32 for each entry, a fixed limit"
_HEADERS = "more than 67108864 bytes, and 4096 for each entry, a fixed limit"
_REPEATED = "more than 250000 entries, and one for each 4 bytes of their blobs, a fixed"
_IMPLIED = "imply more than 20000 directories, and 4 for each entry, a fixed limit"
_REMEMBERED = "take more than 268435456 bytes of memory, a fixed limit"
_RANGES = [f"{1000 * number}:{100_000 + 1000 * number}:1000" for number in range(340)]
_MAPPED: dict[str, t.Any] = {"uid_map": _RANGES, "gid_map": _RANGES}
_FEW = {"max_entries": 5000}
_KEEP = {"keep_dirlinks": True}

FAST = (
    _case("ACLs of links", layers.acl_text, SYMLINK, "access", 4, seconds=1),
    _case("ACLs of hard links", layers.acl_text, HARD_LINK, "access", 4, seconds=1),
    _case("default ACLs of FIFOs", layers.acl_text, FIFO, "default", 4, seconds=1),
    _case("ACLs of a directory", layers.acl_of_directory, 20),
    _case("ACLs by many ranges", layers.acl_of_directory, 20, options=_MAPPED),
    _case("tiny records", layers.tiny_records, 200_000, 8, error=_RECORDS, seconds=4),
    _case("some tiny records", layers.tiny_records, 30, 4000),
    _case("forbidden attributes", layers.forbidden_xattrs, 1000),
    _case("encoded attributes", layers.file_xattrs, 500, "encoded"),
    _case("global headers", layers.empty_global_headers, 20),
    _case("paths of dots", layers.paths_of_dots, 5, FILE),
    _case("one-byte regions", layers.one_byte_regions, 2),
    _case("long names above", layers.long_names_above, 2000),
    _case("long names hidden", layers.long_names_hidden, 2000),
    _case("names at the top", layers.top_names, 5000, 100),
    _case("one file again", layers.same_again, FILE, 5000),
    _case("trees replaced", layers.trees_replaced, 200),
    _case("levels again", layers.levels_again, 10, 3000),
    _case("chains of links", layers.links_again, 15, 3000),
    _case("frames skipped", layers.zstd_skipped, 20_000),
    _case("large accounts", layers.large_accounts),
    _case("large configs", layers.large_configs, 4, error="4 images for"),
    _case(
        "a large environment", layers.large_environment, error="Env has 200000 entries, more than 10000, a fixed limit"
    ),
    _case("a gzip bomb", images.gzip_bomb, 4, error=_SIZE, options=_SMALL),
    _case("a zstd bomb", images.zstd_bomb, 4000, error=_SIZE, options=_SMALL),
    _case("a bzip2 bomb", images.bzip2_bomb, 6, error=_SIZE, options=_SMALL),
    _case("an xz bomb", images.xz_bomb, 4, error=_SIZE, options=_SMALL),
    _case("a dictionary of xz", images.xz_dictionary, 128 << 20, memory=160),
    _case("a larger dictionary", images.xz_dictionary, 256 << 20, error="134217728 bytes, a fixed"),
    _case("streams of xz", images.empty_streams, "xz", 20_000),
    _case("streams of bzip2", images.empty_streams, "bzip2", 20_000),
    _case("a zstd window", images.zstd_window, 28, error="134217728 bytes, a fixed"),
    _case("a larger window", images.zstd_window, 41, error="134217728 bytes, a fixed"),
    _case("gzip members", images.gzip_members, 20_000),
    _case("zstd frames", images.zstd_frames, 20_000),
    _case("entries", images.many_entries, 6000, error=_ENTRIES, options=_FEW),
    _case("implied ones", images.implied, 6000, error=_ENTRIES, options=_FEW),
    _case("levels", images.deep, 2000),
    _case("levels of entries", images.deep_one_by_one, 1000),
    _case("endless pax headers", images.endless_headers, b"x", 40, error=_EXTENDED),
    _case("endless global ones", images.endless_headers, b"g", 40, error=_EXTENDED),
    _case("endless long names", images.endless_headers, b"L", 40, error=_EXTENDED),
    _case("endless long links", images.endless_headers, b"K", 40, error=_EXTENDED),
    _case("a long uid", images.long_number, "uid", 100_000, error="pax record uid"),
    _case("a long mtime", images.long_number, "mtime", 99_000, error="record mtime"),
    _case("a long size", images.long_number, "size", 99_000, error="record size"),
    _case("an endless sparse map", images.sparse_blocks, 5000, error=_REGIONS),
    _case("a large sparse map", images.sparse_map, 10**6, error=_REGIONS),
    _case("a large hole", images.sparse_apparent, 2**62, error=_SIZE),
    _case("long ways", images.link_chain, 200, error=_STEPS),
    _case("long ways to keep", images.kept_links, 2000, options=_KEEP),
    _case("opaque marks", images.opaque_again, 2000, 500),
    _case("opaque layers", images.opaque_layers, 50, 20),
    _case("directories removed", images.folders_removed, 5000),
    _case("hard links", images.hard_links, 2000),
    _case("a large config", images.big_document, "config", 4 << 20, error=_DOCUMENT),
    _case("a large manifest", images.big_document, "manifest", 4 << 20, error=_DOCUMENT),
    _case("a large index", images.big_document, "index", 4 << 20, error=_DOCUMENT),
    _case("a large list", images.big_document, "index.json", 4 << 20, error=_DOCUMENT),
    _case("values", images.many_values, error=_VALUES),
    _case("deep JSON", images.deep_document, error=_VALUES),
    _case("less deep JSON", images.deep_document, 200_000, error="nested too deeply"),
    _case("layers", images.many_layers, 10_000, error="more than 1000, a fixed limit"),
    _case("nested indexes", images.nested_indexes, 33, error="32 nested indexes, a fixed"),
    _case("just as many", images.nested_indexes, 32),
    _case("one index again", images.repeated_index, 17, error=_DOCUMENTS),
    _case("one image by many names", images.repeated_manifest, 15_000, seconds=12),
    _case("one config again", images.shared_config, 20, error=_DOCUMENTS, memory=192),
    _case("one saved image", images.saved_again, 30, error=_DOCUMENTS),
    _case("one saved image by name", images.saved_names, 40_000),
    _case("members", images.many_members, 100_001, error="100000 members, a fixed limit"),
    _case("xattrs of directories", images.directory_xattrs, 90, error=_DIRECTORIES, memory=96),
    _case("small ones", images.small_directory_xattrs, 20, error=_DIRECTORIES, memory=96),
    _case("long names", images.long_names, 40, False, error=_NAMES),
    _case("compressed ones", images.long_names, 40, True, error=_NAMES),
    _case("a compressed archive", images.outer_bomb, 2, outside=True),
    _case("a larger one", images.outer_bomb, 4, error=_WHOLE, options=_SMALL, outside=True),
    _case("documents in one", images.many_documents, 34, error="33554432 bytes, a fixed"),
)

HEAVY = (
    _case("ACLs of links", layers.acl_text, SYMLINK, "access", 60),
    _case("ACLs of hard links", layers.acl_text, HARD_LINK, "access", 60),
    _case("default ACLs of files", layers.acl_text, FILE, "default", 60),
    _case("default ACLs of FIFOs", layers.acl_text, FIFO, "default", 60),
    _case("ACLs of a directory", layers.acl_of_directory, 2000, seconds=100),
    _case("ACLs by many ranges", layers.acl_of_directory, 2000, options=_MAPPED, seconds=100),
    _case("tiny records", layers.tiny_records, 200_000, 100, error=_RECORDS),
    _case("some tiny records", layers.tiny_records, 31, 100_000, seconds=60),
    _case("forbidden attributes", layers.forbidden_xattrs, 50_000, seconds=60),
    _case("small attributes", layers.file_xattrs, 30_000, "small", seconds=60),
    _case("encoded attributes", layers.file_xattrs, 4000, "encoded", seconds=60),
    _case("filtered attributes", layers.file_xattrs, 50_000, "filtered", seconds=60),
    _case("capabilities", layers.file_xattrs, 100_000, "capability", seconds=60),
    _case("global headers", layers.empty_global_headers, 100, error=_HEADERS),
    _case("paths of dots", layers.paths_of_dots, 60, FILE),
    _case("hard links through dots", layers.paths_of_dots, 60, HARD_LINK),
    _case("one-byte regions", layers.one_byte_regions, 100, seconds=60),
    _case("directories", layers.flat_directories, 1_000_000, error=_REMEMBERED, memory=320, seconds=200),
    _case(
        "directories of long names", layers.flat_directories, 1_000_000, 240, error=_REMEMBERED, memory=320, seconds=200
    ),
    _case("directories that are implied", images.implied, 1_000_000, error=_IMPLIED),
    _case("wide text listed", layers.wide_text, 15, memory=384, verb="list"),
    _case("all at once", layers.all_at_once, 420_000, memory=MOST_MEMORY, seconds=200),
    _case("names above", layers.long_names_above, 1_000_000, 8, memory=320, seconds=200),
    _case("long names above", layers.long_names_above, 1_000_000, error=_REMEMBERED, memory=320, seconds=200),
    _case("long names hidden", layers.long_names_hidden, 500_000, seconds=200),
    _case("names at the top", layers.top_names, 200_000, 900, seconds=100),
    _case("one file again", layers.same_again, FILE, 200_000, seconds=60),
    _case("one file again without end", layers.same_again, FILE, 2_000_000, 9, error=_REPEATED, seconds=60),
    _case("one link again", layers.same_again, SYMLINK, 200_000, seconds=60),
    _case("one hard link again", layers.same_again, HARD_LINK, 200_000, seconds=60),
    _case("one FIFO again", layers.same_again, FIFO, 200_000, seconds=60),
    _case("trees replaced", layers.trees_replaced, 6000, seconds=60),
    _case("levels again", layers.levels_again, 12, 200_000, seconds=100),
    _case("more levels again", layers.levels_again, 90, 200_000, error=_STEPS, seconds=60),
    _case("chains of links", layers.links_again, 15, 200_000, seconds=100),
    _case("whiteouts of nothing", layers.whiteouts_of_nothing, 200_000, seconds=60),
    _case("frames skipped", layers.zstd_skipped, 1_000_000, seconds=30),
    _case("large accounts", layers.large_accounts),
    _case("large configs", layers.large_configs, 16, error="images for", memory=192),
    _case("large configs listed", layers.large_configs, 16, memory=192, verb="list"),
    _case(
        "a large environment", layers.large_environment, error="Env has 200000 entries, more than 10000, a fixed limit"
    ),
    _case("extended attributes", images.many_xattrs, 20_000),
    _case("a gzip bomb", images.gzip_bomb, 200, error=_SIZE, options={"max_size": 8 << 30}, seconds=60),
    _case("a zstd bomb", images.zstd_bomb, 100_000, error=_SIZE, options={"max_size": 8 << 30}, seconds=60),
    _case("a bzip2 bomb", images.bzip2_bomb, 1000, error="and 32768 times its own, a fixed limit", seconds=60),
    _case("an xz bomb", images.xz_bomb, 200, error=_SIZE, options={"max_size": 8 << 30}, seconds=60),
    _case("streams of xz", images.empty_streams, "xz", 1_000_000, error=_STREAMS),
    _case("streams of bzip2", images.empty_streams, "bzip2", 1_000_000, error=_STREAMS),
    _case("gzip members", images.gzip_members, 1_000_000, seconds=30),
    _case("zstd frames", images.zstd_frames, 1_000_000, seconds=30),
    _case("a million entries", images.many_entries, 1_000_000, memory=96, seconds=300),
    _case("and again above", images.many_files_above, 300_000, memory=192, seconds=300),
    _case("a hundred thousand levels", images.deep, 100_000, error=_IMPLIED),
    _case("levels of entries", images.deep_one_by_one, 8000, seconds=120),
    _case("endless pax headers", images.endless_headers, b"x", 16_000, error=_EXTENDED),
    _case("an endless sparse map", images.sparse_blocks, 100_000, error=_REGIONS),
    _case("long ways", images.link_chain, 500_000, error=_STEPS),
    _case("long ways to keep", images.kept_links, 500_000, options=_KEEP, seconds=200),
    _case("opaque marks", images.opaque_again, 200_000, 200_000, memory=128, seconds=200),
    _case("opaque layers", images.opaque_layers, 1000, 900, seconds=200),
    _case("directories removed", images.folders_removed, 500_000, memory=512, seconds=200),
    _case("hard links", images.hard_links, 60_000, seconds=60),
    _case("a config of 64 MiB", images.big_document, "config", 64 << 20, error=_DOCUMENT),
    _case("a manifest of 64 MiB", images.big_document, "manifest", 64 << 20, error=_DOCUMENT),
    _case("an index of 64 MiB", images.big_document, "index", 64 << 20, error=_DOCUMENT),
    _case("a list of 64 MiB", images.big_document, "index.json", 64 << 20, error=_DOCUMENT),
    _case("a thousand layers", images.many_layers, 1000, seconds=30),
    _case("one index again", images.repeated_index, 32, error=_DOCUMENTS),
    _case("one config again", images.shared_config, 2000, error=_DOCUMENTS, memory=192),
    _case("the same listed", images.shared_config, 2000, error=_DOCUMENTS, memory=320, verb="list", seconds=30),
    _case("one saved image", images.saved_again, 30_000, error=_DOCUMENTS),
    _case("xattrs of directories", images.directory_xattrs, 4000, error=_DIRECTORIES, memory=96),
    _case("long names", images.long_names, 1000, False, error=_NAMES),
    _case("compressed ones", images.long_names, 4000, True, error=_NAMES),
    _case("a compressed archive", images.outer_bomb, 64, seconds=120, outside=True),
)

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""From an image to a root file system in an empty directory: layers in order, the user, the metadata."""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    ImageError,
    LayerError,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._image.image import (
    Image,
    Layer,
    open_layer,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.pipeline import (
    read_ahead,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.stream import (
    LayerStream,
    drain,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import (
    Applier,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import (
    Policy,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.removal import (
    empty_directory,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.root import Root
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.users import (
    ResolvedUser,
    resolve_user,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.decompress import (
    gzip_library,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import (
    Source,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._unpack_options import (
    UnpackOptions,
)


@dataclass(frozen=True)
class Unpacked:
    """What came of it: the counts, and the image's user as the tree itself resolves it."""

    report: Report
    user: ResolvedUser


class _OtherOrder(Exception):
    """The layers stand in another order than the diff_ids."""


def unpack(source: Source, image: Image, fd: int, options: UnpackOptions) -> Unpacked:
    """Apply all layers to the empty directory behind C(fd) and give it its final metadata.

    Layers are paired with diff_ids by position. Where a layer's content turns out to belong to another
    place in the list, the work starts over with the layers sorted by content (docs/behaviour.md,
    section 2). Raises C(LayerError), C(ImageError), C(RootfsError), C(MissingLibraryError), C(OSError).
    """
    # mknod and mkdir would otherwise drop bits that the image wants
    umask = os.umask(0)
    try:
        try:
            return _unpack(source, image, image.layers, fd, options)
        except _OtherOrder:
            empty_directory(fd)
            return _unpack(
                source, image, _by_content(source, image, options), fd, options
            )
    finally:
        os.umask(umask)


def _unpack(
    source: Source,
    image: Image,
    layers: t.Sequence[Layer],
    fd: int,
    options: UnpackOptions,
) -> Unpacked:
    report = Report()
    budget = Budget(options.max_size, options.max_entries)
    policy = Policy(
        report,
        options.preserve,
        options.uids,
        options.gids,
        options.xattrs,
        options.drop_acls,
    )
    at_hand = ""
    root = Root(fd, policy.of_missing_parent(), lambda: budget.add_entry(at_hand))
    applier = Applier(
        root, policy, report, budget, options.devices, options.keep_dirlinks
    )
    diff_ids = {layer.diff_id for layer in layers}
    try:
        for layer in layers:
            at_hand = layer.digest
            with contextlib.closing(open_layer(source, layer)) as blob:
                stream = LayerStream(layer, blob, budget)
                with read_ahead(stream, blob.cancel) as chunks:
                    applier.apply_layer(chunks, layer.digest)
            if stream.compression == "gzip":
                report.gzip = gzip_library()[0]
            if stream.mislabelled:
                report.count("media_types_wrong")
            if stream.diff_id != layer.diff_id:
                if stream.diff_id in diff_ids:
                    raise _OtherOrder
                raise LayerError(
                    f"its content has the diff_id {stream.diff_id}, which is not in the image config",
                    layer.digest,
                    advice="the archive is damaged: fetch the image again",
                )
        user = resolve_user(image.config.user, root)
        applier.finish()
        lost = report.counted("xattrs_unsupported")
        if lost:
            report.warnings.append(
                f"the file system of dest cannot hold {lost} extended attributes of the image, which were left out"
            )
    finally:
        root.close()
    return Unpacked(report, user)


def _by_content(source: Source, image: Image, options: UnpackOptions) -> list[Layer]:
    budget = Budget(options.max_size, options.max_entries)
    found = {}
    for layer in image.layers:
        with contextlib.closing(open_layer(source, layer)) as blob:
            found[drain(LayerStream(layer, blob, budget))] = layer
    ordered = []
    for position in image.layers:
        if position.diff_id not in found:
            raise ImageError(
                f"no layer of the image yields the diff_id {position.diff_id} of its config; fetch the image again"
            )
        ordered.append(replace(found[position.diff_id], diff_id=position.diff_id))
    return ordered

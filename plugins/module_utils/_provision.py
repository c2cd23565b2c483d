# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The verb: a source and options in, a root file system and a result out. Read this first.

The street runs from bytes to a tree: ``_source`` opens what holds the image, ``_image`` chooses one and
knows its layers and config, ``_layer`` makes verified entries of a blob, ``_rootfs`` applies them beside
dest and exchanges. Nothing here knows of Ansible.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from dataclasses import dataclass

from ._container.diff import CHANGED, MASK, bounded
from ._errors import RootfsError, SourceChangedError, os_advice, os_phrase, show
from ._image.image import Image
from ._image.platform import Platform
from ._image.selection import select_image
from ._dest.exchange import Beside
from ._fs.directories import open_existing
from ._rootfs.ids import parse_id_maps
from ._dest.place import UPLOADS, Place, Site, find_place, open_site
from ._dest.reach import FAIL, MappedRoot, ReachRule, Spot, mapped_root
from ._dest.record import FORMAT, Binding, Record, Tree, bind
from ._fs.syscalls import syncfs
from ._source.source import Source, Spooled
from ._source.sources import open_source
from ._unpack_options import UnpackOptions

if t.TYPE_CHECKING:
    from ._cache.blobs import BlobCache
    from ._dest.mounted import Inside
    from ._remote.http import HttpOptions
    from ._source.offer import OfferSource
    from ._transfer import Transfer

    Steps = t.Union[Beside, Inside]

Result = t.Dict[str, t.Any]

# A directory that the module makes above dest: setuid files of an image are nobody else's business, but
# the container's mapped root must be able to pass, by its group.
_CLOSED = 0o700
_FOR_GROUP = 0o710

# How often a run that waits for another looks again.
_POLL_SECONDS = 1.0

_MISSING = object()
# The resolved user is not known before a tree is there, and how an image was made is no setting of it.
_NOT_COMPARED = ("uid", "gid", "groups", "home", "history", "created")
_NO_BINDING = Binding(None, 0, None)


@dataclass(frozen=True)
class Options:
    """What the user asked for. ``state`` is ``present``, ``staged``, ``previous`` or ``absent``.

    ``platform`` is ``None`` for the node's own; ``lock_timeout`` in seconds; ``keep`` old trees stay. ``offer``
    is what the controller tells of an image that it has, ``upload_folder`` the folder that it has sent blobs to.
    ``reachable`` says what becomes of a dest that other users can reach: ``fail``, ``warn`` or ``allow``.
    ``http`` says how a server is spoken to. Blobs stay in ``cache_dir``, where one is named: at most
    ``cache_max_size`` bytes, and unused for ``cache_max_age`` days, 0 for ever. Only images of one ``cache_scope`` share
    them; it is empty for the source itself.
    """

    dest: str
    state: str
    unpack: UnpackOptions
    src: str = ""
    ref: str | None = None
    digest: str | None = None
    platform: Platform | None = None
    force: bool = False
    recreate: bool = False
    ignore_use: bool = False
    lock_timeout: float = 300.0
    keep: int = 1
    reachable: str = FAIL
    offer: str = ""
    upload_folder: str = ""
    http: HttpOptions | None = None
    cache_dir: str = ""
    cache_max_size: int = 0
    cache_max_age: int = 0
    cache_scope: str = ""


def provision(options: Options, check_mode: bool) -> Result:
    """Bring dest into the state asked for; in check mode, say what would change and write nothing.

    Returns the module's result (docs/behaviour.md, section 8) with ``warnings`` in it. Raises ``OciError``.
    """
    verbs = {"previous": _previous, "absent": _absent}
    try:
        return verbs.get(options.state, _present)(options, check_mode)
    except OSError as error:
        # a descriptor's number would tell nobody anything
        named = isinstance(error.filename, (str, bytes)) and error.filename
        name = f" ({show(os.fsencode(error.filename))})" if named else ""
        advice = os_advice(error) or "look at the file systems of src and dest"
        raise RootfsError(
            f"{show(options.dest)} could not be worked on: {os_phrase(error)}{name}; {advice}"
        ) from error


def _present(options: Options, check_mode: bool) -> Result:
    try:
        return _present_once(options, check_mode)
    except SourceChangedError:
        # nothing of it is left: one clean start with what is there now, and then its error is to be told
        return _present_once(options, check_mode)


def _present_once(options: Options, check_mode: bool) -> Result:
    deadline = time.monotonic() + options.lock_timeout
    with contextlib.closing(_open_source(options)) as source:
        digest = options.digest
        if options.offer and t.cast("OfferSource", source).pinned == digest:
            # the index that it names was looked at where the image lies, and is not offered
            digest = None
        image = select_image(source, options.ref, digest, options.platform)
        while True:
            result = _present_image(options, check_mode, source, image)
            if result is not None:
                return result
            if time.monotonic() > deadline:
                raise RootfsError(
                    f"another run sends an image for {show(options.dest)} and was not done after"
                    f" {options.lock_timeout:g} seconds; wait for it or raise lock_timeout"
                )
            time.sleep(_POLL_SECONDS)


def _open_source(options: Options) -> Source:
    if not options.offer:
        return open_source(options.src, options.http, options.unpack.max_size)
    from ._source.offer import OfferSource, read_offer

    offer, status = read_offer(options.offer)
    return OfferSource(offer, status.st_uid, status.st_gid)


def _present_image(
    options: Options, check_mode: bool, source: Source, image: Image
) -> Result | None:
    """The result; ``None`` where another run is sending blobs to the same dest."""
    fingerprint = _fingerprint(image, options.unpack)
    with _open(options, check_mode) as (site, steps), contextlib.ExitStack() as stack:
        if options.state == "staged":
            _require_stageable(site)
        record = site.load()
        if not check_mode:
            record = steps.recover(record)
        current = steps.current(record)
        if (
            current is not None
            and current.fingerprint == fingerprint
            and not options.recreate
        ):
            if not check_mode:
                if record.next is not None:
                    # a staged tree that is no longer wanted
                    record = steps.discard_next(record)
                steps.prune(record)
                _forget_transfers(site)
            result = _result(options, image, current, current, False)
            result["warnings"] += _judge_reach(options, site, current, filling=False)
            return _told(site, result)
        _require_ours(options, site, steps, record)
        staged = _usable_stage(options, steps, record, fingerprint)
        if options.state == "present":
            steps.check_use()
        if staged is not None and options.state == "staged":
            result = _result(options, image, current, staged, False)
            result["warnings"] += _judge_reach(options, site, staged)
            return _told(site, result)
        cache = None
        if staged is None:
            if options.cache_dir:
                cache = _open_cache(options, source, site.path, check_mode)
                stack.callback(cache.close)
            _require_room(site.place, image, source.spooled_size or 0, cache)
        if check_mode:
            tree = staged or _predicted(image)
            result = _result(options, image, current, tree, True)
            result["warnings"] += _judge_reach(options, site, tree)
            return result
        fresh = staged is None
        if fresh:
            if options.offer:
                transfer = _transfer(options, site, source, image, cache)
                stack.callback(transfer.close)
                if transfer.other_sender_active:
                    return None
                needed = transfer.missing()
                if needed:
                    _require_room(site.place, image, sum(needed.values()), cache)
                    request = transfer.request().to_result()
                    return {"changed": False, "upload_request": request, "warnings": []}
                stack.enter_context(transfer.used())
            record = _stage(
                options, source, image, site, steps, record, fingerprint, cache
            )
            if not options.offer:
                _forget_transfers(site)
        tree = record.next or _predicted(image)
        try:
            exposure = _judge_reach(options, site, tree)
            if options.state == "present":
                record = steps.commit(record)
        except BaseException:
            if fresh:
                _abandon(site, steps)
            raise
        result = _result(options, image, current, tree, True)
        result["warnings"] += exposure
        result["warnings"] += _kept_foreign(steps, record)
        if cache is not None:
            cache.prune()
            result["warnings"] += cache.warnings
        return _told(site, result)


def _open_cache(options: Options, source: Source, dest: str, dry: bool) -> BlobCache:
    from ._cache.blobs import BlobCache

    path = os.path.realpath(options.cache_dir)
    if os.path.commonpath([path, dest]) in (path, dest):
        raise RootfsError(
            f"cache_dir {show(path)} and dest {show(dest)} lie in each other; choose another cache_dir"
        )
    scope = _scope_of(options, source)
    return BlobCache(path, scope, options.cache_max_size, options.cache_max_age, dry)


def _scope_of(options: Options, source: Source) -> str:
    """Who may use the blobs that this run brings: as the user says, else later runs with the same source."""
    from ._cache import scope as _cache_scope

    if options.cache_scope:
        return _cache_scope.scope_named(options.cache_scope)
    if options.offer:
        return _cache_scope.scope_of_offer(source.path)
    if options.http is not None:
        return _cache_scope.scope_of_url(options.src, options.http)
    return _cache_scope.scope_of_path(options.src)


def _transfer(
    options: Options,
    site: Site,
    source: Source,
    image: Image,
    cache: BlobCache | None,
) -> Transfer:
    # a run that changes nothing never comes here, and need not read all of that code
    from ._transfer import Transfer

    return Transfer(
        site, t.cast("OfferSource", source), image, options.upload_folder, cache
    )


def _forget_transfers(site: Site, active: bool = False) -> None:
    """What was to come is here, or is no longer wanted; the ``active`` one of another run is spared."""
    if site.read(UPLOADS) is None:
        return
    from ._transfer import remove_uploads

    remove_uploads(site, active)


def _previous(options: Options, check_mode: bool) -> Result:
    with _open(options, check_mode) as (site, steps):
        record = site.load()
        if not check_mode:
            record = steps.recover(record)
        current = steps.current(record)
        _require_ours(options, site, steps, record)
        old = steps.previous(record)
        exposure = _judge_reach(options, site, old)
        steps.check_use()
        if not check_mode:
            steps.restore_previous(record)
        return {
            "changed": True,
            "dest": options.dest,
            **old.result,
            "diff": _diff(options.dest, current, old),
            "warnings": [*exposure, *site.warnings],
        }


def _absent(options: Options, check_mode: bool) -> Result:
    with _open(options, check_mode) as (site, steps):
        before = _state_of(site)
        record = site.load()
        if not check_mode:
            record = steps.recover(record)
        current = steps.current(record)
        _require_ours(options, site, steps, record)
        content = steps.has_content(record)
        changed = before[1] is not None or steps.has_something(record, options.force)
        kept: list[str] = []
        if changed:
            steps.check_use()
            if not check_mode:
                _forget_transfers(site, True)
                kept = steps.remove(record, options.force)
                # what could not be removed the last time either is no change
                changed = content or _state_of(site) != before
        return {
            "changed": changed,
            "dest": options.dest,
            "diff": _diff(options.dest, current, None),
            "warnings": [*map(_kept_warning, kept), *site.warnings],
        }


def _state_of(site: Site) -> tuple[Record, bytes | None]:
    return site.load(), site.read(UPLOADS)


@contextlib.contextmanager
def _open(options: Options, check_mode: bool) -> t.Iterator[tuple[Site, Steps]]:
    place = find_place(options.dest)
    # nothing is made above a dest that is to be absent
    dry = check_mode or (
        options.state in ("absent", "previous") and not os.path.isdir(place.parent)
    )
    root = mapped_root(options.unpack.uids, options.unpack.gids)
    mode, group = (_CLOSED, -1) if root is None else (_FOR_GROUP, root.gid)
    with open_site(place, options.lock_timeout, mode, dry, group) as site:
        if place.inside:
            from ._dest.mounted import Inside

            yield site, Inside(site, options.ignore_use)
        else:
            yield site, Beside(site, options.ignore_use, options.keep)


def _fingerprint(image: Image, options: UnpackOptions) -> Result:
    """What makes two runs the same (docs/behaviour.md, section 7)."""
    return {
        "format": FORMAT,
        "manifest_digest": image.manifest_digest,
        "config_digest": image.config_digest,
        "platform": str(image.platform),
        "options": options.to_fingerprint(),
    }


def _require_ours(options: Options, site: Site, steps: Steps, record: Record) -> None:
    if not options.force and steps.holds_foreign(record):
        raise RootfsError(
            f"{show(site.path)} is not empty and was not made by this module (or was changed as a whole since);"
            " choose another dest, or set force: true to replace it"
        )


def _require_stageable(site: Site) -> None:
    """A tree that waits in a mount point is in reach of the container, whenever that runs. Raises ``RootfsError``."""
    if site.place.inside:
        raise RootfsError(
            f"{show(site.path)} is a mount point, where the container could change a staged tree before it is used;"
            " stop the container and use state: present, or use a directory below the mount point as dest"
        )


def _told(site: Site, result: Result) -> Result:
    """The result, with what went wrong beside it."""
    result["warnings"] += site.warnings
    return result


def _usable_stage(
    options: Options, steps: Steps, record: Record, fingerprint: Result
) -> Tree | None:
    if options.recreate or record.next is None:
        return None
    if record.next.fingerprint != fingerprint or not steps.has_staged(record):
        return None
    return record.next


def _stage(
    options: Options,
    source: Source,
    image: Image,
    site: Site,
    steps: Steps,
    record: Record,
    fingerprint: Result,
    cache: BlobCache | None,
) -> Record:
    """Unpack into a fresh staging directory and make it durable; on any error nothing of it is left."""
    # a run that changes nothing never comes here, and need not read all of that code
    from ._unpack import unpack

    if record.next is not None:
        record = steps.discard_next(record)
    try:
        record, fd = steps.stage(record)
        try:
            binding = bind(fd)
            # a spool has no name, and so is no part of the tree
            with contextlib.closing(Spooled(source, fd)) as blobs:
                unpacked = unpack(blobs, image, fd, options.unpack, cache)
            syncfs(fd)
            mtime = os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
        user = unpacked.user
        result = {
            **_identity(image),
            "image": {**image.config.to_facts(), **user.to_facts()},
            "report": unpacked.report.to_dict(),
        }
        warnings = [*unpacked.report.warnings]
        if user.warning:
            warnings.append(user.warning)
        tree = Tree(binding, fingerprint, {**result, "warnings": warnings}, "", mtime)
        return steps.staged(record, tree)
    except BaseException:
        # not only errors: whoever interrupts the run must find nothing of it either
        _abandon(site, steps)
        raise


def _abandon(site: Site, steps: Steps) -> None:
    """Remove what a failed run made; where the disk fails there too, the first error is the one to tell."""
    with contextlib.suppress(OSError, RootfsError):
        steps.abandon(site.load())


def _identity(image: Image) -> Result:
    return {
        "manifest_digest": image.manifest_digest,
        "config_digest": image.config_digest,
        "ref": image.ref,
        "platform": str(image.platform),
        "layers": [layer.to_result() for layer in image.layers],
    }


def _predicted(image: Image) -> Tree:
    """What is known of a tree before it is made: all but the user and the report."""
    user = {"uid": None, "gid": None, "groups": None, "home": None}
    facts = {**image.config.to_facts(), **user}
    result = {**_identity(image), "image": facts, "report": None, "warnings": []}
    return Tree(binding=_NO_BINDING, result=result)


def _result(
    options: Options, image: Image, current: Tree | None, tree: Tree, changed: bool
) -> Result:
    result = dict(tree.result)
    warnings = [*image.warnings, *result.pop("warnings", [])]
    return {
        "changed": changed,
        "dest": options.dest,
        **result,
        # records of earlier releases do not have it
        "image": {"home": None, **result.get("image", {})},
        # the same image may go by another name today
        "ref": image.ref,
        "diff": _diff(options.dest, current, tree),
        "warnings": warnings,
    }


def _diff(dest: str, before: Tree | None, after: Tree | None) -> Result:
    """Digests, layers added and dropped, and the config fields that change."""
    old = before.result if before is not None else {}
    new = after.result if after is not None else {}
    return {
        "before_header": f"{dest} (before)",
        "after_header": f"{dest} (after)",
        "before": _side(old, new, MASK),
        "after": _side(new, old, CHANGED),
    }


def _side(one: Result, other: Result, changed: str) -> Result:
    """What one side of a diff has and the other has not; the digests always.

    Values of environment variables may be secrets: ``changed`` stands for one that the other side has, too.
    """
    if not one:
        return {}
    shown: Result = {
        key: one.get(key) for key in ("manifest_digest", "config_digest", "platform")
    }
    others = [layer["digest"] for layer in other.get("layers", [])]
    layers = [layer["digest"] for layer in one.get("layers", [])]
    shown["layers"] = [digest for digest in layers if digest not in others]
    image = one.get("image", {})
    rest = other.get("image", {})
    shown["image"] = {
        key: bounded(value)
        for key, value in image.items()
        if key not in (*_NOT_COMPARED, "env") and rest.get(key, _MISSING) != value
    }
    env, others = image.get("env", {}), rest.get("env", {})
    if env != others:
        shown["image"]["env"] = bounded(
            {
                name: changed if name in others else MASK
                for name, value in env.items()
                if others.get(name, _MISSING) != value
            }
        )
    return shown


def _require_room(
    place: Place, image: Image, arriving: int, cache: BlobCache | None
) -> None:
    """Compare what is known to be needed with what is free; ``arriving`` bytes come beside the tree.

    What the cache holds there counts as free, since it goes when room is needed. Raises ``RootfsError``.
    """
    fd, _missing = open_existing(
        os.fsencode(place.path if place.inside else place.parent)
    )
    # a lower bound: content is at least as large as its compressed form, and layers may replace files
    needed = max((layer.size or 0 for layer in image.layers), default=0)
    needed += arriving
    try:
        status = os.fstatvfs(fd)
        free = status.f_bavail * status.f_frsize
        if free < needed and cache is not None:
            free += cache.room(fd)
    finally:
        os.close(fd)
    if free < needed:
        raise RootfsError(
            f"the image needs at least {needed} bytes, and the file system of {show(place.path)} has {free} free;"
            " make room there and run again"
        )


def _judge_reach(
    options: Options, site: Site, tree: Tree, filling: bool = True
) -> list[str]:
    """Warnings about users who can reach files of an image that give rights away. Raises ``RootfsError``."""
    report = tree.result.get("report")
    rights = None if report is None else report.get("counts", {})
    if rights is None and not options.unpack.preserve:
        # everything becomes the caller's, and no such file is made
        rights = {}
    rule = ReachRule(options.reachable, _root_of(options, tree))
    spot = Spot("dest", site.path, site.parent, site.place.parent)
    return rule.judge(spot, rights, filling)


def _root_of(options: Options, tree: Tree) -> MappedRoot | None:
    """The container's root on the host: an earlier tree has its own id map, whatever this run asks for."""
    made_with = (tree.fingerprint or {}).get("options")
    if made_with is None:
        return mapped_root(options.unpack.uids, options.unpack.gids)
    return mapped_root(*parse_id_maps(made_with["uid_map"], made_with["gid_map"]))


def _kept_foreign(steps: Steps, record: Record) -> list[str]:
    return [_kept_warning(path) for path in steps.path_of_kept(record)]


def _kept_warning(path: str) -> str:
    return f"what was at dest before this module came is kept in {path}; remove it when you need it no longer"

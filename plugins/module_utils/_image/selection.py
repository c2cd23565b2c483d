# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Select one image of a source (docs/behaviour.md, section 2)."""

from __future__ import annotations

import typing as t

from .._errors import ImageError, SourceChangedError, SourceError, show
from .candidate import Candidate
from .candidates import find_candidates, passed_over
from .digest import Digest
from .image import Image
from .loading import Loaded, load, to_image
from .names import matches
from .platform import Platform, node_platform
from .._source.source import Source

_MOST_LISTED = 20
_MOST_NAMES = 5


class _Damaged(t.NamedTuple):
    """A candidate whose documents cannot be read."""

    candidate: Candidate
    error: ImageError | SourceError


def select_image(source: Source, ref: str | None, digest: str | None, platform: Platform | None) -> Image:
    """Select an image, and check that the source has all of its blobs. Raises ``ImageError``, ``SourceError``."""
    candidates = find_candidates(source)
    return to_image(source, select(source, candidates, ref, digest, platform), ref)


def select(
    source: Source, candidates: list[Candidate], ref: str | None, digest: str | None, platform: Platform | None
) -> Loaded:
    """Select one candidate, without checking its layers. Raises ``ImageError``, ``SourceError``.

    Documents are read only of candidates that ref, digest and the platform of their descriptors allow.
    """
    wanted = platform or node_platform()
    pin = None if digest is None else Digest(digest, "the option digest")
    named = by_ref(candidates, ref)
    chosen = [item for item in (named if pin is None else by_digest(source, named, pin)) if item.present]
    fitting = [item for item in chosen if item.platform is None or wanted.rank_of(item.platform) is not None]
    loaded, damaged = _load_each(source, fitting)
    finalists = _best(loaded, wanted)
    if not finalists and platform is None and len(fitting) == len(chosen):
        finalists = _only(loaded, wanted)
    _require_sound(damaged, finalists, wanted)
    if len(finalists) == 1:
        return finalists[0]
    asked = asked_in_words(ref, pin, wanted)
    if finalists:
        options = "ref, digest or platform" if platform is None else "ref or digest"
        raise ImageError(
            f"{show(source.path)} holds {len(finalists)} images {asked}: {_listed(finalists)}; choose one by {options}"
        )
    advice = _advice(chosen, fitting, loaded, (platform, pin))
    raise no_image(source, candidates, asked, advice, with_digests=pin is not None)


def by_ref(candidates: list[Candidate], ref: str | None) -> list[Candidate]:
    """Return the candidates with a name. A bare tag matches only if no full name does."""
    if ref is None:
        return candidates
    for loosely in (False, True):
        found = [item for item in candidates if matches(ref, item.refs, loosely)]
        if found:
            return found
    return []


def by_digest(source: Source, candidates: list[Candidate], digest: Digest) -> list[Candidate]:
    """Return the candidates whose manifest, index or config has a digest.

    Manifests are read only if no descriptor has the digest. Raises ``SourceChangedError``, and ``ImageError`` if one that
    cannot be read may name a config that has it.
    """
    found = [
        item
        for item in candidates
        if digest in item.via or (item.manifest is not None and item.manifest.digest == digest)
    ]
    if found:
        return found
    unread: list[str] = []
    found = [item for item in candidates if _has_config(source, item, digest, unread)]
    if not found and unread:
        raise ImageError(
            f"{show(source.path)}: no descriptor has the digest {digest}, and {len(unread)} of {len(candidates)} images cannot"
            f" be read that may have a config with it: {unread[0]}; if it is such an image, use the digest of its manifest"
        )
    return found


def require_readable(candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates of which more is known than that they are damaged. Raises ``ImageError``.

    A damaged one may be any image, so it hinders the choice of another one from the same list.
    """
    sound = [item for item in candidates if not item.problem]
    lists = {item.listed_in for item in sound}
    for item in candidates:
        if item.problem and (not sound or item.listed_in in lists):
            raise ImageError(item.problem)
    return sound


def no_image(
    source: Source, candidates: list[Candidate], asked: str, advice: str = "", with_digests: bool = False
) -> ImageError:
    """Return the error for a source without a matching image; it says which images, or what else, the source holds."""
    images, others = [], []
    for candidate in candidates[:_MOST_LISTED]:
        kind = _artifact_in_words(source, candidate)
        if kind is None:
            images.append(_in_words(source, candidate, with_digests))
        else:
            others.append(f"{_names(candidate)}, which is {kind}")
    if len(candidates) > _MOST_LISTED:
        images.append(f"and {len(candidates) - _MOST_LISTED} more")
    if not images:
        others += [f"{kind} ({number} times)" if number > 1 else kind for kind, number in passed_over(source).items()]
    held = "it holds " + "; ".join(images or others) if images or others else "its list of images is empty"
    return ImageError(f"{show(source.path)} holds no image {asked}; {held}{advice and '; '}{advice}")


def asked_in_words(ref: str | None, digest: str | None, platform: Platform | None) -> str:
    """Return the selection criteria for a message."""
    words = [f"for {platform}"] if platform is not None else []
    if ref is not None:
        words.append(f"with the name {show(ref)}")
    if digest is not None:
        words.append(f"with the digest {digest}")
    return " ".join(words)


def _has_config(source: Source, candidate: Candidate, digest: Digest, unread: list[str]) -> bool:
    """Return whether the config has a digest; add to ``unread`` why that cannot be told."""
    if candidate.problem or not candidate.present:
        return False
    try:
        return candidate.config_digest(source) == digest
    except SourceChangedError:
        raise
    except (ImageError, SourceError) as error:
        # if another image has the digest, a damaged neighbour is not what was asked for
        unread.append(error.message)
        return False


def _load_each(source: Source, candidates: list[Candidate]) -> tuple[list[Loaded], list[_Damaged]]:
    """Load each candidate for itself. Raises ``SourceChangedError``."""
    loaded: list[Loaded] = []
    damaged = []
    for candidate in candidates:
        try:
            loaded += load(source, [candidate])
        except SourceChangedError:
            raise
        except (ImageError, SourceError) as error:
            damaged.append(_Damaged(candidate, error))
    return loaded, damaged


def _best(loaded: list[Loaded], wanted: Platform) -> list[Loaded]:
    """Return the images, each once, whose platform serves the wanted one best."""
    ranked = [(wanted.rank_of(item.platform), item) for item in loaded]
    served = [(rank, item) for rank, item in ranked if rank is not None]
    best = min((rank for rank, _item in served), default=0)
    return list({item.identity: item for rank, item in served if rank == best}.values())


def _only(loaded: list[Loaded], wanted: Platform) -> list[Loaded]:
    """Return the only image if it does not say its platform and does not contradict the wanted one."""
    images = {item.identity: item for item in loaded}
    item = next(iter(images.values()), None)
    if item is None or len(images) != 1 or item.platform.is_complete or not item.platform.may_be(wanted):
        return []
    return [item]


def _require_sound(damaged: list[_Damaged], finalists: list[Loaded], wanted: Platform) -> None:
    """Raise the error of a damaged candidate that could have been selected instead of the finalists.

    An item of manifest.json does not compete with images of index.json, which lists the same ones, nor the reverse.
    """
    for candidate, error in damaged:
        if not finalists:
            raise error
        rivals = [item for item in finalists if item.candidate.listed_in == candidate.listed_in]
        own = 0 if candidate.platform is None else wanted.rank_of(candidate.platform)
        ranks = [wanted.rank_of(item.platform) for item in rivals]
        if any(rank is None or own is None or own <= rank for rank in ranks):
            raise ImageError(f"{error.message}; or choose another image by ref or digest") from error


def _advice(
    chosen: list[Candidate],
    fitting: list[Candidate],
    loaded: list[Loaded],
    asked: tuple[Platform | None, Digest | None],
) -> str:
    """Return what the user can do if an image differs only in its platform; empty if none does."""
    platform, pin = asked
    if any(not item.platform.is_complete for item in loaded):
        steps = [] if pin is not None else ["choose it by digest"]
        steps += [] if platform is None else ["leave out platform"]
        return f"if the image without a platform is the right one, {' and '.join(steps)}" if steps else ""
    if not loaded and len(fitting) == len(chosen):
        return ""
    return "set platform to one that it holds"


def _listed(items: t.Sequence[Loaded]) -> str:
    words = [_image_in_words(item, True) for item in items]
    shown = "; ".join(words[:_MOST_LISTED])
    rest = len(words) - _MOST_LISTED
    return f"{shown}; and {rest} more" if rest > 0 else shown


def _image_in_words(item: Loaded, with_digest: bool) -> str:
    words = f"{_names(item.candidate)} for {item.platform.in_words()}"
    return f"{words} with the digest {item.identity}" if with_digest else words


def _artifact_in_words(source: Source, candidate: Candidate) -> str | None:
    """Return what a candidate is that is not an image; None if it is one, or may be."""
    if candidate.problem or candidate.manifest is None or not candidate.present:
        return None
    try:
        manifest = candidate.manifest_document(source)
        return candidate.artifact_in_words(manifest) if candidate.config_descriptor(manifest) is None else None
    except SourceChangedError:
        raise
    except (ImageError, SourceError):
        return None


def _in_words(source: Source, candidate: Candidate, with_digest: bool) -> str:
    """Return what a candidate is, for the message that lists all."""
    names = _names(candidate)
    if not candidate.present:
        platform = candidate.platform or "an unknown platform"
        return f"{names} for {platform} (not in this archive)"
    try:
        return _image_in_words(load(source, [candidate])[0], with_digest)
    except SourceChangedError:
        raise
    except (ImageError, SourceError) as error:
        return f"{names}, which is damaged: {error.message}"


def _names(candidate: Candidate) -> str:
    shown = ", ".join(map(show, candidate.refs[:_MOST_NAMES])) or "an image without a name"
    rest = len(candidate.refs) - _MOST_NAMES
    return f"{shown} (and {rest} more names)" if rest > 0 else shown

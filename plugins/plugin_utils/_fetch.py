# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Fetch an image on the controller, once for all nodes that may have it (docs/behaviour.md, section 7).

What forks share is keyed by the URL and by everything that may decide what its server answers, credentials above all: a
host is offered nothing, and sent nothing, that was fetched for the credentials of another host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import netrc
import os
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.parsing.convert_bool import boolean

from ..module_utils._cache.scope import scope_of_url
from ..module_utils._errors import OciError, SourceChangedError, SourceError, os_phrase, show
from ..module_utils._remote.arguments import HTTP_ARGUMENTS, http_options
from ..module_utils._remote.credentials import credentials
from ..module_utils._remote.url import is_url, parse_url
from ..module_utils._size_arguments import parse_max_size
from ..module_utils._source.sent import blob_digest
from ..module_utils._source.sources import open_source
from ..module_utils._source.verified import VerificationError
from ._partial import Blob, derive, open_partials
from ._single_flight import SingleFlight
from ._staging import Bundle, Staging

if t.TYPE_CHECKING:
    from ..module_utils._remote.http import HttpOptions
    from ..module_utils._source.offer import Offer
    from ..module_utils._source.range_reader import RangeReader
    from ..module_utils._source.source import Source
    from ._criteria import Criteria
    from ._partial import Partials
    from ._progress import Progress

Args = t.Mapping[str, t.Any]

CHOICES = ("node", "controller")
# Paths among the options, which are those of the controller.
_PATHS = ("ca_path", "client_cert", "client_key")


def is_fetched_here(args: Args, is_async: bool) -> bool:
    """Return whether the controller fetches a task's ``src``. Raises ``OciError`` for options that contradict it."""
    fetch = args.get("fetch")
    if fetch in (None, ""):
        return False
    if fetch not in CHOICES:
        raise OciError(f"fetch is {show(str(fetch))}; give {' or '.join(CHOICES)}")
    if not is_url(str(args["src"])):
        raise OciError("fetch is for a URL, and src is a path; leave fetch out")
    if fetch == "node":
        return False
    if boolean(args.get("remote_src", False), strict=False):
        raise OciError("remote_src: true says that the node has src, and fetch: controller that it does not; drop one")
    if is_async:
        raise OciError("async cannot send what the controller fetches; leave async out, or set fetch: node")
    return True


def arguments_for_node(args: Args) -> dict[str, t.Any]:
    """Return a task's arguments without all that only the fetch needs, secrets and credentials among it."""
    kept = {name: value for name, value in args.items() if name not in HTTP_ARGUMENTS and name != "fetch"}
    return {**kept, "src": parse_url(str(args["src"])).shown}


class FetchedImage:
    """The image at a task's URL, fetched with the task's options.

    ``resolve`` makes the paths among these absolute; ``tell`` is called with what a user should know of the transfer.
    Raises ``OciError``.
    """

    def __init__(self, args: Args, resolve: t.Callable[[str], str], tell: t.Callable[[str], None]) -> None:
        self._src = str(args["src"])
        self._url = parse_url(self._src)
        self.path = self._url.shown
        self.max_size = parse_max_size(args)
        self._http = _parse_options(self._src, args, resolve, tell)
        self._secret = _identity(self._src, self._http)

    def key(self) -> str:
        """Return a file name that is different for different URLs and for different credentials."""
        return derive(self._secret, "staging")[:32]

    def scope(self) -> str:
        """Return what stands for this source on nodes; a new password is no new source."""
        return derive(scope_of_url(self._src, self._http).encode(), "scope")

    def partial_name(self, digest: str) -> str:
        """Return the name of what earlier runs fetched of a blob from here with these credentials."""
        return derive(self._secret, digest)

    def open(self) -> Source:
        """Open the image. Raises ``SourceError``."""
        return open_source(self._src, self._http, self.max_size)

    def tell(self, note: str) -> None:
        """Tell the user something about the transfer."""
        self._http.tell(note)


class FetchedStaging(Staging):
    """The staged files of an image that the controller fetches.

    They stay for the whole run of ansible-playbook, so that later plays and batches get the same image from the same
    files. ``progress`` makes the progress of a transfer of blobs, which are given by name and size in bytes.
    """

    def __init__(
        self, image: FetchedImage, local_tmp: str, criteria: Criteria, progress: t.Callable[[dict[str, int]], Progress]
    ) -> None:
        super().__init__(image, local_tmp, criteria)
        self._fetched = image
        self._progress = progress
        self._flight = SingleFlight(self._folder)
        self._partials: Partials | None = None

    def __enter__(self) -> FetchedStaging:
        super().__enter__()
        self._at_exit.callback(self._flight.end_session)
        self._at_exit.callback(self._close_partials)
        return self

    def _close_partials(self) -> None:
        if self._partials is not None:
            self._partials.close()

    def _remove_blobs(self, in_use: int) -> None:
        """Keep them: a server should not be asked again."""

    @contextlib.contextmanager
    def _turn(self, path: str) -> t.Iterator[bool]:
        with self._flight.turn(lambda: os.path.exists(path)) as mine:
            yield mine

    def _stages_all(self) -> bool:
        """Return true: whoever talks to the server fetches all that it needs."""
        return True

    def _make_offer(self) -> Offer:
        try:
            offer = super()._make_offer()
        except SourceChangedError:
            # start once more with what is there now
            self._close_source()
            offer = super()._make_offer()
        return dataclasses.replace(offer, scope=self._fetched.scope())

    def _stage(self, groups: t.Sequence[tuple[str, ...]]) -> None:
        sizes = self.sizes()
        missing = [names for names in groups if not os.path.exists(self._bundle(names).path)]
        self._prepare_partials()
        progress = self._progress({name: sizes[name] for names in missing for name in names})
        for names in missing:
            with progress.sending(names):
                try:
                    super()._stage([names])
                except SourceChangedError:
                    # what was fetched is verified, so it stays
                    self._close_source()
                    super()._stage([names])
        self._flight.end_session()

    def _stage_blob(self, name: str, bundle: Bundle) -> None:
        """Stage a blob by way of the folder that keeps what an interrupted run leaves of it."""
        digest = blob_digest(name)
        if self._partials is None or digest is None or self._is_stream():
            super()._stage_blob(name, bundle)
            return

        def open_at(offset: int) -> RangeReader:
            reader = self._open_blob(self._readable(), name)
            reader.skip(offset)
            return reader

        blob = Blob(digest, self.sizes()[name], open_at)
        try:
            if self._partials.stage(self._fetched.partial_name(digest), blob, bundle.path):
                return
        except VerificationError as error:
            raise self._damaged(name) from error
        except OSError as error:
            raise SourceError(
                f"cannot keep what comes of {show(self._path)} in {show(self._partials.path)}: {os_phrase(error)}; make"
                " room there, or set XDG_CACHE_HOME"
            ) from error
        # another run is fetching the same blob, or it is too large to be kept
        super()._stage_blob(name, bundle)

    def _prepare_partials(self) -> None:
        if self._partials is not None:
            return
        try:
            self._partials = open_partials()
        except SourceError as error:
            self._fetched.tell(f"an interrupted transfer will start over: {error.message}")


def _parse_options(src: str, args: Args, resolve: t.Callable[[str], str], tell: t.Callable[[str], None]) -> HttpOptions:
    """Parse the options for the server as the module does. Raises ``OciError``, which quotes no secret."""
    given = {name: args[name] for name in HTTP_ARGUMENTS if name in args}
    validated = ArgumentSpecValidator(HTTP_ARGUMENTS).validate(given)
    if validated.error_messages:
        raise OciError("; ".join(validated.error_messages))
    params = dict(validated.validated_parameters)
    params.update({name: resolve(params[name]) for name in _PATHS if params[name]})
    return t.cast("HttpOptions", http_options({**params, "src": src}, tell))


def _identity(src: str, http: HttpOptions) -> bytes:
    """Return all that may decide what the server answers, as bytes that hold secrets. Raises ``SourceError``."""
    url = parse_url(src)
    try:
        login, _handlers = credentials(url, http.username or url.username, http.password or url.password, True)
    except netrc.NetrcParseError as error:
        raise SourceError("the .netrc of the user who runs ansible-playbook is damaged; correct it") from error
    values = [url.text, login, sorted(http.headers.items()), http.agent, http.validate_certs, http.use_proxy]
    values += [_hash_of(path) for path in (http.ca_path, http.client_cert, http.client_key)]
    return json.dumps(values).encode()


def _hash_of(path: str | None) -> str:
    """Return the hash of a file's content, since another host's may have the same path. Raises ``SourceError``."""
    if path is None:
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise SourceError(f"{show(path)} cannot be read: {os_phrase(error)}; check the path") from error

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Fetch an image on the controller, once for all nodes that may have it (docs/behaviour.md, section 7).

What forks share is keyed by the source and by everything that may decide what its server answers, credentials above all: a
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

from ..module_utils._fetch_arguments import FETCH_ARGUMENTS
from ..module_utils._cache.fetched_scope import scope_of_registry, scope_of_url
from ..module_utils._errors import OciError, SourceChangedError, SourceError, os_phrase, show
from ..module_utils._image.digest import Digest
from ..module_utils._registry.arguments import fetch_options
from ..module_utils._registry.client import RegistryClient
from ..module_utils._registry.name import parse_name
from ..module_utils._registry.open import open_any
from ..module_utils._registry.options import RegistryOptions
from ..module_utils._registry.source import RegistrySource
from ..module_utils._remote.credentials import credentials
from ..module_utils._remote.options import HttpOptions, Notes
from ..module_utils._remote.url import is_registry, is_url, parse_url
from ..module_utils._size_arguments import parse_max_size
from ..module_utils._source.range_reader import RangeReader
from ..module_utils._source.sent import blob_digest
from ..module_utils._source.verified import VerificationError
from ._documents import KeepingClient, KeptDocuments
from ._partial import Blob, derive, open_partials
from ._single_flight import SingleFlight
from ._staging import Bundle, DamagedError, Staging

if t.TYPE_CHECKING:
    from ..module_utils._remote.url import Url
    from ..module_utils._source.offer import Offer
    from ..module_utils._source.source import Source
    from ._criteria import Criteria
    from ._partial import Partials
    from ._progress import Progress
    from ._signing import Judged, TaskSigning

Args = t.Mapping[str, t.Any]

CHOICES = ("node", "controller")
# Paths among the options, on the machine that fetches.
_PATHS = ("ca_path", "client_cert", "client_key", "registry_auth_file")


def is_fetched_here(args: Args, is_async: bool) -> bool:
    """Return whether the controller fetches a task's ``src``. Raises ``OciError`` for options that contradict it."""
    fetch = args.get("fetch")
    if fetch in (None, ""):
        return False
    if fetch not in CHOICES:
        raise OciError(f"fetch is {show(str(fetch))}; give {' or '.join(CHOICES)}")
    src = str(args["src"])
    if not is_url(src) and not is_registry(src):
        raise OciError("fetch is for a URL or an image in a registry, and src is a path; leave fetch out")
    if fetch == "node":
        return False
    if boolean(args.get("remote_src", False), strict=False):
        raise OciError("remote_src: true says that the node has src, and fetch: controller that it does not; drop one")
    if is_async:
        raise OciError("async cannot send what the controller fetches; leave async out, or set fetch: node")
    return True


def arguments_to_ask(args: Args) -> dict[str, t.Any]:
    """Return the arguments by which the controller asks for signatures when the node fetches, whose files it lacks."""
    return {name: value for name, value in args.items() if name not in _PATHS}


def arguments_for_node(args: Args) -> dict[str, t.Any]:
    """Return a task's arguments without all that only the fetch needs, secrets and credentials among it."""
    kept = {name: value for name, value in args.items() if name not in FETCH_ARGUMENTS and name != "fetch"}
    return {**kept, "src": shown_source(str(args["src"]))}


class FetchedImage:
    """The image that a task's ``src`` means at a web server or in a registry, fetched with the task's options.

    ``resolve`` makes the paths among these absolute; ``tell`` is called with what a user should know of the transfer.
    Raises ``OciError``.
    """

    def __init__(self, args: Args, resolve: t.Callable[[str], str], tell: t.Callable[[str], None]) -> None:
        self._src = str(args["src"])
        self._digest = str(args["digest"]) if args.get("digest") else None
        self.path = shown_source(self._src)
        self.max_size = parse_max_size(args)
        self._options = _parse_options(self._src, args, resolve, tell)
        self._secret, self._scope = _identity(self._src, self._options)
        self.partials: Partials | None = None

    def prepare(self) -> None:
        """Open the folder for what later runs may use, before the image is opened; say so if that is not possible."""
        if self.partials is None:
            try:
                self.partials = open_partials()
            except SourceError as error:
                self._options.notes.add(f"an interrupted transfer will start over: {error.message}")
                return
            with contextlib.suppress(OSError):
                self.partials.prune()

    def close(self) -> None:
        """Close that folder."""
        if self.partials is not None:
            self.partials.close()

    def key(self) -> str:
        """Return a file name that is different for different sources and for different credentials."""
        return derive(self._secret, f"staging {self._src}")[:32]

    def scope(self) -> str:
        """Return what stands for this source on nodes; a new password does not make it another source."""
        return derive(self._scope.encode(), "scope")

    def partial_name(self, what: str) -> str:
        """Return the name of what earlier runs fetched of a digest from here with these credentials."""
        return derive(self._secret, what)

    def open(self) -> Source:
        """Open the image. Raises ``SourceError`` and ``ImageError``."""
        source = open_any(self._src, self._options, self.max_size, self._digest)
        if isinstance(source, RegistrySource) and self.partials is not None:
            kept = KeptDocuments(self.partials, self.partial_name, source.name.registry)
            source.client = KeepingClient(source.client, kept)
        return source


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

    def __enter__(self) -> FetchedStaging:
        super().__enter__()
        self._at_exit.callback(self._flight.end_session)
        self._at_exit.callback(self._fetched.close)
        return self

    def judged(self, signing: TaskSigning) -> Judged:
        """Return the verdict about the images that a node may choose. Raises ``OciError``."""
        self._fetched.prepare()
        return super().judged(signing)

    def _remove_blobs(self, in_use: int) -> None:
        """Keep them: a server should not be asked again."""

    @contextlib.contextmanager
    def _turn(self, path: str) -> t.Iterator[bool]:
        with self._flight.turn(path) as mine:
            yield mine

    def _stages_all(self) -> bool:
        """Return true: whoever talks to the server fetches all that it needs."""
        return True

    def _make_offer(self) -> Offer:
        self._fetched.prepare()
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
        self._fetched.prepare()
        progress = self._progress({name: sizes[name] for names in missing for name in names})
        for names in missing:
            self._flight.path = self._bundle(names).path
            with progress.sending(names, self._kept_path(names)):
                try:
                    super()._stage([names])
                except (SourceChangedError, DamagedError) as error:
                    if not self._may_try_again(error):
                        raise
                    super()._stage([names])
        self._flight.end_session()

    def _kept_path(self, names: tuple[str, ...]) -> str:
        """Return the file that a blob is written to, of which its size tells how much has come; empty for several."""
        partials, digest = self._fetched.partials, blob_digest(names[0])
        if partials is None or digest is None or len(names) > 1:
            return ""
        return os.path.join(partials.path, self._fetched.partial_name(digest))

    def _may_try_again(self, error: SourceError) -> bool:
        """Prepare a second try; return whether it may help. What was fetched before is verified, so it stays."""
        if isinstance(self._source, RegistrySource):
            return self._source.client.distrust_mirrors()
        self._close_source()
        return isinstance(error, SourceChangedError)

    def _open_blob(self, source: Source, name: str) -> RangeReader:
        if not isinstance(source, RegistrySource):
            return super()._open_blob(source, name)
        # another fork has read the documents that name the blob, and the offer has its size
        size = self.sizes()[name]
        digest = Digest(str(blob_digest(name)), "the offer")
        return RangeReader(source.client.blob(digest, size), 0, size, owned=True)

    def _stage_blob(self, name: str, bundle: Bundle) -> None:
        """Stage a blob by way of the folder that keeps what an interrupted run leaves of it."""
        digest = blob_digest(name)
        partials = self._fetched.partials
        if partials is None or digest is None or self._is_stream():
            super()._stage_blob(name, bundle)
            return

        def open_at(offset: int) -> RangeReader:
            reader = self._open_blob(self._readable(), name)
            reader.skip(offset)
            return reader

        blob = Blob(digest, self.sizes()[name], open_at)
        try:
            if partials.stage(self._fetched.partial_name(digest), blob, bundle.path):
                return
        except VerificationError as error:
            raise self._damaged(name) from error
        except OSError as error:
            raise SourceError(
                f"cannot write a blob of {show(self._path)} to {show(partials.path)}: {os_phrase(error)}; make room"
                " there, or set XDG_CACHE_HOME"
            ) from error
        # another run is fetching the same blob, or it is too large to be kept
        super()._stage_blob(name, bundle)


def shown_source(src: str) -> str:
    """Return a URL or name as messages and nodes get it, without its secrets. Raises ``SourceError``, ``ImageError``."""
    return f"docker://{parse_name(src)}" if is_registry(src) else parse_url(src).shown


def _parse_options(src: str, args: Args, resolve: t.Callable[[str], str], tell: t.Callable[[str], None]) -> HttpOptions:
    """Parse the options for the server as the module does. Raises ``OciError``, which quotes no secret."""
    given = {name: args[name] for name in FETCH_ARGUMENTS if name in args}
    validated = ArgumentSpecValidator(FETCH_ARGUMENTS).validate(given)
    if validated.error_messages:
        raise OciError("; ".join(validated.error_messages))
    params = dict(validated.validated_parameters)
    params.update({name: resolve(params[name]) for name in _PATHS if params[name]})
    options = fetch_options({**params, "src": src, "ref": args.get("ref")})
    return dataclasses.replace(t.cast("HttpOptions", options), notes=Notes(tell))


def _identity(src: str, options: HttpOptions) -> tuple[bytes, str]:
    """Return what may decide what the server answers, as bytes that hold secrets, and the scope without passwords.

    The tag of an image is not part of it. Raises ``SourceError`` and ``ImageError``.
    """
    files = [options.ca_path, options.client_cert, options.client_key]
    values: list[t.Any]
    if isinstance(options, RegistryOptions):
        client = RegistryClient(parse_name(src), options)
        name = client.name
        scope = scope_of_registry(name.registry, name.repository, client.identity)
        values = [name.registry, name.repository, options.plain_http, options.username, options.password]
        values.append([[mirror.host, mirror.prefix] for mirror in options.mirrors])
        files.append(options.auth_file)
    else:
        url = parse_url(src)
        scope = scope_of_url(src, options)
        values = [url.text, _login(url, options)]
    values += [sorted(options.headers.items()), options.agent, options.validate_certs, options.use_proxy]
    return json.dumps([*values, *map(_hash_of, files)]).encode(), scope


def _login(url: Url, options: HttpOptions) -> dict[str, str]:
    """Return the header with user and password for a URL, also of a .netrc. Raises ``SourceError``."""
    try:
        return credentials(url, options.username or url.username, options.password or url.password, True)[0]
    except netrc.NetrcParseError as error:
        raise SourceError("the .netrc of the user who runs ansible-playbook is damaged; correct it") from error


def _hash_of(path: str | None) -> str:
    """Return the hash of a file's content, since another host's may have the same path. Raises ``SourceError``."""
    if path is None:
        return ""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise SourceError(f"{show(path)} cannot be read: {os_phrase(error)}; check the path") from error

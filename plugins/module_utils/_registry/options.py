# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How registries are spoken to, beyond what is said of any web server (docs/behaviour.md, section 11)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .._errors import SourceError, show
from .._remote.options import HttpOptions
from .name import ImageName, check_host, check_repository, normalise_host


@dataclass(frozen=True)
class Mirror:
    """A mirror, asked before the registry: its ``host`` with an optional port, and what comes before a repository."""

    host: str
    prefix: str


@dataclass(frozen=True)
class RegistryOptions(HttpOptions):
    """Options for requests to a registry. ``auth_file`` is a path; with ``plain_http`` no TLS is used."""

    auth_file: str | None = None
    mirrors: tuple[Mirror, ...] = ()
    plain_http: bool = False

    @property
    def has_own_authorization(self) -> bool:
        """Whether the task itself gives the header Authorization, so that no token is asked for."""
        return any(name.lower() == "authorization" for name in self.headers)

    def for_strangers(self, retries: int | None = None) -> RegistryOptions:
        """Return the options for another origin than the registry's: without anything that identifies the client."""
        return replace(
            self,
            username=None,
            password=None,
            force_basic_auth=False,
            client_cert=None,
            client_key=None,
            headers={},
            retries=self.retries if retries is None else retries,
        )


def parse_mirror(text: str) -> Mirror:
    """Parse ``HOST[:PORT][/PREFIX]``. Raises ``SourceError``."""
    what = f"registry_mirrors holds {show(text)}, which"
    host, slash, prefix = text.partition("/")
    if "@" in text or "://" in text:
        raise SourceError(
            "registry_mirrors holds a URL or a user; give HOST[:PORT][/PREFIX], and credentials by registry_auth_file"
        )
    check_host(host, what)
    if slash:
        check_repository(prefix, what)
    return Mirror(normalise_host(host), prefix)


def base_url(host: str, options: RegistryOptions) -> str:
    """Return the beginning of every URL of a registry."""
    return f"{'http' if options.plain_http else 'https'}://{host}/v2/"


def mirrored(mirror: Mirror, name: ImageName) -> str:
    """Return the repository of an image at a mirror."""
    return f"{mirror.prefix}/{name.repository}" if mirror.prefix else name.repository

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of images in registries (docs/behaviour.md, section 11)."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.name import parse_name
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.url import MASK, REGISTRY, is_registry, masked_name

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("src", "registry", "repository", "end"),
    [
        ("alpine", "docker.io", "library/alpine", ":latest"),
        ("alpine:3.20", "docker.io", "library/alpine", ":3.20"),
        ("team/app", "docker.io", "team/app", ":latest"),
        ("docker.io/alpine", "docker.io", "library/alpine", ":latest"),
        ("index.docker.io/team/app:1", "docker.io", "team/app", ":1"),
        ("registry-1.docker.io/alpine", "docker.io", "library/alpine", ":latest"),
        ("localhost/app", "localhost", "app", ":latest"),
        ("ghcr.io/x/y:v1", "ghcr.io", "x/y", ":v1"),
        ("host:5000/x", "host:5000", "x", ":latest"),
        ("HOST/x", "host", "x", ":latest"),
        ("Registry.Example.org/x/y/z", "registry.example.org", "x/y/z", ":latest"),
        ("[::1]:5000/x", "[::1]:5000", "x", ":latest"),
        ("[2001:db8::1]/x", "[2001:db8::1]", "x", ":latest"),
        ("r.example/a__b/c.d--e", "r.example", "a__b/c.d--e", ":latest"),
        (f"alpine@sha256:{HEX}", "docker.io", "library/alpine", f"@sha256:{HEX}"),
        (f"alpine:3.20@sha256:{HEX}", "docker.io", "library/alpine", f"@sha256:{HEX}"),
        (f"host:1/x:t@sha512:{HEX}{HEX}", "host:1", "x", f"@sha512:{HEX}{HEX}"),
        (f"alpine:{'t' * 128}", "docker.io", "library/alpine", f":{'t' * 128}"),
    ],
)
def test_what_a_name_means(src: str, registry: str, repository: str, end: str) -> None:
    name = parse_name(f"docker://{src}")
    assert (name.registry, name.repository) == (registry, repository)
    assert str(name) == f"{registry}/{repository}{end}"
    assert name.host == ("registry-1.docker.io" if registry == "docker.io" else registry)
    assert masked_name(f"docker://{src}") == f"docker://{src}"


@pytest.mark.parametrize(
    ("src", "words"),
    [
        ("", "invalid path"),
        ("/x", "invalid path"),
        ("x/", "invalid path"),
        ("x//y", "invalid path"),
        ("x/../y", "invalid path"),
        ("team/App", "invalid path"),
        ("-x", "invalid path"),
        ("x:", "invalid tag"),
        ("x:-t", "invalid tag"),
        ("x:a/b:c:d", "invalid"),
        (f"x:{'t' * 129}", "invalid tag"),
        (f"x:-@sha256:{HEX}", "invalid tag"),
        ("host:0/x", "invalid host or port"),
        ("host:65536/x", "invalid host or port"),
        ("host:port/x", "invalid host or port"),
        ("ho_st.example/x", "invalid host or port"),
        ("-host.example/x", "invalid host or port"),
        ("[::1/x", "invalid host or port"),
        ("ho\nst.example/x", "invalid host or port"),
        ("a.b?c/x", "invalid host or port"),
        ("x#y", "invalid path"),
        ("x y", "invalid path"),
        (f"r.example/{'a' * 246}", "more than 255"),
        ("x@sha256:short", "expected 64"),
        (f"x@md5:{HEX[:32]}", "unsupported algorithm"),
        (f"x@sha256:{HEX.upper()}", "lower-case"),
    ],
)
def test_what_is_not_a_name(src: str, words: str) -> None:
    with pytest.raises(OciError, match="src") as caught:
        parse_name(f"docker://{src}")
    assert words in caught.value.message


@pytest.mark.parametrize(
    "src",
    [
        "user:sesame@host/x",
        "user:sesame@host/x:1",
        f"user:sesame@host/x@sha256:{HEX}",
        "user:ses/ame@host/x",
        "sesame@host",
        "x@sesame",
        "user:sesame@localhost:5000",
        "user:sesame@host:5000@x",
        "x@",
        "x@sha256:sesame/y",
    ],
)
def test_a_password_in_a_name_is_refused_and_not_quoted(src: str) -> None:
    with pytest.raises(OciError) as caught:
        parse_name(f"docker://{src}")
    assert "sesame" not in caught.value.message
    assert masked_name(f"docker://{src}") == REGISTRY + MASK


def test_255_characters_are_enough() -> None:
    assert len(parse_name(f"docker://r.example/{'a' * 245}").repository) == 245


def test_what_names_a_registry() -> None:
    assert is_registry("docker://x")
    assert not any(map(is_registry, ["nginx:1.27", "docker:x", "DOCKER://x", "https://docker.io/x", "/docker://x"]))

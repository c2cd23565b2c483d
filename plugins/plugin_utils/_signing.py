# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Verify signatures on the controller: read a task's keys, and judge the images that a node may choose.

The node gets the verdict, a set of manifest digests, and installs nothing else (docs/behaviour.md, section 12).
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t
from dataclasses import dataclass

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean

from ..module_utils._errors import ImageError, OciError, SourceError, show
from ..module_utils._image.loading import Loaded, load, to_image
from ..module_utils._options import SIGNATURE_ARGUMENTS
from ..module_utils._registry.source import RegistrySource
from ..module_utils._remote.url import is_registry, is_url
from ..module_utils._provision.options import IMAGE_STATES
from ..module_utils._signature.keys import PublicKey, is_pem, parse_keys
from ..module_utils._signature.policy import Policy
from ..module_utils._signature_arguments import check_given
from ..module_utils._signed.client import ClientSignatures
from ..module_utils._signed.judge import judge_all
from ..module_utils._signed.judging import Ask, make_judge
from ..module_utils._signed.registry import registry_signatures
from ..module_utils._signed.signing import to_policy
from ..module_utils._signed.verdict import Verdict, parse_verdict
from ..module_utils._source.range_reader import open_regular
from ._criteria import Criteria, choose

if t.TYPE_CHECKING:
    from ..module_utils._registry.client import RegistryClient
    from ..module_utils._source.source import Source

Args = t.Mapping[str, t.Any]

_LONGEST_KEY = 64 * 1024


@dataclass(frozen=True)
class Judged:
    """The verdict about a source, and the names of the ``layers`` of approved images, which alone may be sent.

    ``resolved`` is the digest that the name of a registry's image means; otherwise it is empty.
    """

    verdict: Verdict
    layers: frozenset[str]
    resolved: str = ""


@dataclass(frozen=True)
class TaskSigning:
    """What a task asks of signatures, with its keys read; ``paths`` are the signatures beside the image."""

    keys: tuple[PublicKey, ...]
    policy: Policy
    paths: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return a text that is different for different options, and when the signatures beside the image change."""
        states = [_state(path) for path in self.paths]
        policy = [self.policy.keys, self.policy.threshold, str(self.policy.identity or "")]
        return json.dumps([policy, self.paths, states])

    def arguments(self, args: Args) -> dict[str, t.Any]:
        """Return a task's arguments for a node, which compares its record: canonical keys, and no path."""
        identity = self.policy.identity
        return {
            **{name: value for name, value in args.items() if name not in SIGNATURE_ARGUMENTS},
            "signature_keys": [key.pem for key in self.keys],
            "signature_threshold": self.policy.threshold,
            **({"signature_identity": str(identity)} if identity else {}),
        }

    def judge(self, source: Source, criteria: Criteria) -> Judged:
        """Judge the images that a node may choose. Raises ``ImageError`` and ``SourceError``."""
        images = []
        for candidate in choose(source, criteria).candidates:
            try:
                images += load(source, [candidate])
            except (ImageError, SourceError):
                # the node that would choose this image reports the error
                continue
        ask = _asking(source.client) if isinstance(source, RegistrySource) else None
        verdict = judge_all(make_judge(source, self.keys, self.policy, self.paths, ask), images, source.path)
        approved = [image for image in images if str(image.identity) in verdict.approvals]
        resolved = str(source.resolved or "") if isinstance(source, RegistrySource) else ""
        return Judged(verdict, frozenset(name for image in approved for name in _layers(source, image)), resolved)


def _asking(client: RegistryClient) -> Ask:
    return lambda digest: registry_signatures(ClientSignatures(client), digest)


def pack_judged(judged: Judged) -> bytes:
    """Return a verdict as JSON."""
    value = {**judged.verdict.to_argument(), "layers": sorted(judged.layers), "resolved": judged.resolved}
    return json.dumps(value).encode("ascii")


def unpack_judged(data: bytes) -> Judged:
    """Parse what ``pack_judged`` returned. Raises ``OciError``."""
    value = json.loads(data)
    return Judged(parse_verdict(value), frozenset(map(str, value["layers"])), str(value["resolved"]))


def node_arguments(args: Args, signing: TaskSigning | None) -> dict[str, t.Any]:
    """Return the arguments for a node that needs no image from the controller."""
    if args.get("state") == "absent":
        return {name: value for name, value in args.items() if name not in SIGNATURE_ARGUMENTS}
    if signing is None:
        return dict(args)
    own = signing.arguments(args)
    if args.get("state", "present") not in IMAGE_STATES:
        # the record is all that there is to compare
        return own
    if not is_path_on_node(args):
        # the controller verifies, and reads these files
        return own
    return {**own, **({"signatures": list(signing.paths)} if signing.paths else {})}


def parse_signing(args: Args, find: t.Callable[[str], str]) -> TaskSigning | None:
    """Read the keys of a task; ``None`` if it has none or removes a tree. ``find`` returns the path of a file of the controller.

    Raises ``OciError``, which never quotes a key.
    """
    if not check_given(args, args) or args.get("state") == "absent":
        return None
    texts = args["signature_keys"]
    if isinstance(texts, str):
        texts = [texts] if is_pem(texts) else texts.split(",")
    keys = parse_keys([_read_key(f"signature_keys[{number}]", text, find) for number, text in enumerate(texts)])
    identity = args.get("signature_identity")
    policy = to_policy([key.fingerprint for key in keys], _threshold(args), None if identity is None else str(identity))
    paths = _signature_paths(args) if args.get("state", "present") in IMAGE_STATES else []
    return TaskSigning(keys, policy, tuple(paths if is_path_on_node(args) else map(find, paths)))


def _signature_paths(args: Args) -> list[str]:
    """Return the paths in the option signatures as the task gives them. Raises ``OciError``."""
    paths = args.get("signatures")
    if paths is None:
        return []
    if isinstance(paths, str):
        paths = paths.split(",")
    if not isinstance(paths, (list, tuple)) or not all(isinstance(path, str) and path for path in paths):
        raise OciError("signatures must be a list of paths")
    return list(paths)


def is_path_on_node(args: Args) -> bool:
    """Return whether a task's ``src`` is a path on the node, which then verifies by itself."""
    src = str(args.get("src") or "")
    return boolean(args.get("remote_src", False), strict=False) and not is_url(src) and not is_registry(src)


def _threshold(args: Args) -> int:
    value = args.get("signature_threshold")
    if value is None:
        return 1
    try:
        return int(str(value))
    except ValueError as error:
        raise OciError(f"signature_threshold is {show(str(value))}; give a number") from error


def _read_key(where: str, text: str, find: t.Callable[[str], str]) -> tuple[str, str]:
    """Return a key's name for errors and its text, from a file unless it is the key itself."""
    if is_pem(text):
        return where, text
    # a key that was pasted without its first line must not be shown, and a path hardly lacks a full stop
    name = f"{where} ({show(text)})" if "." in text and "\n" not in text else where
    try:
        path = find(text)
    except (AnsibleError, ValueError):
        raise OciError(
            f"{name} is neither a public key in PEM form nor a file of the controller; check the path"
        ) from None
    with os.fdopen(open_regular(path), "rb") as file:
        return name, file.read(_LONGEST_KEY + 1).decode("utf-8", "replace")


def _layers(source: Source, image: Loaded) -> list[str]:
    """Return the names of an image's layers in the source; none if they are damaged, which the node reports."""
    try:
        return [layer.name for layer in to_image(source, image).layers]
    except (ImageError, SourceError):
        return []


def _state(path: str) -> list[int]:
    """Return what changes when a file, or the index of a layout, is replaced."""
    for name in (os.path.join(path, "index.json"), path):
        try:
            status = os.stat(name)
        except OSError:
            continue
        return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return []


def staged_name(signing: TaskSigning, criteria: Criteria) -> str:
    """Return the name of the file that keeps a verdict for all forks."""
    return "verdict-" + hashlib.sha256((signing.key + criteria.key).encode()).hexdigest()[:32]

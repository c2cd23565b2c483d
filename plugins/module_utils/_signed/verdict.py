# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict about the images of a source, which the controller gives a node (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._errors import ImageError, OciError


@dataclass(frozen=True)
class Approval:
    """Who has signed an image, and the platform that it was judged as."""

    signers: dict[str, list[str]]
    platform: str


@dataclass(frozen=True)
class Verdict:
    """The approved images and the errors of the others, by the digest of the manifest, or of the config without one."""

    approvals: dict[str, Approval] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def signers_of(self, digest: str, platform: str) -> dict[str, list[str]]:
        """Return who has signed an image. Raises ``ImageError`` if it is not approved for this platform."""
        approval = self.approvals.get(digest)
        if approval is not None and approval.platform == platform:
            return approval.signers
        error = self.errors.get(digest)
        raise ImageError(error or f"the image {digest} for {platform} is not among those that were verified; run again")

    def to_argument(self) -> dict[str, t.Any]:
        """Return the verdict as a module's argument."""
        approvals = {digest: vars(approval) for digest, approval in self.approvals.items()}
        return {"approvals": approvals, "errors": self.errors}


def parse_verdict(value: t.Mapping[str, t.Any]) -> Verdict:
    """Parse what ``to_argument`` returned. Raises ``OciError``."""
    try:
        approvals = {
            str(digest): Approval(
                {str(key): [str(name) for name in names] for key, names in dict(item["signers"]).items()},
                str(item["platform"]),
            )
            for digest, item in dict(value["approvals"]).items()
        }
        errors = {str(digest): str(message) for digest, message in dict(value["errors"]).items()}
        return Verdict(approvals, errors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OciError("the verdict of the controller is damaged; run again") from error

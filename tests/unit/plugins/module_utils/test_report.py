# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counts (docs/behaviour.md, section 8)."""

from __future__ import annotations

import json

from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report


def test_counts_by_kind() -> None:
    report = Report()
    assert report.counted("devices_skipped") == 0
    report.count("xattrs_filtered", 3)
    report.count("devices_skipped")
    report.count("xattrs_filtered")
    assert report.counted("xattrs_filtered") == 4
    found = report.to_dict()
    # in one order, so that records and results of one image are the same
    assert list(found["counts"].items()) == [("devices_skipped", 1), ("xattrs_filtered", 4)]
    assert {key: found[key] for key in ("entries", "files", "bytes", "whiteouts")} == (
        dict.fromkeys(("entries", "files", "bytes", "whiteouts"), 0)
    )
    assert json.loads(json.dumps(found)) == found


def test_what_was_given_out_stays_as_it_was() -> None:
    report = Report()
    before = report.to_dict()
    report.count("devices_skipped")
    report.entries += 1
    assert (before["counts"], before["entries"]) == ({}, 0)

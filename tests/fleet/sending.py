# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of what is sent: nodes that lack nothing cost no layer, others only what they lack (docs/behaviour.md, 1 and 7).

Bytes are those on the node's link in both directions, with the connection's beginning and ssh's own share.
"""

from __future__ import annotations

from .controller import Run
from .fleet import DISK
from .lab import ALPHA, BRAVO, CHARLIE, DELTA, NODES, Lab, require
from .samples import sample, write

# One run of the module is its own code, arguments and answer; a new image takes two.
UP_TO_DATE = 500_000
MODULE_RUNS = 2 * UP_TO_DATE
NEW_IMAGE = 1.02
ONE_LAYER = 1.05
PULLED = 1.02
_MB = 1_000_000


def within(run: Run, name: str, most: float, what: str) -> int:
    """The bytes on a node's link; raises ``Broken`` if there were more.

    A limit that grows with the image is one on what the packets carry, others include their headers.
    """
    carried = run.counters[name]
    total = carried.total if most <= MODULE_RUNS else carried.payload
    require(total <= most, f"{name}: {what}: {total} bytes, at most {most:.0f} allowed")
    return total


def new_and_up_to_date(lab: Lab) -> str:
    """A new image costs its own platform's blobs and module runs, the same again one module run, check mode too."""
    amd64 = sample("several", _MB, layers=3)
    arm64 = sample("several", _MB, layers=2, platform="linux/arm64")
    source = write(lab.images, "several.oci.tar", amd64, arm64)
    dest = f"{DISK}/several/rootfs"
    parts = {name: amd64 for name in NODES}
    parts[CHARLIE] = arm64
    platform = "{{ 'linux/arm64' if inventory_hostname == 'charlie' else omit }}"
    options = {"src": source, "dest": dest, "platform": platform}

    predicted = lab.provision(*NODES, arguments=["--check"], **options).must()
    first = lab.provision(*NODES, **options).must()
    second = lab.provision(*NODES, arguments=["-vvv"], **options).must()
    count = second.output.count("Using module file ")
    require(count == len(NODES), f"{count} module runs on {len(NODES)} nodes")
    again = lab.provision(*NODES, arguments=["--check"], **options).must()
    most = 0
    for name, part in parts.items():
        require(predicted.of(name).changed, f"{name}: check mode predicts no change")
        within(predicted, name, UP_TO_DATE, "check mode")
        require(first.of(name).changed, f"{name}: nothing changed")
        limit = NEW_IMAGE * part.size + MODULE_RUNS
        most = max(most, within(first, name, limit, "new image") - part.size)
        lab.shows(name, dest, part)
        lab.is_tidy(name, dest)
        for run in (second, again):
            require(not run.of(name).changed, f"{name}: a second run changed something")
            within(run, name, UP_TO_DATE, "up to date")
    least = max(second.counters[name].total for name in NODES)
    return f"new: at most {most} bytes more than the blobs; up to date: at most {least}"


def without_pipelining(lab: Lab) -> str:
    """The limits hold without pipelining, as root and as an ordinary user."""
    part = sample("piped", _MB)
    source = write(lab.images, "piped.oci.tar", part)
    dest = f"{DISK}/piped/rootfs"
    lab.controller.settings["ANSIBLE_PIPELINING"] = "0"
    try:
        first = lab.provision(ALPHA, BRAVO, src=source, dest=dest).must()
        second = lab.provision(ALPHA, BRAVO, src=source, dest=dest).must()
    finally:
        del lab.controller.settings["ANSIBLE_PIPELINING"]
    for name in (ALPHA, BRAVO):
        within(first, name, NEW_IMAGE * part.size + MODULE_RUNS, "new image")
        within(second, name, UP_TO_DATE, "up to date")
        lab.shows(name, dest, part)
        lab.is_tidy(name, dest)
    most = max(second.counters[name].total for name in (ALPHA, BRAVO))
    return f"up to date: at most {most} bytes"


def one_changed_layer(lab: Lab) -> str:
    """Of ten layers, of which the cache has nine, one is sent; for a new place none."""
    old = sample("ten", _MB, layers=10)
    new = sample("ten", _MB, layers=10, changed={4: "eleven"})
    sources = [write(lab.images, f"ten{n}.oci.tar", s) for n, s in ((1, old), (2, new))]
    dest = f"{DISK}/ten/rootfs"
    names = (ALPHA, BRAVO, DELTA)
    # two versions in places of their own
    cached = {"cache_dir": f"{DISK}/cache", "cache_scope": "ten"}
    lab.provision(*names, src=sources[0], dest=dest, **cached).must()
    run = lab.provision(*names, src=sources[1], dest=dest, **cached).must()
    fresh = [digest for digest in new.blobs if digest not in old.blobs]
    require(len(fresh) == 1, "the sample itself is wrong")
    layer = new.blobs[fresh[0]]
    other = f"{DISK}/ten-again/rootfs"
    none = lab.provision(*names, src=sources[1], dest=other, **cached).must()
    most = 0
    for name in names:
        limit = ONE_LAYER * layer + MODULE_RUNS
        total = within(run, name, limit, "one changed layer of ten")
        most = max(most, total - layer)
        within(none, name, MODULE_RUNS, "no layer, all from the cache")
        for place in (dest, other):
            lab.shows(name, place, new)
            lab.is_tidy(name, place)
    return f"one of ten: at most {most} bytes more than that layer"


def pulled(lab: Lab) -> str:
    """Nodes read from a web server just the documents and their own platform's blobs, once."""
    amd64 = sample("pulled", _MB, layers=3)
    arm64 = sample("pulled", _MB, layers=2, platform="linux/arm64")
    write(lab.images, "pulled.oci.tar", amd64, arm64)
    dest = f"{DISK}/pulled/rootfs"
    names = (ALPHA, BRAVO, DELTA)
    lab.web.start()
    try:
        url = lab.web.url("pulled.oci.tar")
        lab.web.served()
        run = lab.provision(*names, src=url, dest=dest).must()
        sent = lab.web.sent()
        again = lab.provision(*names, src=url, dest=dest).must()
        documents = lab.web.sent()
    finally:
        lab.web.stop()
    limit = PULLED * amd64.size * len(names)
    require(sent <= limit, f"the web server sent {sent} bytes, {limit:.0f} allowed")
    require(
        documents <= 0.02 * amd64.size * len(names),
        f"the web server sent {documents} bytes to nodes that were up to date",
    )
    for name in names:
        require(not again.of(name).changed, f"{name}: a second run changed something")
        # the pulled bytes come over the same link
        limit = NEW_IMAGE * amd64.size + MODULE_RUNS
        within(run, name, limit, "pulled, on the node's link")
        lab.shows(name, dest, amd64)
        lab.is_tidy(name, dest)
    return f"{sent} bytes served for {len(names)} × {amd64.size}, {documents} when up to date"


CHECKS = (new_and_up_to_date, without_pipelining, one_changed_layer, pulled)

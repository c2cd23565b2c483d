# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attacks on the controller and on other nodes' images, by an image and by a node (docs/behaviour.md, section 7).

A connection writes paths into commands of sftp, one a line, and a line that begins with an exclamation mark is a
command of the controller's shell.
"""

from __future__ import annotations

import gzip
import os
import typing as t

from ..images.builder import Image, Layer, file, write_layout, write_oci_archive
from .controller import Run, play, rootfs
from .fleet import DISK
from .lab import DELTA, Lab, failed, require
from .samples import noise, sample

_MB = 1_000_000
_MARKER = "attacked"
# Quoted as Ansible quotes it, sftp takes what stands before the line's end for a whole argument.
_END = "x\\'\""
_FIRST_LINE = "x'\"'"
_COMMAND = f"{_END}\n!touch {_MARKER}\n"
_WAYS = ("smart", "scp", "piped")
_HOSTILE = f"{DISK}/hostile"
_LOOT = f"{DISK}/cache/loot"

# In the place of the node's Python: the module runs, and its answer is another one.
_WRAPPER = """\
#!{python}
import json, subprocess, sys

{before}
done = subprocess.run([{python!r}, *sys.argv[1:]], stdout=subprocess.PIPE)
answer = json.loads(done.stdout)
request = answer.get("_upload_request")
if request:
    {edit}
print(json.dumps(answer))
sys.exit(done.returncode)
"""


def _attacked(lab: Lab) -> bool:
    """Whether the command was run, which the working directory of the controller's programs tells."""
    return os.path.exists(os.path.join(lab.controller.folder, _MARKER))


def _hostile(lab: Lab, edit: str, before: str = "", **options: t.Any) -> Run:
    """A run on a node that changes the module's answer."""
    path = lab.path(DELTA, _HOSTILE)
    with open(path, "w", encoding="utf-8") as opened:
        python = lab.fleet.nodes[DELTA].spec.python
        opened.write(_WRAPPER.format(python=python, before=before, edit=edit))
    os.chmod(path, 0o755)
    lab.controller.disconnect()
    tasks = play(rootfs(**options), vars={"ansible_python_interpreter": _HOSTILE})
    return lab.finish(lab.controller.start([tasks], [DELTA]))


def blob_named_as_a_command(lab: Lab) -> str:
    """A blob of a layout is a link to a file whose name is a command: it is sent by a name of ours, by every way."""
    part = sample("command", _MB)
    layout = write_layout(os.path.join(lab.images, "command"), part.image)
    (digest,) = part.blobs
    blob = os.path.join(layout, "blobs", *digest.split(":"))
    os.rename(blob, os.path.join(layout, _COMMAND))
    os.symlink(os.path.join(layout, _COMMAND), blob)
    with open(os.path.join(layout, _FIRST_LINE), "wb"):
        pass
    try:
        for way in _WAYS:
            lab.controller.settings["ANSIBLE_SSH_TRANSFER_METHOD"] = way
            dest = f"{DISK}/command-{way}/rootfs"
            run = lab.provision(DELTA, src=layout, dest=dest)
            require(not _attacked(lab), f"{way}: a name of the image was a command")
            run.must()
            lab.shows(DELTA, dest, part)
            lab.is_tidy(DELTA, dest)
    finally:
        del lab.controller.settings["ANSIBLE_SSH_TRANSFER_METHOD"]
    return f"sent by {', '.join(_WAYS)}"


def node_that_answers_a_command(lab: Lab) -> str:
    """A node says that blobs are to be sent to a folder whose name is a command."""
    part = sample("answer", _MB)
    (digest,) = part.blobs
    archive = write_oci_archive(os.path.join(lab.images, "answer.oci.tar"), part.image)
    edit = f"request['folder'] = {'/tmp/' + _COMMAND!r}"
    run = _hostile(lab, edit, src=archive, dest=f"{DISK}/answer/rootfs")
    require(not _attacked(lab), "a node's answer was a command")
    message = failed(run, DELTA)
    require("is not the path of an upload folder" in message, f"it says {message}")
    carried = run.counters[DELTA].to_node
    require(carried < part.blobs[digest], f"{carried} bytes were sent all the same")
    return repr(message[:120])


def node_that_asks_for_another_image(lab: Lab) -> str:
    """A node that is to have one image of an archive asks for another one's layer and config, and keeps what it gets."""
    secret = Layer(file("key", noise("key", _MB)), compression="gzip")
    one = Image([Layer(file("one", noise("one", _MB)))], ref="one")
    two = Image([secret], {"Env": ["PASSWORD=of-another"]}, ref="another-customers")
    archive = write_oci_archive(os.path.join(lab.images, "two.oci.tar"), one, two)
    loot = lab.path(DELTA, _LOOT)
    dest = f"{DISK}/asks/rootfs"
    os.makedirs(os.path.dirname(lab.path(DELTA, dest)))
    blobs = [(secret.path, secret.size), (two.config.path, two.config.size)]
    keep = f"cp -a /root/.ansible/tmp {os.path.dirname(dest)} {_LOOT}/"
    messages = []
    for name, size in blobs:
        os.makedirs(loot, exist_ok=True)
        edit = f"request['blobs'] = [dict(name={name!r}, size={size})]"
        before = f"subprocess.run({keep!r}, shell=True, check=True)"
        run = _hostile(lab, edit, before, src=archive, dest=dest, ref="one")
        found = _looted(loot)
        require(found != [], "the node kept nothing, not even its own offer")
        for words in (b"PASSWORD", b"another-customers", secret.data):
            kept = any(words in data for data in found)
            require(not kept, f"the node got {words[:20]!r}…")
        messages.append(failed(run, DELTA))
        require("was not offered" in messages[-1], f"it says {messages[-1]}")
    return repr(messages[0][:120])


def _looted(folder: str) -> list[bytes]:
    """What all files hold, an offer's decompressed."""
    found = []
    for above, _folders, names in os.walk(folder):
        for name in names:
            with open(os.path.join(above, name), "rb") as opened:
                data = opened.read()
            found.append(gzip.decompress(data) if name == "offer" else data)
    return found


CHECKS = (blob_named_as_a_command, node_that_answers_a_command, node_that_asks_for_another_image)

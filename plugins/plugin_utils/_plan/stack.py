# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Mount the layers of a root file system for the start of one container alone (docs/behaviour.md, section 16).

A container whose role has a store starts through a script. If its root file system is a stack, the script mounts the overlay
over it, in the mount namespace of that start; a tree of its own is left as it is.
"""

from __future__ import annotations

import os
import typing as t

from ...module_utils._dest.dest_path import STACKS, DestPath
from ...module_utils._fs.overlay import OPTIONS
from .._container.model import ContainerError, Option
from .etc_files import MADE
from .quoting import shell, systemd
from .runtime import Context, File

# Only the module writes the list of stacks: nothing in a tree can make this script take it for one.
_SCRIPT = "#!/bin/sh\n" + MADE + """\
# Mounts the layers of the root file system over it, in the mount namespace of its caller, and runs a command there.
set -eu
dest=@dest@
stacks=@stacks@

fail() {
    echo "the layers of $dest cannot be mounted: $1" >&2
    exit 125
}

if [ -e "$stacks" ] && grep -qx "$(stat -c %i "$dest")" "$stacks"; then
    read -r lower <"$dest/lower"
    case $lower in '' | *[!0-9a-z:]*) fail "$dest/lower is damaged" ;; esac
    cd -P "$dest/store" || fail "its store is not there"
    for name in $(echo "$lower" | tr : ' '); do
        [ -d "$name" ] || fail "the snapshot $name is no longer in its store"
    done
    options=@options@
    for flag in nosuid nodev noexec; do
        for place in . "$dest"; do
            case ,$(findmnt -n -o VFS-OPTIONS -T "$place"), in *,$flag,*) options=$options,$flag ;; esac
        done
    done
    # the other call takes no more than 255 bytes for all lower directories
    LIBMOUNT_FORCE_MOUNT2=always mount -t overlay \\
        -o "$options,lowerdir=$lower,upperdir=$dest/upper,workdir=$dest/work" overlay "$dest"
    cd /
fi
exec "$@"
"""


def mounter_files(context: Context) -> list[File]:
    """Return the script, if this container has a store."""
    if not context.request.store_dir:
        return []
    places = context.places
    parent, name = os.path.split(places.rootfs)
    stacks = os.path.join(DestPath(parent, name, False).state_path, os.fsdecode(STACKS))
    text = _SCRIPT.replace("@options@", OPTIONS)
    text = text.replace("@dest@", shell(places.rootfs)).replace("@stacks@", shell(stacks))
    return [File(places.mounter, text, mode="0700")]


def unit_prefix(context: Context) -> str:
    """Return what stands before the command in a unit, which has ``unit_lines`` then."""
    return f"{systemd(context.places.mounter)} " if context.request.store_dir else ""


def unit_lines(context: Context) -> str:
    """Return the lines of a unit whose command mounts what it alone sees."""
    return "PrivateMounts=yes\n" if context.request.store_dir else ""


def script_prefix(context: Context) -> str:
    """Return what stands before the command in a script."""
    if not context.request.store_dir:
        return ""
    return f"unshare --mount --propagation private {shell(context.places.mounter)} "


def hook_lines(context: Context) -> list[str]:
    """Return the lines by which LXC mounts what it alone sees when it starts a container itself, with the node.

    Its monitor gets a mount namespace, and the hook runs in that. Where the caller has mounted the stack, the script finds none.
    """
    if not context.request.store_dir:
        return []
    return ["lxc.monitor.unshare = 1", f"lxc.hook.pre-start = {shell(context.places.mounter)} true"]


def require_no_mapped_mounts(context: Context, settings: t.Iterable[str]) -> None:
    """Require that no setting maps owners of a stack, as the kernel maps none of an overlay. Raises ``ContainerError``."""
    if not context.stacked:
        return
    for setting in settings:
        raise ContainerError(
            Option("settings"),
            f": {setting} needs mounts with mapped owners, which the kernel does not make of overlays; use ",
            Option("uid_map"),
            " and ",
            Option("gid_map"),
            ", or leave ",
            Option("store_dir"),
            " out",
        )

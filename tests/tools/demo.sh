#!/usr/bin/env bash
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Provisions DEST from SRC by a playbook, twice: the second run must change nothing.
set -euo pipefail
dest=$1
src=$2
play=(ansible-playbook hypervisor.oci.demo -e "demo_dest=$dest" -e "demo_src=$src" -e "ansible_python_interpreter=$(command -v python)")
"${play[@]}"
echo
echo "The same again: nothing is to do."
again=$("${play[@]}" | tee /dev/stderr)
if ! grep -q "changed=0 " <<<"$again"; then
    echo "The second run changed something." >&2
    exit 1
fi
echo "The root file system is $dest"

#!/usr/bin/env bash
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# demo.sh DEST SRC VENV: provisions DEST from SRC by a playbook, twice. The second run must change nothing.
set -euo pipefail
dest=$1
src=$(realpath -e -- "$2")
# JSON holds any path
variables=$(python -c 'import json, sys
print(json.dumps(dict(zip(("demo_dest", "demo_src", "ansible_python_interpreter"), [*sys.argv[1:], sys.executable]))))' \
    "$dest" "$src")
# nothing of the user's own configuration, and nothing in a home that may not be there
unset "${!ANSIBLE_@}"
export ANSIBLE_CONFIG=$3/ansible.cfg ANSIBLE_HOME=$3/ansible ANSIBLE_COLLECTIONS_PATH=$3/collections
cat >"$ANSIBLE_CONFIG" <<EOF
[defaults]
localhost_warning = false
remote_tmp = $3/ansible/tmp
[inventory]
inventory_unparsed_warning = false
EOF
if [ -e "$dest" ]; then
    echo "Removing what an earlier demo made."
    ansible localhost -e "$variables" -m hypervisor.oci.oci_rootfs -a "dest={{ demo_dest }} state=absent" >/dev/null
fi
play=(ansible-playbook hypervisor.oci.demo -e "$variables")
"${play[@]}"
echo
echo "The same again: nothing is to do."
"${play[@]}" | tee "$3/demo.log"
if ! grep -q "changed=0 " "$3/demo.log"; then
    echo "The second run changed something." >&2
    exit 1
fi
echo "The root file system is $dest"

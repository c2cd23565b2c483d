#!/usr/bin/env bash
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# demo.sh DEST SRC VENV: provisions DEST from SRC by a playbook, twice. The second run must change nothing.
# DEMO_PLATFORM: the platform of the image, by default this machine's.
set -euo pipefail
dest=$1
src=$(realpath -e -- "$2")
# JSON holds any path
variables=$(python -c 'import json, sys
names = ("demo_dest", "demo_src", "demo_platform", "ansible_python_interpreter")
print(json.dumps(dict(zip(names, [*sys.argv[1:], sys.executable]))))' \
    "$dest" "$src" "${DEMO_PLATFORM:-}")
# independent of the user's configuration and of a home that may not exist
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
    echo "Removing the root file system of an earlier demo."
    ansible localhost -e "$variables" -m hypervisor.oci.oci_rootfs -a "dest={{ demo_dest }} state=absent" >/dev/null
fi
play=(ansible-playbook hypervisor.oci.demo -e "$variables")
if ! "${play[@]}" 2>&1 | tee "$3/demo.log"; then
    if [ -z "${DEMO_PLATFORM:-}" ] && grep -q "holds no image for " "$3/demo.log"; then
        echo "To unpack an image for another platform, name it: make demo SRC=$2 PLATFORM=os/architecture" >&2
    fi
    exit 1
fi
echo
echo "The same again, which changes nothing:"
"${play[@]}" | tee "$3/demo.log"
if ! grep -q "changed=0 " "$3/demo.log"; then
    echo "The second run changed something." >&2
    exit 1
fi
echo "The root file system is $dest"

#!/usr/bin/env bash
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Makes the virtual environment VENV of the two commands by PYTHON.
set -euo pipefail
python=$1
venv=$2
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python is not Python 3.11 or newer; name another, as in: make PYTHON=python3.12 …" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian has these in a package of their own
    tests/tools/install_packages.sh python3-venv
fi
"$python" -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -r requirements-dev.txt

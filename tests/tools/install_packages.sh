#!/usr/bin/env bash
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Installs those of the Debian packages whose programs are missing, where that is possible; says so where it is not.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
missing=()
for package in "$@"; do
    case $package in
        acl) program=setfacl ;;
        attr) program=setfattr ;;
        e2fsprogs) program=mkfs.ext4 ;;
        libarchive-tools) program=bsdtar ;;
        *) program=$package ;;
    esac
    command -v "$program" >/dev/null || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not installed, since that needs root and apt-get: ${missing[*]}" >&2
    exit 0
fi
echo "Installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! apt-get update -qq || ! apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null; then
    echo "apt-get could not install: ${missing[*]}" >&2
fi

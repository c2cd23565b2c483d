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
        btrfs-progs) program=mkfs.btrfs ;;
        e2fsprogs) program=mkfs.ext4 ;;
        iproute2) program=ip ;;
        libarchive-tools) program=bsdtar ;;
        lxc) program=lxc-start ;;
        openssh-client) program=ssh ;;
        openssh-server) program=sshd ;;
        systemd-container) program=systemd-nspawn ;;
        uidmap) program=newuidmap ;;
        util-linux) program=unshare ;;
        xfsprogs) program=mkfs.xfs ;;
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
# A package that is installed must not start its service; a policy of the machine's own stays as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
if ! apt-get update -qq -o DPkg::Lock::Timeout=300 || ! apt-get install -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends "${missing[@]}" >/dev/null; then
    echo "apt-get could not install: ${missing[*]}" >&2
fi

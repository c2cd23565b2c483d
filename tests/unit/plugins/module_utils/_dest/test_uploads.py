# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The folder that blobs are sent to, and how it is known again (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import stat
import struct
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.uploads import (
    QUIET,
    UploadFolder,
    load_upload_folders,
    make_upload_folder,
    remove_upload_folder,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import UPLOADS, Dest, lock_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import resolve_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.record import Binding
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sent import is_upload_path
from ansible_collections.hypervisor.oci.tests.unit.support import set_xattr_or_skip

IMAGE = "sha256:" + "0" * 64


@pytest.fixture(name="locked")
def fixture_site(tmp_path: Path) -> t.Iterator[Dest]:
    """A dest that is worked on."""
    with lock_dest(resolve_dest(str(tmp_path / "web")), 5, 0o700, False) as locked:
        yield locked


def made(locked: Dest) -> UploadFolder:
    """A folder for whoever runs the tests."""
    found = make_upload_folder(locked, IMAGE, os.geteuid(), os.getegid())
    assert found is not None
    return found


def test_a_folder_is_made_and_known_again(locked: Dest) -> None:
    upload = made(locked)
    status = os.lstat(upload.path)
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert load_upload_folders(locked) == [upload]
    fd = upload.open()
    assert fd is not None
    assert os.path.samestat(os.fstat(fd), status)
    os.close(fd)


def test_a_folder_goes_with_all_that_is_in_it(locked: Dest) -> None:
    first, second = made(locked), made(locked)
    assert load_upload_folders(locked) == [second, first]
    (Path(first.path) / "sha256-0").write_text("")
    (Path(first.path) / "sub" / "sub").mkdir(parents=True)
    remove_upload_folder(locked, first)
    assert not os.path.exists(first.path)
    assert load_upload_folders(locked) == [second]
    remove_upload_folder(locked, second)
    assert locked.read(UPLOADS) is None
    assert os.listdir(locked.state) == []


def test_a_folder_that_is_gone_is_forgotten(locked: Dest) -> None:
    upload = made(locked)
    os.rmdir(upload.path)
    assert upload.open() is None
    assert not upload.is_active()
    remove_upload_folder(locked, upload)
    assert load_upload_folders(locked) == []


def test_a_folder_is_forgotten_once(locked: Dest) -> None:
    """Another run may have been there between the look and the removal."""
    upload = made(locked)
    remove_upload_folder(locked, upload)
    remove_upload_folder(locked, upload)
    assert load_upload_folders(locked) == []


def test_a_crash_before_it_was_made_leaves_a_record_that_goes(locked: Dest) -> None:
    path = made(locked).path
    upload = UploadFolder(path, IMAGE, Binding(None, 0, None))
    assert upload.open() is None
    remove_upload_folder(locked, upload)
    assert not os.path.exists(path)


@pytest.mark.parametrize("how", ["link", "other", "file"])
def test_something_else_in_its_place_is_left_alone(locked: Dest, how: str) -> None:
    upload = made(locked)
    os.rename(upload.path, upload.path + "-away")
    path = Path(upload.path)
    if how == "link":
        path.symlink_to(upload.path + "-away")
        (Path(upload.path + "-away") / "f").write_text("")
    elif how == "other":
        path.mkdir()
        (path / "f").write_text("")
    else:
        path.write_text("")
    assert upload.open() is None
    remove_upload_folder(locked, upload)
    assert os.path.lexists(path)
    assert how == "file" or (path / "f").exists()


def test_it_is_active_while_it_changes(locked: Dest) -> None:
    upload = made(locked)
    blob = Path(upload.path) / "sha256-0"
    blob.write_text("")
    assert upload.is_active()
    old = time.time() - QUIET - 1
    os.utime(upload.path, (old, old))
    assert upload.is_active()
    os.utime(blob, (old, old))
    assert not upload.is_active()
    os.utime(upload.path)
    assert upload.is_active()
    # a clock that was set back
    os.utime(upload.path, (time.time() + 3600, time.time() + 3600))
    assert not upload.is_active()


def test_a_default_acl_from_above_opens_it_to_nobody(locked: Dest) -> None:
    # user::rwx, user:1:rwx, group::rwx, mask::rwx, other::rwx
    entries = ((1, -1), (2, 1), (4, -1), (16, -1), (32, -1))
    acl = struct.pack("<I", 2)
    acl += b"".join(struct.pack("<HHi", tag, 7, name) for tag, name in entries)
    set_xattr_or_skip(f"/proc/self/fd/{locked.state}", "system.posix_acl_default", acl)
    upload = made(locked)
    assert "system.posix_acl_access" not in os.listxattr(upload.path)
    assert stat.S_IMODE(os.stat(upload.path).st_mode) == 0o700


@pytest.mark.parametrize("data", [b"", b"{}x", b"3", b'[{"path": 1}]', b'[["a"]]', b"[" * 100000])
def test_a_damaged_record_says_what_to_do(locked: Dest, data: bytes) -> None:
    locked.write(UPLOADS, data)
    with pytest.raises(RootfsError, match=r"is damaged; remove uploads\.json"):
        load_upload_folders(locked)


def test_a_folder_is_named_as_the_controller_knows_it(locked: Dest) -> None:
    assert is_upload_path(made(locked).path)


@pytest.mark.parametrize("name", ["it's", 'a"b', "a\\b", "a\nb", "a\x1bb", "a\udcffb"], ids=ascii)
def test_a_path_that_the_controller_would_refuse(tmp_path: Path, name: str) -> None:
    """Then the temporary folder must do (section 7)."""
    (tmp_path / name).mkdir()
    with lock_dest(resolve_dest(str(tmp_path / name / "web")), 5, 0o700, False) as locked:
        assert make_upload_folder(locked, IMAGE, os.geteuid(), os.getegid()) is None
        assert locked.read(UPLOADS) is None
        assert os.listdir(locked.state) == []
    assert {path.name for path in (tmp_path / name).iterdir()} <= {".web.oci_rootfs"}

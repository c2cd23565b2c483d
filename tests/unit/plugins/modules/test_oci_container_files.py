# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that describe a container, written and brought back together (docs/behaviour.md, section 9)."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hypervisor.oci.plugins.module_utils._container import files as _container_files
from ansible_collections.hypervisor.oci.plugins.modules import oci_container_files
from ansible_collections.hypervisor.oci.tests.unit.support import give, needs_root, set_xattr_or_skip

Run = t.Callable[..., t.Dict[str, t.Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the module in this process."""

    def runs(**params: t.Any) -> dict[str, t.Any]:
        give(monkeypatch, params)
        with pytest.raises(SystemExit):
            oci_container_files.main()
        result: dict[str, t.Any] = json.loads(capfd.readouterr().out)
        return result

    return runs


def file(path: Path, content: str, mode: str = "0600", **more: t.Any) -> dict[str, t.Any]:
    own = {"owner": os.geteuid(), "group": os.getegid()}
    return {"path": str(path), "content": content, "mode": mode, **own, **more}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_are_made_once(tmp_path: Path, run: Run) -> None:
    arguments = {
        "directories": [{"path": str(tmp_path / "a/b")}],
        "files": [file(tmp_path / "a/b/config", "grün\n"), file(tmp_path / "open", "", "0644")],
    }
    checked = run(**arguments, _ansible_check_mode=True)
    assert checked["changed"] is True
    assert list(tmp_path.iterdir()) == []
    made = run(**arguments)
    assert made["changed_paths"] == checked["changed_paths"]
    assert (tmp_path / "a/b/config").read_bytes() == "grün\n".encode()
    assert [mode_of(tmp_path / name) for name in ("a", "a/b", "a/b/config", "open")] == [0o700, 0o700, 0o600, 0o644]
    assert run(**arguments)["changed"] is False
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "open"]


def test_a_mode_that_became_wrong_is_set_right(tmp_path: Path, run: Run) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    assert run(files=[file(secret, "x")])["changed"] is True
    assert mode_of(secret) == 0o600


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(0o750)
    for passable in (False, True):
        wanted = [{"path": str(folder), "passable": passable}]
        assert run(directories=wanted)["changed"] is False
        assert mode_of(folder) == 0o750


@needs_root
def test_folders_that_one_mapped_root_can_pass(tmp_path: Path, run: Run) -> None:
    """A new one has its group, one that containers share an entry for each map; one that is there is opened for it."""
    own, shared, old = (tmp_path / name for name in ("shared/own", "shared", "old"))
    set_xattr_or_skip(tmp_path, "user.test", b"")
    old.mkdir(0o750)
    before = os.stat(old)
    for base in (100000, 200000):
        arguments = {
            "directories": [
                {"path": str(shared), "passable": True, "shared": True},
                {"path": f"{own}{base}", "passable": True},
                {"path": str(old), "passable": True},
            ],
            "uid_map": [f"0:{base}:9"],
            "gid_map": [f"0:{base}:9"],
        }
        checked = run(**arguments, _ansible_check_mode=True)
        made = run(**arguments)
        assert made["changed_paths"] == checked["changed_paths"]
        assert run(**arguments)["changed"] is False
    for base in (100000, 200000):
        status = os.stat(f"{own}{base}")
        assert (status.st_gid, mode_of(Path(f"{own}{base}"))) == (base, 0o710)
        for folder in (shared, old):
            entries = getfacl(folder)
            assert f"user:{base}:--x" in entries
            assert "other::---" in entries
    assert "group::---" in getfacl(shared)
    assert "group::r-x" in getfacl(old)
    after = os.stat(old)
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


@needs_root
def test_a_shared_folder_without_acls(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user may pass it, and what lies in it is closed itself."""

    def refuse(*_args: t.Any) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    run(
        directories=[
            {"path": str(tmp_path / "a/shared"), "passable": True, "shared": True},
            {"path": str(tmp_path / "a/shared/own"), "passable": True},
        ],
        uid_map=["0:100000:9"],
        gid_map=["0:100000:9"],
    )
    modes = [mode_of(tmp_path / path) for path in ("a", "a/shared", "a/shared/own")]
    assert modes == [0o711, 0o711, 0o710]


def getfacl(path: Path) -> list[str]:
    """The access ACL, a line an entry, ids as numbers."""
    command = ["getfacl", "-cpn", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_the_files_of_before_come_back(tmp_path: Path, run: Run) -> None:
    keep = tmp_path / "keep"
    old, new, same = tmp_path / "old", tmp_path / "new", tmp_path / "same"
    old.write_bytes(b"\xff before\n")
    old.chmod(0o640)
    same.write_text("same")
    same.chmod(0o600)
    files = [file(old, "after\n"), file(new, "new\n"), file(same, "same")]
    assert run(files=files, keep=str(keep))["changed_paths"] == [str(old), str(new)]
    assert run(files=files, keep=str(keep))["changed"] is False
    assert mode_of(keep) == 0o700
    back = run(state="restored", keep=str(keep))
    assert back["changed_paths"] == [str(old), str(new)]
    assert old.read_bytes() == b"\xff before\n"
    assert mode_of(old) == 0o640
    assert not new.exists()
    assert run(state="restored", keep=str(keep))["changed"] is False


def test_a_link_is_not_followed(tmp_path: Path, run: Run) -> None:
    (tmp_path / "victim").write_text("the host's")
    (tmp_path / "config").symlink_to("victim")
    result = run(files=[file(tmp_path / "config", "new")])
    assert result["failed"] is True
    assert (tmp_path / "victim").read_text() == "the host's"


@pytest.mark.parametrize("kind", ["file", "directory", "keep"])
def test_no_link_is_followed_below_the_container_s_own_folder(tmp_path: Path, run: Run, kind: str) -> None:
    """Others may have a hand in it, a container by a volume for example."""
    (tmp_path / "own").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir(0o755)
    (tmp_path / "own/etc").symlink_to(outside)
    path = tmp_path / "own/etc/below"
    arguments: dict[str, t.Any] = {"directories": [{"path": str(tmp_path / "own")}]}
    if kind == "file":
        arguments["files"] = [file(path, "new")]
    elif kind == "keep":
        arguments["files"] = [file(tmp_path / "own/config", "new")]
        arguments["keep"] = str(path)
    else:
        arguments["directories"].append({"path": str(path), "passable": True})
    result = run(**arguments)
    assert "leads through the link 'etc', which is not allowed" in result["msg"]
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "own/config").exists()


def test_a_link_of_the_administrator_s_is_followed(tmp_path: Path, run: Run) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "lib").symlink_to("disk")
    folder = tmp_path / "lib/containers"
    arguments = {"directories": [{"path": str(folder)}], "files": [file(folder / "config", "new")]}
    assert run(**arguments)["changed"] is True
    assert (tmp_path / "disk/containers/config").read_text() == "new"
    assert run(**arguments)["changed"] is False


@needs_root
@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_a_link_that_another_user_can_change(tmp_path: Path, run: Run, listed: bool, check_mode: bool) -> None:
    (tmp_path / "victim").mkdir(0o755)
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 1000, 1000)
    (tmp_path / "theirs/link").symlink_to(tmp_path / "victim")
    folder = tmp_path / "theirs/link"
    result = run(
        directories=[{"path": str(folder), "passable": True}] if listed else [],
        files=[file(folder / "config", "new")],
        _ansible_check_mode=check_mode,
    )
    assert "which another user can change" in result["msg"]
    assert list((tmp_path / "victim").iterdir()) == []


@needs_root
@pytest.mark.parametrize(
    ("owner", "mode", "says"), [(1000, 0o755, "belongs to another user"), (0, 0o777, "can be written to by")]
)
@pytest.mark.parametrize("state", ["present", "restored"])
def test_a_folder_that_others_can_change(
    tmp_path: Path, run: Run, owner: int, mode: int, says: str, state: str
) -> None:
    """What is written there, a runtime would believe as root, and so it is with what is brought back."""
    folder = tmp_path / "folder"
    folder.mkdir()
    kept = [{"path": str(tmp_path / "made"), "content": "", "mode": 0o600}]
    (folder / "files.json").write_text(json.dumps([{**kept[0], "uid": 0, "gid": 0}]))
    os.chown(folder, owner, 0)
    folder.chmod(mode)
    files = [file(folder / "config", "new")] if state == "present" else []
    result = run(state=state, files=files, keep=str(folder))
    assert says in result["msg"]
    assert not (folder / "config").exists()
    assert not (tmp_path / "made").exists()


@needs_root
def test_a_directory_of_another_user(tmp_path: Path, run: Run) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 1000, 1000)
    result = run(directories=[{"path": str(tmp_path / "theirs"), "passable": True}])
    assert "belongs to another user" in result["msg"]


@needs_root
def test_a_directory_that_is_swapped_when_it_is_made(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make = os.mkdir
    (tmp_path / "victim").mkdir(0o700)

    def swapped(name: bytes, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        os.rmdir(name, dir_fd=dir_fd)
        os.symlink(tmp_path / "victim", name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    result = run(directories=[{"path": str(tmp_path / "new"), "passable": True}])
    assert "another user replaced the directory" in result["msg"]
    assert mode_of(tmp_path / "victim") == 0o700


def test_what_is_no_file_is_not_opened(tmp_path: Path, run: Run) -> None:
    """A FIFO would be waited for, and some devices do something when they are opened."""
    os.mkfifo(tmp_path / "config")
    result = run(files=[file(tmp_path / "config", "new")])
    assert "not a regular file" in result["msg"]


def test_content_is_nothing_for_a_log_but_for_a_diff(tmp_path: Path, run: Run) -> None:
    (tmp_path / "config").write_text("a\nPASSWORD=old\n")
    files = [file(tmp_path / "config", "a\nPASSWORD=hunter2\n")]
    result = run(files=files)
    assert "hunter2" not in json.dumps(result)
    (tmp_path / "config").write_text("a\nPASSWORD=old\n")
    assert run(files=files, _ansible_diff=True)["diff"][0]["prepared"] == (
        f"{tmp_path}/config: the content changes but is not shown\n"
    )
    (tmp_path / "config").write_text("a\nPASSWORD=old\n")
    files[0]["shown"] = "all"
    shown = run(files=files, _ansible_diff=True)["diff"]
    assert "-PASSWORD=old" in shown[0]["prepared"]
    assert "+PASSWORD=hunter2" in shown[0]["prepared"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("old")

    def refuse(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_container_files.os, "fsync", refuse)
    result = run(files=[file(tmp_path / "config", "new")])
    assert "no room left" in result["msg"]
    assert (tmp_path / "config").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"files": [{"path": "/x/y/z", "content": ""}]}, "/x/y"),
        ({"directories": [{"path": "relative"}]}, "'relative' is not absolute"),
        ({"directories": [{"path": "a/b"}]}, "'a/b' is not absolute"),
        ({"files": [{"path": "a/b", "content": ""}]}, "'a/b' is not absolute"),
        ({"state": "restored", "keep": "kept"}, "'kept' is not absolute"),
        ({"files": [{"path": "/x/y", "content": ""}], "keep": "kept"}, "'kept' is not absolute"),
        ({"files": [{"path": "/x", "content": "", "mode": "rw"}]}, "invalid mode"),
        ({"files": [{"path": "/x", "content": "", "mode": "77777"}]}, "invalid mode"),
        ({"files": [{"path": "/dev/null", "content": ""}]}, "not a regular"),
        ({"directories": [{"path": "/dev/null"}]}, "not a directory"),
        ({"state": "restored", "keep": "/nowhere"}, "nothing to restore"),
    ],
)
def test_errors_are_one_sentence(run: Run, arguments: dict[str, t.Any], says: str) -> None:

    result = run(**arguments)
    assert result["failed"] is True
    assert says in result["msg"]


def test_content_is_in_no_log_of_the_node(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ansible logs the representation of a list, in which a value of several lines is another text."""
    logged: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, message, **_more: logged.append(message))
    path = tmp_path / "config"
    secret = file(path, "first\nlxc.environment = A=s3cret\n")
    assert run(files=[secret])["changed"] is True
    assert "s3cret" in path.read_text()
    assert "Invoked with" in logged[0]
    assert str(path) in logged[0]
    wrong = [
        run(files=[secret], unknown=1),
        run(files=[{**secret, "unknown": 1}]),
        run(files=[{"path": "/x", "contents": "s3cret"}]),
        run(files=[f"path={path} content=s3cret mode=x unknown=1"]),
        run(files="s3cret"),
    ]
    assert all(result["failed"] for result in wrong)
    assert "s3cret" not in json.dumps([*logged, *wrong])

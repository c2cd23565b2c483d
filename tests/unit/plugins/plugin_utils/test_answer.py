# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a hostile node may answer, and what of it the controller uses (docs/behaviour.md, section 7)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._answer import (
    AnswerError,
    UploadRequest,
    check_tmp,
    parse_request,
    remove_foreign_keys,
)

LAYERS = {"blobs/sha256/" + letter * 64: number for number, letter in enumerate("abc")}
A, B, _C = LAYERS
FOLDER = ".oci_rootfs-" + "0123456789abcdef" * 2
UPLOAD = f"/srv/guests/.web 1.oci_rootfs/{FOLDER}"


def blob(name: t.Any, size: t.Any = None) -> dict[str, t.Any]:
    """An item of an answer."""
    return {"name": name, "size": LAYERS.get(name) if size is None else size}


def answer(**fields: t.Any) -> dict[str, t.Any]:
    """A right one, with other fields."""
    return {"folder": UPLOAD, "blobs": [blob(A)], **fields}


def test_an_answer_of_the_module_is_understood() -> None:
    assert parse_request(answer(blobs=[blob(B), blob(A)]), LAYERS) == UploadRequest(UPLOAD, (B, A))
    assert parse_request(answer(folder=None), LAYERS) == UploadRequest(None, (A,))
    assert parse_request(answer(folder=f"/{FOLDER}"), LAYERS).folder == f"/{FOLDER}"
    # what a node has in its own language
    assert parse_request(answer(folder=f"/srv/größer 日本/{FOLDER}"), LAYERS).folder


BAD_PATHS: t.Sequence[str] = [
    "",
    "/",
    "/etc",
    "/tmp",
    FOLDER,
    f"./{FOLDER}",
    f"~/{FOLDER}",
    f"-r/{FOLDER}",
    f"host:/{FOLDER}",
    f"//{FOLDER}",
    f"/srv//{FOLDER}",
    f"/srv/../{FOLDER}",
    f"/../{FOLDER}",
    f"/srv/./{FOLDER}",
    f"/srv/{FOLDER}/",
    f"/srv/{FOLDER}/..",
    f"/srv/{FOLDER}/etc",
    f"/srv/{FOLDER}\n",
    f"/srv/{FOLDER}\n!touch /x\n",
    f"/srv\n!touch x\n/{FOLDER}",
    f"/srv\r!touch x\r/{FOLDER}",
    f"/x\\'\"\n!touch x\n/{FOLDER}",
    f"/it's/{FOLDER}",
    f'/"/{FOLDER}',
    f"/`id`/{FOLDER}",
    f"/\\/{FOLDER}",
    f"/\0/{FOLDER}",
    f"/\x1b[2J/{FOLDER}",
    f"/\x7f/{FOLDER}",
    f"/\x85/{FOLDER}",
    f"/\u2028/{FOLDER}",
    f"/\u202e/{FOLDER}",
    f"/\udcff/{FOLDER}",
    f"/srv/{FOLDER[:-1]}",
    f"/srv/{FOLDER}0",
    f"/srv/{FOLDER[:-1]}g",
    f"/srv/{FOLDER.upper()}",
    f"/srv/x{FOLDER}",
    "/srv/.oci_rootfs-",
    "/srv/.oci_rootfs-" + "٣" * 32,
    "/" + "a" * 5000 + f"/{FOLDER}",
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=ascii)
def test_a_folder_that_the_module_would_not_make(path: str) -> None:
    with pytest.raises(AnswerError, match="is not the path of an upload folder"):
        parse_request(answer(folder=path), LAYERS)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        1,
        "",
        "x",
        [],
        [UPLOAD, [blob(A)]],
        {},
        {"folder": UPLOAD},
        {"blobs": [blob(A)]},
        answer(more=1),
        {"folder": UPLOAD, "blobs": [blob(A)], 1: 2},
        answer(folder=True),
        answer(folder=0),
        answer(folder=[UPLOAD]),
        answer(folder={"path": UPLOAD}),
        answer(folder=UPLOAD.encode()),
        answer(blobs=None),
        answer(blobs=[]),
        answer(blobs={}),
        answer(blobs={A: 0}),
        answer(blobs="x"),
        answer(blobs=(blob(A),)),
        answer(blobs=[A]),
        answer(blobs=[None]),
        answer(blobs=[[A, 0]]),
        answer(blobs=[{}]),
        answer(blobs=[{"name": A}]),
        answer(blobs=[{"size": 0}]),
        answer(blobs=[{**blob(A), "path": "/etc"}]),
        answer(blobs=[blob(A), blob(A)]),
        answer(blobs=[blob(A), blob(B), blob(A)]),
        answer(blobs=[blob(A)] * 4),
        answer(blobs=[blob(A)] * 100_000),
        answer(blobs=[blob(None, 0)]),
        answer(blobs=[blob(1, 0)]),
        answer(blobs=[{"name": [A], "size": 0}]),
        answer(blobs=[{"name": {}, "size": 0}]),
        answer(blobs=[blob(A.encode(), 0)]),
        answer(blobs=[blob("index.json", 0)]),
        answer(blobs=[blob("../../etc/shadow", 0)]),
        answer(blobs=[blob("blobs/sha256/" + "d" * 64, 0)]),
        answer(blobs=[blob(A.upper(), 0)]),
        answer(blobs=[blob(A + "\n", 0)]),
        answer(blobs=[blob("\x1b]0;x\x07", 0)]),
        answer(blobs=[blob(A, "0")]),
        answer(blobs=[blob(A, False)]),
        answer(blobs=[blob(A, 0.0)]),
        answer(blobs=[blob(A, -1)]),
        answer(blobs=[blob(B, True)]),
        answer(blobs=[blob(B, 2)]),
        answer(blobs=[blob(B, 10**400)]),
        answer(blobs=[blob(B, float("nan"))]),
        answer(blobs=[{"name": B, "size": None}]),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_an_odd_answer_is_refused(value: object) -> None:
    with pytest.raises(AnswerError) as caught:
        parse_request(value, LAYERS)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000


def test_an_answer_of_any_depth_is_not_looked_into() -> None:
    deep: t.Any = []
    for _level in range(100_000):
        deep = [deep]
    for value in (deep, answer(folder=deep), answer(blobs=[deep]), answer(blobs=[{"name": deep, "size": deep}])):  # fmt: skip
        with pytest.raises(AnswerError):
            parse_request(value, LAYERS)


def test_nobody_may_ask_where_nothing_was_offered() -> None:
    with pytest.raises(AnswerError, match="are not a list of 1 to 0"):
        parse_request(answer(), {})


# -- what a node says of its temporary folder


@pytest.mark.parametrize("path", ["/root/.ansible/tmp/ansible-tmp-1-2-3/", "/home/a b/x", "/tmp"])  # fmt: skip
def test_a_temporary_folder(path: str) -> None:
    assert check_tmp(path) == path


@pytest.mark.parametrize(
    "path", [None, b"/tmp", "", "tmp", "~/tmp", "/it's", "/\n", "/a\\b", "/a/../b", "//x", "/\x1b[0m", "/" + "x" * 5000]
)  # fmt: skip
def test_a_temporary_folder_that_is_odd(path: object) -> None:
    with pytest.raises(AnswerError, match="temporary folder"):
        check_tmp(path)


# -- what stands in the result


def test_a_result_adds_no_host_and_no_facts_of_others() -> None:
    own = {"oci_rootfs": {"dest": "/x"}, "ansible_discovered_interpreter_python": "/p"}
    result = {"changed": True, "msg": "x", "ansible_facts": own}
    hostile = {
        **result,
        "add_host": {"host_name": "x", "host_vars": {"ansible_connection": "local"}},
        "add_group": "y",
        "ansible_stats": {"data": {"x": 1}},
        "ansible_facts": {**own, "ansible_become_exe": "/x", "ansible_facts": {}},
    }
    assert remove_foreign_keys(result) == result
    assert remove_foreign_keys(hostile) == result
    odd: t.Sequence[t.Any] = ([], "x", 1)
    for facts in odd:
        assert remove_foreign_keys({"ansible_facts": facts}) == {"ansible_facts": {}}
    assert remove_foreign_keys({"failed": True}) == {"failed": True}

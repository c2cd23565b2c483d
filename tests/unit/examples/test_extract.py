# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is extracted from the documentation as an example. That examples run is in the integration target examples."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.examples import extract


def test_every_page_with_examples_is_found() -> None:
    found = extract.examples()
    assert {"README.md", "docs/fleet.md", "roles/container/README.md", "docs/docsite/rst/guide_container.rst"} <= set(
        found
    )
    plugins = {f"plugins/{kind}" for kind in ("modules", "filter")}
    for path in extract.ROOT.glob("plugins/*/*"):
        text = path.read_text("utf-8") if path.suffix in (".py", ".yml") else ""
        if str(path.relative_to(extract.ROOT).parent) in plugins and re.search(r"^EXAMPLES\b", text, re.MULTILINE):
            assert str(path.relative_to(extract.ROOT)) in found


def test_all_blocks_of_a_page_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(
        "```yaml\n- name: One\n```\n\n1. Indented:\n\n   ```yaml\n   - hosts: all\n   ```\n\n```ini\n[defaults]\n```\n"
    )
    rst = tmp_path / "docs/docsite/rst"
    rst.mkdir(parents=True)
    (rst / "guide.rst").write_text(
        "Text\n\n.. code-block:: yaml\n\n    a: 1\n\n1. Step:\n\n   .. code-block:: yaml+jinja\n\n       - name: Two\n\nEnd\n"
    )
    (tmp_path / "docs/again.md").write_text("```yaml\n- hosts: all\n```\n\n```yaml\n- name: One\n```\n")
    found = extract.examples()
    # a play that another page shows runs once; tasks may need one another
    assert [example.is_tasks for example in found["docs/again.md"]] == [True]
    tasks, play, configuration = found["README.md"]
    assert tasks.is_tasks and not tasks.is_play
    assert play.is_play and not play.is_tasks
    assert configuration.value == "[defaults]\n"
    assert [example.value for example in found["docs/docsite/rst/guide.rst"]] == [{"a": 1}, [{"name": "Two"}]]


@pytest.mark.parametrize("block", ["```perl\n1\n```\n", "```yaml\n- one\n```\n"])
def test_a_block_that_cannot_be_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: str) -> None:
    monkeypatch.setattr(extract, "ROOT", tmp_path)
    (tmp_path / "README.md").write_text(block)
    with pytest.raises(extract.Unknown, match=r"README\.md"):
        extract.examples()


def test_no_example_uses_the_bare_fact() -> None:
    """ansible-core 2.24 has no variable oci_rootfs any more, only ansible_facts['oci_rootfs']."""
    for page, found in extract.examples().items():
        for example in found:
            for expression in re.findall(r"\{\{(.*?)\}\}|when: (.*)", example.text):
                assert not re.search(r"(?<![\w.'\[])oci_rootfs\b(?!')", "".join(expression)), page

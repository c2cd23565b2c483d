# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module's process, started as Ansible starts it on a node, and a module beside it that does nothing.

``payload`` is what Ansible sends: a script that carries the arguments, and the module with all that it imports
as a zip, which Python compiles anew each time. ``files`` starts the module from its own files, whose compiled
forms are kept, with the arguments in a file.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import subprocess
import sys
import typing as t

from ..tools import link_collection
from ..tools.removal import remove_below

STARTS = ("payload", "files")
OURS = "oci_rootfs"
NOTHING = "does_nothing"
# What the module may inflate gzip by, as its report names it, and the package that must be there for it.
INFLATERS = {"zlib": "", "isal": "isal", "zlib-ng": "zlib_ng"}

# Stand for the arguments in a payload, which is made once.
_SRC = "/stands/for/the/source"
_DEST = "/stands/for/the/destination"
_STORE = "/stands/for/the/store"

_DOES_NOTHING = """\
#!/usr/bin/python
from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path"},
            "dest": {"type": "path"},
            "remote_src": {"type": "bool"},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
"""


class Modules:
    """Commands that start the two modules, made in ``folder`` with this process's Python.

    ``checkout`` is that of another version of the collection. ``environment`` is what a child needs to import the
    collection. Raises ``RuntimeError`` where Ansible makes no payload.
    """

    def __init__(self, folder: str, checkout: str = link_collection.ROOT) -> None:
        collections = os.path.join(folder, "collections")
        link_collection.main(collections, checkout)
        self._folder = folder
        self._library = os.path.join(folder, "library")
        os.mkdir(self._library)
        nothing = os.path.join(self._library, f"{NOTHING}.py")
        with open(nothing, "w", encoding="utf-8") as file:
            file.write(_DOES_NOTHING)
        collection = os.path.join(collections, "ansible_collections", "hypervisor", "oci")
        ours = os.path.join(collection, "plugins", "modules", f"{OURS}.py")
        self._files = {OURS: ours, NOTHING: nothing}
        for library in filter(None, INFLATERS.values()):
            self._hide(library)
        self._collections = collections
        self._path = [collections]
        if os.environ.get("PYTHONPATH"):
            self._path.append(os.environ["PYTHONPATH"])
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(self._path),
            # what Ansible sets on a node
            "LC_ALL": "C.UTF-8",
        }
        # or Python would compile its own library again and again
        for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):
            self.environment.pop(name, None)
        self._payloads = {OURS: self._payload(f"hypervisor.oci.{OURS}"), NOTHING: self._payload(NOTHING)}
        self._asking: dict[str, str] = {}

    def command(self, module: str, start: str, src: str, dest: str, inflater: str = "zlib") -> list[str]:
        """The words that start this module, as on a node that has this one library to inflate gzip."""
        path = [self._hidden(library) for name, library in INFLATERS.items() if library and name != inflater]
        path += self._path
        words = ["env", f"PYTHONPATH={os.pathsep.join(path)}", sys.executable]
        if start == "payload":
            return [*words, self._filled(self._payloads[module], {_SRC: src, _DEST: dest})]
        arguments = {"src": src, "dest": dest, "remote_src": True}
        target = os.path.join(self._folder, "arguments.json")
        with open(target, "w", encoding="utf-8") as file:
            json.dump({"ANSIBLE_MODULE_ARGS": arguments}, file)
        return [*words, self._files[module], target]

    def storing(self, src: str, dest: str, store: str) -> list[str]:
        """The words that start our module as Ansible sends it, with a store. Needs root."""
        return self._asked({"store_dir": _STORE}, {_SRC: src, _DEST: dest, _STORE: store})

    def verifying(self, src: str, dest: str, how: str) -> list[str]:
        """The words that start our module as Ansible sends it, to verify the tree."""
        return self._asked({"verify": how}, {_SRC: src, _DEST: dest})

    def _asked(self, options: dict[str, str], values: dict[str, str]) -> list[str]:
        key = str(options)
        if key not in self._asking:
            self._asking[key] = self._payload(f"hypervisor.oci.{OURS}", options)
        path = [self._hidden(library) for library in INFLATERS.values() if library]
        script = self._filled(self._asking[key], values)
        return ["env", f"PYTHONPATH={os.pathsep.join([*path, *self._path])}", sys.executable, script]

    def _filled(self, text: str, values: t.Mapping[str, str]) -> str:
        """Write a payload with its arguments, and return its path. Raises ``RuntimeError``."""
        for stands, value in values.items():
            if set(value) & set("'\"\\"):
                raise RuntimeError(f"{value}: give a path without quotes")
            text = text.replace(stands, value)
        target = os.path.join(self._folder, "payload.py")
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
        return target

    def _hidden(self, library: str) -> str:
        return os.path.join(self._folder, "hidden", library)

    def _hide(self, library: str) -> None:
        """Make a folder for the import path that takes the library away."""
        package = os.path.join(self._hidden(library), library)
        os.makedirs(package)
        with open(os.path.join(package, "__init__.py"), "w", encoding="ascii") as file:
            file.write(f'raise ImportError("{library} is left out of this run")\n')

    def _payload(self, name: str, more: t.Mapping[str, str] | None = None) -> str:
        """Let Ansible send the module to this very machine and keep what it sent."""
        temporary = os.path.join(self._folder, "sent")
        config = os.path.join(self._folder, "ansible.cfg")
        with open(config, "w", encoding="ascii"):
            pass
        environment = {
            **self.environment,
            "ANSIBLE_COLLECTIONS_PATH": self._collections,
            # nobody's own settings
            "ANSIBLE_CONFIG": config,
            "ANSIBLE_HOME": os.path.join(self._folder, "home"),
            "ANSIBLE_KEEP_REMOTE_FILES": "1",
            "ANSIBLE_LIBRARY": self._library,
            "ANSIBLE_PIPELINING": "0",
            "ANSIBLE_REMOTE_TEMP": temporary,
        }
        arguments = {"src": _SRC, "dest": _DEST, "remote_src": True, **(more or {})}
        ran = subprocess.run(
            [sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", name]
            + ["-e", f"ansible_python_interpreter={sys.executable}"]
            + ["-a", json.dumps(arguments)],
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        pattern = os.path.join(temporary, "*", f"AnsiballZ_{name.split('.')[-1]}.py")
        sent = glob.glob(pattern)
        if not sent:
            raise RuntimeError(f"Ansible sent no module {name}: {ran.stdout}")
        with open(sent[0], encoding="utf-8") as file:
            text = file.read()
        stand = [value for value in (_SRC, _DEST, *(more or {}).values()) if value.startswith("/")]
        if any(text.count(value) != 1 for value in stand):
            raise RuntimeError(f"the payload of {name} holds its arguments otherwise")
        remove_below(self._folder, temporary)
        return text


def inflaters() -> list[str]:
    """Those that this Python has."""
    return [name for name, library in INFLATERS.items() if not library or importlib.util.find_spec(library)]


def result_of(printed: str) -> dict[str, t.Any]:
    """The result that a module printed. Raises ``RuntimeError`` with what it says where it failed."""
    try:
        result = json.loads(printed)
    except ValueError as error:
        raise RuntimeError(f"no result: {printed[-500:]}") from error
    if result.get("failed"):
        raise RuntimeError(str(result.get("msg")))
    return dict(result)

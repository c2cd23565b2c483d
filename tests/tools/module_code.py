# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keeps what Ansible makes of a module's sources, in a virtual environment in which many playbooks run.

Each ansible-playbook compiles the plugins of collections, and builds an archive of sources for each module, and each run of
a module compiles those: together that takes longer than what the modules do. With this, an archive is built once, in
Ansible's own cache, and a source compiled once, as Python does it for files. Code is kept by the hash of its source, so
another source is another entry; imports, their order, and the names in tracebacks stay as they are. Archives are kept by
the module's name: its sources must not change until the next ``install``.

``install`` copies this file into a virtual environment, whose Python imports it when it starts.
"""

from __future__ import annotations

import _imp
import contextlib
import functools
import marshal
import os
import shutil
import sys
import tempfile
import types
import zipimport

# each start of a Python reads this file: what only types need is left out
TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing as t

_NAME = "hypervisor_oci_module_code"
_FOLDER = "module-code"
_ARCHIVES = "archives"
_COMPILED = "compiled"
# The temporary folder of an ansible-playbook, and the name of its cache in there.
_LOCAL = "ansible-local-"
_CACHE = "ansiballz_cache"
# Where the loader of collections is, and its class that compiles.
_LOADERS = "ansible.utils.collection_loader._collection_finder"
_LOADER = "_AnsibleCollectionPkgLoaderBase"
# zipimport and importlib do not show theirs
_compile = zipimport._compile_source  # type: ignore[attr-defined]
_rename = _imp._fix_co_filename  # type: ignore[attr-defined]
_hash = _imp.source_hash
_mkdtemp = tempfile.mkdtemp
# The source that was last asked for, and its code, by its path.
_last: dict[str, tuple[bytes, types.CodeType]] = {}


def install(environment: str, packages: str) -> None:
    """Install this in a virtual environment with that folder of packages; forget what an earlier one has kept."""
    for name in (_ARCHIVES, _COMPILED):
        folder = os.path.join(environment, _FOLDER, name)
        os.makedirs(folder, exist_ok=True)
        for kept in os.listdir(folder):
            os.unlink(os.path.join(folder, kept))
    shutil.copyfile(__file__, os.path.join(packages, f"{_NAME}.py"))
    with open(os.path.join(packages, f"{_NAME}.pth"), "w", encoding="ascii") as file:
        file.write(f"import {_NAME}\n")


def compile_once(pathname: str, source: bytes) -> types.CodeType:
    """Return the code of a source, as ``zipimport`` compiles it. Raises ``SyntaxError``."""
    # it asks once for the name of the file, and once for the code
    last = _last.get(pathname)
    if last is not None and last[0] == source:
        return last[1]
    code = _kept(pathname, source)
    if code is None:
        code = _compile(pathname, source)
        _keep(source, code)
    _last.clear()
    _last[pathname] = (source, code)
    return code


def _path_of(source: bytes) -> str:
    name = f"{_hash(len(source), source).hex()}.{sys.implementation.cache_tag}-{sys.flags.optimize}"
    return os.path.join(sys.prefix, _FOLDER, _COMPILED, name)


def _kept(pathname: str, source: bytes) -> types.CodeType | None:
    """Return the code of a source with the name of its file, or ``None`` if it is not kept or not understood."""
    with contextlib.suppress(OSError, EOFError, TypeError, ValueError), open(_path_of(source), "rb") as file:
        code: types.CodeType = marshal.loads(file.read())
        _rename(code, pathname)
        return code
    return None


def _keep(source: bytes, code: types.CodeType) -> None:
    """Keep code, unless that is not possible: other users of this machine, and containers, keep none."""
    path = _path_of(source)
    fresh = f"{path}.{os.getpid()}"
    with contextlib.suppress(OSError):
        with open(fresh, "wb") as file:
            file.write(marshal.dumps(code))
        # whole at once, since other processes read it at this moment
        os.replace(fresh, path)


class Finder:
    """Changes the loader of collections when it is imported: it keeps code as well."""

    def find_spec(self, name: str, path: t.Any = None, target: t.Any = None) -> t.Any:
        """Return what the other finders find, for one name only."""
        if name != _LOADERS:
            return None
        finders: t.Any = sys.meta_path
        finders.remove(self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in finders)), None)
        if spec is not None:
            spec.loader.exec_module = functools.partial(_execute, spec.loader.exec_module)
        return spec


def _execute(execute: t.Any, module: types.ModuleType) -> None:
    execute(module)
    loader = getattr(module, _LOADER)
    loader.get_code = functools.partialmethod(_code_of_plugin, loader.get_code)


def _code_of_plugin(loader: t.Any, compile_anew: t.Any, name: str) -> t.Any:
    source = loader.get_source(name)
    if loader._compiled_code or not isinstance(source, bytes):
        return compile_anew(loader, name)
    # it returns this, and compiles only if there is none
    loader._compiled_code = kept = _kept(loader.get_filename(name), source)
    code = compile_anew(loader, name)
    if kept is None:
        _keep(source, code)
    return code


def make_folder(suffix: str | None = None, prefix: str | None = None, dir: str | None = None) -> str:  # noqa: A002
    """Make a temporary folder, as ``tempfile.mkdtemp``; that of an ansible-playbook has the cache of all of them.

    Ansible locks each of its entries, and renames it into place. The folder's removal leaves the cache alone.
    """
    made = _mkdtemp(suffix, prefix, dir)
    archives = os.path.join(sys.prefix, _FOLDER, _ARCHIVES)
    if prefix and prefix.startswith(_LOCAL) and os.access(archives, os.W_OK):
        os.symlink(archives, os.path.join(made, _CACHE))
    return made


if __name__ == _NAME:
    zipimport._compile_source = compile_once  # type: ignore[attr-defined]
    tempfile.mkdtemp = make_folder  # type: ignore[assignment]
    sys.meta_path[:0] = [Finder()]  # type: ignore[list-item]

# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's half of ``oci_rootfs``: offer the image to the node, then send the blobs that it requests.

The module runs once with the offer, which is all that happens on an up-to-date node, and once more after the
requested blobs have been sent (docs/architecture.md).
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ..module_utils._errors import OciError, SourceError, visible
from ..module_utils._size_arguments import parse_max_size
from ..module_utils._provision.options import IMAGE_STATES
from ..module_utils._remote.url import is_registry, is_url
from ..module_utils._source.sources import missing_source, open_source
from ..plugin_utils._answer import check_tmp, parse_request, remove_foreign_keys
from ..plugin_utils._fetch import FetchedImage, FetchedStaging, arguments_for_node, arguments_to_ask, is_fetched_here
from ..plugin_utils._output import shorten_output, summarize
from ..plugin_utils._progress import Progress, running_module
from ..plugin_utils._signing import Judged, TaskSigning, is_path_on_node, node_arguments, parse_signing
from ..plugin_utils._staging import LocalImage, Staging
from ..plugin_utils._criteria import parse_criteria

# The module with the same options for images that are offered: Ansible sends it with less.
_OFFERED = "hypervisor.oci.oci_rootfs_offered"
_PRIVATE = ("_offer", "_upload_folder", "_verdict")
# Another run may finish the same work, or the node may lose what was sent: then the module runs again.
_MOST_ROUNDS = 3
# How many characters of a node's answer an error message quotes.
_LONGEST_ANSWER = 2000

Args = t.Dict[str, t.Any]

display = Display()


def _module_for(args: Args) -> str:
    """Return the module that needs no more code than these arguments do."""
    return _OFFERED if "_offer" in args else "hypervisor.oci.oci_rootfs"


class ActionModule(ActionBase):
    """Run the module when the node can read the image; otherwise offer the image and send what is requested."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: t.Any = None, task_vars: Args | None = None) -> Args:
        super().run(tmp, task_vars)
        del tmp
        args = dict(self._task.args)
        private = [name for name in _PRIVATE if name in args]
        if private:
            raise AnsibleActionFail(f"{private[0]} is private to this action; leave it out of the task")
        self._task_vars = task_vars or {}
        try:
            signing = parse_signing(args, self._find_file)
            if self._needs_no_transfer(args):
                return self._run_module(node_arguments(args, signing))
            if is_fetched_here(args, bool(self._task.async_val)):
                return self._fetch(args, signing)
            if self._node_reads(args):
                return self._let_node_read(args, signing)
            if signing is not None:
                args = signing.arguments(args)
            source = self._find_source(str(args["src"]))
            if self._connection.transport == "local" and not self._is_become_unprivileged():  # fmt: skip
                return self._read_in_place(args, source, signing)
            if self._task.async_val:
                raise AnsibleActionFail(
                    "async cannot send src from the controller; copy it to the node first and set remote_src: true"
                )
            return self._offer(args, source, signing)
        except OciError as error:
            raise AnsibleActionFail(error.message) from error
        finally:
            if not self._task.async_val:
                self._remove_tmp_path(self._connection._shell.tmpdir)

    def _needs_no_transfer(self, args: Args) -> bool:
        """Return whether the task needs no image."""
        return not args.get("src") or args.get("state", "present") not in IMAGE_STATES

    def _node_reads(self, args: Args) -> bool:
        """Return whether the node has the image, or fetches it by itself."""
        source = str(args["src"])
        return boolean(args.get("remote_src", False), strict=False) or is_url(source) or is_registry(source)

    def _find_source(self, src: str) -> str:
        try:
            return self._find_needle("files", os.path.expanduser(src))
        except AnsibleError:
            meant = missing_source(src)
            if meant is None:
                raise
            raise meant from None

    def _find_file(self, path: str) -> str:
        return str(self._find_needle("files", os.path.expanduser(path)))

    def _run_module(self, args: Args, work: str = "at work on the node") -> Args:
        """Run the module, and report in the meantime that it does this work."""
        with running_module(self._host(), work, self._show_progress):
            result = self._execute_module(
                module_name=_module_for(args),
                module_args=args,
                task_vars=self._task_vars,
                wrap_async=self._task.async_val,
            )
        result = remove_foreign_keys(result)
        summary = summarize(result)
        if not summary:
            return result
        if not self._task.no_log:
            display.v(f"[{self._host()}] {summary}")
        return shorten_output(result, display.verbosity)

    def _read_in_place(self, args: Args, source: str, signing: TaskSigning | None) -> Args:
        """Run the module on the image itself: the node is the controller, as the same user or root."""
        real = source if os.path.isdir(source) else self._loader.get_real_file(source)
        if self._task.async_val and not os.path.samefile(real, source):
            raise AnsibleActionFail("async cannot read an src that is encrypted by ansible-vault; decrypt it first")
        try:
            if signing is not None:
                with contextlib.closing(open_source(real, max_size=parse_max_size(args))) as image:
                    judged = signing.judge(image, parse_criteria(args))
                args = {**args, "_verdict": judged.verdict.to_argument()}
            return self._run_module({**args, "src": real, "remote_src": True})
        finally:
            self._loader.cleanup_tmp_file(real)

    def _let_node_read(self, args: Args, signing: TaskSigning | None) -> Args:
        """Let the node read or fetch the image; it asks for a verdict if its record does not show that it is signed."""
        own = node_arguments(args, signing)
        may_ask = signing is not None and not is_path_on_node(args)
        if not (may_ask and self._task.async_val):
            result = self._run_module(own)
            is_asked = result.pop("_verdict_request", None) is True
            if signing is None or not (may_ask and is_asked):
                return result
        judged = self._ask(args, t.cast("TaskSigning", signing))
        pinned = {} if args.get("digest") or not judged.resolved else {"digest": judged.resolved}
        result = self._run_module({**own, **pinned, "_verdict": judged.verdict.to_argument()})
        result.pop("_verdict_request", None)
        return result

    def _ask(self, args: Args, signing: TaskSigning) -> Judged:
        """Return the verdict about an image that the node fetches, by its documents and signatures alone."""
        try:
            image = FetchedImage(arguments_to_ask(args), self._loader.path_dwim, self._tell)
            local_tmp = t.cast(t.Any, constants).DEFAULT_LOCAL_TMP
            with FetchedStaging(image, local_tmp, parse_criteria(args), self._fetch_progress) as staging:
                return staging.judged(signing)
        except SourceError as error:
            raise AnsibleActionFail(
                f"the controller verifies signatures, and could not read them: {error.message}. It has none of the node's"
                " files; set fetch: controller, with files of the controller, if it needs credentials or a certificate"
            ) from error

    def _tell(self, note: str) -> None:
        self._show_progress(f"[{self._host()}] {note}", True)

    def _fetch(self, args: Args, signing: TaskSigning | None) -> Args:
        """Offer an image that the controller fetches; the node is told nothing of how it is fetched."""
        image = FetchedImage(args, self._loader.path_dwim, self._tell)
        local_tmp = t.cast(t.Any, constants).DEFAULT_LOCAL_TMP
        with FetchedStaging(image, local_tmp, parse_criteria(args), self._fetch_progress) as staging:
            given = args if signing is None else signing.arguments(args)
            return self._offer_and_send(arguments_for_node(given), staging, signing)

    def _offer(self, args: Args, source: str, signing: TaskSigning | None) -> Args:
        decrypted: list[str] = []

        def real_path() -> str:
            if os.path.isdir(source):
                return source
            decrypted.append(self._loader.get_real_file(source))
            return decrypted[-1]

        try:
            local_tmp = t.cast(t.Any, constants).DEFAULT_LOCAL_TMP
            max_size = parse_max_size(args)
            image = LocalImage(source, real_path, max_size)
            with Staging(image, local_tmp, parse_criteria(args)) as staging:
                return self._offer_and_send({**args, "src": source}, staging, signing)
        finally:
            for path in decrypted:
                self._loader.cleanup_tmp_file(path)

    def _offer_and_send(self, args: Args, staging: Staging, signing: TaskSigning | None) -> Args:
        offer = staging.offer()
        sizes = staging.sizes()
        if signing is not None:
            judged = staging.judged(signing)
            args["_verdict"] = judged.verdict.to_argument()
            # whatever a node requests, no layer of an image that is not approved is sent
            sizes = {name: size for name, size in sizes.items() if name in judged.layers}
        tmp = check_tmp(self._connection._shell.tmpdir or self._make_tmp_path())
        args["_offer"] = self._connection._shell.join_path(tmp, "offer")
        self._put(offer, args["_offer"])
        self._let_become_user_read([tmp, args["_offer"]])
        send_error: AnsibleError | None = None
        for rounds_left in range(_MOST_ROUNDS, -1, -1):
            result = self._run_module(
                args, "unpacking on the node" if "_upload_folder" in args else "at work on the node"
            )
            if result.get("_upload_request") is None:
                return result
            request = parse_request(result["_upload_request"], sizes)
            if not rounds_left:
                break
            args["_upload_folder"] = request.folder or tmp
            try:
                self._send(request.names, args["_upload_folder"], staging)
                send_error = None
            except AnsibleConnectionFailure:
                raise
            except AnsibleError as error:
                # Another run has succeeded and removed the folder, or the disk is full: the module can tell.
                send_error = error
                del args["_upload_folder"]
        raise send_error or AnsibleActionFail(
            f"blobs are still missing on the node after they were sent {_MOST_ROUNDS} times; check what removes files"
            f" from {args['_upload_folder']}"
        )

    def _send(self, names: t.Sequence[str], folder: str, staging: Staging) -> None:
        """Send the offered layers ``names`` into a folder on the node."""
        sizes = staging.sizes()
        progress = Progress(self._host(), {name: sizes[name] for name in names}, self._show_progress)
        sent = []
        for bundle in staging.bundles(names):
            with progress.sending(bundle.names, bundle.path):
                remote = self._connection._shell.join_path(folder, bundle.file)
                self._put(bundle.path, remote)
                sent.append(remote)
        self._let_become_user_read(sent)

    def _put(self, path: str, remote: str) -> None:
        """Send one file. Errors quote the node's answer with control characters escaped."""
        try:
            self._transfer_file(path, remote)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError as error:
            # "from None", because Ansible appends the message of a cause unescaped
            raise AnsibleActionFail(visible(str(error), _LONGEST_ANSWER)) from None

    def _let_become_user_read(self, paths: list[str]) -> None:
        """Make files readable for an unprivileged become_user. Others can read them; this saves a command."""
        if self._is_become_unprivileged():
            self._fixup_perms2(paths)

    def _fetch_progress(self, sizes: dict[str, int]) -> Progress:
        return Progress(self._host(), sizes, self._show_progress, verbs=("fetching", "fetched"))

    def _host(self) -> str:
        host = str(self._task_vars.get("inventory_hostname", ""))
        delegate = self._task.delegate_to
        return f"{host} -> {delegate}" if delegate else host

    def _show_progress(self, line: str, is_long: bool) -> None:
        if self._task.no_log:
            return
        if is_long:
            display.display(line)
        else:
            display.vv(line)

"""Who a container runs as: the request, the image's `User`, and the image's own /etc/passwd and /etc/group.

The files come from an untrusted image: they are read with the image's root as root directory (no symbolic link
leads to the node's files), up to a bound, and lines that are not of the format are skipped. User ids end at 2³¹-1,
because beyond it the kernel's and runc's arithmetic wraps round to root.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import kernel
from cri.errors import InvalidArgument, NotFound
from cri.oci_spec import User

ID_MAX = 2**31 - 1
_FILE_BYTES_MAX = 4 * 1024 * 1024


class Accounts(msgspec.Struct, frozen=True):
    """/etc/passwd and /etc/group of an image."""

    users: dict[str, tuple[int, int]] = {}
    """Name to uid and gid."""
    groups: dict[str, tuple[int, tuple[str, ...]]] = {}
    """Name to gid and members."""

    def name_of(self, uid: int) -> str:
        return next((name for name, ids in self.users.items() if ids[0] == uid), "")


def parse(passwd: str, group: str) -> Accounts:
    users: dict[str, tuple[int, int]] = {}
    for fields in _lines(passwd, 4):
        if fields[2].isdigit() and fields[3].isdigit():
            users.setdefault(fields[0], (int(fields[2]), int(fields[3])))
    groups: dict[str, tuple[int, tuple[str, ...]]] = {}
    for fields in _lines(group, 3):
        if fields[2].isdigit():
            members = tuple(name for name in (fields[3] if len(fields) > 3 else "").split(",") if name)
            groups.setdefault(fields[0], (int(fields[2]), members))
    return Accounts(users, groups)


def _lines(text: str, fields_min: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = line.strip().split(":")
        if not line.startswith("#") and len(fields) >= fields_min and fields[0]:
            yield fields


def resolve(context: cri.LinuxContainerSecurityContext, image_user: str, accounts: Accounts) -> User:
    """The user of a container's first process; raises InvalidArgument or NotFound saying which name is unknown."""
    gid: int | None = context.run_as_group.value if context.HasField("run_as_group") else None
    group_text = ""
    if context.HasField("run_as_user"):
        text = str(context.run_as_user.value)
    elif context.run_as_username:
        text = context.run_as_username
    else:
        text, _, group_text = image_user.partition(":")
        if gid is not None and not text:
            raise InvalidArgument("run_as_group needs run_as_user or run_as_username")
    uid, primary, name = _user(text or "0", accounts)
    if gid is None:
        gid = _group(group_text, accounts) if group_text else primary
    _check(uid, "user")
    _check(gid, "group")
    for number in context.supplemental_groups:
        _check(number, "supplemental group")
    # Those of the image come first, as containerd has them.
    groups = []
    if context.supplemental_groups_policy == cri.Merge and name:
        groups = [number for number, members in accounts.groups.values() if name in members]
    groups += context.supplemental_groups
    # The primary group is among a process's groups, as login(1) would have it.
    return User(uid, gid, tuple(dict.fromkeys((gid, *groups))))


def _user(text: str, accounts: Accounts) -> tuple[int, int, str]:
    if text.lstrip("-").isdigit():
        uid = int(text)
        name = accounts.name_of(uid)
        return uid, accounts.users[name][1] if name else 0, name
    if text not in accounts.users:
        raise NotFound(f"user {text!r} is not in the image's /etc/passwd")
    return *accounts.users[text], text


def _group(text: str, accounts: Accounts) -> int:
    if text.lstrip("-").isdigit():
        return int(text)
    if text not in accounts.groups:
        raise NotFound(f"group {text!r} is not in the image's /etc/group")
    return accounts.groups[text][0]


def _check(number: int, what: str) -> None:
    if not 0 <= number <= ID_MAX:
        raise InvalidArgument(f"{what} id {number} is not in 0-{ID_MAX}")


def read(layers: Sequence[str]) -> Accounts:
    """The accounts in a stack of read-only layer directories, topmost first. Blocking.

    The layers are mounted in the mount namespace of a thread that ends with this call, so that nothing stays
    mounted whatever happens.
    """

    def work() -> Accounts:
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
        if len(layers) == 1:
            return _read_root(layers[0])
        with tempfile.TemporaryDirectory(prefix="cri-accounts-") as target:
            kernel.mount("overlay", target, "overlay", kernel.MS_RDONLY, f"lowerdir={':'.join(layers)}")
            try:
                return _read_root(target)
            finally:
                kernel.unmount(target)

    return kernel.in_new_thread(work)


def _read_root(root: str | Path) -> Accounts:
    with kernel.directory_fd(root) as fd:
        return parse(_read_file(fd, "etc/passwd"), _read_file(fd, "etc/group"))


def _read_file(root_fd: int, path: str) -> str:
    try:
        fd = kernel.open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with open(fd, "rb") as file:
        try:
            return file.read(_FILE_BYTES_MAX).decode("utf-8", "replace")
        except OSError:  # a directory
            return ""

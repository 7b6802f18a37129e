"""Mounts whose files' owners are seen through a user namespace (mount_setattr(2), Linux 5.12).

A pod with a user namespace must see its image's files and its volumes as owned by its own users, while on disk they
keep the owners that they have: nothing is copied and nothing is given away. runc 1.1 can't make such mounts, but a
bind mount of one keeps its map, so they are made here, handed to runc as ordinary sources, and taken away again as
soon as the container has mounted them.

An overlay can't be mapped as a whole; each of its lower layers can. Its upper layer belongs to the pod alone and is
given to the pod's root.
"""

import ctypes
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from cri import kernel
from cri.errors import FailedPrecondition
from cri.id_maps import IdMap

# The same numbers on every architecture.
_NR_OPEN_TREE, _NR_MOVE_MOUNT, _NR_MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD = -100
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_AT_RECURSIVE, _AT_EMPTY_PATH = 0x8000, 0x1000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_IDMAP = 0x00100000
LAYERS_SUFFIX = "-layers"
_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _call(number: int, doing: str, *args: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *args))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{doing}: {os.strerror(code)}")
    return result


def bind(source: str, target: str, namespace: str) -> None:
    """Mounts `source`, with what is mounted below it, at `target`; owners in its own file system are mapped.

    `namespace` is a file of a user namespace. Raises OSError: EINVAL where the file system can't be mapped.
    """
    namespace_fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    tree = -1
    try:
        flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
        tree = _call(
            _NR_OPEN_TREE, f"mount {source}", ctypes.c_int(_AT_FDCWD), os.fsencode(source), ctypes.c_uint(flags)
        )
        attributes = _MountAttr(_MOUNT_ATTR_IDMAP, 0, 0, namespace_fd)
        _call(
            _NR_MOUNT_SETATTR,
            f"map the owners of {source}",
            ctypes.c_int(tree),
            b"",
            ctypes.c_uint(_AT_EMPTY_PATH),
            ctypes.byref(attributes),
            ctypes.c_size_t(ctypes.sizeof(attributes)),
        )
        _call(
            _NR_MOVE_MOUNT,
            f"mount {source} on {target}",
            ctypes.c_int(tree),
            b"",
            ctypes.c_int(_AT_FDCWD),
            os.fsencode(target),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        )
    finally:
        os.close(namespace_fd)
        if tree >= 0:
            os.close(tree)


def _bind(source: str, target: Path, namespace: str) -> None:
    """The same, told as what the caller asked for and can't have."""
    try:
        bind(source, str(target), namespace)
    except OSError as error:
        raise FailedPrecondition(
            f"user namespace: {error.strerror}: the file system of {source} does not support id-mapped mounts"
        ) from error


def _lower(stage: Path, directories: Sequence[str], namespace: str) -> list[str]:
    """Mounts each layer mapped, below `stage`; their names there."""
    names = []
    for number, directory in enumerate(directories):
        target = stage / f"l{number}"
        target.mkdir(mode=0o711)
        _bind(directory, target, namespace)
        names.append(target.name)
    return names


def mount_image(layer: "Layer", target: Path, namespace: str) -> None:
    """An image's file system at `target`, read-only, owners mapped. Blocking. Raises FailedPrecondition, OSError.

    `layer` is containerd's mount of a view: the one layer itself, or an overlay of several, each of which is mapped.
    An overlay keeps what it was made of, so the layers' own mounts go again at once.
    """
    if layer.type == "bind":
        _bind(layer.source, target, namespace)
        kernel.mount(layer.source, str(target), flags=kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)
        return
    stage = target.with_name(f"{target.name}{LAYERS_SUFFIX}")
    stage.mkdir(mode=0o711)
    try:
        options = []
        for option in layer.options:
            name, _, value = option.partition("=")
            lower = _lower(stage, value.split(":"), namespace) if name == "lowerdir" else []
            options.append(f"lowerdir={':'.join(lower)}" if lower else option)
        kernel.mount_overlay(str(target), options, cwd=str(stage))
    finally:
        drop_layers(stage)


def drop_layers(stage: Path) -> None:
    """Takes the mounts below a stage of layers away, and the stage. Idempotent."""
    for path in stage.iterdir() if stage.is_dir() else ():
        kernel.unmount(str(path))
        path.rmdir()
    if stage.is_dir():
        stage.rmdir()


class Stage:
    """The mapped mounts of one container while it is being created, below a directory that its users may enter.

    `make` them, hand `root` and `source(i)` to runc, `unmount` when it is done (the container keeps its own), and
    `remove` with the container.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def root(self) -> Path:
        return self._directory / "root"

    def source(self, index: int) -> Path:
        """Where the source of the container's mount number `index` is shown mapped."""
        return self._directory / f"mount-{index}"

    def make(self, layers: Sequence["Layer"], sources: dict[int, str], namespace: str, ids: IdMap) -> None:
        """Blocking. Raises FailedPrecondition for what can't be mapped; `unmount` is the caller's in any case."""
        self._open()
        self._mount_root(layers, namespace, ids)
        for index, source in sources.items():
            target = self.source(index)
            if os.path.isdir(source):
                target.mkdir(mode=0o711)
            else:
                target.touch(mode=0o600)
            _bind(source, target, namespace)

    def make_plain(self, root: Path) -> None:
        """Only a root: a directory of the node as it is, read-only. Blocking."""
        self._open()
        self.root.mkdir(mode=0o755)
        kernel.mount(str(root), str(self.root), flags=kernel.MS_BIND)
        kernel.mount(str(root), str(self.root), flags=kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY)

    def _open(self) -> None:
        for path in (self._directory.parent, self._directory):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
            path.chmod(0o711)

    def _mount_root(self, layers: Sequence["Layer"], namespace: str, ids: IdMap) -> None:
        self.root.mkdir(mode=0o755)
        if len(layers) != 1 or layers[0].type != "overlay":
            kinds = ", ".join(layer.type for layer in layers)
            raise FailedPrecondition(f"user namespace: a root file system of {kinds} can't be mapped, only an overlay")
        options = []
        for option in layers[0].options:
            name, _, value = option.partition("=")
            if name == "lowerdir":
                option = f"lowerdir={':'.join(_lower(self._directory, value.split(':'), namespace))}"
            elif name in ("upperdir", "workdir"):
                os.chown(value, ids.host_id, ids.host_id)
            options.append(option)
        # Relative names of the layers: a page holds all options, and an image may have many layers.
        kernel.mount_overlay(str(self.root), options, cwd=str(self._directory))

    def unmount(self) -> None:
        """Takes every mount away, and leaves the empty root: runc starts an exec's process in it. Idempotent."""
        if not self._directory.is_dir():
            return
        for path in sorted(self._directory.iterdir(), key=lambda item: item.name != "root"):
            kernel.unmount(str(path))
            if path == self.root:
                continue
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()

    def remove(self) -> None:
        """Takes the mounts and the directory away. Idempotent."""
        if self._directory.is_dir():
            self.unmount()
            shutil.rmtree(self._directory, ignore_errors=True)


class Layer(msgspec.Struct, frozen=True):
    """One of containerd's mounts of a snapshot."""

    type: str
    source: str
    options: tuple[str, ...]


def sweep(directory: Path, containers: Collection[str]) -> None:
    """Takes away what a predecessor left mounted. Only while no container is being created."""
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name in containers:
                Stage(path).unmount()
            else:
                Stage(path).remove()

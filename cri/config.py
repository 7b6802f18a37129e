"""The shim's settings: one YAML file, checked when it is read."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml


class RegistryAuth(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    username: str = ""
    password: str = ""
    auth: str = ""
    """base64 of `user:password`, as in Docker's config file."""
    identity_token: str = ""


class Registry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How one registry host is reached."""

    mirrors: list[str] = []
    """Base URLs that are asked first, in order (`http://127.0.0.1:5000`)."""
    plain_http: bool = False
    skip_verify: bool = False
    ca_file: str = ""
    auth: RegistryAuth | None = None


class Cni(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    conf_dir: str = "/etc/cni/net.d"
    bin_dirs: list[str] = msgspec.field(default_factory=lambda: ["/opt/cni/bin", "/usr/lib/cni"])
    timeout_seconds: float = 60.0
    template: str = ""
    """A configuration list with `{{.PodCIDR}}` in it, written to `conf_dir` when the kubelet announces the CIDR."""


class Streaming(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The server behind the URLs of Exec, Attach and PortForward."""

    address: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    idle_timeout_seconds: float = 4 * 3600.0


class Config(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    socket: str = "/run/cutaway/cri.sock"
    """Where the CRI is served (mode 0600)."""
    containerd: str = "/run/containerd/containerd.sock"
    namespace: str = "k8s.io"
    """containerd's namespace. Two CRI runtimes must not share one."""
    root: str = "/var/lib/cutaway-cri"
    """Records that outlive a reboot."""
    state: str = "/run/cutaway-cri"
    """Namespaces, fifos and mounts, which do not."""
    userns_dir: str = "/run/cutaway-userns"
    """Where the files of a pod with users of its own are mounted while a container is created. Those users must be able
    to reach it: no directory on its way may be closed to others (`root` and `state` may be)."""
    snapshotter: str = "overlayfs"
    runtime: str = "io.containerd.runc.v2"
    runc_root: str = ""
    """runc's own state; empty takes the shim's default (/run/containerd/runc)."""
    runc_binary: str = ""
    systemd_cgroup: bool = False
    cni: Cni = msgspec.field(default_factory=Cni)
    streaming: Streaming = msgspec.field(default_factory=Streaming)
    registries: dict[str, Registry] = {}
    """By host (`docker.io`, `127.0.0.1:5000`)."""
    max_concurrent_pulls: int = 3
    max_concurrent_layers: int = 3
    max_log_line_bytes: int = 16 * 1024
    pinned_images: list[str] = []
    cdi_spec_dirs: list[str] = msgspec.field(default_factory=lambda: ["/etc/cdi", "/var/run/cdi"])
    """Where devices of the Container Device Interface are specified; a later directory wins over an earlier one."""
    seccomp_default: str = ""
    """Profile of containers that ask for none: empty is unconfined, `RuntimeDefault` the default one."""
    log_level: str = "info"


class ConfigError(Exception):
    """One line that says which field is wrong."""


def parse(text: str, source: str = "config") -> Config:
    try:
        data = yaml.safe_load(text) or {}
        config = msgspec.convert(data, Config)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from error
    for field in ("socket", "containerd", "root", "state", "userns_dir"):
        value = getattr(config, field)
        if not value.startswith("/"):
            raise ConfigError(f"{source}: {field}: {value!r} is not an absolute path")
    return config


def load(argv: Sequence[str]) -> Config:
    """The configuration that the command line names; exits with 2 and one line when it is wrong."""
    parser = ArgumentParser(prog="python -m cri", description="A CRI v1 runtime on containerd.")
    parser.add_argument("--config", required=True, help="YAML file")
    args = parser.parse_args(argv)
    try:
        return parse(Path(args.config).read_text(encoding="utf-8"), args.config)
    except (OSError, ConfigError) as error:
        print(f"cri: {error}", file=sys.stderr)
        raise SystemExit(2) from error

"""Pod networks by CNI plugins: the configuration list, the protocol of versions 0.3.0 to 1.0.0, cached results.

A plugin is a program: its configuration comes on stdin, the rest in its environment, its result is JSON on stdout
(https://www.cni.dev/docs/spec/). ADD runs the list forwards, each plugin seeing its predecessor's result; DEL runs
it backwards with the configuration and result that ADD left in the cache, so that an edited configuration does not
strand what an older one made. A sandbox for which nothing is cached needs no DEL. The loopback plugin is not run:
`namespaces.create` brings `lo` up itself.
"""

import asyncio
import ipaddress
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import config as settings
from cri import namespaces, records
from cri.errors import CriError, Internal, InvalidArgument, Unavailable
from cri.logs import log

INTERFACE = "eth0"
GENERATED = "10-cutaway.conflist"
_SUFFIXES = (".conf", ".conflist", ".json")
# Plugins take iptables' and the bridge's locks; more at once only wait there.
_MAX_CONCURRENT = 8
_BURST_BITS = 2**31 - 1


class NetworkList(msgspec.Struct, kw_only=True):
    """A configuration list as the spec has it; a lone plugin's configuration counts as a list of one."""

    name: str
    version: str
    plugins: list[dict[str, Any]]
    disable_check: bool = False


class Attachment(msgspec.Struct, kw_only=True):
    """What ADD was given and what it answered: all that DEL and CHECK need."""

    network: NetworkList
    netns: str
    args: str
    capabilities: dict[str, Any]
    result: dict[str, Any] = {}


class CniError(CriError):
    """A plugin refused, with its own words."""

    code = Internal.code


def parse_network(text: bytes, source: str) -> NetworkList:
    """Raises ValueError naming the file and what is missing."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{source}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{source}: not a JSON object")
    plugins = data.get("plugins") if "plugins" in data else [data]
    if not isinstance(plugins, list) or not plugins or not all(isinstance(p, dict) and p.get("type") for p in plugins):
        raise ValueError(f"{source}: plugins: each needs a type, and there must be one")
    if not data.get("name"):
        raise ValueError(f"{source}: name is missing")
    return NetworkList(
        name=data["name"],
        version=data.get("cniVersion", "0.2.0"),
        plugins=plugins,
        disable_check=bool(data.get("disableCheck", False)),
    )


def plugin_input(
    network: NetworkList, plugin: Mapping[str, Any], attachment: Attachment, previous: Mapping[str, Any]
) -> bytes:
    """What one plugin of the list reads on its stdin."""
    conf = {**plugin, "name": network.name, "cniVersion": network.version}
    wanted = plugin.get("capabilities") or {}
    given = {key: value for key, value in attachment.capabilities.items() if wanted.get(key) and value}
    conf.pop("capabilities", None)
    if given:
        conf["runtimeConfig"] = given
    if previous:
        conf["prevResult"] = dict(previous)
    return json.dumps(conf).encode()


def capabilities(config: cri.PodSandboxConfig) -> dict[str, Any]:
    """What the pod asks of plugins that can: host ports, bandwidth, its DNS."""
    ports = [
        {
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": cri.Protocol.Name(mapping.protocol).lower(),
            "hostIP": mapping.host_ip,
        }
        for mapping in config.port_mappings
        if mapping.host_port > 0
    ]
    result: dict[str, Any] = {"portMappings": ports}
    bandwidth: dict[str, int] = {}
    for direction in ("ingress", "egress"):
        text = config.annotations.get(f"kubernetes.io/{direction}-bandwidth", "")
        if text:
            bandwidth |= {f"{direction}Rate": bits(text), f"{direction}Burst": _BURST_BITS}
    result["bandwidth"] = bandwidth
    if config.HasField("dns_config"):
        dns = config.dns_config
        result["dns"] = {"servers": list(dns.servers), "searches": list(dns.searches), "options": list(dns.options)}
    return result


def bits(text: str) -> int:
    """A rate as a quantity (`10M`, `1Gi`), in bits a second."""
    scales = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    for suffix in sorted(scales, key=len, reverse=True):
        if text.endswith(suffix):
            return int(float(text.removesuffix(suffix)) * scales[suffix])
    return int(float(text))


def pod_ips(result: Mapping[str, Any]) -> list[str]:
    """The addresses of the pod's own interface, IPv4 first."""
    interfaces = result.get("interfaces") or []
    inside = {i for i, item in enumerate(interfaces) if item.get("name") == INTERFACE and item.get("sandbox")}
    found = [
        str(entry["address"]).split("/")[0]
        for entry in result.get("ips") or []
        if entry.get("address") and (not inside or entry.get("interface") is None or entry["interface"] in inside)
    ]
    return sorted(found, key=lambda ip: ":" in ip)


class Cni:
    """The node's pod network, from the first configuration file of its directory."""

    def __init__(self, config: settings.Cni) -> None:
        self._config = config
        self._executor = ThreadPoolExecutor(_MAX_CONCURRENT, thread_name_prefix="cni")
        self._loaded: tuple[str, int, NetworkList] | None = None

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def network(self) -> NetworkList:
        """The configuration in force, read again when its file changes; raises Unavailable when there is none."""
        directory = Path(self._config.conf_dir)
        try:
            names = sorted(name for name in os.listdir(directory) if name.endswith(_SUFFIXES))
        except OSError:
            names = []
        problem = f"no CNI configuration in {directory}"
        for name in names:
            path = directory / name
            try:
                changed = path.stat().st_mtime_ns
                if self._loaded and self._loaded[:2] == (name, changed):
                    return self._loaded[2]
                network = parse_network(path.read_bytes(), str(path))
            except (OSError, ValueError) as error:
                problem = str(error)
                continue
            self._loaded = (name, changed, network)
            return network
        raise Unavailable(f"cni plugin not initialized: {problem}")

    def write_network(self, pod_cidr: str) -> None:
        """Fills the template with the node's pod CIDR; does nothing without one, or beside somebody's own file.

        Raises InvalidArgument for a CIDR or a template that can't be.
        """
        directory = Path(self._config.conf_dir)
        target = directory / GENERATED
        if not self._config.template or not pod_cidr:
            return
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        if any(name.endswith(_SUFFIXES) and name != GENERATED for name in os.listdir(directory)):
            return
        try:
            ranges = [str(ipaddress.ip_network(part.strip())) for part in pod_cidr.split(",")]
            text = Path(self._config.template).read_text(encoding="utf-8").replace("{{.PodCIDR}}", ranges[0])
            parse_network(text.encode(), self._config.template)
        except (OSError, ValueError) as error:
            raise InvalidArgument(
                f"CNI template {self._config.template} with pod CIDR {pod_cidr!r}: {error}"
            ) from error
        records.write(target, text.encode(), 0o644)

    async def add(self, sandbox_id: str, netns: Path, config: cri.PodSandboxConfig, cache: Path) -> list[str]:
        """Joins a sandbox to the network and returns its addresses. What a failed ADD left behind is deleted."""
        metadata = config.metadata
        pairs = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": metadata.namespace,
            "K8S_POD_NAME": metadata.name,
            "K8S_POD_INFRA_CONTAINER_ID": sandbox_id,
            "K8S_POD_UID": metadata.uid,
        }
        attachment = Attachment(
            network=self.network(),
            netns=str(netns),
            args=";".join(f"{key}={value}" for key, value in pairs.items()),
            capabilities=capabilities(config),
        )
        for plugin in attachment.network.plugins:
            self._find(plugin["type"])  # one that is missing must fail before another has done anything
        # On disk before the first plugin runs, so that a shim killed in between knows what to delete.
        records.write(cache, records.encode(attachment))
        try:
            result: dict[str, Any] = {}
            for plugin in attachment.network.plugins:
                result = await self._run("ADD", sandbox_id, plugin, attachment, result)
            attachment.result = result
            records.write(cache, records.encode(attachment))
            ips = pod_ips(result)
            if not ips:
                raise CniError(f"network {attachment.network.name}: its plugins gave {INTERFACE} no address")
            return ips
        except BaseException:
            await asyncio.shield(self._undo(sandbox_id, cache))
            raise

    async def _undo(self, sandbox_id: str, cache: Path) -> None:
        try:
            await self.delete(sandbox_id, cache)
        except CriError as error:
            log.warning("could not undo a failed CNI ADD", sandbox=sandbox_id, error=str(error))

    async def delete(self, sandbox_id: str, cache: Path) -> None:
        """Leaves the network; idempotent."""
        attachment = records.read(cache, Attachment)
        if attachment is None:
            return
        if not namespaces.is_pinned(Path(attachment.netns)):
            attachment.netns = ""
        failure: CriError | None = None
        for plugin in reversed(attachment.network.plugins):
            try:
                await self._run("DEL", sandbox_id, plugin, attachment, attachment.result)
            except CriError as error:
                # The others still give back what is theirs; the cache stays for the next attempt.
                failure = failure or error
        if failure:
            raise failure
        _forget(cache)

    async def check(self, sandbox_id: str, cache: Path) -> None:
        """Raises CniError when the network is no longer as ADD made it."""
        attachment = records.read(cache, Attachment)
        if attachment is None or attachment.network.disable_check or attachment.network.version < "0.4.0":
            return
        for plugin in attachment.network.plugins:
            await self._run("CHECK", sandbox_id, plugin, attachment, attachment.result)

    async def _run(
        self,
        command: str,
        sandbox_id: str,
        plugin: Mapping[str, Any],
        attachment: Attachment,
        previous: Mapping[str, Any],
    ) -> dict[str, Any]:
        environment = {
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": sandbox_id,
            "CNI_NETNS": attachment.netns,
            "CNI_IFNAME": INTERFACE,
            "CNI_ARGS": attachment.args,
            "CNI_PATH": ":".join(self._config.bin_dirs),
        }
        stdin = plugin_input(attachment.network, plugin, attachment, previous)
        call = (self._find(plugin["type"]), environment, stdin, self._config.timeout_seconds)
        code, stdout, stderr = await asyncio.get_running_loop().run_in_executor(self._executor, _execute, *call)
        if code != 0:
            raise CniError(f"CNI {command} of plugin {plugin['type']} failed: {_plugin_message(stdout, stderr, code)}")
        if command != "ADD":
            return {}
        try:
            result: dict[str, Any] = json.loads(stdout or b"{}")
        except ValueError as error:
            raise CniError(f"CNI plugin {plugin['type']} answered no JSON: {stdout[:200]!r}") from error
        return result

    def _find(self, kind: str) -> str:
        if "/" in kind or kind in ("", ".", ".."):
            raise CniError(f"CNI plugin type {kind!r} is not a file name")
        for directory in self._config.bin_dirs:
            path = os.path.join(directory, kind)
            if os.access(path, os.X_OK):
                return path
        raise CniError(f"CNI plugin {kind!r} is in none of {', '.join(self._config.bin_dirs)}")


def _forget(cache: Path) -> None:
    cache.unlink(missing_ok=True)


def _execute(path: str, environment: Mapping[str, str], stdin: bytes, timeout: float) -> tuple[int, bytes, bytes]:
    try:
        done = subprocess.run(
            [path], input=stdin, env=dict(environment), capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CniError(f"CNI plugin {os.path.basename(path)} did not answer in {timeout:g} s") from error
    except OSError as error:
        raise CniError(f"CNI plugin {path}: {error.strerror}") from error
    return done.returncode, done.stdout, done.stderr


def _plugin_message(stdout: bytes, stderr: bytes, code: int) -> str:
    try:
        error = json.loads(stdout)
        return ": ".join(str(part) for part in (error.get("msg"), error.get("details")) if part)
    except (ValueError, AttributeError):
        text = (stderr or stdout).decode(errors="replace").strip()
        return text[-1000:] or f"exit code {code}"


def resolv_conf(servers: Sequence[str], searches: Sequence[str], options: Sequence[str]) -> str:
    """A resolv.conf of a pod's DNS settings; empty where there are none (then the node's applies)."""
    lines = [f"search {' '.join(searches)}"] if searches else []
    lines += [f"nameserver {server}" for server in servers]
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)

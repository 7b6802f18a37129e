"""A CRI client for tests, over any runtime: short ways to say what the CRI says at length."""

import contextlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from tests.support.images import BUSYBOX

_numbers = itertools.count(1)

# The kubelet sends these with every container.
MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def code_of(call: Callable[[], Any]) -> str:
    """The status code's name with which a call fails; "OK" if it does not."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


class CriClient:
    def __init__(self, socket: Path, directory: Path, name: str) -> None:
        self.name = name
        self.directory = directory
        self.cgroup_parent = f"/cutaway-test-{directory.name}"
        self._channel = grpc.insecure_channel(
            f"unix://{socket}",
            options=[("grpc.max_receive_message_length", 64 * 1024 * 1024), ("grpc.use_local_subchannel_pool", 1)],
        )
        self.runtime = api_pb2_grpc.RuntimeServiceStub(self._channel)
        self.images = api_pb2_grpc.ImageServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()
        # The pods' cgroups are the caller's, as they are the kubelet's: runc makes them and leaves them.
        for pattern in (self.cgroup_parent.lstrip("/"), f"*/{self.cgroup_parent.lstrip('/')}"):
            for path in Path("/sys/fs/cgroup").glob(pattern):
                with contextlib.suppress(OSError):
                    path.rmdir()

    # Sandboxes

    def pod_config(self, name: str = "", **fields: Any) -> cri.PodSandboxConfig:
        number = next(_numbers)
        name = name or f"pod{number}"
        logs = self.directory / "logs" / name
        logs.mkdir(parents=True, exist_ok=True)
        config = cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default"),
            hostname=fields.pop("hostname", name),
            log_directory=str(logs),
            **fields,
        )
        if not config.linux.cgroup_parent:
            config.linux.cgroup_parent = self.cgroup_parent
        options = config.linux.security_context.namespace_options
        if not fields.get("linux"):
            options.pid = cri.CONTAINER
        return config

    def run_pod(self, config: cri.PodSandboxConfig | None = None) -> "Pod":
        config = config or self.pod_config()
        answer = self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=60)
        return Pod(self, answer.pod_sandbox_id, config)

    def sandboxes(self, **filter_fields: Any) -> list[cri.PodSandbox]:
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(**filter_fields))
        return list(self.runtime.ListPodSandbox(request).items)

    def containers(self, **filter_fields: Any) -> list[cri.Container]:
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(**filter_fields))
        return list(self.runtime.ListContainers(request).containers)

    def remove_everything(self) -> None:
        for item in self.sandboxes():
            with contextlib.suppress(grpc.RpcError):
                self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=item.id), timeout=60)
            self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=item.id), timeout=60)


class Pod:
    def __init__(self, client: CriClient, pod_id: str, config: cri.PodSandboxConfig) -> None:
        self.client = client
        self.id = pod_id
        self.config = config

    def status(self) -> cri.PodSandboxStatus:
        return self.client.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=self.id)).status

    def stop(self) -> None:
        self.client.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=self.id), timeout=60)

    def remove(self) -> None:
        self.client.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=self.id), timeout=60)

    def container_config(
        self, *command: str, name: str = "", image: str = BUSYBOX, **fields: Any
    ) -> cri.ContainerConfig:
        name = name or f"c{next(_numbers)}"
        config = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=image),
            command=command,
            log_path=f"{name}.log",
            **fields,
        )
        context = config.linux.security_context
        context.masked_paths.extend(MASKED)
        context.readonly_paths.extend(READONLY)
        context.namespace_options.CopyFrom(self.config.linux.security_context.namespace_options)
        return config

    def create(self, *command: str, config: cri.ContainerConfig | None = None, **fields: Any) -> "TestContainer":
        config = config or self.container_config(*command, **fields)
        request = cri.CreateContainerRequest(pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        answer = self.client.runtime.CreateContainer(request, timeout=60)
        return TestContainer(self, answer.container_id, config)

    def run(self, *command: str, config: cri.ContainerConfig | None = None, **fields: Any) -> "TestContainer":
        container = self.create(*command, config=config, **fields)
        container.start()
        return container

    def shell(self, script: str, config: cri.ContainerConfig | None = None, **fields: Any) -> str:
        """Runs a script as a container of its own to its end; returns its standard output."""
        if config is not None:
            config.command[:] = ["sh", "-c", script]
        container = self.run("sh", "-c", script, config=config, **fields)
        container.wait_exited()
        return container.output()


class TestContainer:
    __test__ = False

    def __init__(self, pod: Pod, container_id: str, config: cri.ContainerConfig) -> None:
        self.pod = pod
        self.id = container_id
        self.config = config
        self._runtime = pod.client.runtime

    @property
    def log_file(self) -> Path:
        return Path(self.pod.config.log_directory) / self.config.log_path

    def start(self) -> None:
        self._runtime.StartContainer(cri.StartContainerRequest(container_id=self.id), timeout=60)

    def stop(self, timeout: int = 10) -> None:
        self._runtime.StopContainer(cri.StopContainerRequest(container_id=self.id, timeout=timeout), timeout=60)

    def remove(self) -> None:
        self._runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=self.id), timeout=60)

    def status(self) -> cri.ContainerStatus:
        return self._runtime.ContainerStatus(cri.ContainerStatusRequest(container_id=self.id)).status

    def exec(self, *command: str, timeout: int = 10) -> cri.ExecSyncResponse:
        request = cri.ExecSyncRequest(container_id=self.id, cmd=command, timeout=timeout)
        return self._runtime.ExecSync(request, timeout=60)

    def exec_output(self, script: str) -> str:
        answer = self.exec("sh", "-c", script)
        return (answer.stdout + answer.stderr).decode()

    def wait_exited(self, seconds: float = 20.0) -> cri.ContainerStatus:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status()
            if status.state == cri.CONTAINER_EXITED:
                return status
            time.sleep(0.01)
        raise TimeoutError(f"container {self.config.metadata.name} did not end in {seconds:g} s")

    def records(self) -> list[tuple[str, str, str]]:
        """(stream, tag, text) of each line of the log."""
        lines = self.log_file.read_text(errors="replace").splitlines() if self.log_file.exists() else []
        return [tuple(line.split(" ", 3)[1:4]) for line in lines]  # type: ignore[misc]

    def output(self, stream: str = "stdout") -> str:
        return "".join(text + ("\n" if tag == "F" else "") for name, tag, text in self.records() if name == stream)

    def wait_listening(self, port: int, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while f":{port} " not in self.exec_output("netstat -ltn"):
            if time.monotonic() > end:
                raise TimeoutError(f"nothing listens on port {port}")

    def wait_output(self, text: str, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while text not in self.output():
            if time.monotonic() > end:
                raise TimeoutError(f"{text!r} did not appear in {self.output()!r}")
            time.sleep(0.01)

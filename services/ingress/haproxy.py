"""The HAProxy process of this node: a master that outlives us, whose workers are replaced by a reload.

    master (pid file, master.sock) ── worker (admin.sock, holds the listening sockets)
                                   └─ former workers, until their connections end

The master is in a session of its own: if the controller is killed, requests go on, and the next controller takes over
by the pid file. Only a graceful stop ends it. The listening sockets are handed from worker to worker, so that a reload
refuses nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from machinery.component import logs
from services.ingress import render, runtime
from services.ingress.changes import Command, Running
from services.ingress.proxy import ProxyError, ProxyState
from services.ingress.render import Settings

log = logs.get("haproxy")

PROGRAM_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
USER = "haproxy"
CHECK_SECONDS = 30.0
START_SECONDS = 15.0
ASK_PAUSE_SECONDS = 0.02
# How long requests under way may take when the process is to end; then it is ended.
DRAIN_SECONDS = 3.0
KILL_SECONDS = 2.0


def find_program() -> str | None:
    """Where HAProxy is installed."""
    return shutil.which("haproxy", path=PROGRAM_PATH)


def unprivileged_user() -> tuple[str, str]:
    """(user, group) that workers may become once they hold their sockets; empty if there is none, or we are nobody."""
    if os.geteuid() != 0:
        return "", ""
    with contextlib.suppress(KeyError):
        pwd.getpwnam(USER)
        return USER, USER
    return "", ""


class Haproxy:
    """The process. One caller at a time."""

    def __init__(self, settings: Settings, program: str) -> None:
        self.settings = settings
        self.program = program
        self.run_folder = settings.run
        self.reloads = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd: int | None = None
        self._ended = asyncio.Event()

    @property
    def _pid_file(self) -> Path:
        return self.run_folder / "haproxy.pid"

    @property
    def _messages(self) -> Path:
        return self.run_folder / "haproxy.messages"

    @property
    def is_running(self) -> bool:
        """Whether we hold on to a process that lives."""
        return self._pidfd is not None and not self._ended.is_set()

    # --- the contract -------------------------------------------------------------------------------------------------

    async def load(self, running: Running) -> None:
        """See `proxy.Proxy`."""
        self._write(render.files(running.wanted, running.servers, self.settings))
        await self._check()
        if not self.is_running:
            self._adopt()
        if self.is_running:
            await self._reload()
        else:
            await self._start()

    async def run(self, commands: Sequence[Command]) -> None:
        """See `proxy.Proxy`."""
        await runtime.run(self.run_folder, commands)

    async def state(self) -> ProxyState:
        """See `proxy.Proxy`."""
        return await runtime.state(self.run_folder)

    async def wait_ended(self) -> None:
        """See `proxy.Proxy`."""
        await self._ended.wait()

    async def stop(self) -> None:
        """See `proxy.Proxy`."""
        for number, seconds in ((signal.SIGUSR1, DRAIN_SECONDS), (signal.SIGTERM, KILL_SECONDS), (signal.SIGKILL, 1.0)):
            if not self.is_running:
                break
            assert self._pidfd is not None
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ended.wait()
        self._pid_file.unlink(missing_ok=True)

    # --- files --------------------------------------------------------------------------------------------------------

    def _write(self, files: dict[str, str]) -> None:
        certificates = self.run_folder / "certs"
        certificates.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in files.items():
            path = self.run_folder / name
            if path.exists() and path.read_text() == text:
                continue
            temporary = path.with_name(f".{path.name}.new")
            # Keys are among them.
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
            temporary.replace(path)
        for path in certificates.iterdir():
            if f"certs/{path.name}" not in files:
                path.unlink()

    async def _check(self) -> None:
        """Ask HAProxy whether it would take the configuration. Raises ProxyError with its words."""
        process = await asyncio.create_subprocess_exec(
            self.program, "-c", "-f", str(self.run_folder / "haproxy.cfg"),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                said, _ = await process.communicate()
        except TimeoutError as error:
            process.kill()
            raise ProxyError(f"the configuration was not checked within {CHECK_SECONDS:.0f} s") from error
        if process.returncode != 0:
            lines = [line for line in said.decode(errors="replace").splitlines() if "ALERT" in line]
            raise ProxyError("; ".join(lines)[:1000] or f"HAProxy exits with code {process.returncode}")

    # --- the process --------------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Hold on to a master that a former controller of this folder started."""
        try:
            pid = int(self._pid_file.read_text().split()[0])
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError, IndexError):
            return
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            command = []
        # The pid may be somebody else's by now.
        if str(self.run_folder / "haproxy.cfg").encode() not in command:
            os.close(pidfd)
            return
        self._follow(pidfd)
        log.info("proxy adopted", pid=pid)

    def _follow(self, pidfd: int) -> None:
        loop = asyncio.get_running_loop()
        self._ended.clear()
        self._pidfd = pidfd

        def ended() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._pidfd = None
            if self._process is not None:
                self._process.poll()
                self._process = None
            self._ended.set()

        loop.add_reader(pidfd, ended)

    async def _start(self) -> None:
        for name in ("admin.sock", "master.sock", self._messages.name):
            (self.run_folder / name).unlink(missing_ok=True)
        run = self.run_folder
        argv = [self.program, "-W", "-S", f"{run}/master.sock,mode,600", "-p", str(self._pid_file)]
        # Its output, the access log, goes where ours goes. What else it says is many lines a reload: a file of its own.
        with self._messages.open("ab") as messages:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - asyncio's would end the proxy together with us
                [*argv, "-f", str(run / "haproxy.cfg")],
                stdin=subprocess.DEVNULL, stderr=messages, start_new_session=True,
            )  # fmt: skip
        self._follow(os.pidfd_open(self._process.pid))
        await self._wait_worker(0)
        log.info("proxy started", pid=self._process.pid if self._process else 0)

    async def _reload(self) -> None:
        before = await runtime.worker_pid(self.run_folder)
        with contextlib.suppress(OSError):
            os.truncate(self._messages, 0)  # it is appended to: what comes is about this reload
        await runtime.ask(self.run_folder / "master.sock", "reload")
        await self._wait_worker(before)
        self.reloads += 1

    async def _wait_worker(self, before: int) -> None:
        """Wait until another worker than `before` answers. Raises ProxyError."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while not self._ended.is_set():
                    with contextlib.suppress(ProxyError):
                        if await runtime.worker_pid(self.run_folder) != before:
                            return
                    await asyncio.sleep(ASK_PAUSE_SECONDS)
        except TimeoutError as error:
            raise ProxyError(f"no new worker answers after {START_SECONDS:.0f} s: {self._last_alert()}") from error
        raise ProxyError(f"HAProxy ended at once: {self._last_alert()}")

    def _last_alert(self) -> str:
        lines = self._messages.read_text(errors="replace").splitlines() if self._messages.exists() else []
        alerts = [line.partition(" : ")[2] for line in lines if "[ALERT]" in line]
        return next((alert for alert in alerts if "bind" in alert), "; ".join(alerts))[:500] or "it did not say why"

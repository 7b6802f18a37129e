"""Keeps the cluster's processes running: `python -m lab.supervisor CLUSTER_DIRECTORY [READY_DESCRIPTOR]`.

A process that exits is started again after a pause that doubles from 0.2 s to 30 s and is forgotten after 60 s of good
running. Processes outlive the supervisor: a new one finds them by pid and start time and goes on watching them (a pidfd
tells of the end of any process, child or not). It uses only the standard library, so that it costs little memory.

Commands come as one JSON line over the unix socket `run/supervisor.sock` and get one JSON line back:
`{"do": "apply"}` (start what is new or changed), `{"do": "start"|"stop"|"restart", "name": N}`, `{"do": "remove",
"name": N}`,
`{"do": "shutdown"}` (stop everything in reverse order, then end), `{"do": "ping"}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab import log_files, process_spec
from lab.process_spec import ProcessSpec

BACKOFF_SECONDS_FIRST = 0.2
BACKOFF_SECONDS_MAX = 30.0
RENEWAL_SECONDS = 12 * 3600.0
"""How often certificates are looked at."""
# A process that ran this long has recovered: its next restart is prompt again.
STABLE_SECONDS = 60.0
# A state that could not be written (a full disk) is written anew after this long.
RECORD_AGAIN_SECONDS = 1.0


def backoff_seconds(failures: int) -> float:
    """Pause before the next start after `failures` quick ends in a row."""
    return min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_FIRST * 2 ** min(failures, 16))


_NAMED = ("sh", "-c", 'printf %s "$0" > /proc/sys/kernel/hostname && exec "$@"')


class Supervised:
    """One process and the task that keeps it running."""

    def __init__(self, directory: Path, spec: ProcessSpec, tasks: asyncio.TaskGroup) -> None:
        self.directory = directory
        self.tasks = tasks
        self.spec = spec
        self.state = process_spec.read_state(directory, spec.name)
        self.failures = 0
        self.task: asyncio.Task[None] | None = None
        self.recording: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Have it run, adopting a process that already does."""
        self.state.stopped = False
        if self.task is None or self.task.done():
            if not process_spec.is_alive(self.state):
                self._spawn()
            self.task = self.tasks.create_task(self._keep(), name=f"keep {self.spec.name}")

    async def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL after its grace."""
        self.state.stopped = True
        try:
            process_spec.write_state(self.directory, self.spec.name, self.state)
        except OSError:
            # Whoever asked is told, and it runs on: stopped, it would come back with the next supervisor.
            self.state.stopped = False
            raise
        if process_spec.is_alive(self.state):
            self._signal(signal.Signals[self.spec.stop_signal])
            try:
                async with asyncio.timeout(self.spec.stop_seconds):
                    await self._wait_exit()
            except TimeoutError:
                self._signal(signal.SIGKILL)
                await self._wait_exit()
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            self.task = None

    def let_go(self) -> None:
        """Stop watching it; it goes on running."""
        for task in (self.task, self.recording):
            if task is not None:
                task.cancel()

    def _record(self) -> None:
        """Write its state; if that can't be done, as soon as it can: a full disk must not end what keeps processes
        running."""
        try:
            process_spec.write_state(self.directory, self.spec.name, self.state)
        except OSError as error:
            print(f"state of {self.spec.name} not written: {error}", file=sys.stderr, flush=True)
            if self.recording is None or self.recording.done():
                self.recording = self.tasks.create_task(self._record_soon(), name=f"record {self.spec.name}")

    async def _record_soon(self) -> None:
        while True:
            await asyncio.sleep(RECORD_AGAIN_SECONDS)
            with contextlib.suppress(OSError):
                return process_spec.write_state(self.directory, self.spec.name, self.state)

    async def _keep(self) -> None:
        while True:
            await self._wait_exit()
            ran_seconds = time.time() - self.state.started_at
            self.failures = 0 if ran_seconds >= STABLE_SECONDS else self.failures + 1
            if self.state.stopped:
                return
            self._record()
            await asyncio.sleep(backoff_seconds(self.failures - 1))
            self.state.restarts += 1
            self._spawn()

    def _spawn(self) -> None:
        spec = self.spec
        argv = spec.argv
        if spec.network_namespace:
            # Also with the node's name for a host name, which pods of the node's own network see.
            argv = ["nsenter", f"--net={spec.network_namespace}", "--", "unshare", "--uts", *_NAMED, spec.node, *argv]
        with open(spec.log, "ab") as log:
            try:
                # A session of its own: a Ctrl-C in the terminal where `cutaway up` ran must not reach it.
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=os.environ | spec.environment,
                )
            except OSError as error:
                log.write(f"cannot start {argv[0]}: {error}\n".encode())
                self.state.pid, self.state.start_ticks, self.state.started_at = 0, 0, time.time()
                self._record()
                return
        self.state.pid = process.pid
        self.state.start_ticks = process_spec.start_ticks(process.pid)
        self.state.started_at = time.time()
        self._record()

    async def _wait_exit(self) -> None:
        if not process_spec.is_alive(self.state):
            self._reap()
            return
        try:
            descriptor = os.pidfd_open(self.state.pid)
        except ProcessLookupError:
            self._reap()
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._reap()

    def _reap(self) -> None:
        # An adopted process is not our child; somebody else reaps it and its exit code stays unknown.
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.state.pid, os.WNOHANG) if self.state.pid else (0, 0)
            if pid:
                self.state.last_exit = os.waitstatus_to_exitcode(status)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.state.pid, number)


class Supervisor:
    """All processes of a cluster. Commands are carried out one at a time."""

    def __init__(self, cluster_directory: Path) -> None:
        self.components = cluster_directory / "components"
        self.socket_path = cluster_directory / "run" / "supervisor.sock"
        self.processes: dict[str, Supervised] = {}
        self.ended = asyncio.Event()
        self.tasks: asyncio.TaskGroup
        self.turn = asyncio.Lock()

    async def run(self, ready_descriptor: int | None = None) -> None:
        """Serve commands until `shutdown`. `ready_descriptor` is closed once they are served and everything is
        started."""
        self.socket_path.parent.mkdir(parents=True, exist_ok=True)
        self.socket_path.unlink(missing_ok=True)
        previous = os.umask(0o177)
        server = await asyncio.start_unix_server(self._converse, path=str(self.socket_path))
        os.umask(previous)
        for number in (signal.SIGTERM, signal.SIGINT):
            # The supervisor's own end leaves the cluster running; `cutaway down` sends `shutdown`.
            asyncio.get_running_loop().add_signal_handler(number, self.ended.set)
        async with server, asyncio.TaskGroup() as self.tasks:
            await self.apply()
            if ready_descriptor is not None:
                os.close(ready_descriptor)
            renewal = self.tasks.create_task(self._renew_certificates(), name="renew certificates")
            bounding = self.tasks.create_task(self._bound_logs(), name="bound logs")
            await self.ended.wait()
            renewal.cancel()
            bounding.cancel()
            for process in self.processes.values():
                process.let_go()
        self.socket_path.unlink(missing_ok=True)

    async def _renew_certificates(self) -> None:
        """Twice a day, by a process of its own: what it needs would stay loaded here for a year."""
        home = self.components.parent
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lab.cli", "certs", "--renew", "--due", "--home", str(home),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            # What it says on stderr goes to our log.
            await process.wait()

    async def _bound_logs(self) -> None:
        """Nobody else sees to it: what runs here knows its log as an open file."""
        while True:
            await asyncio.sleep(log_files.LOOK_SECONDS)
            logs = [Path(process.spec.log) for process in self.processes.values()]
            # A copy of some megabytes, while commands are served.
            await asyncio.to_thread(log_files.bound, logs)

    async def apply(self) -> None:
        """Make what runs equal to the specs: start new ones, restart changed ones, stop what has no spec any more."""
        specs = process_spec.read_specs(self.components)
        for name in [name for name in self.processes if name not in specs]:
            await self.processes.pop(name).stop()
            # Should it come back some day, it is not one that somebody stopped.
            (self.components / f"{name}{process_spec.STATE_SUFFIX}").unlink(missing_ok=True)
        for name, spec in specs.items():
            known = self.processes.get(name)
            if known is None or known.spec != spec:
                fresh = Supervised(self.components, spec, self.tasks)
                if known is not None:
                    # A changed spec restarts a process; one that somebody stopped stays stopped.
                    fresh.state.stopped = known.state.stopped
                    await known.stop()
                known = self.processes[name] = fresh
            if not known.state.stopped:
                known.start()

    async def command(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command; what to answer."""
        verb, name = request.get("do"), request.get("name", "")
        if verb == "ping":
            return {"ok": True, "pid": os.getpid()}
        if verb == "apply":
            await self.apply()
        elif verb == "shutdown":
            # What holds everybody's state goes last: the others still write while they end.
            last_first = list(reversed(self.processes.values()))
            for process in sorted(last_first, key=lambda p: p.spec.component == "postgres"):
                await process.stop()
            self.ended.set()
        elif name not in self.processes:
            return {"ok": False, "error": f"no process {name!r}; there are: {', '.join(self.processes)}"}
        elif verb == "start":
            self.processes[name].start()
        elif verb in ("stop", "restart", "remove"):
            await self.processes[name].stop()
            if verb == "restart":
                self.processes[name].start()
            elif verb == "remove":
                del self.processes[name]
        else:
            return {"ok": False, "error": f"unknown command {verb!r}"}
        return {"ok": True}

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return await self.command(json.loads(line))
        except (OSError, ValueError, TypeError, KeyError) as error:
            # A full disk, or a spec of another version: told to whoever asked, and the processes go on.
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line:
                async with self.turn:
                    answer = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            pass  # the caller went away; there is nobody to tell
        finally:
            writer.close()


def main() -> None:
    """Run a cluster's supervisor in the foreground."""
    ready_descriptor = int(sys.argv[2]) if len(sys.argv) > 2 else None
    asyncio.run(Supervisor(Path(sys.argv[1])).run(ready_descriptor))


if __name__ == "__main__":
    main()

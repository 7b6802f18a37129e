"""HAProxy's command line over its unix socket: commands as its words, and its answers.

Reference: HAProxy 2.6 Management Guide, section 9.3. A connection carries one line of commands, separated by ";", or
one command with a payload that an empty line ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.ingress.changes import (
    AddHosts,
    Command,
    DropCertificate,
    DropHosts,
    DropKey,
    FreeServer,
    SetCertificate,
    SetKey,
    SetServer,
)
from services.ingress.proxy import ProxyError, ProxyState
from services.ingress.render import DEFAULT_CERTIFICATE, MAPS
from services.ingress.table import Endpoint

ANSWER_SECONDS = 10.0
ANSWER_BYTES_MAX = 64 << 20
# One line must fit into one of the proxy's buffers (16 KiB).
LINE_CHARS_MAX = 8000
# Answers that say that all is well; an empty one does too.
_WELL = (
    "no need to change",
    "changed from",
    "New empty certificate store",
    "Transaction created",
    "Transaction updated",
    "Committing",
    "Success!",
    "Inserting certificate",
    "deleted in crtlist",
    "' deleted!",
)


async def ask(socket: Path, text: str) -> str:
    """One exchange. Raises ProxyError."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=ANSWER_BYTES_MAX)
            try:
                writer.write(f"{text}\n".encode())
                writer.write_eof()
                return (await reader.read(-1)).decode(errors="replace")
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise ProxyError(f"{socket.name}: {error or type(error).__name__}") from error


async def run(run_folder: Path, commands: Sequence[Command]) -> None:
    """Do commands in order. Raises ProxyError with the proxy's own words at the first line that fails."""
    socket = run_folder / "admin.sock"
    words: list[str] = []
    for command in commands:
        words += await _words(run_folder, command)
    for line in _lines(words):
        answer = await ask(socket, line)
        wrong = [text for text in answer.splitlines() if text.strip() and not any(well in text for well in _WELL)]
        if wrong:
            raise ProxyError(f"{line.splitlines()[0][:200]}: {'; '.join(wrong)[:500]}")


def _lines(words: Sequence[str]) -> Iterator[str]:
    """Join what may stand on one line."""
    line = ""
    for word in words:
        if "\n" in word or len(line) + len(word) > LINE_CHARS_MAX:
            if line:
                yield line
            line = ""
        if "\n" in word:
            yield word
        else:
            line = f"{line};{word}" if line else word
    if line:
        yield line


async def _words(run: Path, command: Command) -> list[str]:
    match command:
        case SetServer(backend, slot, endpoint):
            server = f"{backend}/s{slot}"
            return [
                f"set server {server} addr {endpoint.ip} port {endpoint.port}",
                f"set server {server} weight {0 if endpoint.draining else 100}",
                f"set server {server} state ready",
            ]
        case FreeServer(backend, slot):
            return [f"set server {backend}/s{slot} state maint"]
        case SetKey(name, key, value, is_new):
            return [f"{'add' if is_new else 'set'} map {run}/{name}.map {key} {value}"]
        case DropKey(name, key):
            return [f"del map {run}/{name}.map {key}"]
        case SetCertificate(file, pem, is_new):
            path = f"{run}/certs/{file}"
            assert "\n\n" not in pem, "an empty line would end the payload"
            words = [f"set ssl cert {path} <<\n{pem.strip()}\n", f"commit ssl cert {path}"]
            return [f"new ssl cert {path}", *words] if is_new else words
        case DropCertificate(file):
            return [f"del ssl cert {run}/certs/{file}"]
        case AddHosts(file, hosts):
            return [f"add ssl crt-list {run}/crt.list <<\n{run}/certs/{file} {' '.join(hosts)}\n"]
        case DropHosts(file, hosts):
            return [f"del ssl crt-list {run}/crt.list {run}/certs/{file}:{await _line_of(run, file, hosts)}"]


async def _entries(run: Path) -> list[tuple[str, str, tuple[str, ...]]]:
    """(file, line's number, hosts) of every entry of the certificates' list."""
    found = []
    for line in (await ask(run / "admin.sock", f"show ssl crt-list -n {run}/crt.list")).splitlines():
        words = line.split()
        if words and not line.startswith("#"):
            path, _, number = words[0].rpartition(":")
            found.append((Path(path).name, number, tuple(words[1:])))
    return found


async def _line_of(run: Path, file: str, hosts: tuple[str, ...]) -> str:
    for name, number, listed in await _entries(run):
        if name == file and listed == hosts:
            return number
    raise ProxyError(f"{file}: has no such hosts: {' '.join(hosts)}")


async def state(run: Path) -> ProxyState:
    """What the proxy has."""
    admin = run / "admin.sock"
    servers: dict[str, list[Endpoint | None]] = {}
    for line in (await ask(admin, "show servers state")).splitlines()[1:]:
        fields = line.split()
        # be_name, srv_name, srv_addr, srv_admin_state, srv_uweight, srv_port: columns of the guide's section on it.
        if len(fields) < 19 or line.startswith("#"):
            continue
        endpoint = Endpoint(fields[4], int(fields[18]), int(fields[7]) == 0)
        # 0x01 is maintenance; that the configuration began with it, 0x04, stays for the process' life.
        servers.setdefault(fields[1], []).append(None if int(fields[6]) & 0x01 else endpoint)
    maps = {}
    for name in MAPS:
        lines = (await ask(admin, f"show map {run}/{name}.map")).splitlines()
        # One that the configuration does not use is not loaded, and is answered for by a sentence.
        maps[name] = {line.split()[1]: line.split()[2] for line in lines if line.startswith("0x")}
    sni: dict[str, set[str]] = {}
    for file, _, hosts in await _entries(run):
        if file != DEFAULT_CERTIFICATE:
            sni.setdefault(file, set()).update(hosts)
    return ProxyState(
        {name: tuple(slots) for name, slots in servers.items()}, maps, {f: frozenset(h) for f, h in sni.items()}
    )


async def worker_pid(run: Path) -> int:
    """The pid of the worker that answers. Raises ProxyError."""
    for line in (await ask(run / "admin.sock", "show info")).splitlines():
        if line.startswith("Pid:"):
            return int(line.split(":")[1])
    raise ProxyError("show info: names no pid")

"""gRPC channels to the apiservers: options, fail-over between several, and what may be tried again.

Reads are tried again on Unavailable until their deadline. A write is tried again only if it was never sent (no
connection); otherwise the caller learns ServiceUnavailable: it may or may not have happened.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from machinery.api import errors
from machinery.component import grpc_errors, logs, tls, tracing

log = logs.get("channels")

MESSAGE_BYTES_MAX = 64 * 1024 * 1024

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", grpc_errors.METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", 2 * grpc_errors.METADATA_BYTES_MAX),
    # A restarted apiserver is found again within a second: gRPC's own default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A peer that vanished without a word (power, network) is noticed on an idle watch after 40 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
    # Each client has connections of its own: gRPC would share them among all channels of a process with equal options.
    ("grpc.use_local_subchannel_pool", 1),
)

# How often the certificate's files are looked at: one `stat` each.
_RENEWAL_LOOK_SECONDS = 10.0
_RETIRED_MAX = 2

_RETRY_SECONDS_FIRST = 0.05
_RETRY_SECONDS_MAX = 1.0

# What gRPC's core says when no connection came about, so that nothing was sent.
_NEVER_SENT = (
    "failed to connect",
    "connections to all backends failing",
    "connection refused",
    "dns resolution failed",
)


def new_channel(address: str, files: tls.TlsFiles | None, user_agent: str) -> grpc.aio.Channel:
    """A channel to "host:port" or "unix:/path". `files` None: no TLS, for servers inside a test. Raises TlsError."""
    options = (*CHANNEL_OPTIONS, ("grpc.primary_user_agent", user_agent))
    if files is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, tls.channel_credentials(files), options)


class Channels:
    """One channel to each apiserver, of which one is in use until it fails."""

    def __init__(self, addresses: Sequence[str], files: tls.TlsFiles | None, user_agent: str, stub: Any) -> None:
        if not addresses:
            raise ValueError("no apiserver address is configured")
        self.addresses = tuple(addresses)
        self._user_agent = user_agent
        self._new_stub = stub
        self._channels = self._connect(files)
        self._stubs = [stub(channel) for channel in self._channels]
        self._at = 0
        self._closed = False
        self._files = files
        self._stamp = tls.stamp(files) if files is not None else ()
        self._look_again = time.monotonic() + _RENEWAL_LOOK_SECONDS
        # Watches go on over the channels of before; the eldest go once their watches have long ended.
        self._retired: deque[list[grpc.aio.Channel]] = deque(maxlen=_RETIRED_MAX)

    @property
    def stub(self) -> Any:
        """The stub in use. Raises ServiceUnavailable once the client is closed."""
        if self._closed:
            raise errors.ServiceUnavailable("the client is closed")
        if time.monotonic() >= self._look_again:
            self._follow_renewal()
        return self._stubs[self._at]

    def _connect(self, files: tls.TlsFiles | None) -> list[grpc.aio.Channel]:
        return [new_channel(address, files, self._user_agent) for address in self.addresses]

    def _follow_renewal(self) -> None:
        """Connect anew if our certificate was renewed: a connection proves the old one until it ends."""
        self._look_again = time.monotonic() + _RENEWAL_LOOK_SECONDS
        if self._files is None:
            return
        try:
            stamp = tls.stamp(self._files)
            if stamp == self._stamp:
                return
            fresh = self._connect(self._files)
        except tls.TlsError as err:
            # Half written, it may be; what is connected goes on.
            log.warning("renewed certificate can't be used yet", error=str(err))
            return
        self._stamp = stamp
        self._retired.append(self._channels)
        self._channels = fresh
        self._stubs = [self._new_stub(channel) for channel in fresh]
        log.info("certificate renewed, connecting anew", file=self._files.cert_file)

    def fail_over(self, failed: Any) -> None:
        """Use the next apiserver, unless somebody already moved on from the one that failed."""
        if failed is self._stubs[self._at]:
            self._at = (self._at + 1) % len(self._stubs)

    async def close(self) -> None:
        """Close every channel; calls in flight end with Cancelled."""
        self._closed = True
        for channel in (*self._channels, *(old for each in self._retired for old in each)):
            await channel.close()

    async def call(self, method: str, request: Any, timeout: float, *, safe: bool) -> Any:
        """A unary call within `timeout` seconds. `safe`: repeating it does no harm. Raises ApiError."""
        retries = Retries(timeout)
        while True:
            stub = self.stub
            try:
                metadata = tracing.outgoing()
                return await getattr(stub, method)(request, timeout=retries.remaining(), metadata=metadata)
            except grpc.RpcError as err:
                error = grpc_errors.from_rpc_error(err)
            if not isinstance(error, errors.ServiceUnavailable):
                raise error
            self.fail_over(stub)
            if not (safe or _was_never_sent(error)) or not await retries.pause():
                raise error


class Retries:
    """Pauses between attempts, growing and jittered, within one deadline."""

    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout
        self._pause = _RETRY_SECONDS_FIRST

    def remaining(self) -> float:
        """Seconds until the deadline, as a call's timeout."""
        return max(0.001, self._end - time.monotonic())

    async def pause(self) -> bool:
        """Rest before the next attempt; False if the deadline leaves no time for one."""
        wait = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        if time.monotonic() + wait >= self._end:
            return False
        await asyncio.sleep(wait)
        self._pause = min(self._pause * 2, _RETRY_SECONDS_MAX)
        return True


def _was_never_sent(error: errors.ServiceUnavailable) -> bool:
    message = error.message.lower()
    return any(phrase in message for phrase in _NEVER_SENT) and "socket closed" not in message

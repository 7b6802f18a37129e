"""`python -m services.scheduler --config FILE`."""

from __future__ import annotations

import secrets
import socket

from machinery.client.api_client import ApiClient, Fence
from machinery.client.events import EventRecorder
from machinery.client.leader_election import LeaderElector
from machinery.component import config as component_config
from machinery.component import grpc_server, http_server, process, tls
from machinery.component.config import ConfigError
from protos.cutaway.v1 import scheduler_pb2_grpc
from services.scheduler import config as scheduler_config
from services.scheduler import service
from services.scheduler.config import SchedulerConfig
from services.scheduler.scheduler import Scheduler


async def serve(ctx: process.Context[SchedulerConfig]) -> None:
    """Build the parts in the order in which they depend on each other, and start them."""
    config = ctx.config
    try:
        configuration = scheduler_config.read(config.scheduler_config)
        extra = {k: v for path in config.plugin_files for k, v in scheduler_config.load_plugin_file(path).items()}
        client = await ApiClient.connect(config.apiserver, config.tls, user_agent="kube-scheduler")
        recorder = EventRecorder(client, "default-scheduler", socket.gethostname())
        scheduler = Scheduler(
            client,
            lambda handle: scheduler_config.build_profiles(configuration, extra, handle),
            recorder,
            backoff_seconds_first=configuration.podInitialBackoffSeconds,
            backoff_seconds_max=configuration.podMaxBackoffSeconds,
        )
    except (ConfigError, ValueError) as err:
        raise process.Fatal(str(err)) from err
    ctx.on_stop(client.close)
    ctx.on_stop(recorder.flush)
    ctx.health.add_ready("informers", lambda: _unsynced(scheduler))
    if config.http_address:
        http = await http_server.serve(config, ctx.health)
        ctx.on_stop(http.stop)
    if config.grpc_address:
        servicer = service.SchedulerService(scheduler)
        grpc = await grpc_server.serve(
            config,
            lambda server: scheduler_pb2_grpc.add_SchedulerServicer_to_server(servicer, server),  # type: ignore[no-untyped-call]
            service_names=[service.NAME],
            health=ctx.health,
            authorize=_may_ask,
        )
        ctx.on_stop(grpc.stop)
    ctx.tasks.create_task(recorder.run(), name="events")
    await scheduler.follow(ctx.tasks)
    await lead(ctx, client, scheduler)


async def lead(ctx: process.Context[SchedulerConfig], client: ApiClient, scheduler: Scheduler) -> None:
    """Schedule while we lead, until the process stops."""
    config = ctx.config
    if not config.leader_elect:
        leading = ctx.tasks.create_task(scheduler.run(client), name="scheduling")
    else:
        elector = LeaderElector(
            client, config.lease_name, f"{socket.gethostname()}_{secrets.token_hex(8)}",
            lease_duration=config.lease_duration_seconds, renew_deadline=config.renew_deadline_seconds,
            retry_period=config.retry_period_seconds,
        )  # fmt: skip

        async def schedule(fence: Fence) -> None:
            await scheduler.run(client.fenced(fence))

        leading = ctx.tasks.create_task(elector.run(schedule), name="leader election")

    async def give_back() -> None:
        # Before the client closes: the lease is given back on the way out.
        leading.cancel()
        await ctx.finished(leading)

    ctx.on_stop(give_back)


async def _may_ask(who: tls.Identity, method: str) -> str | None:
    """The controller-manager explains, and asks for a pod's part of it."""
    if who.name == "system:kube-controller-manager" and method == f"/{service.NAME}/Explain":
        return None
    return "only members of system:masters may"


def _unsynced(scheduler: Scheduler) -> str | None:
    waiting = [informer.kind.resource for informer in scheduler.informers if not informer.has_synced]
    return f"waiting for {', '.join(waiting)}" if waiting else None


def main() -> None:
    """Entry point."""
    config = component_config.load(SchedulerConfig, prog="scheduler")
    config.name = config.name or "scheduler"
    process.run(serve, config)


if __name__ == "__main__":
    main()

"""The controller-manager's process: `python -m services.controller_manager --config FILE.yaml`."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from functools import partial
from pathlib import Path

from machinery.client.api_client import ApiClient
from machinery.client.leader_election import LeaderElector
from machinery.component import config, grpc_server, http_server, process
from protos.cutaway.v1 import controller_manager_pb2_grpc
from services.controller_manager.config import ControllerManagerConfig
from services.controller_manager.explain.ask import Explainer
from services.controller_manager.manager import Manager
from services.controller_manager.registry import UnknownController
from services.controller_manager.service import ControllerManagerService

LEASE = "kube-controller-manager"


async def serve(ctx: process.Context[ControllerManagerConfig]) -> None:
    """Put the parts together and run them."""
    cfg = ctx.config
    _check_files(cfg)
    client = await ApiClient.connect(cfg.apiserver, cfg.tls, user_agent="kube-controller-manager")
    ctx.on_stop(client.close)
    host = socket.gethostname()
    try:
        manager = Manager(cfg, client, host)
    except UnknownController as err:
        raise process.Fatal(str(err)) from err
    elector = None
    if cfg.leader_election.enabled:
        elector = LeaderElector(
            client,
            LEASE,
            f"{host}_{os.getpid()}_{uuid.uuid4().hex[:8]}",
            lease_duration=cfg.leader_election.lease_seconds,
            renew_deadline=cfg.leader_election.renew_seconds,
            retry_period=cfg.leader_election.retry_seconds,
        )
    explainer = Explainer(client, cfg.schedulers, cfg.tls)
    service = ControllerManagerService(manager, elector, explainer)
    ctx.health.add_ready("informers", lambda: None if _is_ready(manager, elector) else "informers not synced")
    if cfg.grpc_address:
        server = await grpc_server.serve(
            cfg,
            partial(controller_manager_pb2_grpc.add_ControllerManagerServicer_to_server, service),
            service_names=["cutaway.v1.ControllerManager"],
            health=ctx.health,
        )
        ctx.on_stop(server.stop)
    if cfg.http_address:
        http = await http_server.serve(cfg, ctx.health)
        ctx.on_stop(http.stop)
    work = manager.lead(None) if elector is None else elector.run(manager.lead)
    leading = ctx.tasks.create_task(work, name="lead")

    async def stop_leading() -> None:
        leading.cancel()
        await asyncio.wait([leading])

    # Registered last, so it comes first: giving the Lease back still needs the client.
    ctx.on_stop(stop_leading)


def _check_files(cfg: ControllerManagerConfig) -> None:
    for path in (cfg.root_ca_file, cfg.signing_ca_file, cfg.signing_key_file):
        if path and not Path(path).is_file():
            raise process.Fatal(f"{path}: no such file")


def _is_ready(manager: Manager, elector: LeaderElector | None) -> bool:
    """An instance that waits for leadership is ready as it is."""
    return manager.synced or (elector is not None and not elector.is_leading)


if __name__ == "__main__":
    loaded = config.load(ControllerManagerConfig, prog="controller-manager")
    loaded.name = loaded.name or "controller-manager"
    process.run(serve, loaded)

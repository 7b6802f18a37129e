"""The ControllerManager service: what each controller does now, and a hand on each."""

from __future__ import annotations

from typing import Any

from machinery.api.errors import NotFound, ServiceUnavailable
from machinery.client.leader_election import LeaderElector
from protos.cutaway.v1 import controller_manager_pb2 as pb
from protos.cutaway.v1 import controller_manager_pb2_grpc
from services.controller_manager.explain.ask import Explainer
from services.controller_manager.explain.finding import Finding
from services.controller_manager.manager import Manager
from services.controller_manager.reconciler import Reconciler


class ControllerManagerService(controller_manager_pb2_grpc.ControllerManagerServicer):
    """Answers for the controllers of this process; an instance that does not lead lists them as not running."""

    def __init__(self, manager: Manager, elector: LeaderElector | None, explainer: Explainer) -> None:
        self._manager = manager
        self._explainer = explainer
        self._elector = elector

    async def ListControllers(self, request: pb.ListControllersRequest, context: Any) -> pb.ListControllersResponse:
        """Every controller."""
        running = self._manager.controllers
        states = [
            _state(running[name]) if name in running else pb.ControllerState(name=name) for name in self._manager.names
        ]
        leading = self._elector is None or self._elector.is_leading
        leader = self._elector.leader if self._elector is not None else ""
        return pb.ListControllersResponse(controllers=states, leading=leading, leader=leader)

    async def Pause(self, request: pb.PauseRequest, context: Any) -> pb.ControllerState:
        """Stop one after what it is working on."""
        reconciler = self._find(request.controller)
        reconciler.controller.pause()
        return _state(reconciler)

    async def Resume(self, request: pb.ResumeRequest, context: Any) -> pb.ControllerState:
        """Let one go on."""
        reconciler = self._find(request.controller)
        reconciler.controller.resume()
        return _state(reconciler)

    async def Resync(self, request: pb.ResyncRequest, context: Any) -> pb.ControllerState:
        """Queue one key, or all."""
        reconciler = self._find(request.controller)
        for key in [request.key] if request.key else reconciler.keys():
            reconciler.add(key)
        return _state(reconciler)

    async def Explain(self, request: pb.ExplainObjectRequest, context: Any) -> pb.ExplainObjectResponse:
        """Why an object is not as desired."""
        found = await self._explainer.explain(request.kind, request.namespace, request.name)
        return pb.ExplainObjectResponse(findings=map(_finding, found))

    def _find(self, name: str) -> Reconciler:
        reconciler = self._manager.controllers.get(name)
        if reconciler is not None:
            return reconciler
        if name in self._manager.names:
            leader = self._elector.leader if self._elector is not None else ""
            raise ServiceUnavailable(f"controller {name!r} does not run here; {leader or 'nobody'} leads")
        raise NotFound(f"no controller {name!r}; there are {', '.join(self._manager.names)}")


def _finding(found: Finding) -> pb.Finding:
    because = map(_finding, found.because)
    return pb.Finding(subject=found.subject, problem=found.problem, remedy=found.remedy, because=because)


def _state(reconciler: Reconciler) -> pb.ControllerState:
    state = reconciler.controller.state()
    return pb.ControllerState(**{field: getattr(state, field) for field in state.__struct_fields__})

"""What to do for a pod now: a pure function from what is wanted and what is, to a list of actions. No I/O, no clock
of its own.

The order of a pod's life, each step planned only when the one before is seen done:

    no ready sandbox ──► CreateSandbox ──► init containers, one after the other ──► regular containers
                                           (a sidecar counts as done when it has started)
    every regular container ended for good ──► sidecars stop ──► StopSandbox: the pod is over

The plan is computed anew on every pass (level-triggered); nothing is remembered between passes but the back-off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightkube.models import core_v1

from services.kubelet import pod_spec
from services.kubelet.back_off import BackOff, duration_text
from services.kubelet.runtime_state import ContainerRecord, PodRuntime, State


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandboxes:
    """End what is left of old sandboxes: their namespaces and addresses are given back."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KillContainer:
    id: str
    name: str
    message: str
    # The probe that failed may ask for a grace period of its own.
    grace_seconds: int | None = None
    reason: str = "Killing"


@dataclass(frozen=True, slots=True)
class StartContainer:
    name: str
    restart_count: int
    # Runs to remove first: a run that was created and never started.
    remove: tuple[str, ...] = ()
    is_restart: bool = False


@dataclass(frozen=True, slots=True)
class RemoveContainers:
    """Have the runtime forget these runs, so that the pod begins anew in its sandbox."""

    ids: tuple[str, ...]


Action = CreateSandbox | StopSandboxes | KillContainer | StartContainer | RemoveContainers


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run, as its status will say."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProbeView:
    """What the probes say of each running container, by container id. An absent id has no answer yet."""

    startup: Mapping[str, bool] = field(default_factory=dict)
    liveness: Mapping[str, bool] = field(default_factory=dict)
    readiness: Mapping[str, bool] = field(default_factory=dict)

    def started(self, container: pod_spec.AnyContainer, record: ContainerRecord) -> bool:
        """Running, and its startup probe, if it has one, has succeeded."""
        if not record.running:
            return False
        return container.startupProbe is None or self.startup.get(record.id, False)

    def ready(self, container: pod_spec.AnyContainer, record: ContainerRecord) -> bool:
        if not self.started(container, record):
            return False
        return container.readinessProbe is None or self.readiness.get(record.id, False)


@dataclass(slots=True)
class Plan:
    """The actions in the order in which to do them, and when to look again if nothing happens before."""

    actions: list[Action] = field(default_factory=list)
    waiting: dict[str, Waiting] = field(default_factory=dict)
    requeue_after_seconds: float | None = None
    # Every container has ended and none will be started again.
    over: bool = False

    def look_again(self, seconds: float) -> None:
        if self.requeue_after_seconds is None or seconds < self.requeue_after_seconds:
            self.requeue_after_seconds = seconds


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a plan depends on."""

    pod: core_v1.Pod
    runtime: PodRuntime
    now: float
    back_off: BackOff
    probes: ProbeView = field(default_factory=ProbeView)
    # The last runs of containers that were removed for the pod to begin anew, by name.
    removed: Mapping[str, ContainerRecord] = field(default_factory=dict)


def plan_pod(inputs: Inputs) -> Plan:
    """The next actions for a pod that is meant to run."""
    plan = Plan()
    pod, runtime = inputs.pod, inputs.runtime
    if pod_spec.finished(pod):
        plan.over = True
        return _wind_down(inputs, plan)
    sandbox = runtime.ready_sandbox
    if sandbox is None or sandbox.host_network != bool(pod.spec.hostNetwork):
        return _plan_sandbox(inputs, plan)
    if restarting_all(pod, runtime):
        return _plan_reset(inputs, plan)
    _plan_ephemeral(inputs, plan, sandbox.id)
    if not _plan_init(inputs, plan, sandbox.id):
        return plan
    if _plan_regular(inputs, plan, sandbox.id):
        plan.over = True
        return _wind_down(inputs, plan)
    return plan


def _plan_sandbox(inputs: Inputs, plan: Plan) -> Plan:
    """No usable sandbox: a new one, unless nothing would run in it."""
    pod, runtime = inputs.pod, inputs.runtime
    if runtime.sandboxes and not _anything_left_to_run(pod, runtime):
        plan.over = True
        return _wind_down(inputs, plan)
    plan.actions.extend(
        KillContainer(c.id, c.name, "Pod sandbox changed, it will be killed and re-created.") for c in runtime.running
    )
    if runtime.sandboxes:
        plan.actions.append(StopSandboxes(tuple(s.id for s in runtime.sandboxes if s.ready)))
    attempt = max((s.attempt for s in runtime.sandboxes), default=-1) + 1
    plan.actions.append(CreateSandbox(attempt))
    return plan


def _anything_left_to_run(pod: core_v1.Pod, runtime: PodRuntime) -> bool:
    """Whether a pod that lost its sandbox needs another: some container never ended for good."""
    for container in pod_spec.init_containers(pod):
        latest = runtime.latest(container.name)
        ended_badly = latest is not None and latest.state is State.EXITED and latest.exit_code != 0
        if ended_badly and not pod_spec.is_sidecar(container):
            return pod_spec.should_restart(pod, container, latest.exit_code)
    for container in pod.spec.containers:
        latest = runtime.latest(container.name)
        if latest is None or latest.state is not State.EXITED:
            # With `Never`, what was interrupted is not run again; only what never ran is.
            if latest is None or pod_spec.restart_policy(pod) != "Never":
                return True
        elif pod_spec.should_restart(pod, container, latest.exit_code):
            return True
    return False


def restarting_all(pod: core_v1.Pod, runtime: PodRuntime) -> bool:
    """Whether a container ended in a way that starts all of them anew (KEP-5532)."""
    sandbox = runtime.ready_sandbox
    if sandbox is None or not pod_spec.can_restart_all(pod):
        return False
    for container in [*pod_spec.init_containers(pod), *pod.spec.containers]:
        latest = runtime.latest(container.name, sandbox.id)
        ended = latest is not None and latest.state is State.EXITED
        if ended and pod_spec.matching_action(container, latest.exit_code) == pod_spec.RESTART_ALL:
            return True
    return False


def _plan_reset(inputs: Inputs, plan: Plan) -> Plan:
    """End what runs, at once; when nothing runs any more, remove every run. The sandbox and the volumes stay.

    The run that caused it goes last, so that a kubelet that is killed in between still sees why.
    """
    pod, runtime = inputs.pod, inputs.runtime
    names = {c.name: c for c in [*pod_spec.init_containers(pod), *pod.spec.containers]}
    running = [c for c in runtime.running if c.name in names]
    if running:
        plan.actions.extend(
            KillContainer(c.id, c.name, "Restarting all containers of the pod", 0, pod_spec.RESTART_ALL)
            for c in running
        )
        return plan

    def caused(run: ContainerRecord) -> bool:
        return pod_spec.matching_action(names[run.name], run.exit_code) == pod_spec.RESTART_ALL

    runs = [c for c in runtime.containers if c.name in names]
    plan.actions.append(RemoveContainers(tuple(run.id for run in sorted(runs, key=caused))))
    return plan


def _plan_ephemeral(inputs: Inputs, plan: Plan, sandbox_id: str) -> None:
    """Ephemeral containers start once each and never again."""
    for container in pod_spec.ephemeral_containers(inputs.pod):
        if inputs.runtime.latest(container.name) is None:
            plan.actions.append(StartContainer(container.name, 0))


def _plan_init(inputs: Inputs, plan: Plan, sandbox_id: str) -> bool:
    """Plan the init containers; True when regular containers may run."""
    pod, runtime = inputs.pod, inputs.runtime
    initialized = any(runtime.latest(c.name, sandbox_id) for c in pod.spec.containers)
    for container in pod_spec.init_containers(pod):
        latest = runtime.latest(container.name, sandbox_id)
        if pod_spec.is_sidecar(container):
            if not _plan_sidecar(inputs, plan, container, latest) and not initialized:
                return False
        elif not initialized and not _plan_init_step(inputs, plan, container, latest):
            return False
    return True


def _plan_init_step(inputs: Inputs, plan: Plan, container: core_v1.Container, latest: ContainerRecord | None) -> bool:
    """One ordinary init container; True when it has succeeded."""
    if latest is None or latest.state in (State.CREATED, State.UNKNOWN):
        _start(inputs, plan, container)
        return False
    if latest.running:
        return False
    if latest.exit_code == 0:
        return True
    policy = pod_spec.restart_policy(inputs.pod)
    # `Always` means "until it has succeeded" for an init container.
    if policy == "Always" or pod_spec.should_restart(inputs.pod, container, latest.exit_code):
        _restart(inputs, plan, container, latest)
    else:
        plan.over = True
        _wind_down(inputs, plan)
    return False


def _plan_sidecar(inputs: Inputs, plan: Plan, container: core_v1.Container, latest: ContainerRecord | None) -> bool:
    """One restartable init container; True when it has started, so that the next may."""
    if latest is None or latest.state in (State.CREATED, State.UNKNOWN):
        _start(inputs, plan, container)
        return False
    if latest.state is State.EXITED:
        _restart(inputs, plan, container, latest)
        return False
    _kill_if_unwell(inputs, plan, container, latest)
    return inputs.probes.started(container, latest)


def _plan_regular(inputs: Inputs, plan: Plan, sandbox_id: str) -> bool:
    """Plan the regular containers; True when all of them have ended for good."""
    pod, runtime = inputs.pod, inputs.runtime
    over = True
    for container in pod.spec.containers:
        latest = runtime.latest(container.name, sandbox_id)
        if latest is None:
            before = runtime.latest(container.name)
            ended = before is not None and before.state is State.EXITED
            if ended and not pod_spec.should_restart(pod, container, before.exit_code):
                continue
            over = False
            _start(inputs, plan, container)
        elif latest.state in (State.CREATED, State.UNKNOWN):
            over = False
            _start(inputs, plan, container)
        elif latest.state is State.EXITED:
            changed = latest.spec_hash not in ("", pod_spec.spec_hash(container))
            if changed or pod_spec.should_restart(pod, container, latest.exit_code):
                over = False
                _restart(inputs, plan, container, latest, wait=not changed)
        else:
            over = False
            _kill_if_unwell(inputs, plan, container, latest)
    return over


def _kill_if_unwell(inputs: Inputs, plan: Plan, container: core_v1.Container, latest: ContainerRecord) -> None:
    """Kill a running container that its probes give up or whose image was changed. The next pass starts it again."""
    if latest.spec_hash not in ("", pod_spec.spec_hash(container)):
        message = f"Container {container.name} definition changed, will be restarted"
        plan.actions.append(KillContainer(latest.id, container.name, message))
        return
    for kind, results, probe in (
        ("startup", inputs.probes.startup, container.startupProbe),
        ("liveness", inputs.probes.liveness, container.livenessProbe),
    ):
        if probe is not None and results.get(latest.id) is False:
            message = f"Container {container.name} failed {kind} probe, will be restarted"
            if not pod_spec.should_restart(inputs.pod, container, 1) and not pod_spec.is_sidecar(container):
                message = f"Container {container.name} failed {kind} probe"
            plan.actions.append(
                KillContainer(latest.id, container.name, message, probe.terminationGracePeriodSeconds, "Unhealthy")
            )
            return


def _start(inputs: Inputs, plan: Plan, container: pod_spec.AnyContainer) -> None:
    """Start a container that does not run in this sandbox.

    A run that was created and never started is replaced, not counted.
    """
    runs = inputs.runtime.runs_of(container.name)
    unstarted = tuple(c.id for c in runs if c.state in (State.CREATED, State.UNKNOWN))
    ended = [c for c in runs if c.state is State.EXITED]
    removed = inputs.removed.get(container.name)
    before = [*ended, removed] if removed is not None else ended
    count = max((c.restart_count for c in before), default=-1) + 1 or known_restarts(inputs.pod, container.name)
    plan.actions.append(StartContainer(container.name, count, unstarted, is_restart=bool(ended)))


def _restart(
    inputs: Inputs, plan: Plan, container: core_v1.Container, latest: ContainerRecord, *, wait: bool = True
) -> None:
    """Start a container that ended, if its back-off lets it."""
    key = back_off_key(inputs.pod, container.name)
    remaining = inputs.back_off.remaining(key, latest.finished_at / 1e9, inputs.now) if wait else 0.0
    if remaining > 0:
        delay = duration_text(inputs.back_off.delay(key))
        message = f"back-off {delay} restarting failed container={container.name} pod={pod_spec.full_name(inputs.pod)}"
        plan.waiting[container.name] = Waiting("CrashLoopBackOff", message)
        plan.look_again(remaining)
        return
    plan.actions.append(StartContainer(container.name, latest.restart_count + 1, is_restart=True))


def back_off_key(pod: core_v1.Pod, container: str) -> str:
    return f"{pod.metadata.uid}/{container}"


def known_restarts(pod: core_v1.Pod, name: str) -> int:
    """The restart count to begin with when the runtime has forgotten the container.

    One more than the status last said.
    """
    status = pod.status
    if status is None:
        return 0
    for group in (status.containerStatuses, status.initContainerStatuses, status.ephemeralContainerStatuses):
        for entry in group or []:
            if entry.name == name and entry.containerID:
                return entry.restartCount + 1
    return 0


def _wind_down(inputs: Inputs, plan: Plan) -> Plan:
    """The pod is over: end what still runs, sidecars last and in reverse, then give the sandbox back."""
    stopping = termination_order(inputs.pod, inputs.runtime)
    plan.actions = [
        KillContainer(record.id, record.name, f"Stopping container {record.name}")
        for phase in stopping
        for record in phase
    ]
    live = tuple(s.id for s in inputs.runtime.sandboxes if s.ready)
    if live:
        plan.actions.append(StopSandboxes(live))
    return plan


def termination_order(pod: core_v1.Pod, runtime: PodRuntime) -> list[list[ContainerRecord]]:
    """Running containers in the order in which to end them.

    Regular ones together, then sidecars one by one, last first.
    """
    sidecar_names = [c.name for c in pod_spec.sidecars(pod)]
    running = runtime.running
    phases = [[c for c in running if c.name not in sidecar_names]]
    phases.extend([c for c in running if c.name == name] for name in reversed(sidecar_names))
    return [phase for phase in phases if phase]

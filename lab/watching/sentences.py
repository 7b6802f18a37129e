"""What one write did, as a sentence without its subject: a pure function of an object before and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lab.difference import difference

Object = Mapping[str, Any]

# Of a write that no sentence is made for, so many fields are told.
FIELDS_MAX = 3
# Written every few seconds by everybody, or the double of something that is told.
_UNTOLD = frozenset({"leases", "endpoints"})


def told(resource: str, old: Object | None, new: Object | None) -> str:
    """What became of an object; empty if it is not worth a line. `old` None: created; `new` None: deleted for good."""
    if resource in _UNTOLD:
        return ""
    if old is None:
        assert new is not None
        return _created(new)
    if new is None:
        return "deleted"
    if new["metadata"].get("deletionTimestamp") and not old["metadata"].get("deletionTimestamp"):
        return _ending(new)
    special = _CHANGED.get(new.get("kind", ""))
    parts = list(special(old, new)) if special is not None else []
    if not parts and new.get("kind") not in _ONLY_SPECIAL:
        parts = _fields(old, new)
    return "; ".join(parts)


def _created(new: Object) -> str:
    kind, spec = new.get("kind"), new.get("spec") or {}
    if kind == "Event":
        return f"{new.get('reason', '')}: {new.get('message') or new.get('note', '')}"
    if kind == "Service":
        ports = ", ".join(str(port.get("port")) for port in spec.get("ports") or ())
        where = spec.get("externalName") if spec.get("type") == "ExternalName" else spec.get("clusterIP", "")
        return f"created: {spec.get('type', 'ClusterIP')} {where}, port {ports}" if ports else f"created: {where}"
    if kind == "EndpointSlice":
        return f"created{_joined(': ', _endpoints({}, new))}"
    if "replicas" in spec:
        return f"created: {spec['replicas']} wanted"
    if kind == "Pod" and spec.get("nodeName"):
        return f"created on {spec['nodeName']}"
    return "created"


def _ending(new: Object) -> str:
    grace = new["metadata"].get("deletionGracePeriodSeconds")
    if new.get("kind") == "Pod" and grace is not None:
        return f"is to end within {grace} s"
    finalizers = new["metadata"].get("finalizers") or (new.get("spec") or {}).get("finalizers") or ()
    return f"is to be deleted; waits for {', '.join(finalizers)}" if finalizers else "is to be deleted"


def _pod(old: Object, new: Object) -> Iterator[str]:
    if (new.get("spec") or {}).get("nodeName") and not (old.get("spec") or {}).get("nodeName"):
        yield f"bound to {new['spec']['nodeName']}"
    was, now = old.get("status") or {}, new.get("status") or {}
    if was.get("phase") != now.get("phase"):
        yield f"{was.get('phase', '?')} → {now.get('phase', '?')}"
    if now.get("podIP") and now["podIP"] != was.get("podIP"):
        yield f"address {now['podIP']}"
    for field in ("initContainerStatuses", "containerStatuses"):
        before = {each["name"]: each for each in was.get(field) or ()}
        for each in now.get(field) or ():
            yield from _container(before.get(each["name"], {}), each)
    for condition in ("PodScheduled", "Ready"):
        is_true = _condition(now, condition) == "True"
        if is_true != (_condition(was, condition) == "True"):
            word = {"PodScheduled": "scheduled"}.get(condition, condition)
            yield word if is_true else f"not {word} any more"
    reason = _reason(now, "PodScheduled")
    if reason and reason != _reason(was, "PodScheduled"):
        yield reason


def _container(old: Object, new: Object) -> Iterator[str]:
    name, state = new["name"], new.get("state") or {}
    if state == old.get("state"):
        return
    if "running" in state and "running" not in (old.get("state") or {}):
        again = new.get("restartCount") or 0
        yield f"container {name} runs{f' (restart {again})' if again else ''}"
    elif "terminated" in state and "terminated" not in (old.get("state") or {}):
        yield f"container {name} ended with {state['terminated'].get('exitCode')}"
    elif "waiting" in state and (state["waiting"] or {}).get("reason") not in (
        None, "ContainerCreating", "PodInitializing", ((old.get("state") or {}).get("waiting") or {}).get("reason"),
    ):  # fmt: skip
        yield f"container {name} waits: {state['waiting']['reason']}"


def _replicas(old: Object, new: Object) -> Iterator[str]:
    was, now = old.get("spec") or {}, new.get("spec") or {}
    if was.get("replicas") != now.get("replicas"):
        yield f"{was.get('replicas')} → {now.get('replicas')} wanted"
    if was.get("template") != now.get("template"):
        changes = difference({"template": was.get("template")}, {"template": now.get("template")})
        yield "new template: " + ", ".join(
            change.path.removeprefix("template.spec.") for change in changes[:FIELDS_MAX]
        )
    for field, words in (
        ("replicas", "there"), ("updatedReplicas", "new"), ("readyReplicas", "ready"),
        ("numberReady", "ready"), ("currentNumberScheduled", "there"), ("succeeded", "succeeded"), ("failed", "failed"),
        ("active", "active"),
    ):  # fmt: skip
        before, after = (each.get("status", {}).get(field) or 0 for each in (old, new))
        if before != after:
            yield f"{before} → {after} {words}"


def _slice(old: Object, new: Object) -> Iterator[str]:
    yield from _endpoints(old, new)


def _endpoints(old: Object, new: Object) -> list[str]:
    before, after = (_serving(each) for each in (old, new))
    out = [f"+ {_named(address, after[address])}" for address in sorted(after.keys() - before.keys())]
    out += [f"- {_named(address, before[address])}" for address in sorted(before.keys() - after.keys())]
    for address in sorted(before.keys() & after.keys()):
        if before[address][1] != after[address][1]:
            pod, state = after[address]
            out.append(f"{_named(address, (pod, 'ready'))} is {state}")
    return out


def _serving(piece: Object) -> dict[str, tuple[str, str]]:
    """Address -> (its pod, its state)."""
    out = {}
    for end in piece.get("endpoints") or ():
        conditions = end.get("conditions") or {}
        state = "ready" if conditions.get("ready", True) else "not ready"
        if conditions.get("terminating"):
            state = "ending, still serves" if conditions.get("serving") else "ending"
        for address in end.get("addresses") or ():
            out[address] = ((end.get("targetRef") or {}).get("name", ""), state)
    return out


def _named(address: str, found: tuple[str, str]) -> str:
    pod, state = found
    inside = ", ".join(word for word in (pod, state if state != "ready" else "") if word)
    return f"{address} ({inside})" if inside else address


def _node(old: Object, new: Object) -> Iterator[str]:
    was, now = (_condition(each.get("status") or {}, "Ready") for each in (old, new))
    if was != now:
        yield "Ready" if now == "True" else f"not Ready any more ({now or 'unknown'})"
    before, after = (bool((each.get("spec") or {}).get("unschedulable")) for each in (old, new))
    if before != after:
        yield "cordoned" if after else "takes new pods again"
    taints = [
        {f"{t['key']}:{t['effect']}" for t in (each.get("spec") or {}).get("taints") or ()} for each in (old, new)
    ]
    yield from (f"+ taint {taint}" for taint in sorted(taints[1] - taints[0]))
    yield from (f"- taint {taint}" for taint in sorted(taints[0] - taints[1]))


def _event(old: Object, new: Object) -> Iterator[str]:
    if new.get("count") != old.get("count"):
        yield f"{_created(new)} (×{new.get('count')})"


def _fields(old: Object, new: Object) -> list[str]:
    changes = difference(dict(old), dict(new))
    if new.get("kind") in _CHANGED:
        # What of their status is worth a line has its sentence.
        changes = tuple(change for change in changes if not change.path.startswith("status."))
    more = [f"and {len(changes) - FIELDS_MAX} fields more"] if len(changes) > FIELDS_MAX else []
    return [str(change) for change in changes[:FIELDS_MAX]] + more


def _condition(status: Object, kind: str) -> str:
    return next((str(c.get("status")) for c in status.get("conditions") or () if c.get("type") == kind), "")


def _reason(status: Object, kind: str) -> str:
    found: Object = next((c for c in status.get("conditions") or () if c.get("type") == kind), {})
    return str(found.get("message") or "") if found.get("status") == "False" else ""


def _joined(before: str, parts: list[str]) -> str:
    return before + "; ".join(parts) if parts else ""


_CHANGED: dict[str, Callable[[Object, Object], Iterator[str]]] = {
    "Pod": _pod, "Deployment": _replicas, "ReplicaSet": _replicas, "StatefulSet": _replicas, "DaemonSet": _replicas,
    "ReplicationController": _replicas, "Job": _replicas, "EndpointSlice": _slice, "Node": _node, "Event": _event,
}  # fmt: skip
# What else changes in them is their writers' bookkeeping.
_ONLY_SPECIAL = frozenset({"Node", "Event", "EndpointSlice"})

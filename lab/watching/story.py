"""Who did what, and because of what: each write of the log linked to the one that caused it.

    kubectl        deployment/web created          1
    controller-m.  replicaset/web-1 created        2  because of 1: its owner
    controller-m.  pod/web-1-x created             3  because of 2: its owner
    scheduler      pod/web-1-x bound to node1      4  because of 3: what it looked at is the pod
    kubelet        pod/web-1-x … Ready             5  because of 4
    controller-m.  endpointslice/web-a + address   6  because of 5: the endpoint that changed is the pod's
    kube-proxy     rules of service/web            7  because of 6: the rules hold its revision

The log says who wrote what, in the order in which it was committed, and not why. The cause is found by what the objects
say of each other (owners, targets, the Service of a slice): of everything that the writer looks at for this write, what
changed last. People's writes have no cause: they begin a chain.

Pure: `Story.told` and `Story.rules` get what came and answer steps. It remembers the last state of each object and the
last step of each; both are bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lab.history import manager_of
from lab.watching.sentences import told

Object = Mapping[str, Any]

OBJECTS_MAX = 200_000
"""Objects and steps remembered; beyond it those longest untouched go, and with them why the next one came."""

CHILDREN_MAX = 2_000
"""Of one owner, those that are gone included."""


class Name(NamedTuple):
    """An object, as sentences and links name it."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True, slots=True)
class Write:
    """One write of the log. `new` is None if it is gone for good."""

    resource: str
    revision: int
    time: float
    user: str
    name: Name
    new: Object | None


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the story."""

    number: int
    # Seconds since 1970, by the apiserver's clock; for rules by ours.
    time: float
    # Of the write; for rules what they hold at least.
    revision: int
    # "kubectl", "scheduler", "kubelet", "kube-proxy" …; where: the node, if it is one of a node's.
    component: str
    node: str
    user: str
    subject: str
    namespace: str
    says: str
    # The number of the step that caused it, 0 if none is known; and of the first one of its chain.
    because: int
    root: int
    # What nft was told.
    commands: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For the page and for programs."""
        return {name: getattr(self, name) for name in self.__slots__}


class Story:
    """The state of the telling. Feed it in the order of revisions."""

    def __init__(self) -> None:
        self._objects: OrderedDict[Name, Object] = OrderedDict()
        self._children: dict[Name, dict[Name, None]] = {}
        self._last: OrderedDict[Name, Step] = OrderedDict()
        self._made: set[int] = set()
        self._count = 0

    def known(self, name: Name, obj: Object) -> None:
        """An object as it was before the story begins."""
        self._remember(name, obj)

    def told(self, write: Write) -> Step | None:
        """The step that a write is; None if it is not worth a line."""
        old = self._objects.get(write.name)
        says = told(write.resource, old, write.new)
        step = None
        if says:
            if write.name.kind == "Event" and write.new is not None:
                step = self._event_step(write, write.new, says)
            else:
                component, node = _writer(write, old)
                because = self._cause(write, old)
                step = self._step(
                    write.time, write.revision, component, node, write.user, write.name, says, because,
                    made=old is None,
                )  # fmt: skip
        if write.new is None:
            self._forget(write.name)
        else:
            self._remember(write.name, write.new)
        return step

    def rules(
        self,
        node: str,
        time: float,
        revision: int,
        services: Mapping[tuple[str, str], str],
        commands: Iterable[str] = (),
    ) -> Iterator[Step]:
        """What became of a node's rules: (namespace, Service) -> what they are now."""
        lines = tuple(commands)
        for (namespace, name), says in services.items():
            service = Name("Service", namespace, name)
            pieces = [piece for piece in self._children.get(service, ()) if piece.kind == "EndpointSlice"]
            about = Name("Rules", namespace, f"{name} on {node}")
            # One that is gone has made room for another, which is what the rules follow.
            there = [piece for piece in pieces if piece in self._objects] or pieces
            because = self._newest([*there, service], not_after=revision)
            yield self._step(
                time, revision, "kube-proxy", node, "system:kube-proxy", about, says, because, commands=lines
            )

    def holds(self, name: Name) -> bool:
        """Whether there is such an object."""
        return name in self._objects

    def family(self, name: Name) -> set[Name]:
        """An object and everything that it owns, through all generations, and the Services and slices of its pods."""
        out, todo = set(), [name]
        while todo:
            one = todo.pop()
            if one not in out:
                out.add(one)
                todo += self._children.get(one, ())
        return out

    # --- links

    def _cause(self, write: Write, old: Object | None) -> Step | None:
        """The step on what the writer looked at that came last."""
        obj = write.new if write.new is not None else old
        assert obj is not None
        if _is_person(write.user):
            return None
        name, mine = write.name, self._last.get(write.name)
        if name.kind == "EndpointSlice":
            changed = list(_targets_changed(old or {}, write.new or {}))
            return self._newest(changed or self._services_of(obj)) or mine
        if old is not None and not _is_decided(old, write.new):
            # A status tells of what the object is made of; a pod's, of what was done with it before.
            return (self._newest(self._children.get(name, ())) if name.kind != "Pod" else None) or mine
        owner = controller_of(obj)
        if owner is None:
            return mine
        # Its controller counted its like: one that has gone, or changed, is why; not one that the same look made.
        counted = [
            each
            for each in self._children.get(owner, ())
            if each.kind == name.kind and (step := self._last.get(each)) and step.number not in self._made
        ]
        return self._newest([owner, *counted]) or mine

    @staticmethod
    def _services_of(piece: Object) -> list[Name]:
        return [
            name
            for name in _parents(Name("EndpointSlice", piece["metadata"]["namespace"], ""), piece)
            if name.kind == "Service"
        ]

    def _newest(self, names: Iterable[Name], not_after: int = 0) -> Step | None:
        steps = [step for name in names if (step := self._last.get(name)) is not None]
        if not_after:
            steps = [step for step in steps if step.revision <= not_after] or steps
        return max(steps, key=lambda step: step.number, default=None)

    def _event_step(self, write: Write, event: Object, says: str) -> Step:
        about = event.get("involvedObject") or event.get("regarding") or {}
        subject = Name(about.get("kind", ""), about.get("namespace", ""), about.get("name", ""))
        source = event.get("source") or {}
        component = event.get("reportingComponent") or source.get("component") or _component(write.user)[0]
        node = (source.get("host") or "") if component == "kubelet" else ""
        self._count += 1
        cause = self._last.get(subject)
        return Step(
            self._count, write.time, write.revision, component, node, write.user, str(subject), subject.namespace,
            says, cause.number if cause else 0, cause.root if cause else self._count,
        )  # fmt: skip

    def _step(
        self, time: float, revision: int, component: str, node: str, user: str, name: Name, says: str,
        because: Step | None, *, made: bool = False, commands: tuple[str, ...] = (),
    ) -> Step:  # fmt: skip
        self._count += 1
        root = because.root if because else self._count
        step = Step(
            self._count, time, revision, component, node, user, str(name), name.namespace, says,
            because.number if because else 0, root, commands,
        )  # fmt: skip
        before = self._last.pop(name, None)
        if before is not None:
            self._made.discard(before.number)
        self._last[name] = step
        if made:
            self._made.add(step.number)
        if len(self._last) > OBJECTS_MAX:
            _, gone = self._last.popitem(last=False)
            self._made.discard(gone.number)
        return step

    # --- what there is

    def _remember(self, name: Name, obj: Object) -> None:
        # Of events and leases nothing is asked later.
        if name.kind in ("Event", "Lease"):
            return
        self._objects[name] = obj
        self._objects.move_to_end(name)
        for parent in _parents(name, obj):
            # One that is gone stays among them: that it went may be why its owner makes another.
            children = self._children.setdefault(parent, {})
            children[name] = None
            if len(children) > CHILDREN_MAX:
                gone = next((each for each in children if each not in self._objects), next(iter(children)))
                del children[gone]
        if len(self._objects) > OBJECTS_MAX:
            self._forget(next(iter(self._objects)))

    def _forget(self, name: Name) -> None:
        self._objects.pop(name, None)
        self._children.pop(name, None)


def controller_of(obj: Object) -> Name | None:
    """The object that controls this one."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return Name(owner["kind"], obj["metadata"].get("namespace", ""), owner["name"])
    return None


def _parents(name: Name, obj: Object) -> Iterator[Name]:
    for owner in obj["metadata"].get("ownerReferences") or ():
        yield Name(owner["kind"], name.namespace, owner["name"])
    if name.kind == "EndpointSlice":
        service = (obj["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
        if service:
            yield Name("Service", name.namespace, service)
        for end in obj.get("endpoints") or ():
            target = end.get("targetRef") or {}
            if target.get("kind") == "Pod":
                yield Name("Pod", name.namespace, target["name"])


def _targets_changed(old: Object, new: Object) -> Iterator[Name]:
    """The pods whose endpoints came, went or changed."""

    def by_pod(piece: Object) -> dict[Name, Any]:
        return {
            Name("Pod", target.get("namespace", ""), target["name"]): (end.get("addresses"), end.get("conditions"))
            for end in piece.get("endpoints") or ()
            if (target := end.get("targetRef") or {}).get("kind") == "Pod"
        }

    before, after = by_pod(old), by_pod(new)
    return (pod for pod in {**before, **after} if before.get(pod) != after.get(pod))


def _is_decided(old: Object, new: Object | None) -> bool:
    """Whether a write says what shall be, and not what is: its spec, its end."""
    if new is None:
        return False
    before, after = old["metadata"], new["metadata"]
    ends = bool(after.get("deletionTimestamp")) and not before.get("deletionTimestamp")
    return ends or (new.get("kind") != "Pod" and before.get("generation") != after.get("generation"))


def _is_person(user: str) -> bool:
    return bool(user) and not user.startswith("system:")


def _component(user: str) -> tuple[str, str]:
    """(component, node) of a user of ours."""
    if user.startswith("system:node:"):
        return "kubelet", user.removeprefix("system:node:")
    if user.startswith("system:serviceaccount:"):
        return user.removeprefix("system:serviceaccount:").replace(":", "/"), ""
    known = {
        "system:kube-scheduler": "scheduler", "system:kube-controller-manager": "controller-manager",
        "system:kube-proxy": "kube-proxy", "system:ingress": "ingress", "": "apiserver",
        "system:apiserver": "apiserver",
    }  # fmt: skip
    return known.get(user, user.removeprefix("system:")), ""


def _writer(write: Write, old: Object | None) -> tuple[str, str]:
    if not _is_person(write.user):
        return _component(write.user)
    # Of people it is known by what they wrote: "kubectl-client-side-apply".
    manager = manager_of(dict(write.new), dict(old) if old else None) if write.new is not None else ""
    return manager.partition("-")[0] or write.user, ""

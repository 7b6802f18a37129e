"""Why a Service or an Ingress leads nowhere."""

from __future__ import annotations

from services.controller_manager.explain.finding import Finding
from services.controller_manager.explain.pods import explain_pod
from services.controller_manager.explain.snapshot import Object, Snapshot, names, selects, subject

PODS_SHOWN_MAX = 3


def explain_service(snapshot: Snapshot, service: Object) -> tuple[Finding, ...]:
    """What keeps a Service from having endpoints; empty if it has some."""
    me, spec, namespace = subject("service", service), service["spec"], service["metadata"]["namespace"]
    if spec.get("type") == "ExternalName" or _ready_endpoints(snapshot, service):
        return tuple(_without_address(service))
    selector = spec.get("selector")
    if not selector:
        return (
            Finding(me, "has no selector and no endpoints", "create an EndpointSlice for it, or give it a selector"),
        )
    pods = [pod for pod in snapshot.all("Pod", namespace) if selects(selector, pod["metadata"].get("labels"))]
    wanted = ",".join(f"{key}={value}" for key, value in selector.items())
    if not pods:
        return (_nothing_selected(snapshot, me, namespace, selector, wanted),)
    causes = tuple(finding for pod in pods for finding in explain_pod(snapshot, pod))[:PODS_SHOWN_MAX]
    if not causes:
        return (
            Finding(
                me, f"selects {names(pods)}, and none serves its ports", "compare targetPort with the containers' ports"
            ),
        )
    return (Finding(me, f"has no ready endpoint: none of {len(pods)} pods with {wanted} is ready", because=causes),)


def _nothing_selected(snapshot: Snapshot, me: str, namespace: str, selector: dict[str, str], wanted: str) -> Finding:
    near = [
        pod
        for pod in snapshot.all("Pod", namespace)
        if any((pod["metadata"].get("labels") or {}).get(key) == value for key, value in selector.items())
    ]
    elsewhere = [pod for pod in snapshot.all("Pod") if selects(selector, pod["metadata"].get("labels"))]
    remedy = "create pods with these labels, or change the selector"
    if near:
        remedy = f"{names(near[:1])} has some of these labels: {near[0]['metadata'].get('labels')}"
    elif elsewhere:
        remedy = (
            f"such pods are in namespace {elsewhere[0]['metadata']['namespace']}; a Service selects only in its own"
        )
    return Finding(me, f"selects no pod: none in {namespace} has {wanted}", remedy)


def _ready_endpoints(snapshot: Snapshot, service: Object) -> int:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    count = 0
    for piece in snapshot.all("EndpointSlice", namespace):
        if (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == name:
            count += sum((e.get("conditions") or {}).get("ready") is not False for e in piece.get("endpoints") or [])
    return count


def _without_address(service: Object) -> list[Finding]:
    spec, status = service["spec"], service.get("status", {})
    if spec.get("type") == "LoadBalancer" and not (status.get("loadBalancer") or {}).get("ingress"):
        remedy = "is the pool of addresses empty? it is the controller-manager's load_balancer_addresses"
        return [Finding(subject("service", service), "has no external address", remedy)]
    return []


def explain_ingress(snapshot: Snapshot, ingress: Object) -> tuple[Finding, ...]:
    """What keeps the backends of an Ingress from answering."""
    me, namespace = subject("ingress", ingress), ingress["metadata"]["namespace"]
    findings: list[Finding] = []
    wanted = ingress["spec"].get("ingressClassName")
    if wanted and snapshot.get("IngressClass", "", wanted) is None:
        findings.append(
            Finding(me, f"wants ingress class {wanted}, which does not exist", "create it, or name another")
        )
    for name in _backends(ingress):
        service = snapshot.get("Service", namespace, name)
        if service is None:
            findings.append(Finding(me, f"leads to service {name}, which does not exist", f"create it in {namespace}"))
        else:
            causes = explain_service(snapshot, service)
            if causes:
                findings.append(Finding(me, f"leads to service {name}, which can't answer", because=causes))
    return tuple(findings)


def _backends(ingress: Object) -> list[str]:
    backends = [ingress["spec"].get("defaultBackend")]
    for rule in ingress["spec"].get("rules") or []:
        backends += [path.get("backend") for path in (rule.get("http") or {}).get("paths") or []]
    found = [((backend or {}).get("service") or {}).get("name") for backend in backends]
    return list(dict.fromkeys(name for name in found if name))

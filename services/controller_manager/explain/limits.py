"""What holds back on purpose: quotas, admission webhooks, disruption budgets, autoscalers."""

from __future__ import annotations

import re

from machinery.api import quantity
from services.controller_manager.explain.finding import Finding
from services.controller_manager.explain.network import explain_service
from services.controller_manager.explain.pods import explain_pod
from services.controller_manager.explain.snapshot import Object, Snapshot, condition, subject

PODS_SHOWN_MAX = 3
_CONFIGURATIONS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")


def explain_refusal(snapshot: Snapshot, namespace: str, message: str) -> tuple[Finding, ...]:
    """The quota or webhook behind the message of a refused creation, as it is now; empty if it is neither."""
    if (quota := re.search(r"exceeded quota: ([^\s,]+)", message)) is not None:
        found = snapshot.get("ResourceQuota", namespace, quota.group(1))
        return explain_quota(snapshot, found) if found is not None else ()
    if (webhook := re.search(r'(?:webhook|admission webhook) "([^"]+)"', message)) is not None:
        return _explain_webhook(snapshot, webhook.group(1), denied="denied the request" in message)
    return ()


def explain_quota(snapshot: Snapshot, quota: Object) -> tuple[Finding, ...]:
    """Which limits of a ResourceQuota are used up; empty if none is."""
    status = quota.get("status", {})
    hard, used = status.get("hard") or quota["spec"].get("hard") or {}, status.get("used") or {}
    me = subject("resourcequota", quota)
    return tuple(
        Finding(me, f"allows {limit} {name}, and {used.get(name, 0)} are used", f"raise it, or use less {name}")
        for name, limit in sorted(hard.items())
        if _used_up(used.get(name, "0"), limit)
    )


def _used_up(used: object, limit: object) -> bool:
    try:
        return not quantity.parse(str(used)) < quantity.parse(str(limit))
    except ValueError:
        return False


def _explain_webhook(snapshot: Snapshot, name: str, *, denied: bool) -> tuple[Finding, ...]:
    for kind in _CONFIGURATIONS:
        for configuration in snapshot.all(kind):
            for hook in configuration.get("webhooks") or []:
                if hook.get("name") == name:
                    return (_judge_webhook(snapshot, subject(kind, configuration), hook, denied),)
    return (Finding(f"webhook {name}", "is not configured any more", "try again"),)


def _judge_webhook(snapshot: Snapshot, configuration: str, hook: Object, denied: bool) -> Finding:
    problem = f"asks webhook {hook['name']} first"
    if denied:
        return Finding(configuration, f"{problem}, which says no", "do what its message says, or change its rules")
    way_round = f"mend it; until then `failurePolicy: Ignore`, or `kubectl delete {configuration}`"
    service = (hook.get("clientConfig") or {}).get("service")
    if not service:
        return Finding(configuration, f"{problem}, which does not answer rightly", way_round)
    namespace, name = service.get("namespace", ""), service.get("name", "")
    found = snapshot.get("Service", namespace, name)
    if found is None:
        missing = Finding(f"service/{name}", f"does not exist in namespace {namespace}", "create it")
        return Finding(configuration, f"{problem}, by Service {namespace}/{name}", way_round, (missing,))
    causes = explain_service(snapshot, found)
    return Finding(configuration, f"{problem}, by Service {namespace}/{name}", way_round, causes)


def explain_budget(snapshot: Snapshot, budget: Object) -> tuple[Finding, ...]:
    """Why a PodDisruptionBudget allows no eviction now; empty if it allows one."""
    status, me = budget.get("status", {}), subject("poddisruptionbudget", budget)
    if status.get("disruptionsAllowed", 0) > 0:
        return ()
    healthy, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    expected = status.get("expectedPods", 0)
    if expected == 0:
        return (Finding(me, "covers no pod", "compare its selector with the pods' labels"),)
    if desired >= expected:
        remedy = "more replicas, a smaller minAvailable, or a greater maxUnavailable"
        return (Finding(me, f"can't allow an eviction: {desired} of {expected} pods must be healthy", remedy),)
    wanted = ((budget["spec"].get("selector") or {}).get("matchLabels") or {}).items()
    pods = [
        pod
        for pod in snapshot.all("Pod", budget["metadata"].get("namespace", ""))
        if wanted and wanted <= (pod["metadata"].get("labels") or {}).items()
    ]
    causes = tuple(finding for pod in pods for finding in explain_pod(snapshot, pod))[:PODS_SHOWN_MAX]
    return (Finding(me, f"allows no eviction: {healthy} of {desired} pods are healthy", because=causes),)


def explain_autoscaler(snapshot: Snapshot, autoscaler: Object) -> tuple[Finding, ...]:
    """Why a HorizontalPodAutoscaler does not scale as one would think; empty if it does."""
    me = subject("horizontalpodautoscaler", autoscaler)
    findings = []
    for kind in ("AbleToScale", "ScalingActive"):
        entry = condition(autoscaler, kind)
        if entry is not None and entry.get("status") == "False":
            findings.append(Finding(me, f"does not scale: {entry.get('message', '')}", _remedy(entry)))
    limited = condition(autoscaler, "ScalingLimited")
    if not findings and limited is not None and limited.get("status") == "True":
        bound = "maxReplicas" if limited.get("reason") == "TooManyReplicas" else "minReplicas"
        findings.append(
            Finding(me, f"is at its limit: {limited.get('message', '')}", f"change {bound} if it should go on")
        )
    if not findings and not (autoscaler.get("status", {}).get("conditions")):
        findings.append(Finding(me, "was not looked at yet", "is the controller-manager running? `cutaway status`"))
    return tuple(findings)


def _remedy(entry: Object) -> str:
    reason = entry.get("reason", "")
    if reason == "FailedGetScale":
        return "spec.scaleTargetRef must name what there is, with a scale"
    if reason in ("FailedGetResourceMetric", "FailedGetContainerResourceMetric"):
        return "its pods need a request of that resource, and to be Ready; `kubectl top pods` shows what is measured"
    if reason == "ScalingDisabled":
        return "the target has 0 replicas: scale it to 1 to have the autoscaler go on"
    return ""


def explain_node(snapshot: Snapshot, node: Object) -> tuple[Finding, ...]:
    """Why a node takes no pods, or a drain of it does not end; empty if all is well."""
    me, name = subject("node", node), node["metadata"]["name"]
    findings = []
    ready = condition(node, "Ready") or {}
    if ready.get("status") != "True":
        remedy = f"`cutaway status`, `cutaway logs kubelet-{name}`"
        findings.append(Finding(me, f"is not Ready: {ready.get('message') or 'it never reported'}", remedy))
    for kind in ("MemoryPressure", "DiskPressure", "PIDPressure"):
        entry = condition(node, kind)
        if entry is not None and entry.get("status") == "True":
            findings.append(Finding(me, f"has {kind}: {entry.get('message', '')}", "pods are evicted until it ends"))
    if node["spec"].get("unschedulable"):
        findings.append(Finding(me, "is cordoned", f"`kubectl uncordon {name}`", tuple(_undrained(snapshot, name))))
    return tuple(findings)


def _undrained(snapshot: Snapshot, node: str) -> list[Finding]:
    """The budgets that keep pods on the node."""
    found: list[Finding] = []
    for budget in snapshot.all("PodDisruptionBudget"):
        labels = ((budget["spec"].get("selector") or {}).get("matchLabels") or {}).items()
        here = [
            pod
            for pod in snapshot.all("Pod", budget["metadata"].get("namespace", ""))
            if pod["spec"].get("nodeName") == node
            and labels
            and labels <= (pod["metadata"].get("labels") or {}).items()
        ]
        if here:
            found += explain_budget(snapshot, budget)
    return found

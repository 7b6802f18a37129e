"""Storage, networking, RBAC, scaling, policy, certificates and admission: the kinds that other groups hold."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]
_RBAC = "rbac.authorization.k8s.io"


def storage_class(obj: Obj) -> None:
    """A StorageClass."""
    if obj.get("reclaimPolicy") is None:
        obj["reclaimPolicy"] = "Delete"
    if obj.get("volumeBindingMode") is None:
        obj["volumeBindingMode"] = "Immediate"


def csi_driver(obj: Obj) -> None:
    """A CSIDriver."""
    spec = obj.setdefault("spec", {})
    _fill(
        spec,
        attachRequired=True,
        podInfoOnMount=False,
        storageCapacity=False,
        fsGroupPolicy="ReadWriteOnceWithFSType",
        requiresRepublish=False,
        seLinuxMount=False,
    )
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def volume_attachment(obj: Obj) -> None:
    """A VolumeAttachment: its status always says whether it is attached."""
    obj.setdefault("status", {}).setdefault("attached", False)


def ingress(obj: Obj) -> None:
    """An Ingress: its status is written even when empty."""
    obj.setdefault("spec", {})
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def ingress_class(obj: Obj) -> None:
    """An IngressClass: its parameters' scope."""
    parameters = (obj.get("spec") or {}).get("parameters")
    if parameters is not None and parameters.get("scope") is None:
        parameters["scope"] = "Cluster"


def network_policy(obj: Obj) -> None:
    """A NetworkPolicy: ports' protocol, and the types that follow from its rules."""
    spec = obj.setdefault("spec", {})
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or ():
            for port in rule.get("ports") or ():
                if port.get("protocol") is None:
                    port["protocol"] = "TCP"
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    spec.setdefault("podSelector", {})


def endpoint_slice(obj: Obj) -> None:
    """An EndpointSlice: a port's name and protocol."""
    for port in obj.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        if port.get("protocol") is None:
            port["protocol"] = "TCP"
    obj.setdefault("endpoints", [])


def role(obj: Obj) -> None:
    """A Role or ClusterRole: rules are always written."""
    obj.setdefault("rules", [])


def binding(obj: Obj) -> None:
    """A RoleBinding or ClusterRoleBinding: API groups of the role and of the subjects."""
    reference = obj.get("roleRef")
    if reference is not None and not reference.get("apiGroup"):
        reference["apiGroup"] = _RBAC
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = _RBAC


def disruption_budget(obj: Obj) -> None:
    """A PodDisruptionBudget's status counts are always written."""
    obj.setdefault("spec", {})
    _fill(obj.setdefault("status", {}), disruptionsAllowed=0, currentHealthy=0, desiredHealthy=0, expectedPods=0)


def autoscaler_v1(obj: Obj) -> None:
    """A HorizontalPodAutoscaler of autoscaling/v1. The target of 80 % is the controller's default, as upstream."""
    _fill(obj.setdefault("spec", {}), minReplicas=1)
    _fill(obj.setdefault("status", {}), currentReplicas=0, desiredReplicas=0)


def autoscaler_v2(obj: Obj) -> None:
    """A HorizontalPodAutoscaler: CPU at 80 % where no metric is named; scaling rules where there is behaviour."""
    spec = obj.setdefault("spec", {})
    _fill(spec, minReplicas=1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        behavior["scaleUp"] = _scaling(behavior.get("scaleUp"), _scale_up())
        behavior["scaleDown"] = _scaling(behavior.get("scaleDown"), _scale_down())
    _fill(obj.setdefault("status", {}), desiredReplicas=0)


def _scale_up() -> Obj:
    return {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ],
    }


def _scale_down() -> Obj:
    return {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}


def _scaling(given: Obj | None, default: Obj) -> Obj:
    return {**default, **{name: value for name, value in (given or {}).items() if value is not None}}


def signing_request(obj: Obj) -> None:
    """A CertificateSigningRequest; v1 has no defaults but its status."""
    obj.setdefault("status", {})


def webhooks(obj: Obj) -> None:
    """A MutatingWebhookConfiguration or ValidatingWebhookConfiguration."""
    mutating = obj.get("kind") != "ValidatingWebhookConfiguration"
    for webhook in obj.get("webhooks") or ():
        _fill(webhook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
        _fill(webhook, namespaceSelector={}, objectSelector={})
        if mutating:
            _fill(webhook, reinvocationPolicy="Never")
        for rule in webhook.get("rules") or ():
            _fill(rule, scope="*")
        _service_reference((webhook.get("clientConfig") or {}).get("service"))


def _service_reference(service: Obj | None) -> None:
    if service is not None and service.get("port") is None:
        service["port"] = 443


def _match_resources(match: Obj | None) -> None:
    if match is None:
        return
    _fill(match, matchPolicy="Equivalent", namespaceSelector={}, objectSelector={})
    for name in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(name) or ():
            _fill(rule, scope="*")


def admission_policy(obj: Obj) -> None:
    """A ValidatingAdmissionPolicy or MutatingAdmissionPolicy."""
    spec = obj.setdefault("spec", {})
    _fill(spec, failurePolicy="Fail")
    _match_resources(spec.get("matchConstraints"))
    if obj.get("kind") != "MutatingAdmissionPolicy":
        obj.setdefault("status", {})


def admission_policy_binding(obj: Obj) -> None:
    """A binding of an admission policy."""
    spec = obj.get("spec") or {}
    _match_resources(spec.get("matchResources"))
    reference = spec.get("paramRef")
    if reference is not None and reference.get("parameterNotFoundAction") is None:
        reference["parameterNotFoundAction"] = "Deny"


def priority_class(obj: Obj) -> None:
    """A PriorityClass; its value is always written."""
    if obj.get("preemptionPolicy") is None:
        obj["preemptionPolicy"] = "PreemptLowerPriority"
    obj.setdefault("value", 0)


def custom_resource_definition(obj: Obj) -> None:
    """A CustomResourceDefinition: names that follow from the kind, conversion, the status that Go writes."""
    spec = obj.setdefault("spec", {})
    names = spec.get("names") or {}
    if names.get("kind"):
        if not names.get("singular"):
            names["singular"] = names["kind"].lower()
        if not names.get("listKind"):
            names["listKind"] = names["kind"] + "List"
    conversion = spec.setdefault("conversion", {})
    if not conversion.get("strategy"):
        conversion["strategy"] = "None"
    _service_reference(((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service"))
    for version in spec.get("versions") or ():
        _fill(version, served=False, storage=False)
    status = obj.setdefault("status", {})
    status.setdefault("conditions", [])
    if status.get("acceptedNames") is None:
        status["acceptedNames"] = {"plural": "", "kind": ""}
    if status.get("storedVersions") is None:
        status["storedVersions"] = [
            one["name"] for one in spec.get("versions") or () if one.get("storage") and "name" in one
        ]


def api_service(obj: Obj) -> None:
    """An APIService."""
    _service_reference((obj.setdefault("spec", {})).get("service"))
    obj.setdefault("status", {})


def flow_schema(obj: Obj) -> None:
    """A FlowSchema."""
    spec = obj.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000
    obj.setdefault("status", {})


def priority_level(obj: Obj) -> None:
    """A PriorityLevelConfiguration."""
    spec = obj.setdefault("spec", {})
    limited = spec.get("limited")
    if limited is not None:
        _fill(limited, nominalConcurrencyShares=30, lendablePercent=0)
        queuing = (limited.get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            _fill(queuing, queues=64, handSize=8, queueLengthLimit=50)
    exempt = spec.get("exempt")
    if exempt is not None:
        _fill(exempt, nominalConcurrencyShares=0, lendablePercent=0)
    obj.setdefault("status", {})


def csi_storage_capacity(obj: Obj) -> None:
    """No defaults; its class is required."""


def device_claim(obj: Obj) -> None:
    """A ResourceClaim's requests: how devices are allocated."""
    spec = obj.setdefault("spec", {})
    _device_requests(spec)
    obj.setdefault("status", {})


def device_claim_template(obj: Obj) -> None:
    """A ResourceClaimTemplate."""
    _device_requests((obj.setdefault("spec", {})).setdefault("spec", {}))


def _device_requests(spec: Obj) -> None:
    for request in (spec.get("devices") or {}).get("requests") or ():
        for one in [request.get("exactly"), *(request.get("firstAvailable") or ())]:
            if one is None:
                continue
            if not one.get("allocationMode"):
                one["allocationMode"] = "ExactCount"
            if one["allocationMode"] == "ExactCount" and not one.get("count"):
                one["count"] = 1


def with_status(obj: Obj) -> None:
    """A kind whose only default is that its status is written."""
    obj.setdefault("spec", {})
    obj.setdefault("status", {})


def _fill(obj: Obj, **values: Any) -> None:
    for name, value in values.items():
        if obj.get(name) is None:
            obj[name] = value

"""The virtual resources that answer questions about identity and rights: nothing of them is stored.

Each function takes the review as the client sent it and returns it with `status` filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from machinery.api import errors
from machinery.api.errors import Cause
from services.apiserver.auth.attributes import Attributes, Decision
from services.apiserver.auth.authenticate import Authenticator
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.request import User

Document = dict[str, Any]


async def token_review(authenticator: Authenticator, body: Mapping[str, Any]) -> Document:
    """authentication.k8s.io/v1 TokenReview."""
    spec = body.get("spec") or {}
    token = spec.get("token")
    if not token:
        raise errors.BadRequest("token is required for TokenReview in authentication")
    try:
        user, audiences = await authenticator.review_token(token, spec.get("audiences") or ())
    except errors.Unauthorized:
        status: Document = {"user": {}, "error": "[invalid bearer token]"}
    else:
        status = {"authenticated": True, "user": user_info(user)}
        if audiences:
            status["audiences"] = list(audiences)
    return _answer(body, "authentication.k8s.io/v1", "TokenReview", status)


def self_subject_review(user: User, body: Mapping[str, Any]) -> Document:
    """authentication.k8s.io/v1 SelfSubjectReview (`kubectl auth whoami`)."""
    out = _answer(body, "authentication.k8s.io/v1", "SelfSubjectReview", {"userInfo": user_info(user)})
    out.pop("spec", None)
    return out


def self_subject_access_review(authorizer: Authorizer, user: User, body: Mapping[str, Any]) -> Document:
    """authorization.k8s.io/v1 SelfSubjectAccessReview (`kubectl auth can-i`)."""
    spec = body.get("spec") or {}
    decision = authorizer.authorize(_attributes(user, spec, "SelfSubjectAccessReview"))
    return _answer(body, "authorization.k8s.io/v1", "SelfSubjectAccessReview", _verdict(decision))


def subject_access_review(
    authorizer: Authorizer, body: Mapping[str, Any], *, namespace: str = "", kind: str = "SubjectAccessReview"
) -> Document:
    """authorization.k8s.io/v1 SubjectAccessReview, and with `kind` LocalSubjectAccessReview within `namespace`."""
    spec = body.get("spec") or {}
    causes = []
    if not spec.get("user") and not spec.get("groups"):
        causes.append(
            Cause(
                "FieldValueInvalid", 'Invalid value: "": at least one of user or group must be specified', "spec.user"
            )
        )
    attributes = spec.get("resourceAttributes") or {}
    if kind == "LocalSubjectAccessReview":
        if not attributes:
            causes.append(
                Cause("FieldValueInvalid", "Invalid value: null: must be specified", "spec.resourceAttributes")
            )
        elif attributes.get("namespace", "") != namespace:
            raise errors.BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
    if causes:
        raise errors.invalid("authorization.k8s.io", kind, "", causes)
    user = User(
        spec.get("user") or "", spec.get("uid") or "", tuple(spec.get("groups") or ()), dict(spec.get("extra") or {})
    )
    return _answer(body, "authorization.k8s.io/v1", kind, _verdict(authorizer.authorize(_attributes(user, spec, kind))))


def self_subject_rules_review(authorizer: Authorizer, user: User, body: Mapping[str, Any]) -> Document:
    """authorization.k8s.io/v1 SelfSubjectRulesReview (`kubectl auth can-i --list`)."""
    namespace = (body.get("spec") or {}).get("namespace")
    if not namespace:
        raise errors.BadRequest("no namespace on request")
    resource_rules, path_rules = [], []
    for rule in authorizer.rules_for(user, namespace):
        if rule.get("nonResourceURLs"):
            path_rules.append({"verbs": list(rule["verbs"]), "nonResourceURLs": list(rule["nonResourceURLs"])})
        if rule.get("resources"):
            fields = ("verbs", "apiGroups", "resources", "resourceNames")
            resource_rules.append({field: list(rule[field]) for field in fields if rule.get(field)})
    status = {"resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": False}
    return _answer(body, "authorization.k8s.io/v1", "SelfSubjectRulesReview", status)


def user_info(user: User) -> Document:
    """A user as reviews, admission reviews and audit events show one."""
    out: Document = {"username": user.name}
    if user.uid:
        out["uid"] = user.uid
    if user.groups:
        out["groups"] = list(user.groups)
    if user.extra:
        out["extra"] = {key: list(values) for key, values in user.extra.items()}
    return out


def _attributes(user: User, spec: Mapping[str, Any], kind: str) -> Attributes:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        why = "cannot specify both resourceAttributes and nonResourceAttributes"
        if resource is None:
            why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise errors.invalid(
            "authorization.k8s.io",
            kind,
            "",
            [Cause("FieldValueInvalid", f"Invalid value: null: {why}", "spec.resourceAttributes")],
        )
    if resource is None:
        assert path is not None
        return Attributes(user, path.get("verb") or "", path=path.get("path") or "")
    selector = resource.get("fieldSelector") or {}
    text = selector.get("rawSelector") or ",".join(
        f"{item['key']}={item['values'][0]}"
        for item in selector.get("requirements") or ()
        if item.get("operator") == "In" and len(item.get("values") or ()) == 1
    )
    return Attributes(
        user,
        resource.get("verb") or "",
        resource.get("group") or "",
        resource.get("version") or "",
        resource.get("resource") or "*",
        resource.get("subresource") or "",
        resource.get("namespace") or "",
        resource.get("name") or "",
        field_selector=text,
    )


def _verdict(decision: Decision) -> Document:
    status: Document = {"allowed": decision.allowed}
    if decision.reason:
        status["reason"] = decision.reason
    return status


def _answer(body: Mapping[str, Any], api_version: str, kind: str, status: Document) -> Document:
    meta = {"creationTimestamp": None, **(body.get("metadata") or {})}
    out = {"kind": kind, "apiVersion": api_version, "metadata": meta}
    if body.get("spec") is not None:
        out["spec"] = dict(body["spec"])
    out["status"] = status
    return out

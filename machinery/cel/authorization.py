"""CEL's authorizer (k8s.io/apiserver/pkg/cel/library/authz.go): expressions ask what the caller, or a service account,
may do.

    authorizer.group("apps").resource("deployments").namespace("web").name("a").check("create").allowed()
    authorizer.path("/metrics").check("get").allowed()    authorizer.serviceAccount("web", "bot").…
    authorizer.requestResource.check("…").reason()

Values are maps, as in `library`; who evaluates an expression says who judges (`judged_by`), for functions of CEL get
nothing but their arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

Check = Mapping[str, str]
"""A question: `verb`, `serviceAccount` (namespace/name; empty: the caller), and `path`, or `group`, `resource`,
`subresource`, `namespace`, `name`, `fieldSelector`, `labelSelector`.
"""
Judge = Callable[[Check], tuple[bool, str]]
"""Whether it is allowed, and why."""

_judge: ContextVar[Judge] = ContextVar("judge")

_AUTHORIZER, _PATH, _GROUP, _RESOURCE, _DECISION = "authorizer", "path", "group", "resource", "decision"


@contextlib.contextmanager
def judged_by(judge: Judge) -> Iterator[None]:
    """Whoever evaluates an expression inside is answered by this judge."""
    token = _judge.set(judge)
    try:
        yield
    finally:
        _judge.reset(token)


def variable(group: str, resource: str, subresource: str, namespace: str, name: str) -> dict[str, Any]:
    """The variable `authorizer` of a request for this resource."""
    check = {"group": group, "resource": resource, "subresource": subresource, "namespace": namespace, "name": name}
    return {"kind": _AUTHORIZER, "serviceAccount": "", "requestResource": _made(_RESOURCE, check)}


def _made(kind: str, check: Mapping[str, str]) -> dict[str, Any]:
    return {"kind": kind, **{key: value for key, value in check.items() if value and key != "kind"}}


def _read(value: Mapping[str, Any], *kinds: str) -> dict[str, Any]:
    """A receiver as plain values, if it is one of these."""
    plain = {
        str(key): item.plain_value() if hasattr(item, "plain_value") else item
        for key, item in value.items()
        if str(key) != "requestResource"
    }
    if plain.get("kind") not in kinds:
        raise ValueError(f"no such overload: expected {' or '.join(kinds)} of an authorizer")
    return plain


def _step(kind: str, field: str, *receivers: str) -> Callable[[Mapping[str, Any], str], dict[str, Any]]:
    """A function that adds one thing to a question."""

    def add(value: Mapping[str, Any], text: str) -> dict[str, Any]:
        return _made(kind, {**_read(value, *receivers), field: text})

    return add


def _service_account(value: Mapping[str, Any], namespace: str, name: str) -> dict[str, Any]:
    _read(value, _AUTHORIZER)
    if not namespace or not name:
        raise ValueError("serviceAccount: a namespace and a name are needed")
    return _made(_AUTHORIZER, {"serviceAccount": f"{namespace}/{name}"})


def _check(value: Mapping[str, Any], verb: str) -> dict[str, Any]:
    question = _read(value, _PATH, _RESOURCE)
    judge = _judge.get(None)
    if judge is None:
        raise ValueError("nobody judges here")
    allowed, reason = judge({**question, "verb": verb})
    return {"kind": _DECISION, "allowed": allowed, "reason": reason}


def _of_decision(field: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda value: _read(value, _DECISION)[field]


def declarations() -> list[Any]:
    """The functions, as the CEL environment takes them."""
    from cel_expr_python import cel

    text, yes, opaque = cel.Type.STRING, cel.Type.BOOL, cel.Type("map<string,dyn>")

    def member(name: str, out: Any, parameters: list[Any], impl: Callable[..., Any]) -> Any:
        overload = cel.Overload(
            f"authz_{name}", return_type=out, parameters=[opaque, *parameters], is_member=True, impl=impl
        )
        return cel.FunctionDecl(name, [overload])

    resource = (_RESOURCE,)
    steps = {
        "path": _step(_PATH, "path", _AUTHORIZER),
        "group": _step(_GROUP, "group", _AUTHORIZER),
        "resource": _step(_RESOURCE, "resource", _GROUP),
        **{
            field: _step(_RESOURCE, field, *resource)
            for field in ("subresource", "namespace", "name", "fieldSelector", "labelSelector")
        },
        "check": _check,
    }
    return [
        *(member(name, opaque, [text], impl) for name, impl in steps.items()),
        member("serviceAccount", opaque, [text, text], _service_account),
        member("allowed", yes, [], _of_decision("allowed")),
        member("reason", text, [], _of_decision("reason")),
        # What cannot be judged is refused with a reason: nothing fails in between.
        member("errored", yes, [], lambda value: bool(_read(value, _DECISION)) and False),
        member("error", text, [], lambda value: _read(value, _DECISION) and ""),
    ]

"""CEL's authorizer: which question an expression asks, and what it gets to know."""

from __future__ import annotations

from typing import Any

import pytest

from machinery import cel
from machinery.cel import authorization


def asked(expression: str) -> tuple[Any, list[dict[str, str]]]:
    """The expression's value where everybody may get, and what was asked."""
    questions: list[dict[str, str]] = []

    def judge(check: authorization.Check) -> tuple[bool, str]:
        questions.append({key: value for key, value in check.items() if key not in ("kind",)})
        return check["verb"] == "get", "who gets, may"

    variables = {"authorizer": authorization.variable("apps", "deployments", "scale", "shop", "web")}
    with authorization.judged_by(judge):
        return cel.compile(expression, ("authorizer",)).evaluate(variables), questions


@pytest.mark.parametrize(
    ("expression", "value", "question"),
    [
        (
            "authorizer.group('apps').resource('deployments').subresource('status')"
            ".namespace('a').name('b').check('get').allowed()",
            True,
            {"group": "apps", "resource": "deployments", "subresource": "status", "namespace": "a", "name": "b"},
        ),
        ("authorizer.group('').resource('pods').check('delete').allowed()", False, {"resource": "pods"}),
        ("authorizer.path('/metrics').check('get').reason()", "who gets, may", {"path": "/metrics"}),
        (
            "authorizer.requestResource.check('get').errored()",
            False,
            {"group": "apps", "resource": "deployments", "subresource": "scale", "namespace": "shop", "name": "web"},
        ),
        (
            "authorizer.serviceAccount('a', 'bot').group('').resource('pods').check('get').error()",
            "",
            {"serviceAccount": "a/bot", "resource": "pods"},
        ),
        (
            "authorizer.group('').resource('pods').fieldSelector('spec.nodeName=n').check('get').allowed()",
            True,
            {"resource": "pods", "fieldSelector": "spec.nodeName=n"},
        ),
    ],
)
def test_a_question_is_put_together_step_by_step(expression: str, value: Any, question: dict[str, str]) -> None:
    got, questions = asked(expression)
    assert got == value
    assert [{key: text for key, text in one.items() if key != "verb"} for one in questions] == [question]


@pytest.mark.parametrize(
    "expression",
    ["authorizer.path('/x').resource('y')", "authorizer.check('get')", "authorizer.group('').check('get')"],
)
def test_steps_in_the_wrong_order_are_refused(expression: str) -> None:
    with pytest.raises(cel.CelError, match="no such overload"):
        asked(expression)

"""Reviews: questions about identity and rights, posted as objects and answered with their status filled in."""

from __future__ import annotations

from typing import Any

import orjson

from services.apiserver.auth import reviews
from services.apiserver.request import Request, WriteOptions, WriteResult
from services.apiserver.special import Parts


def _answer(review: dict[str, Any]) -> WriteResult:
    return WriteResult(orjson.dumps(review), created=True)


async def token_review(parts: Parts, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
    """TokenReview."""
    return _answer(await reviews.token_review(parts.authenticator, body))


async def self_subject_review(parts: Parts, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
    """SelfSubjectReview."""
    return _answer(reviews.self_subject_review(req.user, body))


async def subject_access_review(parts: Parts, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
    """SubjectAccessReview and LocalSubjectAccessReview."""
    kind = req.resource.kind.kind
    return _answer(reviews.subject_access_review(parts.authorizer, body, namespace=req.namespace, kind=kind))


async def self_subject_access_review(
    parts: Parts, req: Request, body: dict[str, Any], options: WriteOptions
) -> WriteResult:
    """SelfSubjectAccessReview."""
    return _answer(reviews.self_subject_access_review(parts.authorizer, req.user, body))


async def self_subject_rules_review(
    parts: Parts, req: Request, body: dict[str, Any], options: WriteOptions
) -> WriteResult:
    """SelfSubjectRulesReview."""
    return _answer(reviews.self_subject_rules_review(parts.authorizer, req.user, body))

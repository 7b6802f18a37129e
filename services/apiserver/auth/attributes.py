"""What an authorizer judges, and how a refusal reads."""

from __future__ import annotations

from dataclasses import dataclass

from machinery.api import errors
from services.apiserver.request import User

READ_VERBS = frozenset({"get", "list", "watch"})


@dataclass(frozen=True, slots=True)
class Attributes:
    """One question: may `user` do `verb` to this resource, or to this path?

    A resource request has `resource`; anything else has `path`. `name` is empty for collections. `field_selector` is
    the raw text of a list's or watch's selector: the Node authorizer grants a kubelet only what it selects for itself.
    """

    user: User
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    field_selector: str = ""
    label_selector: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, and why (for audit, and for the text of a refusal)."""

    allowed: bool
    reason: str = ""


ALLOWED_MASTER = Decision(True, "")
NO_OPINION = Decision(False, "")


def denied(attrs: Attributes, reason: str = "") -> errors.Forbidden:
    """The 403 in upstream's words, on which clients and tests match."""
    user = attrs.user.name
    why = f": {reason}" if reason else ""
    if not attrs.resource:
        return errors.Forbidden(f'forbidden: User "{user}" cannot {attrs.verb} path "{attrs.path}"{why}')
    resource = f"{attrs.resource}/{attrs.subresource}" if attrs.subresource else attrs.resource
    scope = f'in the namespace "{attrs.namespace}"' if attrs.namespace else "at the cluster scope"
    text = f'User "{user}" cannot {attrs.verb} resource "{resource}" in API group "{attrs.group}" {scope}{why}'
    return errors.forbidden(attrs.group, attrs.resource, attrs.name, text)

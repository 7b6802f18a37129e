"""Which Ingresses are this controller's."""

from __future__ import annotations

from collections.abc import Iterable

from services.ingress.api import Ingress, IngressClass

CONTROLLER = "cutaway.dev/ingress"
DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
# What named a class before spec.ingressClassName did.
CLASS_ANNOTATION = "kubernetes.io/ingress.class"


def ours(ingresses: Iterable[Ingress], classes: Iterable[IngressClass], controller: str) -> list[Ingress]:
    """The Ingresses of this controller's classes, the oldest first: in a conflict, who comes first wins.

    An Ingress that names no class is of the default class: admission writes that into new ones, but not into one that
    is older than the class.
    """
    own = [each for each in classes if each.spec.controller == controller]
    names = {each.metadata.name for each in own}
    has_default = any((each.metadata.annotations or {}).get(DEFAULT_ANNOTATION) == "true" for each in own)

    def is_ours(ingress: Ingress) -> bool:
        named = ingress.spec.ingress_class_name
        if named is None:
            named = (ingress.metadata.annotations or {}).get(CLASS_ANNOTATION)
        return has_default if named is None else named in names

    return sorted(filter(is_ours, ingresses), key=age)


def age(ingress: Ingress) -> tuple[str, str]:
    """Sorts older Ingresses before younger ones, and those of one second by name."""
    return ingress.metadata.creation_timestamp or "", ingress.key

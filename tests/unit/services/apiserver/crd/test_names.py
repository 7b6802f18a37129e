"""Which names of a definition are free."""

from __future__ import annotations

from typing import Any

from services.apiserver.crd.names import accepted


def definition(plural: str, kind: str, short: list[str] | None = None, taken: bool = False) -> dict[str, Any]:
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    if short:
        names["shortNames"] = short  # type: ignore[assignment]
    return {"spec": {"names": names}, "status": {"acceptedNames": names} if taken else {}}


def test_free_names_are_accepted() -> None:
    names, condition = accepted(definition("as", "A", ["x"]), [definition("bs", "B", ["y"], taken=True)])
    assert condition == ("True", "NoConflicts", "no conflicts found")
    assert names == {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList", "shortNames": ["x"]}


def test_a_taken_short_name_is_a_conflict_and_the_rest_is_accepted() -> None:
    names, condition = accepted(definition("as", "A", ["x"]), [definition("bs", "B", ["x"], taken=True)])
    assert condition == ("False", "ShortNamesConflict", '"x" is already in use')
    assert "shortNames" not in names
    assert names["plural"] == "as"


def test_what_another_one_only_wants_is_not_taken() -> None:
    assert accepted(definition("as", "A"), [definition("as", "A")])[1][0] == "True"

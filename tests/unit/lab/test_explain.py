"""What the controller-manager answers, as lines and as JSON."""

from lab.explain import kind_of, render, to_dict
from machinery.api import kinds
from protos.cutaway.v1.controller_manager_pb2 import Finding

CHAIN = Finding(subject="a", problem="fails", because=[Finding(subject="b", problem="fails too", remedy="mend b")])


def test_a_cause_stands_below_what_it_causes():
    assert render([CHAIN]) == ["a fails", "  └ b fails too", "      → mend b"]


def test_as_json():
    because = [{"subject": "b", "problem": "fails too", "remedy": "mend b", "because": []}]
    assert to_dict(CHAIN) == {"subject": "a", "problem": "fails", "remedy": "", "because": because}


def test_the_words_of_people():
    assert {kind_of(word) for word in ("deploy", "deployments", "Deployment")} == {kinds.DEPLOYMENT}

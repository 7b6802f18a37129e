"""What changed from one version of an object to the next, and who changed it."""

import pytest

from lab.errors import LabError
from lab.history import Change, difference, rendered, split_target, versions


def obj(revision, **fields):
    return {"metadata": {"name": "a", "uid": "1", "resourceVersion": str(revision)}, **fields}


def test_fields_are_named_by_path_and_items_by_their_name():
    old = obj(1, spec={"containers": [{"name": "web", "image": "web:1"}, {"name": "log", "image": "log:1"}]})
    new = obj(2, spec={"containers": [{"name": "log", "image": "log:1"}, {"name": "web", "image": "web:2"}]})
    assert difference(old, new) == (Change("spec.containers[web].image", "web:1", "web:2"),)


def test_items_without_a_name_are_told_apart_by_their_place():
    changes = difference(obj(1, spec={"args": ["a", "b"]}), obj(2, spec={"args": ["a", "c", "d"]}))
    assert changes == (Change("spec.args[1]", "b", "c"), Change("spec.args[2]", None, "d"))


def test_a_field_that_comes_or_goes_and_a_key_that_is_no_path():
    old, new = obj(1, data={"old": "1"}), obj(2, data={"app.io/new": "2"})
    assert {str(change) for change in difference(old, new)} == {
        '+ data["app.io/new"] = "2"',
        '- data.old (was "1")',
    }


def test_what_every_write_changes_is_left_out():
    old, new = obj(1), obj(2)
    new["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    assert difference(old, new) == ()


def test_the_writer_is_the_one_whose_entry_is_new():
    first = obj(1, spec={"replicas": 1})
    first["metadata"] |= {
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl-create", "time": "2026-01-01T00:00:00Z"}],
    }
    second = obj(2, spec={"replicas": 2})
    scaled = {"manager": "kubectl-scale", "time": "2026-01-01T00:00:00Z"}
    second["metadata"] |= {
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [*first["metadata"]["managedFields"], scaled],
    }
    found = versions([second, first], complete=True)
    assert [(version.revision, version.manager, version.created) for version in found] == [
        (2, "kubectl-scale", False),
        (1, "kubectl-create", True),
    ]
    assert rendered(found)[0].endswith("kubectl-scale  (1 field)")


@pytest.mark.parametrize("target", ["web", "/web", "pod/"])
def test_a_target_without_kind_and_name_is_refused(target):
    with pytest.raises(LabError, match="names no object"):
        split_target(target)

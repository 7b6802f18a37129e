"""Which ids are the users of which pod."""

import json
from pathlib import Path

import pytest

from services.kubelet.user_ids import NoIdsLeft, Ranges, UserIds, ranges


def test_every_pod_has_a_range_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    ids = UserIds(tmp_path, Ranges(65536, 3))
    assert [ids.of("a"), ids.of("b"), ids.of("a")] == [65536, 131072, 65536]


def test_a_restarted_kubelet_knows_the_ranges_in_use(tmp_path: Path) -> None:
    before = UserIds(tmp_path, Ranges(65536, 3))
    first, second = before.of("a"), before.of("b")
    after = UserIds(tmp_path, Ranges(65536, 3))
    after.load(["a", "b", "without"])
    assert after.of("c") not in (first, second)
    assert after.of("b") == second


def test_what_upstreams_kubelet_wrote_down_is_adopted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    mapping = [{"hostId": 131072, "containerId": 0, "length": 65536}]
    (tmp_path / "a" / "userns").write_text(json.dumps({"uidMappings": mapping, "gidMappings": mapping}))
    ids = UserIds(tmp_path, Ranges(65536, 3))
    ids.load(["a"])
    assert ids.of("a") == 131072
    assert json.loads((tmp_path / "a" / "userns").read_text())["uidMappings"] == mapping


def test_a_released_range_is_free_again_and_none_is_given_twice(tmp_path: Path) -> None:
    ids = UserIds(tmp_path, Ranges(65536, 2))
    taken = {ids.of("a"), ids.of("b")}
    assert len(taken) == 2
    with pytest.raises(NoIdsLeft, match="all 2 ranges"):
        ids.of("c")
    (tmp_path / "a" / "userns").unlink()
    ids.release("a")
    assert ids.of("c") in taken


def test_a_file_that_can_not_be_read_takes_no_range_and_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "userns").write_text("{")
    ids = UserIds(tmp_path, Ranges(65536, 2))
    ids.load(["a"])
    assert ids.of("a") == 65536


def test_ranges_come_from_the_file_of_delegated_ids_or_the_configuration() -> None:
    assert ranges(65536, 110) == Ranges(65536, 110)
    delegated = "root:1:5\nkubelet:131072:7208960\n"
    assert ranges(65536, 110, delegated, delegated) == Ranges(131072, 110)


@pytest.mark.parametrize(
    ("subuid", "subgid", "word"),
    [
        ("kubelet:131072:7208960", "", "same range"),
        ("kubelet:131073:7208960", "kubelet:131073:7208960", "multiple of 65536"),
        ("kubelet:131072:65536", "kubelet:131072:65536", "room for 1 of 110"),
        ("kubelet:x:1", "kubelet:x:1", "FIRST:COUNT"),
        ("kubelet:0:7208960", "kubelet:0:7208960", "between 65536"),
    ],
)
def test_a_delegation_that_can_not_be_used_is_named(subuid: str, subgid: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ranges(65536, 110, subuid, subgid)

"""Judging a group: pure, so no database."""

from __future__ import annotations

from storage.errors import GuardFailed, KeyExists, KeyMissing, RevisionMismatch
from storage.judge import Group, Head, LogRow, keys_of
from storage.store import ABSENT, ANY, EXISTS, Delete, EventType, Guard, Key, Put

A, B, LEASE = Key("pods", "x", "a"), Key("pods", "x", "b"), Key("leases", "x", "l")


def group(**heads: Head) -> Group:
    keys = {"a": A, "b": B, "lease": LEASE}
    return Group(10, {keys[name]: head for name, head in heads.items()}, time=5.0, origin="me")


def head(revision: int, *, epoch: int = 0, deleted: bool = False) -> Head:
    return Head(revision, 1, epoch, deleted, b"old")


def test_an_accepted_commit_becomes_log_rows_and_heads() -> None:
    judged = group(a=head(3))
    events = judged.judge([Put(A, 3, b"<", b">", epoch=2, author="jane"), Delete(A, 11, b"(", b")")])
    assert isinstance(events, list)
    assert [(event.revision, event.value, event.previous) for event in events] == [
        (11, b"<11>", b"old"),
        (12, b"(12)", b"<11>"),
    ]
    assert judged.revision == 12
    assert judged.log == [
        LogRow(11, EventType.PUT, *A, 1, 3, 2, 5.0, "me", b"<11>", "jane"),
        LogRow(12, EventType.DELETE, *A, 1, 11, 2, 5.0, "me", b"(12)", ""),
    ]
    assert judged.changed == {A: Head(12, 1, 2, True, b"(12)")}


def test_a_refused_commit_leaves_no_trace_even_of_what_was_right_in_it() -> None:
    judged = group(a=head(3))
    refused = judged.judge([Put(B, ABSENT, b"", b""), Put(A, 2, b"", b"")])
    assert isinstance(refused, RevisionMismatch)
    assert refused.present is not None
    assert refused.present.revision == 3
    assert (judged.revision, judged.log, judged.changed) == (10, [], {})


def test_a_commit_sees_those_before_it_in_the_group() -> None:
    judged = group()
    assert isinstance(judged.judge([Put(A, ABSENT, b"", b"")]), list)
    assert isinstance(judged.judge([Put(A, ABSENT, b"", b"")]), KeyExists)
    assert isinstance(judged.judge([Delete(A, 11, b"", b"")]), list)
    assert isinstance(judged.judge([Put(A, EXISTS, b"", b"")]), KeyMissing)


def test_creation_over_a_deletion_links_to_it_but_replaces_nothing() -> None:
    judged = group(a=head(3, deleted=True))
    (event,) = judged.judge([Put(A, ABSENT, b"", b"")])  # type: ignore[misc]
    assert (event.create_revision, event.previous) == (11, None)
    assert judged.log[0].previous_revision == 3


def test_a_guard_on_a_deleted_key_fails_even_with_its_epoch() -> None:
    guard = (Guard(LEASE, 4),)
    assert isinstance(group(lease=head(3, epoch=4)).judge([Put(A, ANY, b"", b"", guards=guard)]), list)
    assert isinstance(
        group(lease=head(3, epoch=4, deleted=True)).judge([Put(A, ANY, b"", b"", guards=guard)]), GuardFailed
    )
    assert isinstance(group(lease=head(3, epoch=5)).judge([Put(A, ANY, b"", b"", guards=guard)]), GuardFailed)


def test_keys_that_judging_needs_are_those_written_and_those_of_guards() -> None:
    commits = [[Put(A, ANY, b"", b"", guards=(Guard(LEASE, 1),))], [Delete(B, ANY, b"", b"")]]
    assert keys_of(commits) == {A, B, LEASE}

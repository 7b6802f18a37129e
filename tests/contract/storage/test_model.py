"""The store against a model that is plain enough to be obviously right: a list of events, replayed at each question."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from storage import ABSENT, ANY, EXISTS, Delete, Event, EventType, Guard, Key, Mutation, Put, open_store
from storage.errors import Compacted, GuardFailed, KeyExists, KeyMissing, RevisionMismatch, StoreError
from storage.sql_store import SqlStore
from tests.support.postgres import PostgresServer

KEYS = [Key("pods", "x", "a"), Key("pods", "x", "b"), Key("pods", "y", "a"), Key("leases", "", "l")]


@dataclass
class Model:
    """Every event since the beginning, and how far they are forgotten."""

    events: list[Event] = field(default_factory=list)
    epochs: dict[int, int] = field(default_factory=dict)
    oldest: int = 0

    def state(self, revision: int | None = None) -> dict[Key, Event]:
        state: dict[Key, Event] = {}
        for event in self.events[: len(self.events) if revision is None else revision]:
            state.pop(event.key, None)
            if event.type is EventType.PUT:
                state[event.key] = event
        return state

    def commit(self, mutations: list[Mutation]) -> type[StoreError] | None:
        """Apply all, or say why not and apply none."""
        before = len(self.events)
        for mutation in mutations:
            if (error := self._apply(mutation)) is not None:
                del self.events[before:]
                return error
        return None

    def _apply(self, mutation: Mutation) -> type[StoreError] | None:
        state = self.state()
        for guard in mutation.guards:
            holder = state.get(guard.key)
            if holder is None or self.epochs[holder.revision] != guard.epoch:
                return GuardFailed
        present, expect, revision = state.get(mutation.key), mutation.expect, len(self.events) + 1
        if present is None and (expect == EXISTS or expect > 0 or isinstance(mutation, Delete)):
            return KeyMissing
        if present is not None and expect == ABSENT:
            return KeyExists
        if present is not None and expect > 0 and expect != present.revision:
            return RevisionMismatch
        kind = EventType.DELETE if isinstance(mutation, Delete) else EventType.PUT
        created = present.create_revision if present else revision
        value = mutation.head + str(revision).encode() + mutation.tail
        self.events.append(Event(kind, mutation.key, revision, created, value, present.value if present else None))
        self.epochs[revision] = mutation.epoch if isinstance(mutation, Put) else 0
        return None


def mutations() -> st.SearchStrategy[Mutation]:
    keys, data = st.sampled_from(KEYS), st.binary(max_size=3)
    expects = st.one_of(st.sampled_from([ABSENT, ANY, ANY, EXISTS]), st.integers(1, 30))
    guards = st.one_of(st.just(()), st.tuples(st.builds(Guard, keys, st.integers(0, 2))))
    return st.one_of(
        st.builds(Put, keys, expects, data, data, st.integers(0, 2), guards),
        st.builds(Delete, keys, expects.filter(lambda expect: expect != ABSENT), data, data, guards),
    )


class StoreMachine(RuleBasedStateMachine):
    """Does the same to the store and to the model, and asks both the same."""

    server: PostgresServer | None = None

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="cutaway-store-"))
        self.url = self.server.url() if self.server else f"sqlite:///{self.directory}/store.db"
        self.model = Model()
        self.store: SqlStore = self.runner.run(open_store(self.url))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.directory)

    @rule(commits=st.lists(st.lists(mutations(), min_size=1, max_size=3), min_size=1, max_size=5))
    def commit_concurrently(self, commits: list[list[Mutation]]) -> None:
        async def all_at_once() -> list[list[Event] | BaseException]:
            return await asyncio.gather(*(self.store.commit(*group) for group in commits), return_exceptions=True)

        for group, result in zip(commits, self.runner.run(all_at_once()), strict=True):
            before = len(self.model.events)
            expected = self.model.commit(group)
            if expected is None:
                assert isinstance(result, list), result
                assert [_plain(event) for event in result] == self.model.events[before:]
            else:
                assert type(result) is expected

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        revision = data.draw(st.integers(0, len(self.model.events)))
        self.runner.run(self.store.compact(revision))
        self.model.oldest = max(self.model.oldest, revision)

    @rule()
    def open_again(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.runner.run(open_store(self.url))

    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        revision = data.draw(st.integers(0, len(self.model.events)))
        if revision < self.model.oldest:
            with pytest.raises(Compacted):
                self.runner.run(self.store.list("pods", at_revision=revision))
            return
        state = self.model.state(revision)
        page = self.runner.run(self.store.list("pods", at_revision=revision))
        pods = sorted((key, event) for key, event in state.items() if key.resource == "pods")
        assert [(entry.key, entry.revision, entry.value) for entry in page.entries] == [
            (key, event.revision, event.value) for key, event in pods
        ]
        for key in KEYS:
            entry = self.runner.run(self.store.get(key, revision))
            assert (entry.value if entry else None) == (state[key].value if key in state else None)

    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        newest = len(self.model.events)
        after = data.draw(st.integers(max(0, self.model.oldest - 1), newest))
        events = self.runner.run(self.store.events(after))
        retained = self.model.events[after:]
        assert [_logged(event) for event in events] == [_logged(event) for event in retained]

    @invariant()
    def same_state(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.runner.run(self.store.revision()) == len(self.model.events)
        state = self.model.state()
        for resource in ("pods", "leases"):
            page = self.runner.run(self.store.list(resource))
            mine = {key: event.value for key, event in state.items() if key.resource == resource}
            assert {entry.key: entry.value for entry in page.entries} == mine
        assert list(self.runner.run(self.store.resources())) == sorted({key.resource for key in state})


def _plain(event: Event) -> Event:
    """Without when and by whom."""
    return Event(event.type, event.key, event.revision, event.create_revision, event.value, event.previous)


def _logged(event: Event) -> Event:
    """Without what it replaced, which may be forgotten."""
    return Event(event.type, event.key, event.revision, event.create_revision, event.value)


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


def test_sqlite_behaves_as_the_model() -> None:
    run_state_machine_as_test(StoreMachine, settings=_settings(25, 25))


@pytest.mark.postgres
def test_postgres_behaves_as_the_model(postgres_server: PostgresServer) -> None:
    machine = type("PostgresMachine", (StoreMachine,), {"server": postgres_server})
    run_state_machine_as_test(machine, settings=_settings(6, 25))

import os
import signal
import sys
from dataclasses import replace

import pytest

from lab import process_spec, supervisor_client
from lab.cluster import PROJECT_ROOT
from lab.errors import LabError
from lab.process_spec import ProcessSpec, ProcessState
from lab.supervisor import BACKOFF_SECONDS_MAX, backoff_seconds


def test_the_pause_before_a_restart_doubles_up_to_its_bound():
    pauses = [backoff_seconds(failures) for failures in range(40)]
    assert pauses[0] == 0.2
    assert pauses[1] == 0.4
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_SECONDS_MAX


def test_a_reused_pid_is_not_taken_for_the_process():
    state = ProcessState(pid=os.getpid(), start_ticks=process_spec.start_ticks(os.getpid()))
    assert process_spec.is_alive(state)
    state.start_ticks += 1
    assert not process_spec.is_alive(state)


def test_specs_and_states_survive_their_files(tmp_path):
    spec = ProcessSpec(name="a", component="a", argv=["true"], log="/dev/null", environment={"A": "1"})
    assert process_spec.write_spec(tmp_path, spec) is True
    assert process_spec.write_spec(tmp_path, spec) is False
    assert process_spec.read_specs(tmp_path) == {"a": spec}
    process_spec.write_state(tmp_path, "a", ProcessState(pid=7, restarts=2))
    assert process_spec.read_state(tmp_path, "a") == ProcessState(pid=7, restarts=2)
    assert process_spec.read_state(tmp_path, "b") == ProcessState()


@pytest.fixture
def home(tmp_path):
    """A cluster's folder with one process that runs until it is told to end."""
    components = tmp_path / "components"
    components.mkdir()
    program = "import signal; signal.pause()"
    spec = ProcessSpec("p", "p", [sys.executable, "-c", program], str(tmp_path / "p.log"), stop_seconds=5)
    process_spec.write_spec(components, spec)
    supervisor_client.ensure_running(tmp_path, PROJECT_ROOT)
    yield tmp_path
    if supervisor_client.is_running(tmp_path):
        supervisor_client.call(tmp_path, "shutdown")
    assert not process_spec.is_alive(process_spec.read_state(components, "p"))


def _wait_other_pid(home, before: int) -> ProcessState:
    """The state once the supervisor has put another process in place; its own file tells, so watch that."""
    import select
    import time

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = process_spec.read_state(home / "components", "p")
        if state.pid != before and process_spec.is_alive(state):
            return state
        select.select([], [], [], 0.02)
    raise AssertionError("it was not started again")


def test_a_killed_process_is_started_again(home):
    first = process_spec.read_state(home / "components", "p")
    assert process_spec.is_alive(first)
    os.kill(first.pid, signal.SIGKILL)
    assert _wait_other_pid(home, first.pid).restarts == 1


def test_a_stopped_process_stays_stopped_until_it_is_started(home):
    supervisor_client.call(home, "stop", "p")
    stopped = process_spec.read_state(home / "components", "p")
    assert stopped.stopped
    assert not process_spec.is_alive(stopped)
    supervisor_client.call(home, "start", "p")
    assert process_spec.is_alive(process_spec.read_state(home / "components", "p"))


def test_a_new_supervisor_adopts_what_the_dead_one_left_running(home):
    before = process_spec.read_state(home / "components", "p")
    supervisor = supervisor_client.call(home, "ping")["pid"]
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    assert process_spec.is_alive(before)
    supervisor_client.ensure_running(home, PROJECT_ROOT)
    after = process_spec.read_state(home / "components", "p")
    assert (after.pid, after.restarts) == (before.pid, 0)


def test_an_unknown_name_is_refused_with_the_names_there_are(home):
    with pytest.raises(LabError, match=r"no process 'q'; there are: p"):
        supervisor_client.call(home, "stop", "q")


def test_a_changed_spec_restarts_the_process_unless_somebody_stopped_it(home):
    before = process_spec.read_state(home / "components", "p")
    (spec,) = process_spec.read_specs(home / "components").values()
    process_spec.write_spec(home / "components", replace(spec, config_digest="2"))
    supervisor_client.call(home, "apply")
    after = process_spec.read_state(home / "components", "p")
    assert process_spec.is_alive(after)
    assert after.pid != before.pid
    supervisor_client.call(home, "stop", "p")
    process_spec.write_spec(home / "components", replace(spec, config_digest="3"))
    supervisor_client.call(home, "apply")
    assert not process_spec.is_alive(process_spec.read_state(home / "components", "p"))


def test_a_state_that_cannot_be_written_ends_nothing_and_is_written_once_it_can(home):
    components = home / "components"
    before = process_spec.read_state(components, "p")
    path = components / f"p{process_spec.STATE_SUFFIX}"
    # As on a full disk: nothing can be put in this file's place.
    path.unlink()
    path.mkdir()
    (path / "in the way").touch()
    with pytest.raises(LabError, match="Is a directory"):
        supervisor_client.call(home, "stop", "p")
    assert process_spec.is_alive(before)
    os.kill(before.pid, signal.SIGKILL)
    supervisor_client.call(home, "ping")
    (path / "in the way").unlink()
    path.rmdir()
    assert _wait_other_pid(home, before.pid).restarts == 1

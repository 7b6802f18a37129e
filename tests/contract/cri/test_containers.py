"""Containers: states, exit codes, reasons, logs, commands, filters."""

import re

import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.cri_client import CriClient, code_of


def test_created_running_exited(client: CriClient) -> None:
    pod = client.run_pod()
    container = pod.create("sh", "-c", "sleep 0.1; exit 0", labels={"a": "b"}, annotations={"c": "d"})
    status = container.status()
    assert status.state == cri.CONTAINER_CREATED
    assert (status.started_at, status.finished_at) == (0, 0)
    container.start()
    assert container.status().state == cri.CONTAINER_RUNNING
    status = container.wait_exited()
    assert (status.exit_code, status.reason) == (0, "Completed")
    assert 0 < status.created_at <= status.started_at <= status.finished_at
    assert status.metadata == container.config.metadata
    assert (dict(status.labels), dict(status.annotations)) == ({"a": "b"}, {"c": "d"})
    assert status.image.image == container.config.image.image
    assert status.image_ref
    assert status.log_path == str(container.log_file)


def test_a_failure_says_error_and_its_code(client: CriClient) -> None:
    status = client.run_pod().run("sh", "-c", "exit 7").wait_exited()
    assert (status.exit_code, status.reason) == (7, "Error")


def test_start_works_once(client: CriClient) -> None:
    pod = client.run_pod()
    container = pod.run("true")
    container.wait_exited()
    assert code_of(container.start) != "OK"


def test_stop_sends_the_signal_then_kills(client: CriClient) -> None:
    pod = client.run_pod()
    obedient = pod.run("sh", "-c", "trap 'exit 3' TERM; echo ready; while true; do sleep 0.02; done")
    obedient.wait_output("ready")
    obedient.stop(10)
    assert obedient.wait_exited().exit_code == 3
    stubborn = pod.run("sh", "-c", "trap '' TERM; echo ready; while true; do sleep 0.02; done")
    stubborn.wait_output("ready")
    stubborn.stop(1)
    status = stubborn.wait_exited()
    assert (status.exit_code, status.reason) == (137, "Error")
    plain = pod.run("sh", "-c", "echo ready; cat /dev/zero > /dev/null")
    plain.wait_output("ready")
    plain.stop(0)
    assert plain.wait_exited().exit_code == 137


def test_stop_and_remove_may_be_repeated(client: CriClient) -> None:
    pod = client.run_pod()
    container = pod.run("sleep", "1000")
    container.stop(0)
    container.stop(0)
    container.remove()
    container.remove()
    assert code_of(container.status) == "NOT_FOUND"


def test_a_running_container_can_be_removed(client: CriClient) -> None:
    container = client.run_pod().run("sleep", "1000")
    container.remove()
    assert client.containers() == []


def test_a_command_that_is_not_there_fails_the_start_and_says_so(client: CriClient) -> None:
    container = client.run_pod().create("no-such-command")
    with pytest.raises(Exception, match="no-such-command"):
        container.start()
    status = container.status()
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
    assert "no-such-command" in status.message


def test_an_image_that_is_not_there_fails_the_creation(client: CriClient) -> None:
    pod = client.run_pod()
    assert code_of(lambda: pod.create("true", image="cutaway.test/nothing:1")) == "NOT_FOUND"
    assert client.containers() == []


def test_a_container_name_can_be_taken_once(client: CriClient) -> None:
    pod = client.run_pod()
    container = pod.create("true", name="same")
    assert code_of(lambda: pod.create("true", name="same")) != "OK"
    container.remove()
    pod.create("true", name="same")


def test_nothing_is_created_in_a_stopped_sandbox(client: CriClient) -> None:
    pod = client.run_pod()
    pod.stop()
    assert code_of(lambda: pod.create("true")) != "OK"


def test_lists_are_filtered(client: CriClient) -> None:
    pod, other = client.run_pod(), client.run_pod()
    first = pod.create("true", labels={"app": "a"})
    second = pod.run("sleep", "1000", labels={"app": "b"})
    third = other.create("true", labels={"app": "a"})
    running = cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)
    assert {c.id for c in client.containers()} == {first.id, second.id, third.id}
    assert {c.id for c in client.containers(pod_sandbox_id=pod.id)} == {first.id, second.id}
    assert [c.id for c in client.containers(state=running)] == [second.id]
    assert {c.id for c in client.containers(label_selector={"app": "a"})} == {first.id, third.id}
    assert [c.id for c in client.containers(id=third.id[:16], label_selector={"app": "a"})] == [third.id]
    assert client.containers(id=third.id, pod_sandbox_id=pod.id) == []


def test_log_lines_have_time_stream_and_tag(client: CriClient) -> None:
    container = client.run_pod().run("sh", "-c", "echo out; echo err >&2; printf tail")
    container.wait_exited()
    lines = container.log_file.read_text().splitlines()
    form = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}(Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] ")
    assert all(form.match(line) for line in lines)
    assert sorted(container.records()) == [("stderr", "F", "err"), ("stdout", "F", "out"), ("stdout", "P", "tail")]


def test_long_lines_are_split_at_16_kib(client: CriClient) -> None:
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short"
    container = client.run_pod().run("sh", "-c", script)
    container.wait_exited()
    assert [(tag, len(text)) for _, tag, text in container.records()] == [
        ("P", 16384),
        ("P", 16384),
        ("F", 7232),
        ("F", 5),
    ]


def test_a_log_goes_on_in_a_new_file_after_reopen(client: CriClient) -> None:
    pod = client.run_pod()
    container = pod.run("sh", "-c", "echo before; while [ ! -e /go ]; do sleep 0.02; done; echo after; sleep 1000")
    container.wait_output("before")
    container.log_file.rename(container.log_file.with_suffix(".1"))
    client.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=container.id))
    container.exec("touch", "/go")
    container.wait_output("after")
    assert container.output() == "after\n"
    container.stop(0)
    request = cri.ReopenContainerLogRequest(container_id=container.id)
    assert code_of(lambda: client.runtime.ReopenContainerLog(request)) != "OK"


def test_exec_sync_gives_output_and_exit_code(client: CriClient) -> None:
    container = client.run_pod().run("sleep", "1000")
    answer = container.exec("sh", "-c", "echo out; echo err >&2; exit 5")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"out\n", b"err\n", 5)


def test_exec_sync_fails_at_its_timeout(client: CriClient) -> None:
    container = client.run_pod().run("sleep", "1000")
    assert code_of(lambda: container.exec("sleep", "100", timeout=1)) == "DEADLINE_EXCEEDED"
    assert "sleep 100" not in container.exec_output("ps | grep -v grep | grep 'sleep 100$' || true")


def test_exec_sync_needs_a_running_container_and_a_command(client: CriClient) -> None:
    pod = client.run_pod()
    created = pod.create("true")
    assert code_of(lambda: created.exec("true")) != "OK"
    running = pod.run("sleep", "1000")
    assert code_of(lambda: running.exec("no-such-command")) != "OK"
    request = cri.ExecSyncRequest(container_id="f" * 64, cmd=["true"])
    assert code_of(lambda: client.runtime.ExecSync(request)) == "NOT_FOUND"


def test_command_and_args_replace_the_images(client: CriClient) -> None:
    pod = client.run_pod()
    by_image = pod.run()
    assert by_image.exec_output("cat /proc/1/cmdline | tr '\\0' ' '") == "/bin/sleep 2147483647 "
    config = pod.container_config(args=["sh", "-c", "echo from-args"])
    only_args = pod.run(config=config)
    only_args.wait_exited()
    assert only_args.output() == "from-args\n"
    both = pod.run("echo", config=pod.container_config("echo", args=["one", "two"]))
    both.wait_exited()
    assert both.output() == "one two\n"


def test_environment_and_working_directory(client: CriClient) -> None:
    pod = client.run_pod(client.pod_config(hostname="env-host"))
    envs = [cri.KeyValue(key="MINE", value="a=b c"), cri.KeyValue(key="IMAGE_VARIABLE", value="changed")]
    out = pod.shell("pwd; env", envs=envs, working_dir="/var/log")
    lines = out.splitlines()
    assert lines[0] == "/var/log"
    assert {"MINE=a=b c", "IMAGE_VARIABLE=changed", "HOSTNAME=env-host"} <= set(lines)
    assert any(line.startswith("PATH=/usr/local/sbin:") for line in lines)


def test_what_outgrows_its_memory_is_reported_as_oom_killed(client: CriClient) -> None:
    pod = client.run_pod()
    config = pod.container_config("sh", "-c", "head -c 100m /dev/zero | tail")
    config.linux.resources.memory_limit_in_bytes = 16 * 1024 * 1024
    config.command[:] = ["sh", "-c", "exec tail /dev/zero"]
    status = pod.run(config=config).wait_exited()
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_a_terminal_has_one_output(client: CriClient) -> None:
    container = client.run_pod().run("sh", "-c", "tty; echo err >&2; sleep 0.1", tty=True)
    container.wait_exited()
    assert container.output("stderr") == ""
    assert [text.strip() for text in container.output().split("\n")][:2] == ["/dev/pts/0", "err"]

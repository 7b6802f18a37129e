"""The scheduler against an apiserver: what is bound, what is said, what wakes what waits."""

from __future__ import annotations

from typing import Any

from machinery.api import errors, kinds


def condition(world: Any, name: str) -> dict[str, Any]:
    pod = world.server.state.get(kinds.POD, "default", name)
    return next((c for c in pod.get("status", {}).get("conditions", []) if c["type"] == "PodScheduled"), {})


def events(world: Any, reason: str) -> list[dict[str, Any]]:
    return world.server.state.list(kinds.EVENT, "default", lambda event: event["reason"] == reason)


async def test_pods_are_bound_and_spread_by_load(world: Any) -> None:
    for number in range(3):
        await world.add_node(f"n{number}")
    await world.start()
    for number in range(9):
        await world.add_pod(f"p{number}")
    await world.until(lambda: all(world.placements().values()))
    placed = list(world.placements().values())
    assert {node: placed.count(node) for node in set(placed)} == {"n0": 3, "n1": 3, "n2": 3}
    await world.until(lambda: len(events(world, "Scheduled")) == 9)
    assert events(world, "Scheduled")[0]["message"].startswith("Successfully assigned default/p")
    world.scheduler.state.validate()


async def test_a_pod_that_fits_nowhere_says_why_and_is_placed_when_a_node_comes(world: Any) -> None:
    await world.add_node("n0", cpu="1")
    await world.add_node("n1", taints=[{"key": "dedicated", "value": "db", "effect": "NoSchedule"}])
    await world.start()
    await world.add_pod("big", cpu="2")
    await world.until(lambda: condition(world, "big").get("status") == "False")
    said = condition(world, "big")
    message = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {dedicated: db}."
    assert (said["reason"], said["message"].split(" preemption:")[0]) == ("Unschedulable", message)
    await world.until(lambda: len(events(world, "FailedScheduling")) == 1)
    await world.add_node("n2")
    await world.until(lambda: world.placements()["big"] == "n2")


async def test_a_freed_node_wakes_what_waits_for_its_room(world: Any) -> None:
    await world.add_node("n0", cpu="1")
    await world.start()
    await world.add_pod("first", cpu="1")
    await world.until(lambda: world.placements()["first"] == "n0")
    await world.add_pod("second", cpu="1")
    await world.until(lambda: condition(world, "second").get("status") == "False")
    await world.client.delete(kinds.POD, "first", "default", grace_period_seconds=0)
    await world.until(lambda: world.placements()["second"] == "n0")


async def test_a_gated_pod_waits_for_its_gates(world: Any) -> None:
    await world.add_node("n0")
    await world.start()
    await world.add_pod("gated", schedulingGates=[{"name": "example.com/wait"}])
    await world.add_pod("free")
    await world.until(lambda: world.placements()["free"] == "n0")
    assert world.scheduler.queue.counts["gated"] == 1
    await world.client.patch(kinds.POD, "gated", "default", {"spec": {"schedulingGates": None}})
    await world.until(lambda: world.placements()["gated"] == "n0")


async def test_a_lost_answer_neither_loses_nor_doubles_a_pod(world: Any) -> None:
    await world.add_node("n0")
    lost = []

    def lose(method: str, request: Any) -> errors.ApiError | None:
        if method == "Batch" and request.mutations[0].create.subresource == "binding" and not lost:
            lost.append(request)
            return errors.Timeout("the answer is lost")
        return None

    world.server.intercept = lose
    await world.start()
    for number in range(5):
        await world.add_pod(f"p{number}")
    await world.until(lambda: len(world.placements()) == 5 and all(world.placements().values()))
    assert lost
    world.scheduler.state.validate()


async def test_a_restarted_scheduler_finds_everything_again(world: Any) -> None:
    await world.add_node("n0", cpu="1")
    await world.start()
    await world.add_pod("a", cpu="600m")
    await world.until(lambda: world.placements()["a"] == "n0")
    await world.stop()
    await world.add_pod("b", cpu="600m")
    await world.start()
    await world.until(lambda: condition(world, "b").get("status") == "False")
    assert "Insufficient cpu" in condition(world, "b")["message"]


async def test_pods_of_other_schedulers_are_left_alone(world: Any) -> None:
    await world.add_node("n0")
    await world.start()
    await world.add_pod("theirs", schedulerName="another")
    await world.add_pod("ours")
    await world.until(lambda: world.placements()["ours"] == "n0")
    assert world.placements()["theirs"] == ""


async def test_a_more_important_pod_takes_the_place_of_a_lesser_one(world: Any) -> None:
    await world.add_node("n0", cpu="1")
    await world.add_node("n1", cpu="1")
    await world.start()
    await world.add_pod("low", cpu="1", priority=1)
    await world.add_pod("middle", cpu="1", priority=5)
    await world.until(lambda: all(world.placements().values()))
    room = world.placements()["low"]
    await world.add_pod("high", cpu="1", priority=10)
    await world.until(lambda: "deletionTimestamp" in world.server.state.get(kinds.POD, "default", "low")["metadata"])
    await world.until(
        lambda: world.server.state.get(kinds.POD, "default", "high")["status"].get("nominatedNodeName") == room
    )
    # The room that is being made is the preemptor's: nobody else gets it, nor is a second victim taken.
    await world.add_pod("sneaky", cpu="1", priority=1)
    await world.until(lambda: condition(world, "sneaky").get("status") == "False")
    await world.client.delete(kinds.POD, "low", "default", grace_period_seconds=0)
    await world.until(lambda: world.placements()["high"] == room)
    assert world.placements()["sneaky"] == ""
    assert "deletionTimestamp" not in world.server.state.get(kinds.POD, "default", "middle")["metadata"]
    world.scheduler.state.validate()


async def test_preemption_that_cannot_help_is_said_so(world: Any) -> None:
    await world.add_node("n0", cpu="1")
    await world.add_node("n1", unschedulable=True)
    await world.start()
    await world.add_pod("big", cpu="2")
    await world.until(lambda: condition(world, "big").get("status") == "False")
    assert condition(world, "big")["message"] == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. "
        "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling."
    )


async def test_room_that_was_made_is_kept_across_a_restart(world: Any) -> None:
    await world.add_node("n0", cpu="1")
    await world.start()
    await world.add_pod("low", cpu="1", priority=1)
    await world.until(lambda: world.placements()["low"] == "n0")
    await world.add_pod("high", cpu="1", priority=10)
    await world.until(
        lambda: world.server.state.get(kinds.POD, "default", "high")["status"].get("nominatedNodeName") == "n0"
    )
    await world.stop()
    await world.client.delete(kinds.POD, "low", "default", grace_period_seconds=0)
    # Older and schedulable, but lesser: it must not get the room that was made for another.
    await world.add_pod("sneaky", cpu="500m", priority=1)
    await world.start()
    await world.until(lambda: world.placements()["high"] == "n0")
    await world.until(lambda: condition(world, "sneaky").get("status") == "False")
    assert world.placements()["sneaky"] == ""


async def test_pods_of_one_service_are_spread_without_asking_for_it(world: Any) -> None:
    for number in range(4):
        # n0 is so large that load alone would send every pod there.
        await world.add_node(f"n{number}", cpu="64" if number == 0 else "2", memory="256Gi" if number == 0 else "8Gi")
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    await world.client.create(kinds.SERVICE, service, "default")
    await world.start()
    for number in range(8):
        await world.add_pod(f"p{number}", cpu="100m")
        await world.until(lambda number=number: bool(world.placements()[f"p{number}"]))
    assert len(set(world.placements().values())) == 4

"""The examples of a third party's plugin and of a third party's scheduler do what they say."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from machinery.api import kinds
from machinery.component import process
from services.scheduler import config as scheduler_config
from services.scheduler.framework import Plugin

EXAMPLES = Path(__file__).parents[3] / "examples"


async def test_the_example_plugin_sends_a_team_to_its_nodes(world: Any) -> None:
    for name, team in (("n0", "red.blue"), ("n1", "red"), ("n2", "blue")):
        await world.add_node(name)
        await world.client.patch(kinds.NODE, name, "", {"metadata": {"labels": {"example.com/team": team}}})
    await world.start(extra=scheduler_config.load_plugin_file(str(EXAMPLES / "scheduler_plugin.py")))
    for name, team in (("red", "red"), ("green", "green")):
        await world.add_pod_with(name, annotations={"example.com/team": team})
    await world.until(lambda: world.placements()["red"] == "n1")
    await world.until(lambda: "did not belong to team green" in world.message("green"))


async def test_a_plugin_that_raises_costs_its_pod_and_nobody_else(world: Any) -> None:
    class Odd(Plugin):
        def prepare(self, pod: Any, state: Any) -> Any:
            if pod.name == "unlucky":
                raise RuntimeError("odd name")
            return None

    await world.add_node("n0")
    await world.start(extra={"Odd": Odd})
    await world.add_pod("unlucky")
    await world.add_pod("lucky")
    await world.until(lambda: world.placements()["lucky"] == "n0")
    await world.until(lambda: "running prepare of plugin Odd: RuntimeError: odd name" in world.message("unlucky"))
    assert world.placements()["unlucky"] == ""


async def test_a_plugin_that_hangs_costs_its_pod_a_second_and_the_others_go_on(world: Any) -> None:
    class Endless(Plugin):
        def prepare(self, pod: Any, state: Any) -> Any:
            while pod.name == "unlucky":
                pass

    await world.add_node("n0")
    await world.start(extra={"Endless": Endless})
    await world.add_pod("unlucky")
    await world.add_pod("lucky")
    await world.until(lambda: world.placements()["lucky"] == "n0")
    await world.until(lambda: "plugin Endless: Hung: took longer than allowed" in world.message("unlucky"))


async def test_the_example_scheduler_binds_its_own_pods_only(world: Any) -> None:
    spec = importlib.util.spec_from_file_location("first_fit", EXAMPLES / "scheduler_whole.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    await world.add_node("n1")
    await world.client.patch(
        kinds.NODE, "n1", "", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, subresource="status"
    )
    await world.add_pod("theirs")
    await world.add_pod("ours", schedulerName=module.NAME)
    settings = module.FirstFitConfig(apiserver=[world.server.address])
    with pytest.MonkeyPatch.context() as patch:
        # The test's apiserver speaks without TLS.
        connect = module.ApiClient.connect
        patch.setattr(module.ApiClient, "connect", lambda addresses, tls, **rest: connect(addresses, None, **rest))
        async with asyncio.TaskGroup() as tasks:
            ctx = process.Context(settings, tasks)
            await module.serve(ctx)
            await world.until(lambda: world.placements()["ours"] == "n1")
            assert world.placements()["theirs"] == ""
            for task in asyncio.all_tasks():
                if task.get_name().startswith(("informer", module.NAME)):
                    task.cancel()


def test_a_profile_of_upstreams_file_changes_plugins_and_weights(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.yaml"
    file.write_text(
        """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
percentageOfNodesToScore: 100
profiles:
- schedulerName: packed
  plugins:
    score:
      disabled: [{name: NodeResourcesBalancedAllocation}]
      enabled: [{name: NodeResourcesFit, weight: 5}]
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}
- schedulerName: default-scheduler
"""
    )
    profiles = scheduler_config.build_profiles(scheduler_config.read(str(file)))
    packed = {weighted.plugin.name: weighted.weight for weighted in profiles["packed"].scores}
    assert packed["NodeResourcesFit"] == 5
    assert "NodeResourcesBalancedAllocation" not in packed
    assert {w.plugin.name for w in profiles["default-scheduler"].scores} > {"NodeResourcesBalancedAllocation"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\n", "expected a KubeSchedulerConfiguration"),
        ("profiles: [{plugins: {score: {enabled: [{name: Nope}]}}}]\n", "there is no plugin 'Nope'"),
        ("profiles: [{}, {}]\n", "schedulerName 'default-scheduler' occurs twice"),
        (
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: X}}}]}]\n",
            "'X' is not LeastAllocated",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "scheduler.yaml"
    file.write_text(text)
    with pytest.raises(scheduler_config.ConfigError, match=message):
        scheduler_config.build_profiles(scheduler_config.read(str(file)))

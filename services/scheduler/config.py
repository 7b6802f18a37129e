"""The scheduler's configuration.

Our component's own, and upstream's KubeSchedulerConfiguration for profiles, weights and arguments.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec

from machinery.component.config import ComponentConfig, ConfigError, read_file
from services.scheduler.framework import Plugin, Weighted, has
from services.scheduler.plugins import registry
from services.scheduler.profile import Profile
from services.scheduler.queue import BACKOFF_SECONDS_FIRST, BACKOFF_SECONDS_MAX

DEFAULT_SCHEDULER_NAME = "default-scheduler"

_Doc = msgspec.Meta


class SchedulerConfig(ComponentConfig):
    """`python -m services.scheduler --config FILE`."""

    scheduler_config: Annotated[str, _Doc(description="A KubeSchedulerConfiguration file: profiles, weights")] = ""
    plugin_files: Annotated[list[str], _Doc(description="Python files that define Plugin classes to use")] = []
    leader_elect: Annotated[bool, _Doc(description="Schedule only while holding the lease")] = True
    lease_name: Annotated[str, _Doc(description="The lease in kube-system")] = "kube-scheduler"
    lease_duration_seconds: Annotated[float, _Doc(description="A silent leader is replaced after this")] = 15.0
    renew_deadline_seconds: Annotated[float, _Doc(description="A leader that can't renew gives up after this")] = 10.0
    retry_period_seconds: Annotated[float, _Doc(description="How often the lease is tried")] = 2.0


# --- KubeSchedulerConfiguration ---------------------------------------------------------------------------------------


class _Loose(msgspec.Struct, kw_only=True):
    """What we do not use of upstream's file is accepted: the same file shall drive both."""


class PluginRef(_Loose):
    name: str
    weight: int = 0


class PluginSet(_Loose):
    enabled: list[PluginRef] = []
    disabled: list[PluginRef] = []


class PluginArguments(_Loose):
    name: str
    args: dict[str, Any] = {}


class ProfileConfig(_Loose):
    schedulerName: str = DEFAULT_SCHEDULER_NAME
    plugins: dict[str, PluginSet] = {}
    pluginConfig: list[PluginArguments] = []


class KubeSchedulerConfiguration(_Loose):
    apiVersion: str = "kubescheduler.config.k8s.io/v1"
    kind: str = "KubeSchedulerConfiguration"
    profiles: list[ProfileConfig] = []
    podInitialBackoffSeconds: float = BACKOFF_SECONDS_FIRST
    podMaxBackoffSeconds: float = BACKOFF_SECONDS_MAX


def read(path: str) -> KubeSchedulerConfiguration:
    """The file's content, or the defaults without a file. Raises ConfigError."""
    if not path:
        return KubeSchedulerConfiguration(profiles=[ProfileConfig()])
    try:
        config = msgspec.convert(read_file(path), KubeSchedulerConfiguration, strict=False)
    except msgspec.ValidationError as err:
        raise ConfigError(f"{path}: {err}") from err
    if config.kind != "KubeSchedulerConfiguration" or not config.apiVersion.startswith("kubescheduler.config.k8s.io/"):
        raise ConfigError(f"{path}: expected a KubeSchedulerConfiguration, got {config.apiVersion} {config.kind}")
    config.profiles = config.profiles or [ProfileConfig()]
    names = [profile.schedulerName for profile in config.profiles]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: profiles: schedulerName {name!r} occurs twice")
    return config


def load_plugin_file(path: str) -> dict[str, type[Plugin]]:
    """The Plugin classes that a Python file defines. Raises ConfigError."""
    name = f"scheduler_plugin_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ConfigError(f"plugin_files: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as err:
        raise ConfigError(f"plugin_files: {path}: {type(err).__name__}: {err}") from err
    found = {
        value.__name__: value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Plugin) and value.__module__ == name
    }
    if not found:
        raise ConfigError(f"plugin_files: {path} defines no subclass of services.scheduler.framework.Plugin")
    return found


def build_profiles(
    config: KubeSchedulerConfiguration, extra: dict[str, type[Plugin]] | None = None, handle: Any = None
) -> dict[str, Profile]:
    """Profiles by scheduler name.

    Plugins of `extra` files run in every profile unless it disables them. Raises ConfigError.
    """
    known = {**registry.BY_NAME, **(extra or {})}
    return {profile.schedulerName: _build(profile, known, extra or {}, handle) for profile in config.profiles}


def _build(
    config: ProfileConfig, known: dict[str, type[Plugin]], extra: dict[str, type[Plugin]], handle: Any
) -> Profile:
    where = f"profile {config.schedulerName!r}"
    arguments = {entry.name: entry.args for entry in config.pluginConfig}
    weights = {plugin.__name__: weight for plugin, weight in registry.DEFAULT} | dict.fromkeys(extra, 1)
    chosen = _enabled(list(weights), config.plugins.get("multiPoint"), known, weights, where)
    made: dict[str, Plugin] = {}

    def make(name: str) -> Plugin:
        if name not in made:
            try:
                made[name] = known[name](arguments.get(name), handle)
            except (ValueError, TypeError, KeyError) as err:
                raise ConfigError(f"{where}: arguments of {name}: {err}") from err
            made[name].guarded = name in extra
        return made[name]

    others = [make(name) for name in chosen]
    filters = _enabled(
        [n for n in chosen if has(make(n), "filter")], config.plugins.get("filter"), known, weights, where
    )
    scores = _enabled([n for n in chosen if has(make(n), "score")], config.plugins.get("score"), known, weights, where)
    return Profile(
        config.schedulerName,
        [make(name) for name in filters],
        [Weighted(make(name), weights.get(name) or 1) for name in scores],
        others,
    )


def _enabled(
    names: list[str], change: PluginSet | None, known: dict[str, type[Plugin]], weights: dict[str, int], where: str
) -> list[str]:
    if change is None:
        return names
    disabled = {ref.name for ref in change.disabled}
    out = [] if "*" in disabled else [name for name in names if name not in disabled]
    for ref in change.enabled:
        if ref.name not in known:
            raise ConfigError(f"{where}: there is no plugin {ref.name!r}; there are {', '.join(sorted(known))}")
        if ref.weight:
            weights[ref.name] = ref.weight
        if ref.name not in out:
            out.append(ref.name)
    return out

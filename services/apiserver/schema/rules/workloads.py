"""apps and batch: selectors that match their templates, strategies, schedules, and what may not change."""

from __future__ import annotations

import re
import zoneinfo
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes
from services.apiserver.schema.rules import claims, pods, selectors

Obj = dict[str, Any]

_PERCENT = re.compile(r"[0-9]+%\Z").match
CRON_JOB_NAME_MAX = 52


def _labels_of_template(spec: Obj) -> dict[str, str]:
    labels: dict[str, str] = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    return labels


def _selector(spec: Obj, kind: str) -> list[Cause]:
    """The selector is there, says something, and matches the template."""
    selector = spec.get("selector")
    found: list[Cause] = []
    if selector is None:
        found.append(causes.required("spec.selector"))
    elif selectors.is_empty(selector):
        found.append(causes.invalid("spec.selector", selector, f"empty selector is invalid for {kind}"))
    else:
        found += selectors.label_selector(selector, "spec.selector")
    labels = _labels_of_template(spec)
    if selector is not None and not selectors.is_empty(selector) and not selectors.matches(selector, labels):
        detail = "`selector` does not match template `labels`"
        found.append(causes.invalid("spec.template.metadata.labels", labels, detail))
    return found


def _always_restarts(spec: Obj) -> list[Cause]:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    found: list[Cause] = []
    if policy not in (None, "", "Always"):
        found.append(causes.not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if ((spec.get("template") or {}).get("spec") or {}).get("activeDeadlineSeconds") is not None:
        where = "spec.template.spec.activeDeadlineSeconds"
        found.append(causes.forbidden(where, "activeDeadlineSeconds in ReplicaSet is not Supported"))
    return found


def amount(value: Any, path: str, *, percent_max: int | None = 100) -> list[Cause]:
    """A whole number or a percentage."""
    if isinstance(value, str):
        if not _PERCENT(value):
            detail = (
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
                "regex used for validation is '[0-9]+%')"
            )
            return [causes.invalid(path, value, detail)]
        if percent_max is not None and int(value[:-1]) > percent_max:
            return [causes.invalid(path, value, f"must not be greater than {percent_max}%")]
    elif value < 0:
        return [causes.invalid(path, value, "must be greater than or equal to 0")]
    return []


def _is_zero(value: Any) -> bool:
    return value in (0, None) or (isinstance(value, str) and value.rstrip("%").strip("0") == "" and value.endswith("%"))


def deployment(obj: Obj) -> list[Cause]:
    """A Deployment."""
    spec = obj.get("spec") or {}
    found = _selector(spec, "deployment") + pods.template(spec, "spec") + _always_restarts(spec)
    strategy = spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "Recreate" and rolling is not None:
        detail = "may not be specified when strategy `type` is 'Recreate'"
        found.append(causes.forbidden("spec.strategy.rollingUpdate", detail))
    elif strategy.get("type") == "RollingUpdate" and rolling is not None:
        surge, unavailable = rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 0)
        found += amount(unavailable, "spec.strategy.rollingUpdate.maxUnavailable")
        found += amount(surge, "spec.strategy.rollingUpdate.maxSurge", percent_max=None)
        if _is_zero(surge) and _is_zero(unavailable):
            detail = "may not be 0 when `maxSurge` is 0"
            found.append(causes.invalid("spec.strategy.rollingUpdate.maxUnavailable", unavailable, detail))
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if deadline is not None and deadline <= ready:
        found.append(causes.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return found


def replica_set(obj: Obj) -> list[Cause]:
    """A ReplicaSet."""
    spec = obj.get("spec") or {}
    return _selector(spec, "replicaset") + pods.template(spec, "spec") + _always_restarts(spec)


def replication_controller(obj: Obj) -> list[Cause]:
    """A ReplicationController: its selector is a plain map."""
    spec = obj.get("spec") or {}
    selector = spec.get("selector") or {}
    found: list[Cause] = []
    if not selector:
        found.append(causes.required("spec.selector"))
    if spec.get("template") is None:
        found.append(causes.required("spec.template"))
        return found
    labels = _labels_of_template(spec)
    if selector and not selector.items() <= labels.items():
        detail = "`selector` does not match template `labels`"
        found.append(causes.invalid("spec.template.metadata.labels", labels, detail))
    return found + pods.template(spec, "spec") + _always_restarts(spec)


def daemon_set(obj: Obj) -> list[Cause]:
    """A DaemonSet."""
    spec = obj.get("spec") or {}
    found = _selector(spec, "daemonset") + pods.template(spec, "spec") + _always_restarts(spec)
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate")
    if (spec.get("updateStrategy") or {}).get("type") == "RollingUpdate" and rolling is not None:
        surge, unavailable = rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 0)
        here = "spec.updateStrategy.rollingUpdate"
        found += amount(unavailable, f"{here}.maxUnavailable") + amount(surge, f"{here}.maxSurge")
        if not _is_zero(surge) and not _is_zero(unavailable):
            found.append(causes.invalid(f"{here}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
        elif _is_zero(surge) and _is_zero(unavailable):
            detail = "cannot be 0 when maxSurge is 0"
            found.append(causes.invalid(f"{here}.maxUnavailable", unavailable, detail))
    return found


def stateful_set(obj: Obj) -> list[Cause]:
    """A StatefulSet."""
    spec = obj.get("spec") or {}
    found = _selector(spec, "statefulset") + pods.template(_with_claims(spec), "spec") + _always_restarts(spec)
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete" and strategy.get("rollingUpdate") is not None:
        detail = "only allowed for updateStrategy 'RollingUpdate'"
        found.append(causes.invalid("spec.updateStrategy.rollingUpdate", strategy["rollingUpdate"], detail))
    unavailable = (strategy.get("rollingUpdate") or {}).get("maxUnavailable")
    if unavailable is not None:
        here = "spec.updateStrategy.rollingUpdate.maxUnavailable"
        found += amount(unavailable, here)
        if _is_zero(unavailable):
            found.append(causes.invalid(here, unavailable, "cannot be 0"))
    taken: set[str] = set()
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        name = (claim.get("metadata") or {}).get("name") or ""
        here = f"spec.volumeClaimTemplates[{index}]"
        if name in taken:
            found.append(causes.duplicate(f"{here}.metadata.name", name))
        taken.add(name)
        found += claims.spec_of_claim(claim.get("spec") or {}, f"{here}.spec")
    return found


def _with_claims(spec: Obj) -> Obj:
    """The spec with the volumes that its pods will have: one for each claim, which containers mount by its name."""
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    given = list(pod.get("volumes") or ())
    taken = {volume.get("name") for volume in given}
    claimed = [(claim.get("metadata") or {}).get("name") for claim in spec.get("volumeClaimTemplates") or ()]
    more = [
        {"name": name, "persistentVolumeClaim": {"claimName": name}}
        for name in dict.fromkeys(claimed)
        if name and name not in taken
    ]
    return {**spec, "template": {**template, "spec": {**pod, "volumes": given + more}}} if more else spec


def job(obj: Obj) -> list[Cause]:
    """A Job whose selector has been generated or given."""
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    selector = spec.get("selector")
    if selector is not None:
        found += selectors.label_selector(selector, "spec.selector")
        labels = _labels_of_template(spec)
        if not selectors.matches(selector, labels):
            detail = "`selector` does not match template `labels`"
            found.append(causes.invalid("spec.template.metadata.labels", labels, detail))
    return found + job_spec(spec, "spec")


def job_spec(spec: Obj, path: str) -> list[Cause]:
    """What holds for Jobs and for a CronJob's template."""
    found = pods.template(spec, path)
    template = (spec.get("template") or {}).get("spec") or {}
    policy = template.get("restartPolicy")
    if policy not in ("OnFailure", "Never"):
        at = f"{path}.template.spec.restartPolicy"
        if not policy or policy == "Always":
            supported = ("OnFailure", "Never")
            found.append(
                causes.required(at, 'valid values: "OnFailure", "Never"')
                if not policy
                else causes.not_supported(at, policy, supported)
            )
    indexed = spec.get("completionMode") == "Indexed"
    if indexed and spec.get("completions") is None:
        detail = "when completion mode is Indexed"
        found.append(causes.required(f"{path}.completions", detail))
    if spec.get("backoffLimitPerIndex") is not None and not indexed:
        detail = "requires indexed completion mode"
        found.append(causes.invalid(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], detail))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        detail = "when maxFailedIndexes is specified"
        found.append(causes.required(f"{path}.backoffLimitPerIndex", detail))
    if spec.get("podFailurePolicy") is not None:
        found += _failure_policy(spec, template, f"{path}.podFailurePolicy")
    if spec.get("successPolicy") is not None and not indexed:
        detail = "requires indexed completion mode"
        found.append(causes.invalid(f"{path}.successPolicy", spec["successPolicy"], detail))
    return found


def _failure_policy(spec: Obj, template: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    if template.get("restartPolicy") not in (None, "", "Never"):
        at = path.removesuffix(".podFailurePolicy") + ".template.spec.restartPolicy"
        detail = 'only "Never" is supported when podFailurePolicy is specified'
        found.append(causes.invalid(at, template["restartPolicy"], detail))
    known = {one.get("name") for one in (*(template.get("containers") or ()), *(template.get("initContainers") or ()))}
    for index, rule in enumerate(spec["podFailurePolicy"].get("rules") or ()):
        here = f"{path}.rules[{index}]"
        codes = rule.get("onExitCodes")
        if codes is None and not rule.get("onPodConditions"):
            detail = "specifying one of OnExitCodes and OnPodConditions is required"
            found.append(causes.invalid(here, rule, detail))
        if codes is not None:
            name = codes.get("containerName")
            if name is not None and name not in known:
                detail = "must be one of the container or initContainer names in the pod template"
                found.append(causes.invalid(f"{here}.onExitCodes.containerName", name, detail))
            if codes.get("operator") == "In" and 0 in (codes.get("values") or ()):
                detail = "must not be 0 for the In operator"
                found.append(causes.invalid(f"{here}.onExitCodes.values[0]", 0, detail))
        if rule.get("action") == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            detail = "requires the backoffLimitPerIndex to be set"
            found.append(causes.invalid(f"{here}.action", "FailIndex", detail))
    return found


def cron_job(obj: Obj) -> list[Cause]:
    """A CronJob: schedule, time zone, and a name that leaves room for its jobs' suffix."""
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    name = (obj.get("metadata") or {}).get("name") or ""
    if len(name) > CRON_JOB_NAME_MAX:
        found.append(causes.invalid("metadata.name", name, f"must be no more than {CRON_JOB_NAME_MAX} characters"))
    schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
    if schedule:
        found += _schedule(schedule, zone)
    if zone is not None:
        found += _time_zone(zone)
    found += job_spec((spec.get("jobTemplate") or {}).get("spec") or {}, "spec.jobTemplate.spec")
    if ((spec.get("jobTemplate") or {}).get("spec") or {}).get("manualSelector"):
        at = "spec.jobTemplate.spec.manualSelector"
        found.append(causes.not_supported(at, True, ("nil", "false")))
    return found


_DESCRIPTORS = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_EVERY = re.compile(r"@every ([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+\Z").match
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 6))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def _schedule(schedule: str, zone: str | None) -> list[Cause]:
    if "TZ" in schedule:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        if zone is not None:
            detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        return [causes.invalid("spec.schedule", schedule, detail)]
    problem = schedule_problem(schedule)
    return [causes.invalid("spec.schedule", schedule, problem)] if problem else []


def schedule_problem(schedule: str) -> str:
    """What is wrong with a cron line of five fields or a descriptor; the empty string if nothing."""
    if schedule.startswith("@"):
        if schedule in _DESCRIPTORS or _EVERY(schedule):
            return ""
        return f"unrecognized descriptor: {schedule}"
    fields = schedule.split()
    if len(fields) != 5:
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for text, (_, low, high) in zip(fields, _FIELDS, strict=True):
        table = _MONTHS if high == 12 else _DAYS if high == 6 else ()
        for part in text.split(","):
            problem = _cron_part(part, low, high, table)
            if problem:
                return problem
    return ""


def _cron_part(part: str, low: int, high: int, table: tuple[str, ...]) -> str:
    span, slash, step = part.partition("/")
    if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
        return f"step of range should be a positive number: {part}"
    if span in ("*", "?"):
        return ""
    start, dash, end = span.partition("-")
    numbers: list[int] = []
    for text in (start, end) if dash else (start,):
        if text.lower() in table:
            numbers.append(table.index(text.lower()) + low)
        elif text.isascii() and text.isdigit():
            numbers.append(int(text))
        else:
            return f"failed to parse int from {text}: strconv.Atoi: parsing {text!r}: invalid syntax"
    if numbers[0] < low:
        return f"beginning of range ({numbers[0]}) below minimum ({low}): {part}"
    if numbers[-1] > high:
        return f"end of range ({numbers[-1]}) above maximum ({high}): {part}"
    if numbers[0] > numbers[-1]:
        return f"beginning of range ({numbers[0]}) beyond end of range ({numbers[-1]}): {part}"
    return ""


def _time_zone(zone: str) -> list[Cause]:
    if not zone:
        return [causes.invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        return [
            causes.invalid(
                "spec.timeZone",
                zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            )
        ]
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return [causes.invalid("spec.timeZone", zone, f"unknown time zone {zone}")]
    return []


def update_selector(new: Obj, old: Obj) -> list[Cause]:
    """apps kinds: the selector stays."""
    selector = (new.get("spec") or {}).get("selector")
    if selector != (old.get("spec") or {}).get("selector"):
        return [causes.immutable("spec.selector", selector)]
    return []


_STATEFUL_MUTABLE = frozenset(
    {
        "replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
        "revisionHistoryLimit",
    }
)  # fmt: skip


def update_stateful_set(new: Obj, old: Obj) -> list[Cause]:
    """A StatefulSet: only some fields of its spec may change."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if any(spec.get(name) != before.get(name) for name in {*spec, *before} - _STATEFUL_MUTABLE):
        detail = (
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        )
        return [causes.forbidden("spec", detail)]
    return []


def update_job(new: Obj, old: Obj) -> list[Cause]:
    """A Job: what its pods are made of stays, unless it is suspended and has not started."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    found: list[Cause] = []
    if spec.get("completions") != before.get("completions"):
        elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
        if not (elastic and before.get("completions") == before.get("parallelism")):
            found.append(causes.immutable("spec.completions", spec.get("completions")))
    for field in (
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ):
        if spec.get(field) != before.get(field):
            found.append(causes.immutable(f"spec.{field}", spec.get(field)))
    if _job_template(new, old) != before.get("template"):
        found.append(causes.immutable("spec.template", spec.get("template")))
    return found


def _job_template(new: Obj, old: Obj) -> Obj | None:
    """The new template, with what may change of a suspended and never started Job set back."""
    template = (new.get("spec") or {}).get("template")
    before = (old.get("spec") or {}).get("template")
    suspended = (old.get("spec") or {}).get("suspend") and not (old.get("status") or {}).get("startTime")
    if not suspended or not template or not before:
        return template
    spec = dict(template.get("spec") or {})
    for field in ("nodeSelector", "tolerations", "schedulingGates", "affinity"):
        _put(spec, field, (before.get("spec") or {}).get(field))
    out = {**template, "spec": spec}
    metadata = dict(template.get("metadata") or {})
    for field in ("labels", "annotations"):
        _put(metadata, field, (before.get("metadata") or {}).get(field))
    out["metadata"] = metadata
    return out


def _put(holder: Obj, field: str, value: Any) -> None:
    if value is None:
        holder.pop(field, None)
    else:
        holder[field] = value


def controller_revision(obj: Obj) -> list[Cause]:
    """A ControllerRevision."""
    found: list[Cause] = []
    if obj.get("data") is None:
        found.append(causes.required("data", "data is mandatory"))
    if (obj.get("revision") or 0) < 0:
        found.append(causes.invalid("revision", obj["revision"], "must be greater than or equal to 0"))
    return found


def update_controller_revision(new: Obj, old: Obj) -> list[Cause]:
    """A ControllerRevision's data stays."""
    return [] if new.get("data") == old.get("data") else [causes.immutable("data", new.get("data"))]

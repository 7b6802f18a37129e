"""Pods share what they have in common, and nothing of what they say is lost or mixed up."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from services.controller_manager.views.pod import Pod
from services.controller_manager.views.sharing import Sharing

decode = msgspec.json.Decoder(Pod).decode
words = st.sampled_from(["a", "b", "web", ""])
moments = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"])
labels = st.dictionaries(words, words, max_size=2)
owners = st.fixed_dictionaries({"name": words, "uid": words, "controller": st.booleans()})
containers = st.fixed_dictionaries(
    {"name": words, "resources": st.fixed_dictionaries({"requests": st.dictionaries(words, st.just("1"), max_size=1)})}
)
conditions = st.fixed_dictionaries({"type": words, "status": words, "lastTransitionTime": moments})
statuses = st.fixed_dictionaries({"name": words, "ready": st.booleans(), "restartCount": st.integers(0, 1)})
volumes = st.sampled_from([{"name": "t"}, {"name": "c", "persistentVolumeClaim": {"claimName": "x"}}])
pods = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": words, "namespace": words, "labels": labels, "ownerReferences": st.lists(owners, max_size=2),
             "creationTimestamp": moments}
        ),
        "spec": st.fixed_dictionaries(
            {"nodeName": words, "containers": st.lists(containers, max_size=2),
             "volumes": st.lists(volumes, max_size=2), "initContainers": st.lists(containers, max_size=1)}
        ),
        "status": st.fixed_dictionaries(
            {"phase": words, "conditions": st.lists(conditions, max_size=3), "podIP": words,
             "podIPs": st.lists(st.fixed_dictionaries({"ip": words}), max_size=2),
             "containerStatuses": st.lists(statuses, max_size=2)}
        ),
    }
)  # fmt: skip


@given(st.lists(pods, max_size=8), st.integers(0, 8))
@settings(max_examples=60)
def test_a_pod_says_the_same_after_sharing(raws: list[dict[str, Any]], known_max: int) -> None:
    share = Sharing(known_max)
    for raw in raws:
        found = share(decode(msgspec.json.encode(raw)))
        wanted = decode(msgspec.json.encode(raw))
        claims = tuple(each for each in wanted.spec.volumes if each.persistentVolumeClaim is not None)
        assert found == msgspec.structs.replace(wanted, spec=msgspec.structs.replace(wanted.spec, volumes=claims))


def test_pods_of_one_template_keep_what_is_theirs_in_common_once() -> None:
    share = Sharing()
    raw = {
        "metadata": {"labels": {"app": "web"}, "ownerReferences": [{"name": "web", "controller": True}]},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    one, other = (share(decode(msgspec.json.encode(raw))) for _ in range(2))
    assert one.metadata is not other.metadata
    assert one.metadata.labels is other.metadata.labels
    assert one.metadata.ownerReferences is other.metadata.ownerReferences
    assert one.spec.containers is other.spec.containers
    assert one.status.conditions is other.status.conditions

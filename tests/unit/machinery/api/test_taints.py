"""Tolerations of nodes' taints."""

from __future__ import annotations

import pytest

from machinery.api.taints import tolerates
from services.controller_manager.views.pod import Taint, Toleration


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (Toleration(operator="Exists"), True),
        (Toleration(key="load", operator="Exists"), True),
        (Toleration(key="other", operator="Exists"), False),
        (Toleration(key="load", operator="Exists", effect="NoSchedule"), False),
        (Toleration(key="load", value="70"), True),
        (Toleration(key="load", value="7"), False),
        (Toleration(value="70"), False),
        (Toleration(key="load", operator="Lt", value="80"), True),
        (Toleration(key="load", operator="Lt", value="70"), False),
        (Toleration(key="load", operator="Gt", value="60"), True),
        (Toleration(key="load", operator="Gt", value="many"), False),
        (Toleration(key="load", operator="Like", value="70"), False),
    ],
)
def test_a_toleration_is_for_a_taint_by_key_effect_and_value(toleration: Toleration, tolerated: bool) -> None:
    assert tolerates(toleration, Taint("load", "70", "NoExecute")) is tolerated

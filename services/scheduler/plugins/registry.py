"""Every plugin that is built in, and the default profile: order of filters, weights of scores.

A new rule is a file here and a line below.
"""

from __future__ import annotations

from services.scheduler.framework import Plugin
from services.scheduler.plugins.balanced_allocation import NodeResourcesBalancedAllocation
from services.scheduler.plugins.default_preemption import DefaultPreemption
from services.scheduler.plugins.dynamic_resources import DynamicResources
from services.scheduler.plugins.image_locality import ImageLocality
from services.scheduler.plugins.inter_pod_affinity import InterPodAffinity
from services.scheduler.plugins.node_affinity import NodeAffinity
from services.scheduler.plugins.node_name import NodeName
from services.scheduler.plugins.node_ports import NodePorts
from services.scheduler.plugins.node_unschedulable import NodeUnschedulable
from services.scheduler.plugins.resources_fit import NodeResourcesFit
from services.scheduler.plugins.scheduling_gates import SchedulingGates
from services.scheduler.plugins.taint_toleration import TaintToleration
from services.scheduler.plugins.topology_spread import PodTopologySpread
from services.scheduler.plugins.volume_binding import VolumeBinding
from services.scheduler.plugins.volume_rules import NodeVolumeLimits, VolumeRestrictions, VolumeZone

# (class, weight of its score) in the order in which filters run: upstream's MultiPoint order, which decides what a
# node is said to fail by.
DEFAULT: tuple[tuple[type[Plugin], int], ...] = (
    (SchedulingGates, 0),
    (NodeUnschedulable, 0),
    (NodeName, 0),
    (TaintToleration, 3),
    (NodeAffinity, 2),
    (NodePorts, 0),
    (NodeResourcesFit, 1),
    (VolumeRestrictions, 0),
    (NodeVolumeLimits, 0),
    (VolumeBinding, 0),
    (VolumeZone, 0),
    (PodTopologySpread, 2),
    (InterPodAffinity, 2),
    (DynamicResources, 2),
    (NodeResourcesBalancedAllocation, 1),
    (ImageLocality, 1),
    (DefaultPreemption, 0),
)

BY_NAME: dict[str, type[Plugin]] = {plugin.__name__: plugin for plugin, _ in DEFAULT}

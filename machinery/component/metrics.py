"""Prometheus metrics by upstream's names where upstream has one.

`counter`, `gauge` and `histogram` answer the metric of that name and make it on first use, so that modules and tests
that are loaded twice in one process share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import prometheus_client
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

_METRICS: dict[str, MetricWrapperBase] = {}

# prometheus_client adds a `_created` sample to every series: a third more to scrape, and upstream has none.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""For latencies from a millisecond to a minute."""

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)


def _metric(cls: type[MetricT], name: str, make: MetricT | None) -> MetricT:
    found = _METRICS.get(name)
    if found is None:
        assert make is not None
        _METRICS[name] = found = make
    assert isinstance(found, cls), f"metric {name} is a {type(found).__name__}"
    return found


def counter(name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows. `name` ends in `_total`."""
    return _metric(Counter, name, None if name in _METRICS else Counter(name, doc, labels))


def gauge(name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down."""
    return _metric(Gauge, name, None if name in _METRICS else Gauge(name, doc, labels))


def histogram(name: str, doc: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS_BUCKETS) -> Histogram:
    """A distribution; seconds unless the name says otherwise."""
    make = None if name in _METRICS else Histogram(name, doc, labels, buckets=tuple(buckets))
    return _metric(Histogram, name, make)


def exposition() -> bytes:
    """Everything, in the Prometheus text format."""
    return prometheus_client.generate_latest()


CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

"""Instruments that Ray shows to Prometheus: counters, gauges and histograms of one run."""

import ray.util.metrics

# Ray drops a gauge that has not been set for some seconds; who keeps one sets it so often again.
GAUGE_INTERVAL_S = 2.0


class Counter:
    """A sum that only grows."""

    def __init__(self, name: str, description: str, tags: dict[str, str], *more: str) -> None:
        """Make it.

        Args:
            name: Without the product's prefix.
            description: For a person.
            tags: That every increase has.
            more: Names of further tags.
        """
        self._counter = ray.util.metrics.Counter(f"fcn_{name}", description, (*more, *tags))
        self._counter.set_default_tags(tags)

    def increase(self, number: float, tags: dict[str, str] | None = None) -> None:
        """Add a number, which may be nothing: Ray refuses that."""
        if number:
            self._counter.inc(number, tags or {})


class Gauge:
    """A number that goes up and down."""

    def __init__(self, name: str, description: str, tags: dict[str, str]) -> None:
        """Make it; see `Counter`."""
        self._gauge = ray.util.metrics.Gauge(f"fcn_{name}", description, tuple(tags))
        self._gauge.set_default_tags(tags)

    def set(self, value: float) -> None:
        """Set it, until `GAUGE_INTERVAL_S` have passed."""
        self._gauge.set(value)


class Histogram:
    """How often a number lay between which bounds."""

    def __init__(
        self, name: str, description: str, tags: dict[str, str], bounds: list[float], *more: str
    ) -> None:
        """Make it; see `Counter`."""
        self._histogram = ray.util.metrics.Histogram(
            f"fcn_{name}", description, bounds, (*more, *tags)
        )
        self._histogram.set_default_tags(tags)

    def observe(self, value: float, tags: dict[str, str]) -> None:
        """Count one value."""
        self._histogram.observe(value, tags)

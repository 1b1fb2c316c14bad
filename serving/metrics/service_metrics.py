"""Metrics of the service for Prometheus at ``GET /metrics``: the sum over all workers."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from headwater.serving.api.schemas import LabelResult, PredictionAnswer
from headwater.serving.metrics.counters import Cells, Counters

__all__ = ["BOUNDS_S", "Metrics", "PipelineMetrics", "TableMetrics", "gauge_now"]

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the histogram of prediction times, in seconds."""

_STATUSES = ("recorded", "known", "conflict", "refused")


class _Family(NamedTuple):
    """A metric family; `kind` says how the numbers of the workers combine."""

    kind: Literal["counter", "histogram", "gauge", "least", "most", "now"]
    help: str
    labels: tuple[str, ...]


_FAMILIES = {
    "headwater_predictions": _Family(
        "counter", "Predictions answered or made in shadow.", ("pipeline", "version", "role")
    ),
    "headwater_prediction_seconds": _Family(
        "histogram", "From a read request to its durable record, one or many predictions.", ("pipeline",)
    ),
    "headwater_labels": _Family("counter", "Labels, by what became of them.", ("pipeline", "status")),
    "headwater_labels_expired": _Family(
        "counter", "Labels dropped, as their prediction came after the wait.", ("pipeline",)
    ),
    "headwater_records_waiting": _Family("gauge", "Records that wait for their sync.", ("pipeline",)),
    "headwater_syncs": _Family("counter", "Syncs of the inbox, many records each.", ("pipeline",)),
    "headwater_swap_failures": _Family(
        "counter", "States that were published and did not load, in each worker.", ("pipeline",)
    ),
    "headwater_learned_to": _Family(
        "least", "Offset up to which what serves has learned, in the last worker.", ("pipeline",)
    ),
    "headwater_feature_lookups": _Family(
        "counter", "Look-ups of entity keys, by what was found.", ("pipeline", "table", "result")
    ),
    "headwater_feature_age_seconds": _Family(
        "most", "Since the source of a table was read, in the last worker.", ("pipeline", "table")
    ),
    "headwater_alarms": _Family(
        "gauge", "Alarms of the keeper that hold, by kind.", ("pipeline", "kind")
    ),
    "headwater_alarms_raised": _Family(
        "counter", "Alarms that the keeper has raised, by kind.", ("pipeline", "kind")
    ),
    "headwater_learning_paused": _Family(
        "gauge", "1 while learning each label is paused.", ("pipeline",)
    ),
    "headwater_examples_unlearned": _Family(
        "gauge", "Examples that were sequenced and not learned yet.", ("pipeline",)
    ),
    "headwater_batch_lookups": _Family(
        "counter", "Keys looked up, by who answered: batch, online or none.", ("pipeline", "found")
    ),
    "headwater_batch_predictions": _Family("now", "Predictions of the newest batch run.", ("pipeline",)),
    "headwater_batch_predictions_read": _Family(
        "now", "Those of them that anybody has looked up on this host.", ("pipeline",)
    ),
    "headwater_batch_age_seconds": _Family("now", "Age of the newest batch run.", ("pipeline",)),
    "headwater_problems": _Family("counter", "Requests refused or failed, by status.", ("status",)),
}


class PipelineMetrics:
    """The counters of one worker for one pipeline; each method is one or two stores to memory.

    Parameters
    ----------
    counters, pipeline
        The worker's counters, and the pipeline's name.
    """

    def __init__(self, counters: Counters, pipeline: str) -> None:
        self._values = counters.values
        self._pipeline = pipeline
        self._place = counters.place
        self._roles: dict[tuple[str, str], int] = {}
        self._seconds = self._of("headwater_prediction_seconds", len(BOUNDS_S) + 2)
        self._labels = {
            status: counters.place("headwater_labels", (pipeline, status)) for status in _STATUSES
        }
        self._waiting = self._of("headwater_records_waiting")
        self._syncs = self._of("headwater_syncs")
        self._failures = self._of("headwater_swap_failures")
        self._learned_to = self._of("headwater_learned_to")
        self._synced = 0

    def predicted(self, answers: Iterable[PredictionAnswer], seconds: float) -> None:
        """Count the answers of one request, and its time."""
        values = self._values
        for answer in answers:
            place = self._roles.get((answer.version, answer.role))
            if place is None:
                place = self._role(answer.version, answer.role)
            values[place] += 1.0
        start = self._seconds
        values[start + bisect_left(BOUNDS_S, seconds)] += 1.0
        values[start + len(BOUNDS_S) + 1] += seconds

    def labelled(self, results: Iterable[LabelResult]) -> None:
        """Count labels by their result."""
        for result in results:
            self._values[self._labels[result.status]] += 1.0

    def swap_failed(self) -> None:
        """Count a state that did not load."""
        self._values[self._failures] += 1.0

    def sample(self, waiting: int, syncs: int, learned_to: int) -> None:
        """Set the gauges that are not counted as events happen; called several times a second.

        Parameters
        ----------
        waiting, syncs, learned_to
            Records that wait, this worker's syncs so far, and the offset to which the champion has
            learned.
        """
        self._values[self._waiting] = waiting
        self._values[self._syncs] += syncs - self._synced
        self._synced = syncs
        self._values[self._learned_to] = learned_to

    def table(self, name: str) -> "TableMetrics":
        """Return the counters of look-ups in a table."""
        return TableMetrics(self._values, self._place, self._pipeline, name)

    def _of(self, family: str, size: int = 1) -> int:
        return self._place(family, (self._pipeline,), size)

    def _role(self, version: str, role: str) -> int:
        place = self._place("headwater_predictions", (self._pipeline, version, role))
        self._roles[version, role] = place
        return place


class TableMetrics:
    """The counters of one worker for look-ups in one table.

    Parameters
    ----------
    values, place
        The worker's counters, and the function that finds a place in them.
    pipeline, table
        Names of both.
    """

    def __init__(
        self, values: "memoryview[float]", place: Callable[..., int], pipeline: str, table: str
    ) -> None:
        self._values = values
        self._found, self._unknown, self._stale = (
            place("headwater_feature_lookups", (pipeline, table, result))
            for result in ("found", "unknown", "stale")
        )
        self._place_age = partial(place, "headwater_feature_age_seconds", (pipeline, table))
        self._age: int | None = None

    def found(self) -> None:
        """Count a key that was found."""
        self._values[self._found] += 1.0

    def unknown(self) -> None:
        """Count a key that the table does not have."""
        self._values[self._unknown] += 1.0

    def stale(self) -> None:
        """Count a value that is too old."""
        self._values[self._stale] += 1.0

    def sample(self, age_s: float) -> None:
        """Set how long ago the source was read, in seconds."""
        if self._age is None:  # a table that was never materialised has none
            self._age = self._place_age()
        self._values[self._age] = age_s


class Metrics:
    """The counters of one worker, and the text of the sum over all workers.

    Parameters
    ----------
    counters
        The worker's counters.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def of(self, pipeline: str) -> PipelineMetrics:
        """Return the counters of one pipeline."""
        return PipelineMetrics(self._counters, pipeline)

    def problem(self, status: int) -> None:
        """Count a request that was refused or failed."""
        place = self._counters.place("headwater_problems", (str(status),))
        self._counters.values[place] += 1.0

    def looked_up(self, pipeline: str, found: Literal["batch", "online", "none"]) -> None:
        """Count a key that was looked up, by the answer's origin."""
        place = self._counters.place("headwater_batch_lookups", (pipeline, found))
        self._counters.values[place] += 1.0

    def close(self) -> None:
        """Leave the counts to the next worker."""
        self._counters.close()

    def text(self, accept: str, extra: Iterable[Cells] = ()) -> tuple[bytes, str]:
        """Return the sum over all workers as text, and its media type.

        Parameters
        ----------
        accept
            The Accept header of the request.
        extra
            Numbers that no worker counts: those of the keeper, and gauges read at this moment.
        """
        registry = CollectorRegistry()
        registry.register(_CellCollector([*self._counters.all_cells(), *extra]))
        encode, kind = choose_encoder(accept)
        return encode(registry), kind


def gauge_now(family: str, pipeline: str, value: float) -> Cells:
    """Return a gauge with its value at this moment, for :meth:`Metrics.text`."""
    return Cells(family, (pipeline,), (value,), lives=True)


class _CellCollector(Collector):
    """Collects the counters of all workers as families of Prometheus."""

    def __init__(self, cells: Sequence[Cells]) -> None:
        self._cells = cells

    def collect(self) -> Iterator[Metric]:
        for name, family in _FAMILIES.items():
            rows_by_labels: defaultdict[tuple[str, ...], list[tuple[float, ...]]] = defaultdict(list)
            for cell in self._cells:
                if cell.family == name and (cell.lives or family.kind in {"counter", "histogram"}):
                    rows_by_labels[cell.labels].append(cell.values)
            yield _metric(name, family, rows_by_labels)


def _metric(
    name: str, family: _Family, rows_by_labels: dict[tuple[str, ...], list[tuple[float, ...]]]
) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        for labels, rows in rows_by_labels.items():
            *counts, total = (sum(column) for column in zip(*rows, strict=True))
            bounds = [*map(str, BOUNDS_S), "+Inf"]
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            histogram.add_metric(labels, buckets, sum_value=total)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(name, family.help, labels=family.labels)
    combine = {"least": min, "most": max}.get(family.kind, sum)
    for labels, rows in rows_by_labels.items():
        metric.add_metric(labels, combine(value for (value,) in rows))
    return metric

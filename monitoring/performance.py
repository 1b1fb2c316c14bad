"""How every version does: by window, from its beginning on, and by slice; measured and estimated.

All of it is computed from the newest labels, so that a revised one corrects the window it belongs to;
one that came after the wait changes nothing. A window that is not mature has no measured value.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import polars as pl
from msgspec.structs import astuple

from headwater.features.log import FeatureLog
from headwater.infra.store.identity import Claim, Identity
from headwater.infra.store.storage import Storage
from headwater.monitoring.measure.estimate import CALIBRATION_ROWS, Compared, Estimator, shrunk
from headwater.monitoring.measure.scores import example_losses, score, score_error
from headwater.monitoring.measure.windows import WindowSpan, windows
from headwater.spec.data.records import Role
from headwater.spec.duration import duration
from headwater.spec.errors import TableError
from headwater.spec.pipeline import Metric, Pipeline, Task
from headwater.spec.updating.monitoring import Monitoring

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "PerformanceRow",
    "changed",
    "judged",
    "keep",
    "kept",
    "measure",
    "newest",
    "newest_windows",
    "open_kept",
    "performance_of",
]

_SLICE_VALUES = 20
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = pl.Datetime("us", "UTC")
_ERRORS = 50_000
_BATCH = 32
_CONFIDENCE = 0.002


class PerformanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one version over one stretch of predictions: a row of the table.

    Parameters
    ----------
    pipeline, version, role
        Whose, and in which role it answered.
    window_start, window_stop
        From start up to, but not including, stop; UTC.
    slice, slice_value
        A feature and its value, where only such predictions count; None for all.
    metric, value
        Its name, and what it came to; None where labels are not mature or too few.
    error
        Standard error of the value; None where it is not known.
    labelled, predictions
        How many there are.
    mature
        Whether every prediction's wait had passed.
    estimated
        Whether the value was estimated without the window's labels; it stays when they have come, to
        be compared with what was measured.
    cumulative
        Whether it is over all mature windows from `window_start` on, instead of one.
    """

    pipeline: str
    version: str
    role: str
    window_start: datetime
    window_stop: datetime
    slice: str | None = None
    slice_value: str | None = None
    metric: str
    value: float | None
    error: float | None = None
    labelled: int
    predictions: int
    mature: bool
    estimated: bool = False
    cumulative: bool = False


_SCHEMA: dict[str, pl.DataType] = {
    "pipeline": pl.String(),
    "version": pl.String(),
    "role": pl.String(),
    "window_start": _TIME,
    "window_stop": _TIME,
    "slice": pl.String(),
    "slice_value": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),
    "error": pl.Float64(),
    "labelled": pl.Int64(),
    "predictions": pl.Int64(),
    "mature": pl.Boolean(),
    "estimated": pl.Boolean(),
    "cumulative": pl.Boolean(),
}


class _Part(NamedTuple):
    """What one version in one role answered in one window."""

    version: str
    role: str
    span: WindowSpan
    frame: pl.DataFrame

    @property
    def known(self) -> pl.DataFrame:
        """What may be judged by labels."""
        return self.frame.drop_nulls("label") if self.span.mature else self.frame.clear()


class _Past(NamedTuple):
    """A mature part, as later estimates use it."""

    part: _Part
    outputs: np.ndarray
    labels: np.ndarray
    estimates: dict[Metric, float]
    measured: dict[str, float]


def measure(
    log: FeatureLog, pipeline: Pipeline, monitoring: Monitoring, spans: Sequence[WindowSpan]
) -> pl.DataFrame:
    """Measure every version, live and shadow, in windows; imported history is left out.

    Parameters
    ----------
    log
        Read window by window.
    pipeline
        Gives task, metrics and wait.
    monitoring
        Gives the slices, and how many labels a value takes.
    spans
        The windows, oldest first. A cumulative value is over those of them that are mature, and an
        estimate learns from those that were mature when its window ended.

    Returns
    -------
    polars.DataFrame
        Rows of :class:`PerformanceRow`. Of a slice's values the twenty most frequent ones have rows.
    """
    rows: list[PerformanceRow] = []
    parts: list[_Part] = []
    past: list[_Past] = []
    for span in spans:
        for part in _parts(log, span, monitoring.slices):
            rows += _measured(pipeline, monitoring, part)
            estimates = _raw_estimates(pipeline, monitoring.least, part, past)
            rows += _estimated(pipeline, part, estimates, past, monitoring.least)
            if span.mature:
                parts.append(part._replace(frame=part.frame.select("output", "label")))
                if pipeline.task == "binary":
                    past.append(_remembered(pipeline, monitoring.least, part, estimates))
    rows += _cumulative(pipeline, monitoring.least, parts)
    return pl.DataFrame([astuple(row) for row in rows], schema=_SCHEMA, orient="row")


def performance_of(log: FeatureLog, pipeline: Pipeline, now: datetime, *, last: int) -> pl.DataFrame:
    """Measure a pipeline's newest windows, as :func:`measure` does.

    Parameters
    ----------
    log, pipeline
        Whose.
    now
        The present.
    last
        How many windows at most, whichever version began when.
    """
    spans = newest_windows(log, pipeline, now, last=last)
    return measure(log, pipeline, pipeline.monitoring, spans)


def newest_windows(log: FeatureLog, pipeline: Pipeline, now: datetime, *, last: int) -> list[WindowSpan]:
    """Give a pipeline's newest windows, oldest first; parameters as for :func:`performance_of`."""
    rule, wait = pipeline.monitoring, duration(pipeline.label.wait)
    return windows(log, rule, _BEGINNING, now, wait, last=last)


def newest(frame: pl.DataFrame, last: int, *, of_slices: bool = False) -> pl.DataFrame:
    """Keep the newest windows' rows and their versions' cumulative ones: of slices, or of all in one.

    Parameters
    ----------
    frame
        Rows of :class:`PerformanceRow`.
    last
        How many windows.
    of_slices
        Which of the two.
    """
    single = frame.filter(~pl.col("cumulative"))
    begun = single["window_start"].unique().sort().tail(last)
    shown = single.filter(pl.col("window_start").is_in(begun.implode()))
    whole = frame.filter("cumulative", pl.col("version").is_in(shown["version"].unique().implode()))
    return pl.concat([shown, whole]).filter(pl.col("slice").is_not_null() == of_slices)


def judged(
    log: FeatureLog,
    spans: Sequence[WindowSpan],
    version: str,
    role: Role = "champion",
    most: int = _ERRORS,
) -> pl.DataFrame:
    """Give outputs and labels of a version in mature windows, oldest first; the newest so many.

    Parameters
    ----------
    spans
        The windows, oldest first.
    version, role
        Whose.
    most
        How many at most.

    Returns
    -------
    polars.DataFrame
        Columns ``output`` and ``label``, neither null.
    """
    found: list[pl.DataFrame] = []
    rows = 0
    for span in reversed([span for span in spans if span.mature]):
        if rows >= most:
            break
        columns = ("version", "role", "output")
        frame = log.served(span.first, span.behind, columns, shadows=role == "shadow")
        mine = frame.filter(version=version, role=role).select("output", "label").drop_nulls()
        found.insert(0, mine)
        rows += mine.height
    none = log.served(0, 0, ("output",)).select("output", "label")
    return pl.concat([none, *found]).tail(most)


def changed(outputs: pl.Series, labels: pl.Series, task: Task) -> bool:
    """Say whether a version's errors have risen, by ADWIN over the loss of each example.

    The loss is log loss, or the absolute error of a regression, in means of 32 examples, so that it is
    cheap; of the newest 50,000 examples.

    Parameters
    ----------
    outputs, labels
        Of mature predictions, oldest first: as :func:`judged` gives them.
    task
        What is predicted.

    References
    ----------
    Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.
    """
    from river.drift import ADWIN  # noqa: PLC0415 - a second to import

    metric: Metric = "mae" if task == "regression" else "log_loss"
    losses = example_losses(task, metric, outputs.tail(_ERRORS), labels.tail(_ERRORS))
    if losses is None or len(losses) < 2 * _BATCH:
        return False
    spread = max(float(np.quantile(losses, 0.99)), 1e-12)  # ADWIN's bound is for values in [0, 1]
    scaled = np.minimum(losses / spread, 1.0)
    batches = scaled[len(scaled) % _BATCH :].reshape(-1, _BATCH).mean(axis=1)
    detector = ADWIN(delta=_CONFIDENCE, clock=1)  # type: ignore[no-untyped-call] # untyped in River
    risen, before = False, float(batches[0])
    for value in batches.tolist():
        detector.update(value)  # type: ignore[no-untyped-call]
        if detector.drift_detected:
            risen = risen or detector.estimation > before
        before = detector.estimation
    return risen


def keep(storage: Storage, identity: Identity, frame: pl.DataFrame) -> None:
    """Write measured rows to the table ``performance``, in place of those that they correct.

    Replaced are the rows of windows that begin with the frame's oldest or later, and the cumulative
    rows of its versions; other rows stay.

    Parameters
    ----------
    storage
        The root.
    identity
        The log: whose tables, and in which folder.
    frame
        From :func:`measure`; nothing is written where it is empty.

    Raises
    ------
    IdentityError
        If the table, or the pipeline's name on the storage, belongs to another log.
    TableError
        If the table cannot be written.
    """
    from deltalake import write_deltalake  # noqa: PLC0415
    from deltalake.exceptions import DeltaError  # noqa: PLC0415

    if frame.is_empty():
        return
    storage.prepare()
    address = storage.address("tables", identity.pipeline, "performance")
    there = not kept(storage, identity).is_empty()
    Claim(storage, identity).take()
    try:
        write_deltalake(
            address,
            frame,
            mode="overwrite",
            predicate=_replaced(frame) if there else None,
            description=identity.description,
            storage_options=storage.options,
        )
    except (DeltaError, OSError) as error:
        raise _refused(address, error) from error


def kept(storage: Storage, identity: Identity) -> pl.DataFrame:
    """Read the table ``performance``: a :class:`PerformanceRow` a row, by window; or nothing.

    Raises
    ------
    IdentityError
        If the table belongs to another log.
    TableError
        If the table cannot be read.
    """
    from deltalake.exceptions import DeltaError  # noqa: PLC0415
    from polars.exceptions import PolarsError  # noqa: PLC0415

    table = open_kept(storage, identity)
    if table is None:
        return pl.DataFrame(schema=_SCHEMA)
    try:
        frame = pl.read_delta(table)
    except (DeltaError, PolarsError, OSError) as error:
        raise _refused(storage.address("tables", identity.pipeline, "performance"), error) from error
    order = ("window_start", "cumulative", "version", "role", "slice", "slice_value", "estimated")
    return frame.select(list(_SCHEMA)).sort(*order, maintain_order=True)


def open_kept(storage: Storage, identity: Identity) -> "DeltaTable | None":
    """Open the table ``performance``, and read nothing of it; None where there is none.

    Raises
    ------
    IdentityError, TableError
        As :func:`kept` does.
    """
    from deltalake import DeltaTable  # noqa: PLC0415
    from deltalake.exceptions import DeltaError, TableNotFoundError  # noqa: PLC0415

    address = storage.address("tables", identity.pipeline, "performance")
    try:
        table = DeltaTable(address, storage_options=storage.options)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise _refused(address, error) from error
    identity.check_table("performance", address, table.metadata().description)
    return table


def _replaced(frame: pl.DataFrame) -> str:
    moment = pl.col("window_start").min().dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    oldest = frame.select(moment).item()
    versions = ", ".join(f"'{_quoted(version)}'" for version in frame["version"].unique().sort())
    return f"window_start >= '{oldest}' OR (cumulative = true AND version IN ({versions}))"


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _refused(address: str, error: Exception) -> TableError:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return TableError(
        f"the table at {address} refuses: {first}",
        hint="delete its folder: it is made again from the log, window by window",
    )


def _parts(log: FeatureLog, span: WindowSpan, slices: Sequence[str]) -> Iterator[_Part]:
    """Give what each version answered in each role, in order."""
    columns = ("version", "role", "output", *(("features",) if slices else ()))
    frame = log.served(span.first, span.behind, columns, shadows=True)
    frame = frame.filter(pl.col("role") != "imported").drop_nulls("output")
    if slices:
        wanted = [pl.col("features").struct.field(name).cast(pl.String) for name in slices]
        named = [column.alias(f"slice {name}") for column, name in zip(wanted, slices, strict=True)]
        frame = frame.with_columns(named).drop("features")
    for part in frame.partition_by("version", "role", maintain_order=True):
        yield _Part(part["version"][0], part["role"][0], span, part)


def _measured(pipeline: Pipeline, monitoring: Monitoring, part: _Part) -> Iterator[PerformanceRow]:
    yield from _valued(pipeline, monitoring.least, part)
    for name in monitoring.slices:
        column = f"slice {name}"
        common = part.frame[column].drop_nulls().value_counts(sort=True).head(_SLICE_VALUES)
        for value in sorted(common[column].to_list()):
            sliced = part._replace(frame=part.frame.filter(pl.col(column) == value))
            yield from _valued(pipeline, monitoring.least, sliced, name, value)


def _valued(
    pipeline: Pipeline, least: int, part: _Part, name: str | None = None, value: str | None = None
) -> Iterator[PerformanceRow]:
    """Give a row a metric; without a value where labels are not mature or too few."""
    known = part.known
    found: dict[str, float] = {}
    if known.height >= least:
        found = score(pipeline.task, pipeline.judged_by, known["output"], known["label"])
    for metric in pipeline.judged_by:
        error = None
        if metric in found:
            error = score_error(pipeline.task, metric, known["output"], known["label"])
        yield msgspec.structs.replace(
            _row(pipeline, part, metric, found.get(metric)), error=error, slice=name, slice_value=value
        )


def _row(pipeline: Pipeline, part: _Part, metric: Metric, value: float | None) -> PerformanceRow:
    return PerformanceRow(
        pipeline=pipeline.name,
        version=part.version,
        role=part.role,
        window_start=part.span.start,
        window_stop=part.span.stop,
        metric=metric,
        value=value,
        labelled=part.frame.height - part.frame["label"].null_count(),
        predictions=part.frame.height,
        mature=part.span.mature,
    )


def _cumulative(pipeline: Pipeline, least: int, parts: Iterable[_Part]) -> Iterator[PerformanceRow]:
    by_version: dict[tuple[str, str], list[_Part]] = {}
    for part in parts:
        by_version.setdefault((part.version, part.role), []).append(part)
    for (version, role), mine in by_version.items():
        first, last = mine[0].span, mine[-1].span
        span = WindowSpan(first.start, last.stop, first.first, last.behind, True)
        whole = _Part(version, role, span, pl.concat([part.frame for part in mine]))
        for row in _valued(pipeline, least, whole):
            yield msgspec.structs.replace(row, cumulative=True)


def _usable(part: _Part, past: Sequence[_Past], wait: timedelta, least: int) -> list[_Past]:
    """Give what was mature when a window ended: of the version, or else of whoever had its role."""
    known = [p for p in past if p.part.role == part.role and p.part.span.stop + wait <= part.span.stop]
    own = [p for p in known if p.part.version == part.version]
    return own if sum(len(p.labels) for p in own) >= least else known


def _raw_estimates(
    pipeline: Pipeline, least: int, part: _Part, past: Sequence[_Past]
) -> dict[Metric, float]:
    if pipeline.task != "binary" or part.frame.height < least:
        return {}
    known = _usable(part, past, duration(pipeline.label.wait), least)
    if sum(len(p.labels) for p in known) < least:
        return {}
    newest = _newest(known)
    estimator = Estimator().fit(
        np.concatenate([p.outputs for p in newest]), np.concatenate([p.labels for p in newest])
    )
    outputs = part.frame["output"].to_numpy().astype(np.float64)
    found = {metric: estimator.estimate(metric, outputs) for metric in pipeline.judged_by}
    return {metric: value for metric, value in found.items() if value is not None}


def _newest(known: Sequence[_Past]) -> list[_Past]:
    """Leave out what calibration would not look at."""
    rows, found = 0, []
    for p in reversed(known):
        if rows >= CALIBRATION_ROWS:
            break
        found.append(p)
        rows += len(p.labels)
    return found[::-1]


def _estimated(
    pipeline: Pipeline,
    part: _Part,
    estimates: dict[Metric, float],
    past: Sequence[_Past],
    least: int,
) -> Iterator[PerformanceRow]:
    known = _usable(part, past, duration(pipeline.label.wait), least)
    for metric, raw in estimates.items():
        compared = [
            Compared(p.estimates.get(metric), p.measured[metric]) for p in known if metric in p.measured
        ]
        row = _row(pipeline, part, metric, shrunk(raw, compared))
        yield msgspec.structs.replace(row, estimated=True)


def _remembered(pipeline: Pipeline, least: int, part: _Part, estimates: dict[Metric, float]) -> _Past:
    known = part.known
    outputs, labels = (known[name].to_numpy().astype(np.float64) for name in ("output", "label"))
    measured: dict[str, float] = {}
    if known.height >= least:
        measured = score("binary", pipeline.judged_by, known["output"], known["label"])
    return _Past(part._replace(frame=part.frame.clear()), outputs, labels, estimates, measured)

"""Store the performance of every version: as a table, and as metrics of the versions in MLflow."""

from datetime import datetime

import polars as pl

from headwater.infra.store.open_storage import open_storage
from headwater.loop.binding import Bound
from headwater.monitoring.performance.performance_table import read_performance, write_performance
from headwater.monitoring.performance.window_performance import measure_performance, newest_windows
from headwater.registry.mlflow_store.housekeeping import log_metrics
from headwater.spec.duration import duration

__all__ = ["keep_performance"]

_WINDOWS, _MOST_WINDOWS = 30, 1_000
_KEY = ("window_start", "version", "role", "metric")


def keep_performance(bound: Bound) -> int:
    """Measure the newest thirty windows again if one has become mature, and store new values.

    A revised label corrects its window then, and what was quarantined since leaves all windows. MLflow
    gets a point for each window and metric, named ``window_METRIC`` or ``shadow_window_METRIC``, with
    the version that answered.

    Parameters
    ----------
    bound
        The pipeline with its stores; collected.

    Returns
    -------
    int
        How many values are new or were corrected.

    Raises
    ------
    IdentityError
        If the table or MLflow's model belongs to another log; nothing is measured then.
    TableError, StorageError
        If the table or MLflow refuses.
    """
    bound.check()
    pipeline, storage = bound.pipeline, open_storage(bound.settings)
    now, wait = bound.clock.now(), duration(pipeline.label.wait)
    spans = newest_windows(bound.log, pipeline, now, last=_WINDOWS)
    mature = [span for span in spans if span.mature]
    stored = read_performance(storage, bound.log.identity)
    newest_stored = stored.filter("mature", ~pl.col("cumulative"))["window_start"].max()
    if not mature:
        return 0
    quarantined_at = bound.registry.quarantine.changed_at()
    if quarantined_at is not None and quarantined_at >= mature[-1].stop + wait:
        spans = newest_windows(bound.log, pipeline, now, last=_MOST_WINDOWS)  # any may hold what was
    elif newest_stored == mature[-1].start:
        return 0
    table = measure_performance(bound.log, pipeline, spans)
    changed = _measured(table).join(_measured(stored), on=[*_KEY, "value"], how="anti")
    _log(bound, changed, now)
    # Last: values that MLflow refused are tried again.
    write_performance(storage, bound.log.identity, table)
    return changed.height


def _measured(table: pl.DataFrame) -> pl.DataFrame:
    whole = pl.col("slice").is_null() & pl.col("value").is_not_null()
    return table.filter(whole, ~pl.col("cumulative"), ~pl.col("estimated"))


def _log(bound: Bound, changed: pl.DataFrame, now: datetime) -> None:
    """Log values as of now, each at the step of its window.

    MLflow takes one value of a name, a step and a time: a corrected one at its window's time is refused.
    """
    store = bound.registry.store
    versions = {version.number: version for version in store.versions()}
    for row in changed.sort("window_stop").to_dicts():
        version, at = versions.get(row["version"]), row["window_stop"]
        if version is not None:  # somebody may have deleted it from MLflow
            name = f"window_{row['metric']}"
            name = name if row["role"] == "champion" else f"{row['role']}_{name}"
            step = int(at.timestamp()) // 3_600
            log_metrics(bound.registry.mlflow, version, {name: row["value"]}, now, step)

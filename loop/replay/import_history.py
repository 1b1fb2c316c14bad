"""Import history from before headwater: a table of predictions with their labels."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pandas as pd
import polars as pl

from headwater.features.record.import_draft import ImportCounts
from headwater.features.record.log_writer import LogWriter
from headwater.loop.replay.history import Columns, History, Progress, untold
from headwater.loop.replay.import_remarks import LabelRemarks, RemarkedLabels
from headwater.spec.data.records import Label, Prediction

__all__ = ["ImportPreview", "import_history", "preview_import"]


class ImportPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What an import would record.

    Parameters
    ----------
    first
        The first rows: each prediction, and its label if there is one, as they would be recorded.
    rows
        How many rows the table has.
    counts
        How many records are new, and how many are left out since they were recorded before, or come
        twice.
    unlabelled
        How many rows have no label: their predictions are recorded, and wait for it.
    unused
        The table's columns that are not read.
    late
        The labels that come after the pipeline's wait: they are recorded, and marked as late.
    expired
        The labels whose prediction comes after the wait: they are recorded, and make no example.
    undeclared
        The labels of classes that are not declared, if any classes are.
    """

    first: tuple[tuple[Prediction, Label | None], ...]
    rows: int
    counts: ImportCounts
    unlabelled: int
    unused: tuple[str, ...]
    late: RemarkedLabels | None = None
    expired: RemarkedLabels | None = None
    undeclared: RemarkedLabels | None = None


def import_history(
    log: LogWriter,
    source: Path | pl.DataFrame | pd.DataFrame,
    columns: Columns | None = None,
    told: Progress = untold,
) -> int:
    """Log a table of past predictions and labels; each counts as received at its own time.

    Values must be of the declared types, as :mod:`headwater.features.values.column_values` has them. A
    label needs the time when it became known; a row without a label may have one. A file is read a few
    thousand rows at a time, and sorted on disk; what is served meanwhile does not wait.

    Parameters
    ----------
    log
        The log that gets them.
    source
        A Parquet, CSV or TSV file (the text ones may be packed by gzip), or a Polars or pandas
        dataframe; a row a prediction. A CSV is read as text, by the declared types.
    columns
        The names of the columns, and how text is read.
    told
        Is told the progress.

    Returns
    -------
    int
        How many records were new.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    SchemaError, ConflictError, StorageError
        If a row does not fit; nothing is recorded then. The error names its line in a CSV, and its
        number from 0 in other tables.
    BusyError
        If another process imports history of this pipeline.
    """
    history = History(log.pipeline, source, columns, told)
    with history.placing():
        return log.import_history(history.records(), history.tell)


def preview_import(
    log: LogWriter,
    source: Path | pl.DataFrame | pd.DataFrame,
    columns: Columns | None = None,
    told: Progress = untold,
    *,
    first: int = 3,
) -> ImportPreview:
    """Do all of an import but keep its records: read, check and sort the whole table.

    Parameters
    ----------
    log, source, columns, told
        As for :func:`import_history`, which raises the same.
    first
        How many rows to show.
    """
    history = History(log.pipeline, source, columns, told)
    shown: list[tuple[Prediction, Label | None]] = []
    remarks, unlabelled = LabelRemarks(log.pipeline.label), 0

    def watched() -> Iterator[tuple[Prediction, Label | None]]:
        nonlocal unlabelled
        for prediction, label in history.records():
            if label is None:
                unlabelled += 1
            else:
                remarks.see(prediction, label)
            if len(shown) < first:
                shown.append((prediction, label))
            yield prediction, label

    with history.placing():
        counts = log.preview_import(watched(), history.tell)
    return ImportPreview(
        first=tuple(shown),
        rows=history.rows,
        counts=counts,
        unlabelled=unlabelled,
        unused=history.unused,
        late=remarks.late,
        expired=remarks.expired,
        undeclared=remarks.undeclared,
    )

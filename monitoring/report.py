"""Evidently's own report of a window that somebody should look at.

It takes seconds and megabytes, so it is made on request, never for every window. Evidently raises an
exception for a column that it cannot take, so such columns are left out before it is called.
"""

from collections.abc import Sequence

import polars as pl

from headwater.learners.process_state import ignoring_warnings
from headwater.monitoring.measure.drift import column_drift, is_category
from headwater.spec.data.feature import FeatureKind

__all__ = ["report_html"]

_ROWS = 20_000  # of each window at most: its plots do not tell more, and its cost grows


def report_html(
    reference: pl.DataFrame, current: pl.DataFrame, features: Sequence[FeatureKind], *, seed: int = 0
) -> bytes | None:
    """Make Evidently's drift report, one page that needs no network.

    Parameters
    ----------
    reference, current
        A column for each feature; a feature is left out if either window has no usable value of it.
    features
        What the columns are.
    seed
        Seeds the sample, if a window has over 20,000 rows.

    Returns
    -------
    bytes or None
        The page; None if no column can be reported.
    """
    kinds = [kind for kind in features if _reportable(reference, current, kind)]
    if not kinds:
        return None
    reference, current = (_sampled(frame.select(_names(kinds)), seed) for frame in (reference, current))
    kinds = [kind for kind in kinds if _reportable(reference, current, kind)]
    return _page(reference, current, kinds) if kinds else None


def _names(kinds: Sequence[FeatureKind]) -> list[str]:
    return [kind.name for kind in kinds]


def _reportable(reference: pl.DataFrame, current: pl.DataFrame, kind: FeatureKind) -> bool:
    if kind.name not in reference.columns or kind.name not in current.columns:
        return False
    return not isinstance(column_drift(reference[kind.name], current[kind.name], kind), str)


def _sampled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    return frame.sample(_ROWS, seed=seed) if frame.height > _ROWS else frame


def _page(reference: pl.DataFrame, current: pl.DataFrame, kinds: Sequence[FeatureKind]) -> bytes:
    with ignoring_warnings():  # NumPy and pandas warn of constant columns
        from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415 - seconds to import
        from evidently.presets import DataDriftPreset  # noqa: PLC0415

        categories = [kind for kind in kinds if is_category(kind, current[kind.name])]
        numbers = [kind for kind in kinds if kind not in categories]
        definition = DataDefinition(
            numerical_columns=_names(numbers), categorical_columns=_names(categories)
        )
        first, second = (
            Dataset.from_pandas(_guarded(frame, numbers, categories).to_pandas(), definition)
            for frame in (reference, current)
        )
        snapshot = Report([DataDriftPreset(columns=_names(kinds))], include_tests=True).run(
            second, first
        )
        page: str = snapshot.get_html_str(as_iframe=False)
        return page.encode()


def _guarded(
    frame: pl.DataFrame, numbers: Sequence[FeatureKind], categories: Sequence[FeatureKind]
) -> pl.DataFrame:
    """Cast columns to the types that Evidently takes: floats without infinity, and text."""
    finite = [
        pl.when(pl.col(name).cast(pl.Float64).is_finite())
        .then(pl.col(name).cast(pl.Float64))
        .alias(name)
        for name in _names(numbers)
    ]
    texts = [pl.col(name).cast(pl.String) for name in _names(categories)]
    return frame.select(*finite, *texts)

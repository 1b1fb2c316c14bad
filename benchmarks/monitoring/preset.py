"""Evidently's preset as it comes, and what it says: what our verdicts stand beside."""

import warnings
from typing import NamedTuple

import pandas as pd

__all__ = ["Preset", "preset"]


class Preset(NamedTuple):
    """Verdicts of DataDriftPreset: of the window (by default half of its columns), and by column."""

    window: bool
    columns: dict[str, bool]


def preset(reference: pd.DataFrame, current: pd.DataFrame) -> Preset:
    """Run it with its defaults; the page is not asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import Report  # noqa: PLC0415
        from evidently.presets import DataDriftPreset  # noqa: PLC0415

        found = Report([DataDriftPreset()], include_tests=True).run(current, reference).dict()
    verdicts = [
        (test["metric_config"]["params"].get("column"), test["status"].value == "FAIL")
        for test in found["tests"]
    ]
    columns = {str(name): drifted for name, drifted in verdicts if name is not None}
    return Preset(any(drifted for name, drifted in verdicts if name is None), columns)

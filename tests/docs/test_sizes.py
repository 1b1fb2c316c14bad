"""Measure the disk space of a prediction again, which docs/guide.md states."""

import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT

from headwater import Feature, FeatureLog, Label, LabelRule, Pipeline, Prediction, Stateful, collect
from headwater.infra.ids import new_id
from headwater.infra.settings import Settings

GUIDE = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
_RECORDS = 5_000
_DAY_S = 86_400
_GB = {"GB": 1.0, "TB": 1e3}


def logistic() -> object:
    """Learn one by one."""
    from river import linear_model, preprocessing  # noqa: PLC0415

    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


SIZED = Pipeline(
    name="sized",
    task="binary",
    features=tuple(Feature(f"feature_{i}", float) for i in range(8)),
    label=LabelRule(wait="1d"),
    model=logistic,
    update=Stateful(),
)


def test_a_prediction_with_its_label_takes_the_space_that_the_guide_says(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    _fill(settings, 0)
    empty = _sizes(settings)
    _fill(settings, _RECORDS)
    measured = {store: (size - empty[store]) / _RECORDS for store, size in _sizes(settings).items()}
    stated = {
        store: float(size)
        for store, size in re.findall(r"^> \| ([a-z ]+) \| (\d+) \|", GUIDE, re.MULTILINE)
    }
    assert measured == pytest.approx(stated, rel=0.25)
    assert sum(stated.values()) == pytest.approx(_bytes_stated(), rel=0.03)


def test_the_guide_s_table_of_sizes_follows_from_that_space() -> None:
    cell = r" ([\d.]+) ([GT]B) \|"
    rows = re.findall(rf"^> \| ([\d,]+) \|{cell * 3}$", GUIDE, re.MULTILINE)
    assert [row[0] for row in rows] == ["1", "10", "100", "1,000"]
    for rate, *cells in rows:
        a_day_gb = float(rate.replace(",", "")) * _DAY_S * _bytes_stated() / 1e9
        sizes_gb = [float(size) * _GB[unit] for size, unit in zip(cells[::2], cells[1::2], strict=True)]
        assert sizes_gb == pytest.approx([a_day_gb, a_day_gb * 30, a_day_gb * 365], rel=0.05)


def _bytes_stated() -> float:
    (kilobytes,) = re.findall(r"([\d.]+) kB a prediction with its label", GUIDE)
    return float(kilobytes) * 1e3


def _fill(settings: Settings, records: int) -> None:
    log, chance = FeatureLog(SIZED, settings), random.Random(0)
    now = datetime.now(UTC) - timedelta(hours=1)
    for start in range(0, records, 100):
        moments = [now + timedelta(milliseconds=100 * (start + i)) for i in range(100)]
        served = [
            Prediction(
                id=new_id(),
                features={feature.name: chance.gauss(0, 1) for feature in SIZED.features},
                output=chance.random(),
                served_at=moment,
                version="1",
            )
            for moment in moments
        ]
        log.record(served)
        log.label([Label(prediction_id=p.id, value=True, known_at=p.served_at) for p in served])
    if records:
        collect(log)
    log.close()
    log.database.close()


def _sizes(settings: Settings) -> dict[str, int]:
    places = {
        "inbox": settings.root / "inbox",
        "operational database": settings.root / "headwater.sqlite",
        "archive": settings.root / "storage" / "tables",
    }
    return {
        store: sum(file.stat().st_size for file in (place, *place.rglob("*")) if file.is_file())
        for store, place in places.items()
    }

"""No feature bears the name of one of headwater's own columns."""

import keyword

import msgspec
import polars as pl
import pytest
from tests.conftest import START

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.replay.history import Columns
from headwater.spec.data.columns import RESERVED
from headwater.spec.data.feature import Feature
from headwater.spec.data.feature_table import FeatureTable
from headwater.spec.data.records import Label, Prediction
from headwater.spec.data.source import ParquetSource
from headwater.spec.errors import DeclarationError
from headwater.spec.pipeline import Pipeline

TABLE = FeatureTable(name="t", entity=("id",), source=ParquetSource("t.parquet"), every="1h")
USUAL = (
    "hour", "price", "x", "value", "target", "prediction", "at", "day", "label_a", "id_", "weight",
    "count", "timestamp", "name", "_", "Labels", *keyword.kwlist,
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(RESERVED | {"Label", "ID", "Served_At"}))
def test_a_feature_with_a_reserved_name_is_refused(name: str) -> None:
    for declare in (Feature, TABLE.feature):
        with pytest.raises(DeclarationError, match=f"'{name}' is that of a column") as refused:
            declare(name, float)
        assert f"{name}_given" in refused.value.hint


@pytest.mark.parametrize("name", ["__class__", "__x", "__dict__", "__slots__"])
def test_a_feature_with_a_name_of_pythons_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="is not a name"):
        Feature(name, float)


def test_every_column_of_ours_is_reserved(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    log = FeatureLog(pipeline, settings, clock)
    features = {"x": 1.0, "city": None}
    log.record([Prediction(id="p", features=features, output=0.5, served_at=START)])
    log.label([Label(prediction_id="p", value=True, known_at=START)])
    with log.sequencer() as sequencer:
        sequencer.drain()
    log.collect()
    frames = [log.examples(), log.predictions(), log.served(0, 1)]
    tables = (pl.read_delta(log.archive[name].address) for name in ("predictions", "labels", "examples"))
    ours = {name for frame in (*frames, *tables) for name in frame.columns}
    defaults = msgspec.structs.asdict(Columns())
    ours |= {name for name in defaults.values() if isinstance(name, str)}
    assert ours <= RESERVED
    assert {"x", "city"} <= set(log.examples().unnest("features").columns)
    log.close()
    log.database.close()


def test_usual_names_are_stored_and_read(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> None:
    named = msgspec.structs.replace(pipeline, features=tuple(Feature(n, float) for n in USUAL_ONCE))
    log = FeatureLog(named, settings, clock)
    features = {name: float(place) for place, name in enumerate(USUAL_ONCE)}
    log.record([Prediction(id="p", features=features, output=0.5, served_at=START)])
    log.label([Label(prediction_id="p", value=True, known_at=START)])
    with log.sequencer() as sequencer:
        sequencer.drain()
    log.collect()
    assert log.examples()["features"].to_list() == [features]
    log.close()
    log.database.close()


USUAL_ONCE = tuple({name.lower(): name for name in USUAL}.values())

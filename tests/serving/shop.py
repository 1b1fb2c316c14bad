"""A pipeline that looks features up, and its table."""

from datetime import timedelta
from typing import Any

import httpx
import polars as pl
from tests.conftest import START
from tests.loop import models

from headwater.infra.clock import SimulatedClock
from headwater.loop.batch.materialise import materialise, table_of
from headwater.loop.binding import Bound
from headwater.serving.keeper.table_publisher import TablePublisher
from headwater.spec.data.feature import Feature
from headwater.spec.data.feature_table import FeatureTable, Materialised
from headwater.spec.data.label import LabelRule
from headwater.spec.data.source import QuerySource
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.update import Stateful

NOW = START + timedelta(days=2)
ROWS: list[dict[str, Any]] = []
"""The rows of the source; each test fills it."""


def source() -> pl.DataFrame:
    """Return the rows that the test has set."""
    schema = {"customer": pl.String, "spent": pl.Float64, "city": pl.String}
    return pl.DataFrame(ROWS, schema=schema)


SPENDING = FeatureTable(
    name="spending", entity=("customer",), source=QuerySource(source), every="1h", max_age="2h"
)
SHOP = Pipeline(
    name="shop",
    task="binary",
    features=(Feature("a", float), SPENDING.feature("spent", float, low=0)),
    label=LabelRule(wait="1d"),
    model=models.sgd,
    update=Stateful(),
    tables=(SPENDING,),
)


def put(bound: Bound, **spent: float) -> Materialised:
    """Materialise a table of what customers spent, and publish it to the workers."""
    ROWS[:] = [{"customer": name, "spent": value} for name, value in spent.items()]
    materialised = materialise(bound, table_of(bound, "spending"))
    publish(bound)
    return materialised


def publish(bound: Bound) -> None:
    """Publish the newest materialisation, as the keeper's thread does."""
    with TablePublisher([bound.pipeline], bound.settings):
        pass  # it publishes when it begins


def request_of(customer: str, a: float = 1.0, **more: Any) -> dict[str, Any]:
    """Return a request for a prediction of a customer."""
    return {"features": {"a": a}, "entity": {"customer": customer}, **more}


def number(client: httpx.Client) -> int | None:
    """Return the number of the materialisation that the worker looks up in."""
    newest: int | None = client.get("/pipelines").json()[0]["tables"][0]["number"]
    return newest


def later(bound: Bound, **by: float) -> None:
    """Advance the clock."""
    assert isinstance(bound.clock, SimulatedClock)
    bound.clock.advance_to(bound.clock.now() + timedelta(**by))

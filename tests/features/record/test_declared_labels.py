"""Labels outside the declared range, or of a class that is not declared, are refused at every door."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.conftest import START
from tests.features.records import drain, label, prediction
from tests.serving.running import running

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.replay.import_history import import_history
from headwater.serving.process.app import create_app
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import LabelValue, Prediction
from headwater.spec.errors import SchemaError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue import People

RANGE = LabelRule(wait="1d", low=0.0, high=180.0)
COLOURS = LabelRule(wait="1d", classes=("red", "green", "blue"))
WRONG: list[tuple[str, LabelRule, LabelValue, str, str]] = [
    ("regression", RANGE, 180.5, "180.5 is outside the declared range", "at least 0 and at most 180"),
    ("regression", RANGE, -1.0, "-1.0 is outside", "at least 0"),
    ("regression", LabelRule(wait="1d", low=1.0), 0.5, "outside", "at least 1;"),
    ("multiclass", COLOURS, "gren", "class 'gren' is not declared; near it: 'green'", "'blue', 'green'"),
    ("multiclass", COLOURS, "", "class '' is not declared", "'red'"),
    ("multiclass", COLOURS, "Red", "class 'Red' is not declared; near it: 'red'", "declare it"),
]
Declare = Callable[..., Pipeline]


@pytest.fixture
def declare(pipeline: Pipeline) -> Declare:
    def declared(task: Any, rule: LabelRule) -> Pipeline:
        return replace(pipeline, name="told", task=task, label=rule, people=People())

    return declared


def answer_of(task: str) -> Any:
    return {"red": 1.0} if task == "multiclass" else 0.5


@pytest.mark.parametrize(("task", "rule", "value", "what", "hint"), WRONG)
def test_a_label_outside_is_refused_by_name_at_every_door(  # noqa: PLR0917 - a table
    declare: Declare,
    settings: Settings,
    tmp_path: Path,
    task: str,
    rule: LabelRule,
    value: LabelValue,
    what: str,
    hint: str,
) -> None:
    log = FeatureLog(declare(task, rule), settings, SimulatedClock(START))
    asked = replace(prediction("asked"), output=answer_of(task))
    log.record([asked])
    drain(log)
    csv = tmp_path / "told.csv"
    at = "2024-01-01T00:00:00Z"
    csv.write_text(f'id,served_at,label,known_at,x,city\na,{at},"{value}",{at},1.0,\n')

    def import_it() -> object:
        return import_history(log, csv)

    doors: list[Callable[[], object]] = [
        lambda: log.label([label("asked", value)]),
        lambda: log.import_history([(asked, label("asked", value))]),
        lambda: log.queue().answer("ada", "asked", value),
    ]
    if value != "":  # in a CSV it is no label
        doors.append(import_it)
    log.queue().fill()
    log.queue().claim("ada", many=1)
    before = log.inbox.end()
    for door in doors:
        with pytest.raises(SchemaError) as refused:
            door()
        assert what in refused.value.what
        assert hint in refused.value.hint
    assert log.inbox.end() == before
    log.close()
    log.database.close()


@pytest.mark.parametrize(("task", "rule", "value", "what", "hint"), WRONG)
def test_a_label_outside_is_refused_over_http(
    declare: Declare,
    settings: Settings,
    task: str,
    rule: LabelRule,
    value: LabelValue,
    what: str,
    hint: str,
) -> None:
    served = declare(task, rule)
    FeatureLog(served, settings, SimulatedClock(START)).close()
    with running(create_app((served,), settings, SimulatedClock(START))) as client:
        answer = client.post("/labels", json={"prediction_id": "a", "value": value})
        assert (answer.status_code, what in answer.json()["detail"]) == (422, True)
        assert hint in answer.json()["hint"]
        document = client.get("/openapi.json").json()
        bodies = document["paths"]["/labels"]["post"]["requestBody"]["content"]["application/json"]
        schema = bodies["schema"]["oneOf"][0]["properties"]["value"]
        if task == "multiclass":
            assert schema["enum"] == ["blue", "green", "red"]
        else:
            assert schema["minimum"] == rule.low


@pytest.mark.parametrize("value", [0, 0.0, 180.0, 90.5])
def test_the_bounds_of_a_range_are_within(
    declare: Declare, settings: Settings, value: LabelValue
) -> None:
    log = FeatureLog(declare("regression", RANGE), settings, SimulatedClock(START))
    assert log.label([label("a", value)]) == 1
    log.close()
    log.database.close()


def test_what_was_recorded_before_a_range_was_declared_stays_and_is_read(
    declare: Declare, settings: Settings
) -> None:
    before = FeatureLog(declare("regression", LabelRule(wait="1d")), settings, SimulatedClock(START))
    before.record([Prediction(id="a", features={"x": 1.0, "city": None}, output=0.5, served_at=START)])
    before.label([label("a", 500.0)])
    drain(before)
    before.close()
    log = FeatureLog(declare("regression", RANGE), settings, SimulatedClock(START), before.database)
    assert drain(log) == 0
    assert log.examples()["label"].to_list() == [500.0]
    log.close()
    log.database.close()

"""A log whose pipeline is declared anew: each door accepts or refuses each kind of change."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import insert
from tests.conftest import START, later
from tests.features.records import label

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.infra.store.schema import tables
from headwater.loop.collect import collect
from headwater.spec.data.feature import Feature
from headwater.spec.data.records import Prediction
from headwater.spec.errors import ChangedError, ConflictError
from headwater.spec.pipeline import Pipeline

X, CITY = Feature("x", float), Feature("city", str, nullable=True)
ONE_LATER = START + timedelta(minutes=1)
Opener = Callable[..., FeatureLog]


@pytest.fixture
def declared(
    pipeline: Pipeline, settings: Settings, clock: SimulatedClock
) -> Iterator[Callable[..., FeatureLog]]:
    """Open the log as declared, changed as asked: of the pipeline, or of its label rule."""
    opened: list[FeatureLog] = []

    def opener(**changes: Any) -> FeatureLog:
        rule = {name: changes.pop(name) for name in ("wait", "timeout", "maturity") if name in changes}
        changed = replace(pipeline, label=replace(pipeline.label, **rule), **changes)
        opened.append(FeatureLog(changed, settings, clock))
        return opened[-1]

    yield opener
    for log in opened:
        log.close()
        log.database.close()


def put(log: FeatureLog, tag: str, features: dict[str, Any], rows: int = 3) -> None:
    now = log.clock.now()
    ids = [f"{tag}{i}" for i in range(rows)]
    log.record([Prediction(id=one, features=features, output=0.5, served_at=now) for one in ids])
    log.label([label(one) for one in ids])


def reign(log: FeatureLog) -> None:
    """Let a version be champion: it has learned by the declaration that is in force."""
    row = {"pipeline_id": log.pipeline_id, "version": "1", "epoch": 1, "since_us": 0, "by": "test"}
    with log.database.transaction() as connection:
        connection.execute(insert(tables.champion).values(mirrored_epoch=1, **row))


FIRST = {"x": 1.0, "city": "here"}
DOORS: dict[str, Callable[[FeatureLog, dict[str, Any]], object]] = {
    "record": lambda log, row: put(log, "again", row),
    "label": lambda log, _: log.label([label("w0")]),
    "import": lambda log, row: log.import_history(
        [(Prediction(id="i", features=row, output=0.5, served_at=START), None)]
    ),
    "sequencer": lambda log, _: log.sequencer(),
    "collect": lambda log, _: collect(log),
    "archive": lambda log, _: log.collect(),
}
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    (
        "retyped",
        {"features": (X, Feature("city", int))},
        {"x": 1.0, "city": 1},
        ("'city'", "str", "int"),
    ),
    ("removed", {"features": (X,)}, {"x": 1.0}, ("'city'", "gone", "--fresh")),
    ("reordered", {"features": (CITY, X)}, FIRST, ("order", "x, city", "--fresh")),
    ("added", {"features": (X, CITY, Feature("n", int))}, {**FIRST, "n": 1}, ("'n'", "nullable=True")),
    ("task", {"task": "regression"}, FIRST, ("task", "'binary'", "'regression'")),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("_kind", "changes", "row", "named"), REFUSED, ids=[one[0] for one in REFUSED])
def test_every_door_refuses_a_changed_declaration(
    declared: Opener,
    _kind: str,
    changes: dict[str, Any],
    row: dict[str, Any],
    named: tuple[str, ...],
    door: str,
) -> None:
    first = declared()
    put(first, "w", FIRST)
    collect(first)
    reign(first)
    before, counts = first.examples(), first.counts()
    changed = declared(**changes)
    with pytest.raises(ChangedError) as refused:
        DOORS[door](changed, row)
    assert all(word in str(refused.value) for word in named)
    assert changed.counts() == counts
    assert changed.examples().height == before.height  # what is recorded can be read all the same
    put(first, "b", FIRST)
    assert collect(declared()).emitted == 3
    assert first.examples(0, before.height).equals(before)


@pytest.mark.parametrize(("kind", "changes", "row", "_named"), REFUSED, ids=[one[0] for one in REFUSED])
def test_a_new_line_accepts_differences_in_what_was_learned(
    declared: Opener, kind: str, changes: dict[str, Any], row: dict[str, Any], _named: object
) -> None:
    first = declared()
    put(first, "w", FIRST)
    collect(first)
    reign(first)
    changed = declared(**changes)
    if kind in {"retyped", "task", "added"}:
        with pytest.raises(ChangedError, match=r"put it back|take it out|say how"):
            changed.agree(fresh=True)
        return
    changed.agree(fresh=True)
    put(changed, "c", row)
    assert collect(changed).emitted == 3
    learned = changed.projected(0, changed.stop())["features"].struct.unnest()
    assert learned.columns == list(changed.pipeline.feature_names)
    if kind != "removed":  # which may come back as it was
        with pytest.raises(ChangedError):
            declared().agree()


def test_a_dropped_feature_loses_nothing_and_may_come_back(declared: Opener) -> None:
    first = declared()
    put(first, "w", FIRST)  # recorded before, collected after
    without = declared(features=(X,))
    without.agree(fresh=True)
    put(without, "n", {"x": 2.0})
    assert collect(without).emitted == 6
    assert without.examples()["features"].struct.fields == ["x", "city"]
    assert without.examples(3)["features"].struct.fields == ["x"]
    assert without.projected(0, 6)["features"].struct.fields == ["x"]
    back = declared()
    put(back, "b", FIRST)
    collect(back)
    cities = back.examples()["features"].struct.field("city").to_list()
    assert cities == ["here"] * 3 + [None] * 3 + ["here"] * 3


def test_while_nothing_was_learned_features_come_and_go(declared: Opener) -> None:
    put(declared(), "w", FIRST)
    more = declared(features=(Feature("n", int, nullable=True), X))
    put(more, "n", {"x": 2.0, "n": 5})
    assert collect(more).emitted == 6
    assert more.examples()["features"].struct.field("n").to_list() == [None] * 3 + [5] * 3


def test_without_records_every_change_is_accepted(declared: Opener) -> None:
    collect(declared())
    collect(declared(task="regression", features=(Feature("x", str),), wait="9d", maturity="window"))
    last = declared(features=(Feature("x", int),), wait="3h", timeout=True)
    put(last, "w", {"x": 1})
    later(last.clock, hours=4)  # type: ignore[arg-type] # the test's
    assert collect(last).emitted == 3


RULES: list[dict[str, Any]] = [
    {"wait": "3h"},
    {"wait": "1h"},
    {"maturity": "window"},
    {"timeout": False},
]


STORED: list[dict[str, Any]] = [{}, {"maturity": "window"}, {"timeout": True}]


@pytest.mark.parametrize(
    ("stored", "rule"),
    [(stored, rule) for stored in STORED for rule in RULES if stored | rule != stored],
    ids=str,
)
def test_a_label_rule_changes_while_records_wait_and_each_is_joined_by_its_own(
    declared: Opener, clock: SimulatedClock, stored: dict[str, Any], rule: dict[str, Any]
) -> None:
    first = declared(**stored)
    first.record([Prediction(id="u", features=FIRST, output=0.5, served_at=clock.now())])
    put(first, "w", FIRST)
    changed = declared(**stored | rule)
    later(clock, minutes=1)
    changed.record([Prediction(id="v", features=FIRST, output=0.5, served_at=clock.now())])
    put(changed, "n", FIRST)
    collect(changed)
    later(clock, hours=5)
    collect(changed)
    frame = changed.examples()
    emitted = frame["emitted_at"].to_list()
    assert emitted == sorted(emitted)
    times = dict(zip(frame["prediction_id"], emitted, strict=True))
    for said, ids, served in ((stored, ("u", "w0"), START), (stored | rule, ("v", "n0"), ONE_LATER)):
        due = served + timedelta(hours={"1h": 1, "3h": 3}.get(said.get("wait", ""), 2))
        assert times.get(ids[0]) == (due if said.get("timeout") is not None else None)
        assert times[ids[1]] == (due if said.get("maturity") == "window" else served)


def test_a_label_rule_changes_under_a_sequencer(declared: Opener, clock: SimulatedClock) -> None:
    first = declared()
    put(first, "w", FIRST)
    with first.sequencer() as sequencer:
        changed = declared(maturity="window")
        changed.agree()
        put(changed, "n", FIRST)
        assert sequencer.drain() == 3
        later(clock, hours=9)
        assert sequencer.drain() == 3


def test_a_sequencer_made_before_another_declared_does_nothing(
    declared: Opener, clock: SimulatedClock
) -> None:
    first = declared()
    put(first, "w", FIRST)
    collect(first)
    later(clock, hours=9)
    opened = first.sequencer()
    declared(wait="1h").agree()
    with pytest.raises(ConflictError, match="anew meanwhile"), opened:
        pass
    with declared(wait="1h").sequencer() as again:  # nothing holds the lease
        assert again.drain() == 0


def test_a_changed_range_of_values_is_accepted(declared: Opener) -> None:
    put(declared(), "w", FIRST)
    reign(declared())
    ranged = declared(features=(Feature("x", float, low=0, high=9, nullable=True), CITY), wait="120m")
    put(ranged, "n", {"x": None, "city": None})
    assert collect(ranged).emitted == 6
    assert ranged.clock.now() - START == timedelta(0)

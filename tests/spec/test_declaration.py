"""A wrong declaration is refused with a hint."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.conftest import sgd

from headwater.spec.data.feature import Feature, StreamingFeature, bare
from headwater.spec.data.feature_table import FeatureTable, due
from headwater.spec.data.label import LabelRule
from headwater.spec.data.source import ParquetSource
from headwater.spec.errors import DeclarationError
from headwater.spec.pipeline import METRICS, Pipeline
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.update import Reset, Stateful, Stateless, Subsample


def takes_one(size: int) -> object:
    return size


class Maker:
    def make(self) -> object:
        return self


def nested() -> Callable[[], object]:
    def make() -> object:
        return make

    return make


RULE = LabelRule(wait="1d")
X = Feature("x", float)
SPENDING = FeatureTable(
    name="spending", entity=("customer",), source=ParquetSource("spending.parquet"), every="1h"
)
SPENT = SPENDING.feature("spent", float)
STREAMED = StreamingFeature(
    name="calls", dtype="int", entity=("customer",), events="calls", aggregate="count", window="1h"
)


def declare(**changed: Any) -> Pipeline:
    parts: dict[str, Any] = {
        "name": "toy",
        "task": "binary",
        "features": (X,),
        "label": RULE,
        "model": sgd,
        "update": Stateful(),
    }
    return Pipeline(**(parts | changed))


def changed_table(**changed: Any) -> FeatureTable:
    return msgspec.structs.replace(SPENDING, **changed)


@pytest.mark.parametrize(
    ("changed", "what", "instead"),
    [
        ({"name": "Flights"}, "'Flights'", "'flights'"),
        ({"name": "f"}, "'f'", "2 to 63"),
        ({"name": "f" * 64}, "fff", "2 to 63"),
        ({"name": "flights-"}, "'flights-'", "hyphens"),
        ({"name": "../etc"}, "'../etc'", "hyphens"),
        ({"name": 7}, "7", "hyphens"),
        ({"task": "clustering"}, "'clustering'", "binary, multiclass, regression"),
        ({"task": "ranking"}, "reserved", "'regression'"),
        ({"label": "1d"}, "label='1d'", 'LabelRule(wait="1d")'),
        ({"label": LabelRule(wait="1d", timeout=0.0)}, "timeout=0.0", "True or False"),
        ({"label": LabelRule(wait="1d", timeout="no")}, "timeout='no'", "True or False"),
        ({"task": "multiclass", "label": LabelRule(wait="1d", timeout=True)}, "timeout=True", "class"),
        ({"task": "regression", "label": LabelRule(wait="1d", timeout=True)}, "timeout=True", "number"),
        ({"task": "regression", "label": LabelRule(wait="1d", timeout="0")}, "timeout='0'", "number"),
        ({"label": LabelRule(wait="1d", low=0.0)}, "at least 0", "leave low and high out"),
        ({"label": LabelRule(wait="1d", classes=("a", "b"))}, "binary", "leave classes out"),
        (
            {"task": "multiclass", "label": LabelRule(wait="1d", classes=("a", "b"), timeout="c")},
            "timeout='c'",
            "a, b",
        ),
        (
            {"task": "regression", "label": LabelRule(wait="1d", low=1.0, timeout=0.0)},
            "at least 1",
            "within the range",
        ),
        ({"metrics": ("mae",)}, "'mae'", "roc_auc"),
        ({"metrics": ("roc_auc", "rmse")}, "'rmse'", "log_loss"),
        ({"task": "multiclass", "metrics": ("roc_auc",)}, "'roc_auc'", "accuracy"),
        ({"task": "regression", "metrics": ("accuracy",)}, "'accuracy'", "mae, rmse"),
        ({"features": ()}, "features=()", 'Feature("distance", float)'),
        ({"features": [X]}, "features=[", 'Feature("distance", float)'),
        ({"features": X}, "features=", 'Feature("distance", float)'),
        ({"features": ("x",)}, "'x'", "Feature("),
        ({"features": (X, Feature("x", str))}, "'x' is declared twice", "own name"),
        ({"features": (X, Feature("X", str))}, "'x' and 'X' differ in case", "own name"),
        ({"task": "regression", "label": LabelRule(wait="1d", timeout=1e39)}, "timeout=1e+39", "1e+38"),
        ({"task": "multiclass", "label": LabelRule(wait="1d", timeout="a\0")}, "timeout='a", "class"),
        ({"features": (X, SPENT)}, "table 'spending'", "tables=(spending,)"),
        ({"tables": (SPENDING,)}, "no feature", "spending.feature("),
        ({"features": (SPENT,), "tables": (SPENDING, SPENDING)}, "twice", "own name"),
        ({"features": (SPENT,), "tables": [SPENDING]}, "tables=[", "tables=("),
        ({"features": (SPENT,), "tables": ("spending",)}, "tables=(", "FeatureTable"),
        ({"features": (X, STREAMED)}, "'calls' is a streaming feature", 'Feature("calls", int)'),
        ({"model": sgd()}, "model=SGD", "model=make_model"),
        ({"model": lambda: None}, "<lambda>", "def make_model()"),
        ({"model": functools.partial(sgd)}, "partial", "def make_model()"),
        ({"model": nested()}, "nested.<locals>", "def make_model()"),
        ({"model": Maker().make}, "Maker.make", "def make_model()"),
        ({"model": Maker}, "Maker", "def make_model()"),
        ({"model": takes_one}, "takes_one takes arguments", "function of none"),
        ({"update": "stateful"}, "update='stateful'", "update=Stateful()"),
        ({"update": Stateful}, "update=<class", "update=Stateful()"),
        ({"triggers": Every("1d")}, "triggers=Every", 'triggers=(Every("1d"),)'),
        ({"triggers": [Every("1d")]}, "triggers=[", 'triggers=(Every("1d"),)'),
        ({"triggers": ("1d",)}, "'1d'", 'Every("1d")'),
        ({"passes": 0}, "passes=0", "passes=1"),
        ({"passes": 1.5}, "passes=1.5", "passes=1"),
        ({"threads": -1}, "threads=-1", "threads=1"),
        ({"batch_rows": 0}, "batch_rows=0", "batch_rows=1_000"),
        ({"batch_rows": "all"}, "batch_rows='all'", "batch_rows=1_000"),
        ({"promotion": "never"}, "promotion='never'", "'by hand'"),
    ],
)
def test_a_wrong_pipeline_is_refused_with_a_hint(
    changed: dict[str, Any], what: str, instead: str
) -> None:
    with pytest.raises(DeclarationError) as refused:
        declare(**changed)
    assert what in refused.value.what
    assert instead in refused.value.hint
    assert str(refused.value) == f"{refused.value.what}. Next: {refused.value.hint}."


@pytest.mark.parametrize(
    ("make", "what", "instead"),
    [
        (lambda: LabelRule(wait="soon"), "wait='soon'", "'90d'"),
        (lambda: LabelRule(wait="1d", maturity="never"), "maturity='never'", "'window'"),  # type: ignore[arg-type] # on purpose
        (lambda: LabelRule(wait="1d", revision="both"), "revision='both'", "'ignore'"),  # type: ignore[arg-type] # on purpose
        (lambda: LabelRule(wait="1d", low=float("nan")), "low=nan", "1e+38"),
        (lambda: LabelRule(wait="1d", high=1e39), "high=1e+39", "1e+38"),
        (lambda: LabelRule(wait="1d", low=True), "low=True", "a number"),
        (lambda: LabelRule(wait="1d", low="0"), "low='0'", "a number"),  # type: ignore[arg-type] # on purpose
        (lambda: LabelRule(wait="1d", low=2.0, high=1.0), "low=2.0 is above high=1.0", "lower"),
        (lambda: LabelRule(wait="1d", classes=("a",)), "classes=('a',)", "two different"),
        (lambda: LabelRule(wait="1d", classes=("a", "a")), "twice", "two different"),
        (lambda: LabelRule(wait="1d", classes="ab"), "classes='ab'", "classes=("),  # type: ignore[arg-type] # on purpose
        (lambda: LabelRule(wait="1d", classes=("a", "b\n")), "control character", "out of its name"),
        (lambda: LabelRule(wait="1d", open=True), "open=True", "classes=("),
        (lambda: LabelRule(wait="1d", hold=True), "hold=True", "classes=("),
        (
            lambda: LabelRule(wait="1d", classes=("a", "b"), open=False, hold=True),
            "open=False",
            "one of them",
        ),
        (lambda: Feature("c", str, longest=0), "longest=0", "a count"),
        (lambda: Feature("c", int, longest=5), "longest=5", "of text"),
        (lambda: LabelRule(wait="1d", precedence=()), "precedence=()", "natural"),
        (lambda: LabelRule(wait="1d", precedence="human"), "precedence='human'", "natural"),  # type: ignore[arg-type] # on purpose
        (lambda: LabelRule(wait="1d", precedence=("person",)), "'person'", "human"),  # type: ignore[arg-type] # on purpose
        (lambda: LabelRule(wait="1d", precedence=("human", "human")), "twice", "natural"),
        (lambda: LabelRule(wait="1d", precedence=("timeout", "human")), "above a truth", "last"),
        (lambda: Every("daily"), "Every='daily'", "'90d'"),
        (lambda: Cron("* * *"), "'* * *'", 'Cron("30 2 * * *")'),
        (lambda: Cron(""), "''", 'Cron("30 2 * * *")'),
        (lambda: Stateless(window="90"), "window='90'", "'90d'"),
        (lambda: Stateful(window="90"), "window='90'", "'90d'"),
        (lambda: Stateful(reset="30d"), "reset='30d'", 'Reset(every="30d"'),  # type: ignore[arg-type] # on purpose
        (lambda: Reset(every="month"), "every='month'", "'90d'"),
        (lambda: Reset(every="30d", window="all"), "window='all'", "'90d'"),
        (lambda: Subsample(rows=0), "rows=0", "rows=10_000"),
        (lambda: Subsample(rows=True), "rows=True", "rows=10_000"),
        (lambda: Subsample(rows=0.1), "rows=0.1", "rows=10_000"),  # type: ignore[arg-type] # on purpose
        (lambda: Subsample(rows=5, half_life="old"), "half_life='old'", "'90d'"),
        (lambda: Feature("hour of day", int), "'hour of day'", "'hour_of_day'"),
        (lambda: Feature("1st", int), "'1st'", "'hour_of_day'"),
        (lambda: Feature("", int), "''", "'hour_of_day'"),
        (lambda: Feature("when", complex), "'when' has dtype", "'float', 'int', 'str' and 'bool'"),
        (lambda: Feature("when", "date"), "dtype 'date'", "'float', 'int', 'str' and 'bool'"),  # type: ignore[arg-type] # on purpose
        (lambda: msgspec.structs.replace(STREAMED, window="long"), "window='long'", "'90d'"),
        (lambda: Feature("x", float, low=2, high=1), "low=2 above high=1", "as low"),
        (lambda: Feature("x", float, low=float("nan")), "low=nan", "finite"),
        (lambda: Feature("x", int, high=0.5), "high=0.5", "whole"),
        (lambda: Feature("x", int, high=2**63), "high=", "whole"),
        (lambda: Feature("x", float, low=True), "low=True", "finite"),
        (lambda: Feature("x", str, low=0), "'str' has low=0", "categories"),
        (lambda: Feature("x", bool, categories=(True,)), "categories=(True,)", "text or int"),
        (lambda: Feature("x", str, categories=()), "categories=()", "different values"),
        (lambda: Feature("x", str, categories=("a", "a")), "categories=", "different values"),
        (lambda: Feature("x", int, categories=("a",)), "categories=", "text or int"),
        (lambda: Feature("x", int, low=0, categories=(1,)), "both", "one of them"),
        (lambda: changed_table(name="spent on"), "'spent on'", "'spending'"),
        (lambda: changed_table(entity="customer"), "entity='customer'", "('customer',)"),
        (lambda: changed_table(entity=()), "entity=()", "('customer',)"),
        (lambda: changed_table(entity=("k", "k")), "entity=('k', 'k')", "different"),
        (lambda: changed_table(source="a.parquet"), "source='a.parquet' of table", "ParquetSource("),
        (lambda: changed_table(every="often"), "'often'", "'90d'"),
        (lambda: changed_table(max_age="59m"), "max_age='59m'", "a few times every"),
        (lambda: changed_table(at=3), "at=3", "computed_at"),
    ],
)
def test_a_wrong_part_is_refused_with_a_hint(
    make: Callable[[], object], what: str, instead: str
) -> None:
    with pytest.raises(DeclarationError) as refused:
        make()
    assert what in refused.value.what
    assert instead in refused.value.hint


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_pipeline_is_judged_by_its_tasks_metrics_or_its_own(task: Any) -> None:
    assert declare(task=task).judged_by == METRICS[task][:2]
    for metric in METRICS[task]:
        assert declare(task=task, metrics=(metric,)).judged_by == (metric,)


@pytest.mark.parametrize(
    ("task", "timeout"),
    [
        ("binary", False),
        ("binary", True),
        ("multiclass", "none"),
        ("regression", 0),
        ("regression", 0.5),
    ],
)
def test_a_timeout_of_the_tasks_own_type_is_accepted(task: Any, timeout: Any) -> None:
    assert declare(task=task, label=LabelRule(wait="1d", timeout=timeout)).label.timeout == timeout


@pytest.mark.parametrize(
    ("update", "triggers"),
    [
        (Stateless(window="90d"), ()),
        (Stateless(window="90d"), (Every("1d"),)),
        (
            Stateless(subsample=Subsample(rows=10, half_life="7d")),
            (Cron("30 2 * * *", "Europe/Berlin"),),
        ),
        (Stateful(), (Every("1d"), Cron("0 0 1 * *"))),
        (Stateful(reset=Reset(every="30d", window="90d")), ()),
    ],
)
def test_a_stage_changes_two_fields(update: Any, triggers: Any) -> None:
    staged = declare(update=update, triggers=triggers)
    assert msgspec.structs.replace(staged, update=Stateful(), triggers=()) == declare()


def test_a_pipeline_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        declare().passes = 2  # type: ignore[misc] # on purpose


def test_a_change_is_checked_as_a_declaration_is() -> None:
    with pytest.raises(DeclarationError, match="passes=0"):
        msgspec.structs.replace(declare(), passes=0)


def test_features_keep_their_order() -> None:
    assert declare(features=(Feature("b", int), Feature("a", "bool"))).feature_names == ("b", "a")


def test_a_recipe_does_not_change_with_a_range() -> None:
    ranged, plain = Feature("x", float, low=0, high=1), Feature("x", float)
    assert bare(ranged) == plain
    assert (
        msgspec.json.encode(plain) == b'{"type":"request","name":"x","dtype":"float","nullable":false}'
    )


def test_a_table_is_due_after_its_interval() -> None:
    daily = changed_table(name="daily", every="1d")
    midnight, read = datetime(2026, 1, 1, tzinfo=UTC), {}
    materialised: list[tuple[int, str]] = []
    for hour in range(49):
        late = timedelta(seconds=[7, 0, 3][hour % 3])  # a run starts a little late, or less so
        now = midnight + timedelta(hours=hour) + late
        for table in due((SPENDING, daily), read, now):
            read[table.name] = now
            materialised.append((hour, table.name))
    assert [hour for hour, name in materialised if name == "spending"] == list(range(49))
    assert [hour for hour, name in materialised if name == "daily"] == [0, 24, 48]

"""Rows of the pipelines that are poisoned: good ones, and drawn ones of which one part is poison."""

import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from benchmarks import models
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Factory, Pipeline, Task
from headwater.spec.serving.serving import Serving
from headwater.spec.updating.update import Stateful

__all__ = ["KINDS", "PIPELINES", "POISON", "Poison", "Row", "drawn", "good_rows"]

POISON = "x-"
"""What ids of poison begin with."""

_LARGEST_LABEL = 45.0
_COLOURS = {"red": 0.0, "green": 1.0, "blue": -1.0}
_LONG_TEXT = 100_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction with its label, as a client means to send it; None is left out by doors that can."""

    id: object
    features: dict[str, object]
    label: object
    served_at: object = None
    known_at: object = None


class Poison(NamedTuple):
    """A row of which a part is poison.

    Parameters
    ----------
    kind
        Which part: one of :data:`KINDS`.
    rows
        What is sent: mostly one row; a second one where ids are the poison.
    names
        A pattern of what a refusal must name.
    value
        What the part holds, for people.
    """

    kind: str
    rows: tuple[Row, ...]
    names: str
    value: str


def _pipeline(
    name: str, task: Task, names: str, model: Factory, batch_rows: int | None = None
) -> Pipeline:
    features = {
        "alpha": Feature("alpha", float),
        "beta": Feature("beta", float),
        "count": Feature("count", int),
        "colour": Feature("colour", str),
    }
    return Pipeline(
        name=f"poison-{name}",
        task=task,
        features=tuple(features[one] for one in names.split()),
        label=LabelRule(wait="1d"),
        model=model,
        update=Stateful(),
        batch_rows=batch_rows,
        serving=Serving(checkpoint="2s"),
    )


PIPELINES = (
    _pipeline("line", "regression", "alpha beta count", models.river_line),
    _pipeline("words", "binary", "alpha beta colour", models.river_words),
    _pipeline("leaves", "regression", "alpha beta", models.river_leaves),
    _pipeline("tree", "multiclass", "alpha beta colour", models.river_tree),
    _pipeline("batches", "binary", "alpha beta", models.quick_sgd, 10),
    _pipeline("bayes", "multiclass", "alpha beta", models.river_bayes),
)
"""They learn by gradient, by leaves and by counts, one by one and in batches."""


def good_rows(pipeline: Pipeline, prefix: str, count: int, seed: int) -> list[Row]:
    """Make rows whose label follows from their features, but for some noise."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        values: dict[str, object] = {
            "alpha": rng.gauss(0, 1),
            "beta": rng.gauss(0, 1),
            "count": rng.randrange(10),
            "colour": rng.choice(list(_COLOURS)),
        }
        features = {name: values[name] for name in pipeline.feature_names}
        label = _truth(pipeline.task, features, rng.gauss(0, 1))
        rows.append(Row(id=f"{prefix}{number}", features=features, label=label))
    return rows


def _truth(task: Task, features: dict[str, object], noise: float) -> object:
    score = float(features["alpha"]) + 0.4 * float(features["beta"])  # type: ignore[arg-type] # numbers
    score += _COLOURS.get(str(features.get("colour")), 0.0)
    if task == "regression":
        return 20.0 + 5.0 * score + 0.5 * float(features.get("count", 0)) + 2.0 * noise  # type: ignore[arg-type]
    score += 0.5 * noise
    return score > 0 if task == "binary" else "low" if score < -0.5 else "high" if score > 0.5 else "mid"


def drawn(rng: random.Random, pipeline: Pipeline, kind: str, number: int, *, tables: bool) -> Poison:
    """Draw a poison of a kind for a pipeline; `tables` says whether the door takes times of serving."""
    id_ = f"{POISON}{number}"
    (row,) = good_rows(pipeline, f"{id_}-", 1, rng.randrange(2**32))
    row = replace(row, id=id_)
    return _times(rng, row, tables=tables) if kind == "times" else _DRAWN[kind](rng, pipeline, row)


def _power(rng: random.Random) -> float:
    """Draw a number that is far from what is usual."""
    return rng.choice((1, -1)) * 10.0 ** rng.choice((3, 4, 5, 6, 9, 12, 20, 30, 37, 38))


def _numbers(rng: random.Random, pipeline: Pipeline, row: Row) -> Poison:
    dtypes = {feature.name: feature.dtype for feature in pipeline.features}
    name = rng.choice([name for name, dtype in dtypes.items() if dtype != "str"])
    whole = rng.choice((10**6, -(10**12), 10**18, 2**63, 3.7, "three", True, None))
    odd = rng.choice((1e39, -1e308, math.nan, math.inf, -math.inf, 2**53 + 1, "a lot", True, None))
    value = whole if dtypes[name] == "int" else rng.choice((_power(rng), _power(rng), odd))
    return Poison("numbers", (replace(row, features=row.features | {name: value}),), name, repr(value))


def _labels(rng: random.Random, pipeline: Pipeline, row: Row) -> Poison:
    odd: Sequence[object] = {
        "regression": (1e39, -1e308, math.nan, math.inf, "long", 2**53 + 1, True),
        "binary": (2, -1, 0.5, "yes and no", math.nan),
        "multiclass": (3, True, 1.5),
    }[pipeline.task]
    value = rng.choice(odd)
    if pipeline.task == "regression" and rng.random() < 0.8:
        few_times = rng.choice((1, -1)) * rng.uniform(3.0, 20.0) * _LARGEST_LABEL
        value = rng.choice((_power(rng), few_times))
    return Poison("labels", (replace(row, label=value),), r"label|value", repr(value))


def _classes(rng: random.Random, pipeline: Pipeline, row: Row) -> Poison:
    if pipeline.task != "multiclass":
        return _labels(rng, pipeline, row)
    value = rng.choice(
        ("LOW", "hihg", "low ", "\N{SNOWMAN}", "m" * 10_001, "m" * 9_000, "mi\0d", "l\now")
    )
    return Poison("classes", (replace(row, label=value),), r"label|value|class", repr(value)[:60])


def _text(rng: random.Random, pipeline: Pipeline, row: Row) -> Poison:
    value = rng.choice(
        ("y" * _LONG_TEXT, "\0", "\ud800", "\N{SNOWMAN}" * 999, 'a"b,\tc\r\n', 5, True, None)
    )
    if "colour" not in pipeline.feature_names:
        return _numbers(rng, pipeline, row)
    changed = replace(row, features=row.features | {"colour": value})
    return Poison("text", (changed,), "colour", repr(value)[:60])


def _ids(rng: random.Random, pipeline: Pipeline, row: Row) -> Poison:
    """Draw an id that is none, one that is taken by another payload, or another truth for one id."""
    what = rng.choice(("none", "taken", "again", "relabelled"))
    if what == "none":
        value = rng.choice(("", f"{row.id}" + "y" * 200, f"{row.id}\a", 17, f"{row.id}\ud800", None))
        return Poison("ids", (replace(row, id=value),), r"\bid\b|_id\b|id=|prediction", repr(value)[:60])
    if what == "taken":
        other = row.features | {"alpha": 0.25}
        return Poison("ids", (row, replace(row, features=other)), _id_words(row), "taken")
    if what == "again":
        return Poison("ids", (row, row), _id_words(row), "twice the same")
    wrong = _labels(rng, pipeline, row).rows[0].label
    return Poison("ids", (row, replace(row, label=wrong)), r"label|value", f"relabelled {wrong!r}"[:60])


def _id_words(row: Row) -> str:
    """Return a pattern of what names a row."""
    return rf"\bid\b|{row.id}"


def _times(rng: random.Random, row: Row, *, tables: bool) -> Poison:
    now = datetime.now(UTC)
    value = rng.choice(
        (
            datetime(9999, 12, 31, tzinfo=UTC),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(1970, 1, 1, tzinfo=UTC),
            now + timedelta(days=400),
            now.replace(tzinfo=None),
            "yesterday",
        )
    )
    part = rng.choice(("served_at", "known_at")) if tables else "known_at"
    changed = replace(row, served_at=value) if part == "served_at" else replace(row, known_at=value)
    return Poison("times", (changed,), r"served|known|time", f"{part} {value}")


_DRAWN: dict[str, Callable[[random.Random, Pipeline, Row], Poison]] = {
    "numbers": _numbers,
    "labels": _labels,
    "ids": _ids,
    "classes": _classes,
    "text": _text,
}
KINDS = (*_DRAWN, "times")
"""What is poison; where a pipeline has no such part, another of its numbers is."""

"""Edits of a pipeline, drawn at random over its fields."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from benchmarks.lineage import edited_models
from headwater.spec.data.feature import Dtype, Feature, FeatureKind
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue import People
from headwater.spec.serving.serving import Serving
from headwater.spec.updating.gate import Gate
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.triggers.volume import Volume
from headwater.spec.updating.update import Stateful, Stateless

__all__ = ["EDITS", "FIRST", "drawn", "values_of"]

FIRST = Pipeline(
    name="edited",
    task="binary",
    features=(Feature("a", float), Feature("b", int), Feature("c", str, nullable=True)),
    label=LabelRule(wait="1d"),
    model=edited_models.first,
    update=Stateful(),
)

_DTYPES: tuple[Dtype, ...] = ("float", "int", "str", "bool")
Edit = Callable[[Pipeline, Random], Pipeline]


def values_of(features: Sequence[FeatureKind], random: Random) -> dict[str, Any]:
    """Draw values for features, which their types and ranges take."""
    return {feature.name: _value(feature, random) for feature in features}


def drawn(pipeline: Pipeline, random: Random) -> tuple[str, Pipeline]:
    """Draw an edit that changes a pipeline; return its name and the edited pipeline."""
    while True:
        name = random.choice(list(EDITS))
        edited = EDITS[name](pipeline, random)
        if edited != pipeline:
            return name, edited


def _value(feature: FeatureKind, random: Random) -> Any:
    if feature.nullable and random.random() < 0.2:
        return None
    if feature.categories is not UNSET:
        return random.choice(feature.categories)
    match feature.dtype:
        case "float":
            return random.uniform(0, 9)
        case "int":
            return random.randrange(10)
        case "str":
            return random.choice(("x", "yy", "zzz"))
    return random.random() < 0.5


def _features(change: Callable[[list[FeatureKind], Random], None]) -> Edit:
    def edit(pipeline: Pipeline, random: Random) -> Pipeline:
        features = list(pipeline.features)
        change(features, random)
        return replace(pipeline, features=tuple(features))

    return edit


def _new(features: list[FeatureKind], random: Random) -> str:
    """Draw a name: one that never was, or one that may have been."""
    taken = {feature.name for feature in features}.union(*(one.was or () for one in features))
    return next(
        name for name in (random.choice("defgh"), *(f"n{i}" for i in range(99))) if name not in taken
    )


def _add(features: list[FeatureKind], random: Random) -> None:
    name, dtype = _new(features, random), random.choice(_DTYPES)
    default = {"float": 1.5, "int": 3, "str": "none", "bool": True}[dtype]
    added: list[FeatureKind] = [
        Feature(name, dtype, nullable=True, convert=_converter(dtype)),
        Feature(name, dtype, default=default, convert=_converter(dtype)),
        Feature(name, "float", fill=edited_models.half, convert=edited_models.fitted),
    ]
    features.insert(random.randrange(len(features) + 1), random.choice(added))


def _converter(dtype: Dtype) -> Callable[[Any], object]:
    by_dtype = {"float": edited_models.fitted, "int": edited_models.whole, "str": str, "bool": bool}
    return by_dtype[dtype]


def _remove(features: list[FeatureKind], random: Random) -> None:
    if len(features) > 1:
        features.pop(random.randrange(len(features)))


def _rename(features: list[FeatureKind], random: Random) -> None:
    at = random.randrange(len(features))
    old = features[at]
    names = (old.name, *(old.was or ()))
    features[at] = replace(old, name=_new(features, random), was=names)


def _reorder(features: list[FeatureKind], random: Random) -> None:
    random.shuffle(features)


def _retype(features: list[FeatureKind], random: Random) -> None:
    at = random.randrange(len(features))
    old = features[at]
    dtype: Dtype = random.choice(("float", "str"))
    carried = {"was": old.was or None, "nullable": old.nullable}
    convert = edited_models.fitted if dtype == "float" else str
    if not old.nullable:
        carried["default"] = 0.5 if dtype == "float" else "0"
    features[at] = Feature(old.name, dtype, convert=convert, **carried)


def _range(features: list[FeatureKind], random: Random) -> None:
    at = random.randrange(len(features))
    old = features[at]
    if old.dtype in {"float", "int"}:
        features[at] = replace(old, low=random.choice((UNSET, 0, -5)))
    elif old.dtype == "str":
        features[at] = replace(old, categories=random.choice((UNSET, ("x", "yy", "zzz"))))


def _null(features: list[FeatureKind], random: Random) -> None:
    at = random.randrange(len(features))
    features[at] = replace(features[at], nullable=True)


def _label(**fields: Sequence[Any]) -> Edit:
    def edit(pipeline: Pipeline, random: Random) -> Pipeline:
        changed = {name: random.choice(values) for name, values in fields.items()}
        return replace(pipeline, label=replace(pipeline.label, **changed))

    return edit


def _field(name: str, *values: Any) -> Edit:
    return lambda pipeline, random: replace(pipeline, **{name: random.choice(values)})


EDITS: dict[str, Edit] = {
    "feature added": _features(_add),
    "feature removed": _features(_remove),
    "feature renamed": _features(_rename),
    "features reordered": _features(_reorder),
    "feature retyped": _features(_retype),
    "feature's range": _features(_range),
    "feature nullable": _features(_null),
    "label.wait": _label(wait=("1d", "6h", "2d")),
    "label.maturity": _label(maturity=("arrival", "window")),
    "label.timeout": _label(timeout=(None, False)),
    "label.revision": _label(revision=("learn", "ignore")),
    "label.precedence": _label(precedence=(UNSET, ("human", "natural"))),
    "metrics": _field("metrics", ("log_loss",), ("accuracy",)),
    "update": _field("update", Stateful(), Stateless(), Stateless(window="3d")),
    "model": _field("model", edited_models.first, edited_models.other, edited_models.same),
    "batch_rows": _field("batch_rows", None, 1),
    "passes": _field("passes", 1, 2),
    "seed": _field("seed", 0, 5),
    "triggers": _field("triggers", (), (Volume(50),)),
    "pace": _field("pace", Pace(), Pace(cool_down="2h")),
    "monitoring": _field("monitoring", Monitoring(), Monitoring(window="2d")),
    "gate": _field("gate", None, Gate()),
    "serving": _field("serving", Serving(), Serving(deadline="3s")),
    "people": _field("people", None, People()),
    "promotion": _field("promotion", "always", "by hand"),
}
"""By what they change."""

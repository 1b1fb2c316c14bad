import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from headwater.spec.data.feature import BatchFeature, Feature, StreamingFeature
from headwater.spec.data.label import LabelRule
from headwater.spec.duration import duration
from headwater.spec.errors import DeclarationError, HeadwaterError, NotFoundError, few
from headwater.spec.loading import load_pipeline
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import LearnerCode, OffsetRange, Recipe
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.update import Reset, Stateful, Stateless, Subsample


def model() -> object:
    return object()


def declare(**changes: object) -> Pipeline:
    fields: dict[str, object] = {
        "name": "toy",
        "task": "binary",
        "features": (Feature("x", float),),
        "label": LabelRule(wait="1d"),
        "model": model,
        "update": Stateful(),
    }
    return Pipeline(**{**fields, **changes})  # type: ignore[arg-type] # wrong ones on purpose


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "Flights!"}, "'flights'"),
        ({"task": "clustering"}, "binary"),
        ({"task": "ranking"}, "regression"),
        ({"features": ()}, "features=("),
        ({"features": (Feature("x", float), Feature("x", int))}, "own name"),
        ({"features": (BatchFeature("x", "float", table="t"),)}, "tables=(t,)"),
        ({"label": "1d"}, "LabelRule"),
        ({"label": LabelRule(wait="1d", timeout="no")}, "True or False"),
        ({"task": "regression", "label": LabelRule(wait="1d", timeout=True)}, "number"),
        ({"model": lambda: None}, "def make_model"),
        ({"update": "stateful"}, "Stateful()"),
        ({"triggers": [Every("1d")]}, "tuple"),
        ({"triggers": ("1d",)}, "Every"),
        ({"metrics": ("rmse",)}, "roc_auc"),
        ({"passes": 0}, "passes=1"),
        ({"batch_rows": 0}, "batch_rows=1_000"),
        ({"promotion": "sometimes"}, "by hand"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_with_a_hint(
    changes: dict[str, object], says: str
) -> None:
    with pytest.raises(DeclarationError) as raised:
        declare(**changes)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: duration("3 days"),
        lambda: LabelRule(wait="soon"),
        lambda: LabelRule(wait="1d", maturity="never"),  # type: ignore[arg-type] # on purpose
        lambda: Stateless(window="90"),
        lambda: Subsample(rows=0),
        lambda: Reset(every="monthly"),
        lambda: Stateful(reset="30d"),  # type: ignore[arg-type] # on purpose
        lambda: Every("daily"),
        lambda: Cron("every day"),
        lambda: Feature("a b", float),
        lambda: Feature("x", complex),
        lambda: StreamingFeature(
            "x", "float", entity=("k",), events="e", aggregate="mean", window="long"
        ),
    ],
)
def test_each_part_checks_itself(make: Callable[[], object]) -> None:
    with pytest.raises(DeclarationError, match="Next: "):
        make()


def test_a_pipeline_is_found_by_file_and_by_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"declared_{random.getrandbits(40)}"
    (tmp_path / f"{name}.py").write_text(
        "from tests.spec.test_declaring import declare, model\nhere = declare()\nelse_ = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_pipeline(f"{name}:here").name == "toy"
    assert load_pipeline(f"{tmp_path / name}.py:here") is load_pipeline(f"{name}:here")
    with pytest.raises(NotFoundError, match="declares here"):
        load_pipeline(f"{name}:there")
    with pytest.raises(DeclarationError, match="not a pipeline"):
        load_pipeline(f"{name}:else_")
    with pytest.raises(NotFoundError, match="no file"):
        load_pipeline("nowhere.py:x")
    with pytest.raises(NotFoundError, match="cannot import"):
        load_pipeline("nowhere_at_all:x")
    with pytest.raises(DeclarationError, match="module:attribute"):
        load_pipeline("flights")


def test_a_recipe_is_the_same_text_in_every_process() -> None:
    recipe = Recipe(
        pipeline="toy",
        task="binary",
        update="stateful",
        parent="1",
        parent_digest="d",
        examples=OffsetRange(3, 9),
        exclusions=(OffsetRange(4, 5),),
        subsample=Subsample(rows=3, half_life="1d"),
        revisions="learn",
        batch_rows=None,
        passes=1,
        seed=0,
        threads=1,
        learner=LearnerCode(module="m", function="f", source="x", adapter="river"),
        features=(Feature("x", float),),
        libraries={"river": "0.26", "numpy": "2"},
    )
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.id == recipe.id
    other = msgspec.structs.replace(recipe, libraries={"numpy": "2", "river": "0.26"})
    assert other.id == recipe.id
    assert msgspec.structs.replace(recipe, seed=1).id != recipe.id


def test_errors_name_at_most_a_handful() -> None:
    assert few("abcdefgh") == "a, b, c, d, e and 3 more"
    assert str(HeadwaterError("it broke", hint="mend it")) == "it broke. Next: mend it."

import subprocess
import sys
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from headwater.spec.data.feature import Feature
from headwater.spec.recipe import LearnerCode, OffsetRange, Recipe
from headwater.spec.updating.update import Subsample

RECIPE = Recipe(
    pipeline="toy",
    task="binary",
    update="stateful",
    parent="3",
    parent_digest="ab" * 32,
    examples=OffsetRange(100, 200),
    exclusions=(OffsetRange(120, 130), OffsetRange(150, 151)),
    subsample=Subsample(rows=50, half_life="7d", seed=3),
    revisions="learn",
    batch_rows=10,
    passes=2,
    seed=5,
    threads=1,
    learner=LearnerCode(module="toys", function="make", source="def make(): ...\n", adapter="sklearn"),
    features=(Feature("x", float), Feature("city", str, nullable=True)),
    libraries={"scikit-learn": "1.7.2", "numpy": "2.3.0"},
)

OTHER: dict[str, Any] = {
    "pipeline": "other",
    "task": "regression",
    "update": "stateless",
    "parent": None,
    "parent_digest": None,
    "examples": OffsetRange(100, 201),
    "exclusions": (),
    "subsample": None,
    "revisions": "ignore",
    "batch_rows": None,
    "passes": 1,
    "seed": 6,
    "threads": 2,
    "learner": msgspec.structs.replace(RECIPE.learner, source="def make():  ...\n"),
    "features": tuple(reversed(RECIPE.features)),
    "libraries": {"scikit-learn": "1.7.1", "numpy": "2.3.0"},
    "classes": ("a", "b"),
}

ranges = st.builds(OffsetRange, st.integers(0, 2**40), st.integers(0, 2**40))
recipes = st.builds(
    Recipe,
    pipeline=st.just("toy"),
    task=st.sampled_from(["binary", "multiclass", "regression"]),
    update=st.sampled_from(["stateless", "stateful"]),
    parent=st.none() | st.just("7"),
    parent_digest=st.none() | st.just("cd" * 32),
    examples=ranges,
    exclusions=st.lists(ranges, max_size=3).map(tuple),
    subsample=st.none() | st.builds(Subsample, rows=st.integers(1, 9), seed=st.integers(-5, 5)),
    revisions=st.sampled_from(["learn", "ignore"]),
    batch_rows=st.none() | st.integers(1, 9),
    passes=st.integers(1, 3),
    seed=st.integers(-(2**63), 2**63 - 1),
    threads=st.integers(1, 4),
    learner=st.builds(
        LearnerCode,
        module=st.just("toys"),
        function=st.just("make"),
        source=st.text(st.characters(exclude_categories=["Cs"])),
        adapter=st.sampled_from(["river", "sklearn", "lightgbm"]),
    ),
    features=st.just(RECIPE.features),
    libraries=st.dictionaries(st.text("abc", min_size=1), st.text("0.1"), max_size=4),
)


@given(recipe=recipes)
def test_a_recipe_comes_back_from_its_json(recipe: Recipe) -> None:
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert (again.to_json(), again.id) == (recipe.to_json(), recipe.id)


def test_every_field_of_a_recipe_is_covered() -> None:
    assert set(OTHER) == set(Recipe.__struct_fields__)


@pytest.mark.parametrize("field", OTHER)
def test_every_field_changes_the_id(field: str) -> None:
    assert msgspec.structs.replace(RECIPE, **{field: OTHER[field]}).id != RECIPE.id


def test_the_order_of_libraries_does_not_change_the_id() -> None:
    turned = dict(reversed(RECIPE.libraries.items()))
    assert list(turned) != list(RECIPE.libraries)
    assert msgspec.structs.replace(RECIPE, libraries=turned).id == RECIPE.id


def test_an_id_never_changes() -> None:
    # Versions already made carry it: a change of the encoding would orphan them.
    assert RECIPE.id == "44136a402d1c9bb48ebc3d0ee66e09384563a513ed79014706cd4a317a73ab4a"


def test_the_id_is_the_same_in_another_process() -> None:
    code = (
        "import sys\nfrom headwater.spec.recipe import Recipe\n"
        "print(Recipe.from_json(sys.stdin.buffer.read()).id)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], input=RECIPE.to_json(), capture_output=True, check=True
    )
    assert completed.stdout.decode().strip() == RECIPE.id


def test_an_unknown_field_is_refused() -> None:
    text = RECIPE.to_json().replace(b'{"pipeline"', b'{"more":1,"pipeline"', 1)
    with pytest.raises(msgspec.ValidationError, match="more"):
        Recipe.from_json(text)


@pytest.mark.parametrize(("start", "stop", "count"), [(0, 0, 0), (3, 10, 7), (10, 3, 0)])
def test_a_range_counts_its_offsets(start: int, stop: int, count: int) -> None:
    assert len(OffsetRange(start, stop)) == count
    assert str(OffsetRange(start, stop)) == f"[{start}, {stop})"


def test_ranges_sort_by_their_starts() -> None:
    assert sorted([OffsetRange(5, 6), OffsetRange(0, 9), OffsetRange(0, 2)]) == [
        OffsetRange(0, 2),
        OffsetRange(0, 9),
        OffsetRange(5, 6),
    ]

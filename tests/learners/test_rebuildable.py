"""Signs that a pipeline will not rebuild are found before it learns, and so are unkept modules."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from river import ensemble, forest, linear_model, neighbors, proba, rules, tree
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from headwater.infra.settings import Settings
from headwater.learners.rebuildable import doubts
from headwater.loop.binding import Bound
from headwater.spec.errors import HeadwaterWarning
from headwater.spec.loading import load_pipeline


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (forest.ARFClassifier, "entropy"),
        (lambda: ensemble.BaggingClassifier(linear_model.LogisticRegression()), "entropy"),
        (neighbors.KNNClassifier, "entropy"),
        (rules.AMRules, "addresses"),
        (lambda: GridSearchCV(LogisticRegression(), {"C": [1.0]}), "wall times"),
        (lambda: make_pipeline(TfidfVectorizer(), SGDClassifier()), "addresses"),
        (MLPClassifier, "global generator"),
        (GradientBoostingClassifier, "global generator"),
        (GaussianProcessClassifier, "global generator"),
    ],
)
def test_an_estimator_that_will_not_rebuild_has_a_doubt(make: Callable[[], object], why: str) -> None:
    found = doubts(make())
    assert [doubt for doubt in found if why in doubt.why and doubt.hint]


@pytest.mark.parametrize(
    "make",
    [
        lambda: forest.ARFClassifier(seed=1),
        tree.HoeffdingTreeClassifier,
        proba.Gaussian,
        lambda: MLPClassifier(random_state=1),
        SGDClassifier,
        RandomForestClassifier,
        LogisticRegression,
    ],
)
def test_an_estimator_that_rebuilds_has_no_doubt(make: Callable[[], object]) -> None:
    assert not doubts(make())


def test_a_learned_state_shows_what_its_class_does_not() -> None:
    class Keeper:
        def __init__(self) -> None:
            self.by_address: dict[int, object] = {}

    keeper = Keeper()
    assert not doubts(keeper)
    keeper.by_address[id(keeper.by_address)] = "itself"
    assert "addresses" in doubts(keeper)[0].why


DECLARED = """
from headwater import Feature, LabelRule, Pipeline, Stateful
{imports}

def model():
    {inner}
    from river import linear_model
    return linear_model.LogisticRegression(l2=L2)

def other():
    import {name}_unused

{name} = Pipeline(name="{name}", task="binary", features=(Feature("x", float),),
    label=LabelRule(wait="1d"), model=model, update=Stateful())
"""


@pytest.mark.parametrize(
    ("name", "imports", "inner", "named"),
    [
        ("shopa", "from shopa_helpers import L2", "pass", "shopa_helpers"),
        ("shopb", "", "from shopb_helpers import L2", "shopb_helpers"),
        (
            "shopc",
            "import importlib",
            "L2 = importlib.import_module('shopc_helpers').L2",
            "shopc_helpers",
        ),
        ("shopd", "L2 = 0.1", "import numpy", None),
        ("shope", "L2 = 0.1\nimport shope_unused", "pass", "shope_unused, shope_within"),
    ],
)
def test_modules_beside_the_factory_s_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    imports: str,
    inner: str,
    named: str | None,
) -> None:
    (tmp_path / f"{name}_helpers.py").write_text("L2 = 0.1\n")
    (tmp_path / f"{name}_within.py").write_text("A = 1\n")
    (tmp_path / f"{name}_unused.py").write_text(f"import {name}_within\n")
    path = tmp_path / f"{name}.py"
    path.write_text(DECLARED.format(name=name, imports=imports, inner=inner))
    monkeypatch.setattr(sys, "path", [*sys.path])
    declared = load_pipeline(f"{path}:{name}")
    expected = nullcontext() if named is None else pytest.warns(HeadwaterWarning, match=f" {named} ")
    with expected, Bound(declared, Settings(home=tmp_path / "home")) as bound:
        found = bound.cautions
    assert len(found) == (named is not None)
    assert all(one.hint for one in found)

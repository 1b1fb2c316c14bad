"""Every parameter of LightGBM is handed on, has no effect by its nature, or is refused by name."""

import subprocess
import sys
from pathlib import Path

import pytest
from lightgbm import LGBMClassifier, LGBMRanker, LGBMRegressor
from lightgbm.basic import _ConfigAliases
from tests.learners.test_contract import FEATURES, data, declared, fresh

from headwater.learners.boosting_params import boosting_parameters
from headwater.learners.learner import Schema
from headwater.learners.lightgbm_learner import Boosted
from headwater.learners.wrap import check_bound
from headwater.spec.errors import DeclarationError, NotStatefulError, UnlearnableError
from headwater.spec.pipeline import Task
from headwater.spec.updating.update import Stateful, Stateless

OWN = sorted(_ConfigAliases._get_all_param_aliases())
UNHEEDED = {
    *("auc_mu_weights", "deterministic", "early_stopping_min_delta", "eval_at", "first_metric_only"),
    *("force_col_wise", "force_row_wise", "is_provide_training_metric", "metric", "metric_freq"),
    *("multi_error_top_k", "num_threads", "saved_feature_importance_type", "verbosity"),
}
FIT_ONLY: dict[str, dict[str, object]] = {
    "path_smooth": {"path_smooth": 1.0},
    "linear_tree": {"linear_tree": True},
    "monotone_constraints": {"monotone_constraints": [1, 0, 0]},
    "mc": {"mc": "1,0,0"},
    "boosting_type": {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1},
    "quantile": {"objective": "quantile"},
    "mae": {"objective": "mae"},
    "mape": {"loss": "mape"},
}


def translated(name: str, value: object, task: Task = "binary") -> dict[str, object]:
    kind = LGBMRegressor if task == "regression" else LGBMClassifier
    return boosting_parameters(kind(**{name: value}), Schema(task, FEATURES), 0, 1).params


@pytest.mark.parametrize("name", OWN)
def test_each_parameter_is_handed_on_or_refused_by_name(name: str) -> None:
    value = {"objective": "binary", "monotone_constraints_method": "basic"}.get(name, 3)
    value = [1, 0, 0] if name == "monotone_constraints" else value
    try:
        params = translated(name, value)
    except DeclarationError as error:
        assert name in error.what  # noqa: PT017 - some are taken
        assert error.hint  # noqa: PT017 - some are taken
        return
    if name == "num_iterations":
        assert (
            boosting_parameters(LGBMClassifier(num_iterations=3), Schema("binary", FEATURES), 0, 1).trees
            == 3
        )
    elif name not in UNHEEDED:
        assert params[name] == value


@pytest.mark.parametrize("name", sorted(LGBMClassifier().get_params()))
def test_each_parameter_of_the_constructor_is_handed_on_or_refused_by_name(name: str) -> None:
    own = {
        alias: own for own, every in _ConfigAliases._get_all_param_aliases().items() for alias in every
    }
    value: object = {"objective": "cross_entropy", "boosting_type": "dart"}.get(name, 3)
    if name in ("importance_type", "n_jobs", "n_estimators"):
        return
    if name == "class_weight":
        with pytest.raises(DeclarationError, match="class_weight"):
            translated(name, "balanced")
    else:
        assert translated(name, value)[own[name]] == value


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"class_weight": {0: 1.0, 1: 5.0}}, "class_weight"),
        ({"learning_rat": 0.3}, "learning_rat"),
        ({"learning_rate": 0.2, "eta": 0.3}, "eta"),
        ({"n_estimators": 0}, "n_estimators"),
        ({"objective": min}, "objective"),
        ({"objective": "poisson"}, "objective"),
        ({"device": "gpu"}, "device_type"),
        ({"fs": "splits.json"}, "forcedsplits_filename"),
        ({"early_stopping": 5}, "early_stopping_round"),
        ({"monotone_constraints": [1]}, "monotone_constraints"),
        ({"mc": "1,0"}, "monotone_constraints"),
        ({"monotone_constraints": [2, 0, 0]}, "monotone_constraints"),
        ({"monotone_constraints_method": "advanced"}, "monotone_constraints_method"),
        ({"feature_contrib": (1.0, 1.0, 1.0, 1.0)}, "feature_contri"),
        ({"max_bin_by_feature": [3]}, "max_bin_by_feature"),
        ({"cegb_penalty_feature_lazy": [1.0]}, "cegb_penalty_feature_lazy"),
        ({"cegb_penalty_feature_coupled": [1.0]}, "cegb_penalty_feature_coupled"),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_refused(kwargs: dict[str, object], match: str) -> None:
    with pytest.raises(DeclarationError, match=match):
        fresh("binary", lambda: LGBMClassifier(**kwargs))


def test_an_alias_goes_before_a_default() -> None:
    assert translated("eta", 0.3)["learning_rate"] == 0.3
    assert translated("device", "cpu")["objective"] == "binary"


def test_a_ranker_is_refused() -> None:
    with pytest.raises(DeclarationError, match="LGBMRanker"):
        fresh("binary", LGBMRanker)


@pytest.mark.parametrize("kwargs", FIT_ONLY.values(), ids=FIT_ONLY)
def test_a_parameter_that_a_refit_loses_is_refused_there_and_learned_from_scratch(
    kwargs: dict[str, object],
) -> None:
    task: Task = "regression" if {"objective", "loss"} & kwargs.keys() else "binary"

    def make() -> object:
        return (LGBMRegressor if task == "regression" else LGBMClassifier)(n_estimators=3, **kwargs)

    make.__qualname__ = "make"  # as one at the top of a module
    pipeline = declared(make, Stateless(), task)
    with pytest.raises(NotStatefulError, match="refit"):
        check_bound(declared(make, Stateful(), task))
    learner = check_bound(pipeline)
    frame, labels = data(task)
    learner.learn(frame, labels)
    before = learner.digest()
    with pytest.raises(UnlearnableError, match="refit"):
        learner.learn(frame, labels)
    assert learner.digest() == before


CRASHES = """
import os, signal, sys, warnings
import lightgbm
from tests.learners.test_boosting_params import OWN, grown
warnings.simplefilter("ignore")
for names in [OWN[i : i + 10] for i in range(0, len(OWN), 10)]:
    child = os.fork()
    if not child:
        signal.alarm(120)
        for name in names:
            os.write(2, name.encode() + b" ")
            grown(name)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        os.write(2, b"<- ends the process\\n")
        sys.exit(1)
"""
VALUES: dict[str, list[object]] = {
    "boosting": ["dart", "rf"],
    "data_sample_strategy": ["goss"],
    "interaction_constraints": [[[0], [1, 2]], [[0, 9]]],
    "monotone_constraints": [[1, 0, 0], [1], "1,0,0", 1, [2, 0, 0]],
    "monotone_constraints_method": ["intermediate", "advanced", "none"],
    "max_bin": [9, 1],
    "num_leaves": [4, 1],
    "max_bin_by_feature": [[9, 9, 9], [9]],
    "feature_contri": [[1, 1, 1], [1]],
    "cegb_penalty_feature_lazy": [[1, 1, 1], [1]],
    "cegb_penalty_feature_coupled": [[1, 1, 1], [1]],
}


def grown(name: str) -> None:
    """Learn a batch, a second one and one of a single row, with values of a parameter that are taken."""
    for value in VALUES.get(name, [True, 1, 0.5, -1]):
        kwargs = {"n_estimators": 2, "subsample_freq": 1, name: value}
        try:
            learner = fresh("binary", lambda: Boosted(LGBMClassifier(**kwargs)))  # noqa: B023 - called here
            for seed, rows in ((0, 100), (1, 50), (2, 1)):
                learner.learn(*data("binary", seed, rows))
        except (DeclarationError, UnlearnableError):
            continue


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_leaves": 1}, "num_leaves"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"boosting_type": "foo"}, "foo"),
        ({"scale_pos_weight": 2.0, "is_unbalance": True}, "is_unbalance"),
    ],
)
def test_a_value_that_lightgbm_does_not_take_is_an_error_of_ours(
    kwargs: dict[str, object], words: str
) -> None:
    learner = fresh("binary", lambda: LGBMClassifier(n_estimators=2, **kwargs))
    with pytest.raises(UnlearnableError, match=words) as refused:
        learner.learn(*data("binary"))
    assert "\n" not in str(refused.value)
    assert refused.value.hint


def test_no_parameter_that_is_taken_ends_the_process() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", CRASHES],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-500:]


@pytest.mark.parametrize("kwargs", [{"class_weight": "balanced"}, {"early_stopping": True}])
def test_a_parameter_that_partial_fit_refuses_is_refused_at_binding(kwargs: dict[str, object]) -> None:
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from tests.learners.estimators import sgd  # noqa: PLC0415

    def make() -> object:
        columns = sgd().steps[0][1]  # type: ignore[attr-defined] # a pipeline
        return make_pipeline(columns, SGDClassifier(loss="log_loss", random_state=0, **kwargs))

    make.__qualname__ = "make"  # as one at the top of a module
    with pytest.raises(NotStatefulError, match="partial_fit"):
        check_bound(declared(make, Stateful()))
    learner = check_bound(declared(make, Stateless()))
    frame, labels = data("binary")
    learner.learn(frame, labels)
    assert learner.capabilities.batch_rows is None

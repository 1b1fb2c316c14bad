"""LightGBM's parameters: each is handed on, has no effect by its nature, or is refused by name."""

from functools import cache
from typing import Any, NamedTuple

from headwater.learners.learner import Schema
from headwater.spec.errors import DeclarationError, few

__all__ = ["BoostingParameters", "boosting_parameters", "unrefittable_parameter"]

_FILES = """
    config convert_model convert_model_language data forcedbins_filename forcedsplits_filename
    group_column header ignore_column input_model label_column output_model output_result
    parser_config_file pre_partition precise_float_parser save_binary snapshot_freq task
    two_round valid weight_column
"""
_MACHINES = "local_listen_port machine_list_filename machines num_machines time_out top_k tree_learner"
_GPU = "device_type gpu_device_id gpu_device_id_list gpu_platform_id gpu_use_dp num_gpu"
_RANKING = """
    bagging_by_query label_gain lambdarank_norm lambdarank_position_bias_regularization
    lambdarank_truncation_level
"""
_PREDICTING = """
    num_iteration_predict pred_early_stop pred_early_stop_freq pred_early_stop_margin predict_contrib
    predict_disable_shape_check predict_leaf_index predict_raw_score start_iteration_predict
"""
_KINDS = (
    (_FILES, "it is about files, and examples come from the log"),
    (_MACHINES, "it is for training on many machines, and a version is made on one"),
    (_GPU, "versions are computed on the CPU, so that they rebuild"),
    (_RANKING, "it is for ranking, which is no task here"),
    (_PREDICTING, "it is for predicting, where outputs are the task's"),
)
_REFUSED: dict[str, tuple[str, str]] = {
    name: (why, f"leave {name} out") for names, why in _KINDS for name in names.split()
} | {
    "class_weight": (
        "LightGBM's boosters take no weights of classes",
        "leave class_weight out, or for a binary task write scale_pos_weight=4.0 or is_unbalance=True",
    ),
    "categorical_feature": (
        "the declared types say which features are categories",
        "declare categories as text: Feature(name, str)",
    ),
    "num_class": ("the examples say which classes there are", "leave num_class out"),
    "early_stopping_round": (
        "no examples are held back to stop by",
        "leave it out and write n_estimators=100, say",
    ),
    "refit_decay_rate": ("the decay is not LightGBM's to know", "write Boosted(estimator, decay=0.9)"),
}
_HARMLESS = {"device_type": ("cpu",), "tree_learner": ("serial",), "num_machines": (1,)}
_ONE_A_FEATURE = (
    "feature_contri",
    "max_bin_by_feature",
    "cegb_penalty_feature_lazy",
    "cegb_penalty_feature_coupled",
)
_WITHOUT_EFFECT = frozenset(
    [
        "auc_mu_weights",
        "deterministic",
        "early_stopping_min_delta",
        "eval_at",
        "first_metric_only",
        "force_col_wise",
        "force_row_wise",
        "importance_type",
        "is_provide_training_metric",
        "metric",
        "metric_freq",
        "multi_error_top_k",
        "num_threads",
        "saved_feature_importance_type",
        "verbosity",
    ]
)
"""They judge validation sets, of which there are none, or say how to compute, as the pipeline does."""

_SQUARES = {"regression", "regression_l2", "l2", "mean_squared_error", "mse"}
_SQUARES |= {"l2_root", "root_mean_squared_error", "rmse"}
_RENEWED = {"regression_l1", "l1", "mean_absolute_error", "mae", "quantile"}
_RENEWED |= {"mape", "mean_absolute_percentage_error"}
_OTHERS = {"huber", "fair", "poisson", "gamma", "tweedie", "cross_entropy", "xentropy"}
_OBJECTIVES: dict[str, set[str]] = {
    "binary": {"binary", "cross_entropy", "xentropy"},
    "multiclass": {"multiclass", "softmax", "multiclassova", "multiclass_ova", "ova", "ovr"},
    "regression": _SQUARES | _RENEWED | _OTHERS,
}
_METHODS = ("basic", "intermediate", "advanced")
_DEFAULT_OBJECTIVES = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}


class BoostingParameters(NamedTuple):
    """The parameters and the number of trees that LightGBM is called with.

    Parameters
    ----------
    params
        By LightGBM's own names.
    trees
        How many are grown.
    """

    params: dict[str, Any]
    trees: int


def boosting_parameters(estimator: Any, schema: Schema, seed: int, threads: int) -> BoostingParameters:
    """Translate an estimator's parameters, or refuse a parameter that would be dropped.

    Parameters
    ----------
    estimator
        An unfitted ``LGBMClassifier`` or ``LGBMRegressor``.
    schema
        What it learns.
    seed, threads
        Of the computation; an estimator's own ``random_state`` goes first.

    Raises
    ------
    DeclarationError
        If a parameter is unknown, named twice, or cannot be honoured.
    """
    given_params = _by_own_names(estimator)
    for name, value in given_params.items():
        if name in _REFUSED and value not in _HARMLESS.get(name, ()):
            raise _refused(name, value, *_REFUSED[name])
    _check_constraints(given_params, schema)
    honoured = {
        name: value
        for name, value in given_params.items()
        if name not in _WITHOUT_EFFECT | set(_REFUSED)
    }
    for name in _ONE_A_FEATURE:
        many, features = len(_listed(honoured.get(name))), len(schema.features)
        if many not in (0, features):  # LightGBM 4.7 ends the process where constraints are too few
            raise _refused(
                name,
                honoured[name],
                f"it has {many} values for {features} features",
                "write one a feature",
            )
    trees, own_seed = honoured.pop("num_iterations", 100), honoured.pop("seed", None)
    if not hasattr(trees, "__index__") or trees < 1:
        raise _refused("n_estimators", trees, "no tree would be grown", "write n_estimators=100, say")
    if own_seed is not None and not hasattr(own_seed, "__index__"):
        raise _refused(
            "random_state", own_seed, "it draws another seed each time", "write random_state=1, say"
        )
    params = honoured | {
        "objective": _objective(honoured.pop("objective", None), schema),
        "seed": seed if own_seed is None else own_seed,
        "num_threads": threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    return BoostingParameters(params, trees)


def unrefittable_parameter(params: dict[str, Any]) -> str:
    """Name the parameter that a refit of leaf values would not honour; empty if there is none.

    A refit recomputes each leaf from gradients alone. Under ``path_smooth`` and ``linear_tree`` LightGBM
    4.7 ends the process then; constraints and the averages of a forest are lost; objectives whose leaves
    are quantiles get sums of gradients instead.
    """
    if params.get("path_smooth"):
        return f"path_smooth={params['path_smooth']!r}"
    if _is_on(params.get("linear_tree")):
        return f"linear_tree={params['linear_tree']!r}"
    if _constrains(params.get("monotone_constraints")):
        return f"monotone_constraints={params['monotone_constraints']!r}"
    if params.get("boosting") in ("rf", "random_forest"):
        return f"boosting_type={params['boosting']!r}"
    if params["objective"] in _RENEWED:
        return f"objective={params['objective']!r}"
    return ""


def _is_on(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "+")


def _constrains(value: Any) -> bool:
    return any(one != "0" for one in _listed(value))


def _check_constraints(given_params: dict[str, Any], schema: Schema) -> None:
    """Refuse monotone constraints at which LightGBM 4.7 ends the process instead of raising."""
    constraints = given_params.get("monotone_constraints")
    method = given_params.get("monotone_constraints_method")
    values, names = _listed(constraints), [feature.name for feature in schema.features]
    if values and (len(values) != len(names) or not set(values) <= {"-1", "0", "1"}):
        raise _refused(
            "monotone_constraints",
            constraints,
            f"it is not one of -1, 0 and 1 for each of {few(names)}",
            f"write monotone_constraints={[0] * len(names)}, with 1 or -1 for each constrained feature",
        )
    if method not in (None, *_METHODS) or (method == "advanced" and not values):
        raise _refused(
            "monotone_constraints_method",
            method,
            f"it is one of {', '.join(_METHODS)}, and needs monotone_constraints",
            "leave monotone_constraints_method out, or write monotone_constraints, too",
        )


def _listed(value: Any) -> list[str]:
    """List the values of a parameter that has one a feature, as text; none if it is not given."""
    if value is None:
        return []
    if not isinstance(value, str):
        value = ",".join(map(str, value)) if hasattr(value, "__iter__") else str(value)
    return [one.strip() for one in value.strip("[]() ").split(",") if one.strip()]


def _by_own_names(estimator: Any) -> dict[str, Any]:
    """Return an estimator's parameters by LightGBM's own names; an alias goes before a default."""
    defaults = type(estimator)().get_params()
    by_own_name: dict[str, Any] = {}
    named: dict[str, str] = {}
    for name, value in sorted(estimator.get_params().items(), key=lambda item: item[0] not in defaults):
        own = name if name in ("class_weight", "importance_type") else _aliases().get(name)
        if own is None:
            raise DeclarationError(
                f"LightGBM knows no parameter {name!r}", hint=f"leave {name} out, or mend its name"
            )
        if value is None:
            continue
        before = named.get(own)
        if (
            before is not None
            and by_own_name[own] != value
            and not _is_default(by_own_name[own], defaults, before)
        ):
            raise _twice(before, name)
        by_own_name[own], named[own] = value, name
    return by_own_name


def _is_default(value: Any, defaults: dict[str, Any], name: str) -> bool:
    return name in defaults and bool(value == defaults[name])


def _twice(one: str, other: str) -> DeclarationError:
    return DeclarationError(
        f"{one} and {other} are the same parameter of LightGBM, and differ",
        hint=f"leave {other} out",
    )


def _objective(objective: Any, schema: Schema) -> str:
    if objective is None:
        return _DEFAULT_OBJECTIVES[schema.task]
    known = _OBJECTIVES[schema.task]
    if not isinstance(objective, str) or objective not in known:
        raise _refused(
            "objective",
            objective,
            "a version keeps no function"
            if callable(objective)
            else f"it does not fit a {schema.task} task",
            f"write objective={_DEFAULT_OBJECTIVES[schema.task]!r}, or leave it out",
        )
    return objective


def _refused(name: str, value: Any, why: str, hint: str) -> DeclarationError:
    return DeclarationError(f"LightGBM's {name}={value!r} is not honoured: {why}", hint=hint)


@cache
def _aliases() -> dict[str, str]:
    """Return LightGBM's own name of each alias."""
    # It has no public name for its table of aliases.
    from lightgbm.basic import _ConfigAliases  # noqa: PLC0415 - an extra

    table: dict[str, list[str]] = _ConfigAliases._get_all_param_aliases()  # noqa: SLF001 - as said
    return {alias: own for own, aliases in table.items() for alias in aliases}

"""The estimators under the contract: factories by task."""

from collections.abc import Callable

from headwater.spec.pipeline import Task


def lr() -> object:
    from river import compose, linear_model, preprocessing  # noqa: PLC0415

    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    words = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return (numbers + words) | linear_model.LogisticRegression()


def hat() -> object:
    from river import tree  # noqa: PLC0415

    return tree.HoeffdingAdaptiveTreeClassifier(grace_period=40, seed=1)


def arf() -> object:
    from river import forest  # noqa: PLC0415

    return forest.ARFClassifier(n_models=3, grace_period=40, seed=1)


def river_regression() -> object:
    from river import compose, linear_model, preprocessing  # noqa: PLC0415

    return compose.SelectType(float) | preprocessing.StandardScaler() | linear_model.LinearRegression()


def sgd() -> object:
    from sklearn.compose import make_column_transformer  # noqa: PLC0415
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    columns = make_column_transformer((StandardScaler(), ["a"]), ("drop", ["b", "c"]))
    return make_pipeline(columns, SGDClassifier(loss="log_loss", random_state=0))


def sgd_regression() -> object:
    from sklearn.compose import make_column_transformer  # noqa: PLC0415
    from sklearn.linear_model import SGDRegressor  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    columns = make_column_transformer((StandardScaler(), ["a"]), ("drop", ["b", "c"]))
    return make_pipeline(columns, SGDRegressor(random_state=0))


def trees() -> object:
    from lightgbm import LGBMClassifier  # noqa: PLC0415

    return LGBMClassifier(n_estimators=8, min_child_samples=5)


def decaying_trees() -> object:
    from lightgbm import LGBMClassifier  # noqa: PLC0415

    from headwater.learners.lightgbm_learner import Boosted  # noqa: PLC0415

    return Boosted(LGBMClassifier(n_estimators=8, min_child_samples=5), decay=0.5)


def tree_regression() -> object:
    from lightgbm import LGBMRegressor  # noqa: PLC0415

    return LGBMRegressor(n_estimators=8, min_child_samples=5)


def one_against_all(objective: str) -> object:
    from lightgbm import LGBMClassifier  # noqa: PLC0415

    return LGBMClassifier(n_estimators=8, min_child_samples=5, objective=objective)


def tree_of_32_bits(name: str) -> object:
    """Make what casts its features to 32 bits, by its name in scikit-learn."""
    from sklearn import ensemble, tree  # noqa: PLC0415
    from sklearn.compose import make_column_transformer  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    columns = make_column_transformer(("passthrough", ["a"]), ("drop", ["b", "c"]))
    more = {"n_estimators": 3} if "Forest" in name else {"max_iter": 3} if "Hist" in name else {}
    maker = getattr(ensemble, name, None) or getattr(tree, name)
    return make_pipeline(columns, maker(random_state=0, **more))


def exploding() -> object:
    from river import compose, linear_model, optim  # noqa: PLC0415

    return compose.SelectType(float) | linear_model.LinearRegression(
        optim.SGD(1e200), clip_gradient=1e300
    )


def fit_only() -> object:
    from sklearn.compose import make_column_transformer  # noqa: PLC0415
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    columns = make_column_transformer(("passthrough", ["a", "b"]), ("drop", ["c"]))
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5, random_state=0))


def with_lambda() -> object:
    from river import compose, linear_model  # noqa: PLC0415

    return compose.FuncTransformer(lambda x: x) | linear_model.LogisticRegression()


STATEFUL: list[tuple[Task, Callable[[], object]]] = [
    ("binary", lr),
    ("binary", hat),
    ("binary", arf),
    ("binary", sgd),
    ("binary", trees),
    ("binary", decaying_trees),
    ("regression", river_regression),
    ("regression", sgd_regression),
    ("regression", tree_regression),
    ("multiclass", hat),
    ("multiclass", sgd),
    ("multiclass", trees),
]

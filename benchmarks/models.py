"""The models of the claims. Their text is kept with every version, so it imports little."""


def scaled_sgd() -> object:
    """Linear classifier on scaled numbers; what is not known counts as the mean."""
    import numpy as np  # noqa: PLC0415 - kept with each version
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - kept with each version
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - kept with each version
    from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: PLC0415 - kept with each version

    # Of ten settings tried, this is the best one for stage 2 and for stage 3 alike.
    linear = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=3e-4, random_state=0)
    return make_pipeline(StandardScaler(), FunctionTransformer(np.nan_to_num), linear)


def histogram_boosting() -> object:
    """Boosting of scikit-learn, as it comes: what a good team would take first."""
    from sklearn.compose import make_column_transformer  # noqa: PLC0415 - kept with each version
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - kept with each version
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - kept with each version
    from sklearn.preprocessing import OrdinalEncoder  # noqa: PLC0415 - kept with each version

    texts = ["carrier", "origin", "dest"]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    return make_pipeline(
        make_column_transformer((encoder, texts), remainder="passthrough"),
        HistGradientBoostingClassifier(categorical_features=[0, 1, 2], random_state=0),
    )


def river_regression() -> object:
    """Scaler and logistic regression of River."""
    from river import linear_model, preprocessing  # noqa: PLC0415 - kept with each version

    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def river_tree() -> object:
    """Hoeffding adaptive tree of River."""
    from river import tree  # noqa: PLC0415 - kept with each version

    return tree.HoeffdingAdaptiveTreeClassifier(grace_period=100, seed=1)


def river_forest() -> object:
    """Adaptive random forest of River."""
    from river import forest  # noqa: PLC0415 - kept with each version

    return forest.ARFClassifier(n_models=5, seed=1)


def river_bayes() -> object:
    """Naive Bayes of River, on numbers that are normal by class."""
    from river import naive_bayes  # noqa: PLC0415 - kept with each version

    return naive_bayes.GaussianNB()


def river_line() -> object:
    """Scaler and linear regression of River."""
    from river import linear_model, preprocessing  # noqa: PLC0415 - kept with each version

    return preprocessing.StandardScaler() | linear_model.LinearRegression()


def river_leaves() -> object:
    """Hoeffding tree of River for regression."""
    from river import tree  # noqa: PLC0415 - kept with each version

    return tree.HoeffdingTreeRegressor(grace_period=50)


def river_adaptive_leaves() -> object:
    """Hoeffding adaptive tree of River for regression."""
    from river import tree  # noqa: PLC0415 - kept with each version

    return tree.HoeffdingAdaptiveTreeRegressor(grace_period=50, seed=1)


def river_regression_forest() -> object:
    """Adaptive random forest of River for regression, a small one."""
    from river import forest  # noqa: PLC0415 - kept with each version

    return forest.ARFRegressor(n_models=3, seed=1)


def river_words() -> object:
    """Logistic regression of River on scaled numbers and on words, each a column of its own."""
    from river import compose, linear_model, preprocessing  # noqa: PLC0415 - kept with each version

    numbers = compose.SelectType(float) | preprocessing.StandardScaler()
    words = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return (numbers + words) | linear_model.LogisticRegression()


def quick_sgd() -> object:
    """Linear classifier on scaled numbers that has learned after some hundred examples."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - kept with each version
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - kept with each version
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415 - kept with each version

    linear = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, random_state=0)
    return make_pipeline(StandardScaler(), linear)


def boosting() -> object:
    """Boosted trees of LightGBM, small ones, whose leaves are refitted."""
    from lightgbm import LGBMClassifier  # noqa: PLC0415 - kept with each version

    return LGBMClassifier(n_estimators=20, min_child_samples=5)


def prior() -> object:
    """Classifier that goes by the share of classes, whatever the features."""
    from river.dummy import PriorClassifier  # noqa: PLC0415 - kept with each version

    return PriorClassifier()


def mean() -> object:
    """Regressor that goes by the mean, whatever the features."""
    from river.dummy import StatisticRegressor  # noqa: PLC0415 - kept with each version
    from river.stats import Mean  # noqa: PLC0415 - kept with each version

    return StatisticRegressor(Mean())

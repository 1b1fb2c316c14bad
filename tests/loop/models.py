"""Model factories of the tests; a module of its own, since its text is kept with every version."""

from typing import Any

from sklearn.linear_model import SGDClassifier


def river_lr() -> object:
    """Scaler and logistic regression of River."""
    from river import linear_model, preprocessing  # noqa: PLC0415

    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def river_hat() -> object:
    """Hoeffding adaptive tree of River."""
    from river import tree  # noqa: PLC0415

    return tree.HoeffdingAdaptiveTreeClassifier(grace_period=50, seed=1)


def sgd() -> object:
    """Scaler and linear classifier of scikit-learn, without a seed of its own."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss"))


def trees() -> object:
    """Boosted trees of LightGBM."""
    from lightgbm import LGBMClassifier  # noqa: PLC0415

    return LGBMClassifier(n_estimators=5, min_child_samples=5)


def hist() -> object:
    """Boosted trees of scikit-learn, which compute in threads."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415

    return HistGradientBoostingClassifier(max_iter=10)


def addressed() -> object:
    """Keep an address, which only a learned state shows."""
    return Addressed(loss="log_loss")


class Addressed(SGDClassifier):
    """A linear classifier that remembers where it was."""

    def partial_fit(self, X: Any, y: Any, **more: Any) -> "Addressed":  # noqa: N803 - scikit-learn's name
        """Learn, and remember."""
        super().partial_fit(X, y, **more)
        self.where_ = id(self)
        return self


def linear() -> object:
    """Scaler and linear regression of River."""
    from river import linear_model, preprocessing  # noqa: PLC0415

    return preprocessing.StandardScaler() | linear_model.LinearRegression()


def leaves() -> object:
    """Hoeffding tree for regression, of River."""
    from river import tree  # noqa: PLC0415

    return tree.HoeffdingTreeRegressor(grace_period=50)


def any_feature() -> object:
    """Make a learner of features of any type."""
    from river import tree  # noqa: PLC0415

    return tree.HoeffdingTreeClassifier(grace_period=20)


def half_of_b(recorded: dict[str, object]) -> float:
    return float(str(recorded["b"])) / 2


def tenth(value: int) -> float:
    return value / 10

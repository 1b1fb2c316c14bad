"""Models that do what a model should not, where a feature is large; their text is kept with versions."""

import numpy as np
from numpy.typing import NDArray
from river import linear_model
from sklearn.linear_model import SGDClassifier


class Hanging(linear_model.LogisticRegression):
    """Never comes back from some predictions."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """Predict, or hang."""
        while x["a"] > 900:
            pass
        found: dict[bool, float] = super().predict_proba_one(x)
        return found


class Failing(linear_model.LogisticRegression):
    """Fails on some predictions, and on learning the same."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """Predict, or fail."""
        if x["a"] > 900:
            raise ZeroDivisionError
        found: dict[bool, float] = super().predict_proba_one(x)
        return found

    def learn_one(self, x: dict[str, float], y: bool, w: float = 1.0) -> None:
        """Learn, or fail."""
        if x["a"] > 900:
            raise ZeroDivisionError
        super().learn_one(x, y, w)


class Overshooting(linear_model.LogisticRegression):
    """Gives chances that are none for some features: 1.5 where a is large, NaN where it is larger."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """Predict, or overshoot."""
        if x["a"] > 900:
            return {True: 1.5 if x["a"] < 2_000 else float("nan")}
        found: dict[bool, float] = super().predict_proba_one(x)
        return found


class OvershootingBatches(SGDClassifier):  # type: ignore[misc] # without types
    """Does the same, and is of scikit-learn."""

    def predict_proba(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803 - its name
        """Predict, or overshoot."""
        found: NDArray[np.float64] = super().predict_proba(X)
        found[np.asarray(X)[:, 0] > 900] = 1.5
        return found


def hanging() -> object:
    """Hangs where a is large."""
    return Hanging()


def failing() -> object:
    """Fails where a is large."""
    return Failing()


def overshooting() -> object:
    """Answers with what is no chance where a is large."""
    return Overshooting()


def overshooting_batches() -> object:
    """The same of scikit-learn."""
    return OvershootingBatches(loss="log_loss")

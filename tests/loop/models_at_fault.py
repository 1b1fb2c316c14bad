"""Models that do what a model should not, where a feature is large; their text is kept with versions."""

from river import linear_model


class Hanging(linear_model.LogisticRegression):
    """Never comes back from some predictions."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """Predict, or hang."""
        while x["a"] > 900:
            pass
        found: dict[bool, float] = super().predict_proba_one(x)
        return found


class Failing(linear_model.LogisticRegression):
    """Fails on some predictions."""

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """Predict, or fail."""
        if x["a"] > 900:
            raise ZeroDivisionError
        found: dict[bool, float] = super().predict_proba_one(x)
        return found


def hanging() -> object:
    """Hangs where a is large."""
    return Hanging()


def failing() -> object:
    """Fails where a is large."""
    return Failing()

"""Model factories that stand for an edit of those in ``models.py``; a module of its own, as that is."""


def scaled() -> object:
    """Scaler and linear classifier with another penalty."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", alpha=0.5))


def line() -> object:
    """Linear regression, for another task."""
    from sklearn.linear_model import SGDRegressor  # noqa: PLC0415

    return SGDRegressor()


def moved() -> object:
    """Make the same as ``models.sgd`` does, elsewhere."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss"))

"""The models of the flights pipelines. Kept with every version, so it imports little."""

import lightgbm


def boosted_trees() -> object:
    """Gradient-boosted trees whose leaves are refitted to what is new."""
    from headwater.learners.boosting import Boosted  # noqa: PLC0415 - imports NumPy

    estimator = lightgbm.LGBMClassifier(
        n_estimators=60, learning_rate=0.1, num_leaves=31, min_child_samples=100
    )
    return Boosted(estimator, decay=0.98)

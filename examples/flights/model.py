"""The models of the flights pipelines. Kept with every version, so it imports little."""

import lightgbm


def boosted_trees() -> object:
    """Gradient-boosted trees whose leaves are refitted to what is new."""
    from headwater.learners.lightgbm_learner import Boosted  # noqa: PLC0415 - imports NumPy

    estimator = lightgbm.LGBMClassifier(
        n_estimators=60,
        num_leaves=15,
        learning_rate=0.15,
        min_child_samples=100,
        reg_lambda=5.0,
        colsample_bytree=0.6,
        max_bin=63,
        cat_smooth=100,
        boost_from_average=False,
    )
    return Boosted(estimator, decay=0.98)

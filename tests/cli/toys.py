"""Pipelines to which the command line refers by this file's path."""

from msgspec.structs import replace

from headwater import (
    BatchPrediction,
    Feature,
    FeatureTable,
    LabelRule,
    ParquetSource,
    People,
    Pipeline,
    Serving,
    Stateful,
    Volume,
)


def sgd() -> object:
    """Return a linear classifier that learns on."""
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415

    return SGDClassifier(loss="log_loss", random_state=0)


def forest() -> object:
    """Return trees that can only be fitted from scratch."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    return RandomForestClassifier(n_estimators=2, random_state=0)


def unseeded_net() -> object:
    """Return a net that draws from NumPy's global generator."""
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    return MLPClassifier((2,))


toy = Pipeline(
    name="toy",
    task="binary",
    features=(Feature("x", float), Feature("y", float)),
    label=LabelRule(wait="1d"),
    model=sgd,
    update=Stateful(),
)
apart = replace(toy, serving=Serving(isolated=True))
slim = replace(toy, features=(Feature("x", float),))
by_hand = replace(toy, name="by-hand", promotion="by hand")
fitted = replace(toy, name="fitted", model=forest)
unseeded = replace(toy, name="unseeded", model=unseeded_net, triggers=(Volume(50),))
watched = replace(toy, name="watched", triggers=(Volume(50),))
each = replace(toy, name="each", learn="each label", batch_rows=10)
shades = replace(
    toy, name="shades", task="multiclass", label=LabelRule(wait="1d", classes=("red", "blue"), hold=True)
)
asking = replace(toy, name="asking", people=People(twice=1.0))

spending = FeatureTable(
    name="spending",
    entity=("customer",),
    source=ParquetSource("spending.parquet"),
    every="1h",
    max_age="1d",
)
looking = replace(
    toy,
    name="looking",
    features=(Feature("x", float), spending.feature("spent", float)),
    tables=(spending,),
)
scored = replace(toy, batch=BatchPrediction(source=ParquetSource("people.parquet"), key="person"))

"""A version is its recipe: without any stored state, another process folds the same digests."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from examples.flights.data import FEATURES, load

from benchmarks import models
from benchmarks.claim import Outcome, at_least, fresh_home, mlflow_database, say
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.rebuild import rebuild
from headwater.loop.replay.history import Columns
from headwater.loop.replay.import_history import import_history
from headwater.loop.training.update import train
from headwater.spec.data.label import LabelRule
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Factory, Pipeline
from headwater.spec.updating.update import Stateful

__all__ = ["measure"]

_BOUND = 1.0
_ROWS = 200
_VERSIONS, _SHORT_VERSIONS = 100, 2
_NUMBERS = tuple(feature for feature in FEATURES if feature.dtype == "float")
_LEARNERS: dict[str, Factory] = {
    "river-regression": models.river_regression,
    "river-adaptive-tree": models.river_tree,
    "river-forest": models.river_forest,
    "sklearn-sgd": models.scaled_sgd,
    "lightgbm": models.boosting,
}
_SHORT_LEARNERS = ("river-regression", "lightgbm")


def measure(*, short: bool) -> Outcome:
    """Rebuild a line of 100 versions from its root, for each of five learners (half an hour).

    Each version learns about 200 new flights. Then every stored state is renamed, and another process
    with another hash seed folds the line again; ``ratio`` is the share of equal digests.
    """
    versions = _SHORT_VERSIONS if short else _VERSIONS
    names = _SHORT_LEARNERS if short else tuple(_LEARNERS)
    equal: dict[str, int] = {}
    for name in names:
        with fresh_home(mlflow_database()) as settings:
            newest = _learn_line(_pipeline(name), settings, versions)
            _move_states_away(settings)
            equal[name] = _count_equal(name, newest, settings)
        say(f"  {name}: {equal[name]} of {versions} digests equal")
    return at_least(
        sum(equal.values()) / (versions * len(names)), _BOUND, versions=versions, equal=equal
    )


def _pipeline(name: str) -> Pipeline:
    return Pipeline(
        name=name,
        task="binary",
        features=_NUMBERS,
        label=LabelRule(wait="2d"),
        model=_LEARNERS[name],
        update=Stateful(),
    )


def _learn_line(pipeline: Pipeline, settings: Settings, versions: int) -> str:
    """Make the versions one after the other, and give the newest one's number."""
    newest = "1"
    clock = SimulatedClock(datetime(2012, 12, 31, tzinfo=UTC))
    with Bound(pipeline, settings, clock) as bound:
        for batch in _batches(versions):
            clock.advance_to(max(clock.now(), batch["known_at"].max()))  # type: ignore[type-var,arg-type] # no nulls
            import_history(bound.log, batch, Columns())
            collect(bound.log)
            made = train(bound, by="benchmark").version
            newest = made.number if made else newest
    return newest


def _count_equal(name: str, newest: str, settings: Settings) -> int:
    """Rebuild a line in another process; what refuses to be rebuilt is not equal."""
    try:
        rebuilt = rebuild(name, newest, settings, from_root=True)
    except HeadwaterError as error:
        say(f"  {name}: {error}")
        return 0
    return sum(version.equal for version in rebuilt.versions)


def _batches(count: int) -> Iterator[pl.DataFrame]:
    """Give flights in the order of their arrivals, so that each version learns the same number."""
    names = [feature.name for feature in _NUMBERS]
    flights = load().rename({"late": "label"}).drop_nulls(["label", "known_at", *names])
    flights = flights.head(count * _ROWS).sort("known_at", maintain_order=True)
    return flights.iter_slices(_ROWS)


def _move_states_away(settings: Settings) -> None:
    states = list(Path(settings.storage_uri).rglob("state.bin"))
    for state in states:
        state.rename(state.with_suffix(".away"))
    say(f"  {len(states)} stored states moved away")

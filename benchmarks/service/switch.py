"""A declaration with a feature more is rolled out, learned and rolled back: no request fails."""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
from msgspec.structs import replace

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.models import river_tree
from benchmarks.service.serving import Load, Loaded, Running, loading, serving, wrong_in_log
from benchmarks.service.serving_toy import pipeline
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.update import train
from headwater.spec.data.feature import Feature, python_type
from headwater.spec.data.records import FeatureValue, Label, Prediction
from headwater.spec.pipeline import Pipeline

__all__ = ["after", "before", "measure"]

_ROWS = 400
_START = datetime(2026, 1, 1, tzinfo=UTC)
_TURNS, _SHORT_TURNS = 10, 1
_RATE, _SHORT_RATE = 250.0, 50.0  # predictions a second of each service, each with its label
_CONNECTIONS = 8
_OF_NEW = 50_000_000  # numbers of the new service's predictions
_LOOK_S, _LIMIT_S = 0.05, 120.0
_BETWEEN_S, _SHORT_BETWEEN_S = 1.0, 0.1

before = replace(
    pipeline, features=(Feature("x", float), Feature("n", int), Feature("s", str)), model=river_tree
)
after = replace(before, features=(*before.features, Feature("more", str, nullable=True)))
_SENT: dict[str, FeatureValue] = {"x": 0.25, "n": 3, "s": "a", "more": "b"}


def measure(*, short: bool) -> Outcome:
    """Run two services of two releases on one home, while a version of each becomes champion in turns.

    The old service begins with the first version. The new one declares a nullable feature more; a new
    line is learned while both answer, and its first version promoted, and then the one and the other in
    turns. Each service has its own load of another process: 500 requests a second, half of them labels,
    each sent once, with the features of its release.

    ``ratio`` is the number of requests that failed. Also, each acknowledged record must be in the log
    once, with the features that its service declares and values of their types; the new service must
    have answered by both versions, the old one by the first alone; and the old one must raise its alarm.
    """
    turns, rate = (_SHORT_TURNS, _SHORT_RATE) if short else (_TURNS, _RATE)
    between_s = _SHORT_BETWEEN_S if short else _BETWEEN_S
    here = Path(__file__)
    with fresh_home(mlflow_database()) as settings, Bound(after, settings) as bound:
        _train_first(settings)
        begun = bound.log.stop()
        with serving(settings, 1, [f"{here}:before"]) as old, _load(old, before, rate) as old_load:
            with (
                serving(settings, 1, [f"{here}:after"]) as new,
                _load(new, after, rate, _OF_NEW) as new_load,
            ):
                collect(bound.log)
                train(bound, from_scratch=True)
                alarmed = _alternate(bound, old, new, turns, between_s)
                of_new = new_load.end()
            of_old = old_load.end()
        wrong = wrong_in_log(bound, begun, _both(of_old, of_new)) + _misfits(bound)
    return at_most(
        float(of_old.failed + of_new.failed),
        0.0,
        also=wrong == 0 and alarmed and set(of_old.versions) == {"1"} and len(of_new.versions) == 2,
        wrong=wrong,
        alarmed=alarmed,
        turns=turns,
        requests=sum(len(one.acknowledged) + len(one.labelled) for one in (of_old, of_new)),
        old_versions=of_old.versions,
        new_versions=of_new.versions,
    )


def _train_first(settings: Settings) -> None:
    with Bound(before, settings) as bound:
        bound.log.import_history(_history(before))
        collect(bound.log)
        train(bound)


def _history(declared: Pipeline) -> Iterator[tuple[Prediction, Label]]:
    drawn = random.Random(0)
    for row in range(_ROWS):
        at, x = _START + timedelta(minutes=row), drawn.gauss(0, 1)
        yield (
            Prediction(id=f"past-{row}", features=_of(declared) | {"x": x}, output=0.5, served_at=at),
            Label(prediction_id=f"past-{row}", value=x > 0, known_at=at),
        )


def _of(declared: Pipeline) -> dict[str, FeatureValue]:
    return {name: _SENT[name] for name in declared.feature_names}


def _load(to: Running, declared: Pipeline, rate: float, first: int = 0) -> AbstractContextManager[Load]:
    features = msgspec.json.encode(_of(declared))
    return loading(to, _CONNECTIONS, retry=False, rate=rate, first=first, features=features)


def _alternate(bound: Bound, old: Running, new: Running, turns: int, between_s: float) -> bool:
    """Let one version and the other serve in turns; return whether the old service says it."""
    alarmed = True
    for turn, version in enumerate(itertools.islice(itertools.cycle("21"), 2 * turns)):
        if turn:
            bound.registry.promote(version, by="benchmark", reason="in turns")
        _await(lambda version=version: _serves(new, version))  # type: ignore[misc] # bound now
        _await(lambda version=version: _alarms(old) == (version == "2"))  # type: ignore[misc] # bound now
        alarmed &= _status(old)["version"] == "1"
        say(f"  version {version} is champion")
        time.sleep(between_s)
    return alarmed


def _status(of: Running) -> Mapping[str, object]:
    found: list[dict[str, object]] = httpx.get(f"{of.address}/pipelines", timeout=60).json()
    return found[0]


def _serves(of: Running, version: str) -> bool:
    return _status(of)["version"] == version


def _alarms(of: Running) -> bool:
    alarms = _status(of)["alarms"]
    return isinstance(alarms, list) and any(one["kind"] == "declaration" for one in alarms)


def _both(first: Loaded, second: Loaded) -> Loaded:
    acknowledged = first.acknowledged + second.acknowledged
    return first._replace(acknowledged=acknowledged, labelled=first.labelled + second.labelled)


class _Recorded(msgspec.Struct):
    id: str
    features: dict[str, FeatureValue]


def _misfits(bound: Bound) -> int:
    """Count the records that are not of the declaration by which their service answered."""
    stop, wrong = bound.log.positions(), 0
    for _, _, payload, _ in bound.log.repository.predictions(0, stop):
        one = msgspec.json.decode(payload, type=_Recorded)
        number = one.id.removeprefix("r-")
        is_new = number.isdigit() and int(number) >= _OF_NEW
        wrong += not _fits(one.features, after if is_new else before)
    return wrong


def _fits(values: Mapping[str, FeatureValue], declared: Pipeline) -> bool:
    types = {feature.name: python_type(feature.dtype) for feature in declared.features}
    return values.keys() == types.keys() and all(type(values[name]) is types[name] for name in types)


def _await(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + _LIMIT_S
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError("the services do not follow")
        time.sleep(_LOOK_S)

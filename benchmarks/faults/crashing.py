"""The worker that is killed: it checks what the one before left, then records, labels and trains.

What it hears back from a call it notes in a file, before it goes on: that is what was acknowledged. Its
records are made of their numbers, so that what was not acknowledged is sent again as it was.
"""

import importlib
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import polars as pl
from sqlalchemy import select

from benchmarks.models import scaled_sgd
from headwater.features.read.archive import Archived
from headwater.infra import commit_points
from headwater.infra.settings import Settings
from headwater.infra.store.schema import tables
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision.decide import decide
from headwater.loop.decision.execute import carry_out
from headwater.loop.training.update import train
from headwater.registry.mlflow_store.housekeeping import close_leftovers
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.triggers.volume import Volume
from headwater.spec.updating.update import Stateful

__all__ = ["LOG", "TRAIN", "Task", "phase_of", "work"]

Task = Literal["log", "train"]
LOG: Task = "log"
TRAIN: Task = "train"

_START = datetime(2024, 1, 1, tzinfo=UTC)
_ROWS = 10
_TURNS = {LOG: 8, TRAIN: 3}
_ENDLESS = 10_000
_PIPELINE = Pipeline(
    name="crash",
    task="binary",
    features=(Feature("x", float), Feature("y", float)),
    label=LabelRule(wait="9999d"),
    model=scaled_sgd,
    update=Stateful(),
    triggers=(Volume(1),),
    gate=None,
)


def work(home: str, task: Task, kill_at: str, ends: bool, answer: Connection) -> None:
    """Check, say what is wrong, and work until killed, or for a few turns.

    Parameters
    ----------
    home
        Where everything is.
    task
        What to do: `LOG` records, labels and collects; `TRAIN` decides, updates and promotes too.
    kill_at
        As in ``HEADWATER_KILL_AT``.
    ends
        Whether to end after a few turns.
    answer
        Hears what is wrong, when work begins.
    """
    os.environ["HEADWATER_KILL_AT"] = kill_at
    settings = Settings(home=Path(home))
    with Bound(_PIPELINE, settings) as bound:
        answer.send(list(_check(bound, settings, task)))
        importlib.reload(commit_points)  # reads the variable, as a process of its own would
        for _ in range(_TURNS[task] if ends else _ENDLESS):
            _log_turn(bound, settings)
            if task == TRAIN:
                _train_turn(bound, settings)
        _note(settings, "phase", "idle")


def phase_of(settings: Settings) -> str:
    """Give what the newest worker did last."""
    lines = _notes(settings, "phase")
    return lines[-1] if lines else "nothing"


def _log_turn(bound: Bound, settings: Settings) -> None:
    batch = len(_notes(settings, "recorded"))
    _note(settings, "phase", "record")
    bound.log.record([_prediction(id_) for id_ in _ids(batch)])
    _note(settings, "recorded", str(batch))
    batch = len(_notes(settings, "labelled"))
    _note(settings, "phase", "label")
    bound.log.label([_label(id_) for id_ in _ids(batch)])
    _note(settings, "labelled", str(batch))
    _note(settings, "phase", "collect")
    collect(bound.log)


def _train_turn(bound: Bound, settings: Settings) -> None:
    _note(settings, "phase", "decide")
    decision = decide(bound)
    _note(settings, "decided", decision.id)
    if not decision.fired:
        return
    _note(settings, "phase", "update")
    made = carry_out(bound, decision.id, by="benchmark").version
    if made is None:
        return
    _note(settings, "trained", made.number)
    _note(settings, "phase", "promote")
    target = made.parent or made.number
    reign = bound.registry.promote(target, by="benchmark", reason="crash")
    _note(settings, "promoted", f"{reign.epoch} {reign.version}")


def _check(bound: Bound, settings: Settings, task: Task) -> Iterator[str]:
    """Say what is wrong after the next start: of the log always, of the registry after a training."""
    _note(settings, "phase", "check")
    collect(bound.log)
    yield from _check_log(bound, settings)
    yield from _check_archive(bound)
    if task == TRAIN and bound.log.stop():
        _carry_on(bound)
        yield from _check_decisions(bound, settings)
        yield from _check_champion(bound, settings)
        yield from _check_versions(bound, settings)


def _carry_on(bound: Bound) -> None:
    """Train the first version, or finish what a killed worker left undone."""
    if bound.registry.champion() is None:
        train(bound, by="benchmark")
    for waiting in bound.decisions.unended():
        carry_out(bound, waiting.id, by="benchmark, after a crash")
    bound.registry.heed_aliases()
    close_leftovers(bound.registry.mlflow)


def _check_decisions(bound: Bound, settings: Settings) -> Iterator[str]:
    decisions = bound.decisions.newest()
    if lost := set(_notes(settings, "decided")) - {decision.id for decision in decisions}:
        yield f"acknowledged decisions are lost: {lost}"
    made = Counter(v.decision for v in bound.registry.store.versions() if v.decision)
    ended = {d.id for d in decisions if d.outcome is not None and d.outcome.version is not None}
    if made != Counter(ended):
        yield f"decisions {sorted(ended)} and versions of {sorted(made.items())} do not match"


def _check_log(bound: Bound, settings: Settings) -> Iterator[str]:
    recorded = Counter(bound.log.predictions()["prediction_id"].to_list())
    examples = Counter(bound.log.examples(columns=("prediction_id",))["prediction_id"].to_list())
    for name, there in (("recorded", recorded), ("labelled", examples)):
        wanted = {id_ for batch in _notes(settings, name) for id_ in _ids(int(batch))}
        if lost := wanted - there.keys():
            yield f"{len(lost)} acknowledged as {name} are lost, such as {min(lost)}"
        if twice := [id_ for id_, count in there.items() if count > 1]:
            yield f"{len(twice)} {name} are there twice, such as {min(twice)}"


def _check_archive(bound: Bound) -> Iterator[str]:
    keys: dict[Archived, str] = {"predictions": "position", "labels": "position", "examples": "offset"}
    places = {
        name: pl.read_delta(bound.log.archive[name].address, columns=[key])[key].to_list()
        for name, key in keys.items()
        if bound.log.archive[name].stop()
    }
    if not places:
        return
    stop = bound.log.stop()
    if sorted(places.get("examples", [])) != list(range(stop)):
        yield f"the archive does not hold each of {stop} examples once"
    positions = sorted(places["predictions"] + places["labels"])
    if positions != list(range(bound.log.archive["predictions"].stop())):
        yield f"the archive does not hold each of {len(positions)} predictions and labels once"


def _check_champion(bound: Bound, settings: Settings) -> Iterator[str]:
    history = bound.registry.championship.history()
    row = tables.champion.c
    with bound.database.reading() as connection:
        champion = connection.execute(
            select(row.version, row.epoch).where(row.pipeline_id == bound.log.pipeline_id)
        ).one()
    if (champion.epoch, champion.version) != (history[-1].epoch, history[-1].version):
        yield f"the champion is {champion}, the last reign {history[-1]}"
    chain = [None, *(reign.version for reign in history)]
    if [(reign.epoch, reign.previous) for reign in history] != list(enumerate(chain[:-1], 1)):
        yield "the reigns do not follow one another"
    reigns = {f"{reign.epoch} {reign.version}" for reign in history}
    if lost := set(_notes(settings, "promoted")) - reigns:
        yield f"acknowledged promotions are lost: {lost}"
    aliases = bound.registry.store.aliases()
    wanted = {"champion": history[-1].version, "previous": history[-1].previous}
    if any(aliases.get(name) != number for name, number in wanted.items()):
        yield f"the aliases are {aliases}, not {wanted}"


def _check_versions(bound: Bound, settings: Settings) -> Iterator[str]:
    store = bound.registry.store
    versions = store.versions()
    if lost := set(_notes(settings, "trained")) - {version.number for version in versions}:
        yield f"acknowledged versions are lost: {lost}"
    if len({version.recipe_id for version in versions}) != len(versions):
        yield "a recipe was registered twice"
    champion = bound.registry.champion()
    if champion is not None:
        store.verified_files(champion, again=True)  # raises where its digest does not hold
    if left := close_leftovers(bound.registry.mlflow):
        yield f"{left} runs or models were left open"


def _ids(batch: int) -> list[str]:
    return [f"{batch:06}-{i}" for i in range(_ROWS)]


def _moment(id_: str) -> datetime:
    return _START + timedelta(seconds=int(id_.replace("-", "")))


def _prediction(id_: str) -> Prediction:
    x = float(int(id_.replace("-", "")) % 7)
    return Prediction(id=id_, features={"x": x, "y": 1.0}, output=0.5, served_at=_moment(id_))


def _label(id_: str) -> Label:
    return Label(prediction_id=id_, value=int(id_[-1]) % 2 == 0, known_at=_moment(id_))


def _note(settings: Settings, name: str, text: str) -> None:
    """Add a line in one write: it is there, or not, whenever the process is killed."""
    handle = os.open(settings.root / f"{name}.notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, f"{text}\n".encode())
    finally:
        os.close(handle)


def _notes(settings: Settings, name: str) -> list[str]:
    path = settings.root / f"{name}.notes"
    return path.read_text().splitlines() if path.exists() else []

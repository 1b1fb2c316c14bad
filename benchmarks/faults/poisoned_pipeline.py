"""A pipeline that learns while poison comes in: what it does of it, and what was seen of its states."""

import random
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from msgspec.structs import replace

from benchmarks.faults.poison_doors import Doors
from benchmarks.faults.poisons import POISON, Poison, Row, good_rows
from headwater.features.read.log_reader import LogReader
from headwater.learners.learner import Learner
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.training.fold import fold
from headwater.loop.training.update import train
from headwater.registry.restore import restore
from headwater.serving.keeper.keeper import Keeper
from headwater.serving.published.alarms import KeeperStatusFile
from headwater.serving.published.published_models import PublishedModels
from headwater.spec.errors import SchemaError
from headwater.spec.pipeline import Task
from headwater.spec.recipe import OffsetRange, Recipe

__all__ = ["FAULTS", "PoisonedPipeline", "Seen"]

FAULTS = ("stopped", "ruined", "unnamed", "false stop")
_JUDGED = 400
_WORSE = 2.0
_LEAST_CHANCE = 0.05
_ROUNDS = 60
_STEPS = 200


class Seen(NamedTuple):
    """A fault that was seen.

    Parameters
    ----------
    fault
        One of :data:`FAULTS`.
    what
        Where, and what was seen.
    """

    fault: str
    what: str


class PoisonedPipeline:
    """One pipeline with its keeper, which learns what comes by its doors; used in a ``with`` block.

    Parameters
    ----------
    bound, doors, seed
        The pipeline with its stores, which has a first version; its doors; and what random moments are
        drawn by.

    Attributes
    ----------
    faults, counts
        What was seen.
    """

    def __init__(self, bound: Bound, doors: Doors, seed: int) -> None:
        self.bound = bound
        self.faults: list[Seen] = []
        self.counts: Counter[str] = Counter()
        self._doors = doors
        self._rng = random.Random(seed)
        self._keeper = Keeper(bound)
        self._live = PublishedModels(bound.pipeline, bound.settings)
        self._clean = _CleanFold(bound)
        self._judged = _judged(
            good_rows(bound.pipeline, "judged", _JUDGED, seed), bound.pipeline.feature_names
        )
        self._checked: set[str] = set()

    def __enter__(self) -> "PoisonedPipeline":
        self._keeper.__enter__()
        self._step()
        return self

    def __exit__(self, *error: object) -> None:
        self._keeper.__exit__(*error)

    def send(self, door: str, poison: Poison, good: Sequence[Row]) -> None:
        """Send poison within good rows; what is refused must be named, and the good ones taken alone."""
        place = self._rng.randrange(len(good) + 1)
        where = f"{door}, {poison.kind} {poison.value}"
        before = self._stored(poison)
        try:
            refused = self._doors.by_name[door]([*good[:place], *poison.rows, *good[place:]])
        except Exception as error:  # noqa: BLE001 - whatever a client sees that is no refusal
            self._fault("unnamed", f"{where}: {type(error).__name__}: {error}")
            refused = ""
        if refused is None:
            self.counts["recorded"] += 1
            return
        self.counts["refused"] += 1
        if refused and not re.search(poison.names, refused):
            self._fault("unnamed", f"{where}: {refused}")
        if door in {"python", "csv", "parquet"} and self._stored(poison) != before:
            self._fault("unnamed", f"{where}: refused, and recorded")
        if good and (still := self._doors.by_name[door](good)) is not None:
            self.faults.append(
                Seen("stopped", f"{where}: good rows are refused after it: {still}"[:600])
            )

    def good(self, door: str, rows: Sequence[Row]) -> None:
        """Send good rows."""
        if (refused := self._doors.by_name[door](rows)) is not None:
            self._fault("stopped", f"{door}: {refused}")

    def learn(self, *, steps: int = _STEPS) -> None:
        """Learn what has come, quarantine what alarms name, and check each state that serves."""
        for _ in range(_ROUNDS):
            if self.bound.pipeline.learn == "each label":
                self._step(steps)
            else:
                self._update()
            self._check_served()
            if not self._heed_alarms():
                return
        self._fault("stopped", "alarms do not end")

    def end(self) -> None:
        """Learn all that has come, and check that nothing waits."""
        self.learn()
        bound = self.bound
        stop, batch = bound.log.stop(), bound.pipeline.batch_rows or 1
        if bound.pipeline.learn == "each label":
            serving = self._live.read()
            learned_to = 0 if serving is None else serving.states[0].learned_to
        else:
            batch, learned_to = 1, _champion_stop(bound)
        if learned_to // batch < stop // batch and not self._all_out(learned_to, stop):
            self._fault("stopped", f"learned to {learned_to} of {stop}")

    def _all_out(self, start: int, stop: int) -> bool:
        """Return whether all examples that are not learned are quarantined."""
        out: set[int] = set()
        for span in self.bound.registry.quarantine.ranges():
            out.update(range(span.start, span.stop))
        return out.issuperset(range(start, stop))

    def _step(self, most: int = _STEPS) -> None:
        for _ in range(most):
            if not self._keeper.step():
                return

    def _update(self) -> None:
        """Update as the flow does: collect, learn, promote."""
        collect(self.bound.log)
        try:
            train(self.bound, by="benchmark")
        except SchemaError:
            self.counts["updates that ended at poison"] += 1
        self._step()

    def _heed_alarms(self) -> bool:
        """Quarantine what the alarms of learning name; return whether there were any."""
        name = self.bound.pipeline.name
        status = KeeperStatusFile(name, self.bound.settings).read()
        alarms = [alarm for alarm in status.alarms if alarm.kind in {"learning", "swap", "stores"}]
        for alarm in alarms:
            named = re.search(rf"headwater quarantine {name} ([\d: ]+)", alarm.hint)
            if named is None:
                self._fault("stopped", f"{alarm.what}; {alarm.hint}")
                self._quarantine_all()
                continue
            spans = [OffsetRange(*map(int, one.split(":"))) for one in shlex.split(named[1])]
            self._count_stop(spans, alarm.what)
            self.bound.registry.quarantine.add(spans, by="benchmark", reason=alarm.what[:200])
        return bool(alarms)

    def _count_stop(self, spans: Sequence[OffsetRange], what: str) -> None:
        for span in spans:
            ids = self.bound.log.examples(span.start, span.stop, ("prediction_id",))["prediction_id"]
            poison = ids.str.starts_with(POISON)
            self.counts["quarantined"] += int(poison.sum())
            self.counts["good rows of their batches"] += int((~poison).sum())
            if not poison.any():
                self._fault("false stop", f"{span}: {what}")
        self.counts["stops"] += 1

    def _quarantine_all(self) -> None:
        """Quarantine all poison, so that what comes next can be seen, too."""
        spans = [OffsetRange(at, at + 1) for at in self._clean.poison(0, self.bound.log.stop())]
        self.bound.registry.quarantine.add(spans, by="benchmark", reason="stopped")

    def _check_served(self) -> None:
        """Check the state that serves, and the versions that became champion."""
        bound, store = self.bound, self.bound.registry.store
        for reign in bound.registry.championship.history():
            if reign.version not in self._checked:
                self._checked.add(reign.version)
                version = store.get(reign.version)
                recipe = Recipe.from_json(store.verified_files(version).recipe)
                self._check(f"version {version.number}", store.learner(version), recipe, version.digest)
        serving = self._live.read()
        if serving is None or bound.pipeline.learn != "each label":
            return
        state = serving.states[0]
        files = [
            (self._live.folder / f"{state.name}.{kind}").read_bytes()
            for kind in ("state", "recipe", "proof")
        ]
        learner = restore(*files, bound.settings.key())
        self._check(
            f"state to {state.learned_to}", learner, Recipe.from_json(files[1]), learner.digest()
        )

    def _check(self, what: str, learner: Learner, recipe: Recipe, digest: str) -> None:
        self.counts["states"] += 1
        parent = None if recipe.parent is None else self.bound.registry.store.get(recipe.parent)
        base = None if parent is None else self.bound.registry.store.learner(parent)
        if fold(recipe, self.bound.log, base)[0].digest() != digest:
            self._fault("ruined", f"{what}: its recipe does not rebuild it")
        clean = self._clean.at(recipe.examples.stop, recipe)
        task, (features, labels) = self.bound.pipeline.task, self._judged
        loss, least = (_loss(task, one, features, labels) for one in (learner, clean))
        if not loss <= _WORSE * least:
            self._fault("ruined", f"{what}: loss {loss:.4g}, {least:.4g} without the poison")

    def _fault(self, fault: str, what: str) -> None:
        pipeline = self.bound.pipeline
        self.faults.append(Seen(fault, f"{pipeline.name}, {pipeline.learn}: {what}"[:600]))

    def _stored(self, poison: Poison) -> list[object]:
        """Return what is recorded under the ids of poison."""
        ids = [row.id for row in poison.rows if isinstance(row.id, str) and row.id.isprintable()]
        return [self.bound.log.recorder.find(id_) for id_ in ids]


class _CleanFold:
    """A fold of all examples but the poison, which goes on as they come."""

    def __init__(self, bound: Bound) -> None:
        self._log: LogReader = bound.log
        self._learner: Learner | None = None
        self._to = 0

    def at(self, stop: int, recipe: Recipe) -> Learner:
        """Learn up to an offset, as a recipe does."""
        if stop > self._to:
            spans = tuple(OffsetRange(at, at + 1) for at in self.poison(self._to, stop))
            clean = replace(
                recipe, parent=None, parent_digest=None, update="stateful",
                examples=OffsetRange(self._to, stop), exclusions=spans,
            )  # fmt: skip
            self._learner, _ = fold(clean, self._log, self._learner)
            self._to = stop
        assert self._learner is not None
        return self._learner

    def poison(self, start: int, stop: int) -> Iterator[int]:
        """Yield the offsets of poison."""
        rows = self._log.examples(start, stop, ("offset", "prediction_id"))
        yield from rows.filter(pl.col("prediction_id").str.starts_with(POISON))["offset"]


def _judged(rows: Sequence[Row], names: Sequence[str]) -> tuple[pl.DataFrame, pl.Series]:
    features = pl.DataFrame({name: [row.features[name] for row in rows] for name in names})
    return features, pl.Series([row.label for row in rows])


def _loss(task: Task, learner: Learner, features: pl.DataFrame, labels: pl.Series) -> float:
    """Return the mean error, or log loss; a chance below a twentieth counts as that.

    A tree that has just split is sure of what it has hardly seen, with poison and without.
    """
    outputs, truth = learner.predict(features), labels.to_list()
    if task == "regression":
        return float(np.abs(np.array(outputs, dtype=float) - labels.to_numpy()).mean())
    chances = [
        output.get(label, 0.0) if isinstance(output, dict) else output if label else 1 - output
        for output, label in zip(outputs, truth, strict=True)
    ]
    return float(-np.log(np.maximum(chances, _LEAST_CHANCE)).mean())


def _champion_stop(bound: Bound) -> int:
    champion = bound.registry.champion()
    return 0 if champion is None else champion.examples.stop

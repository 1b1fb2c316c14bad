"""Random edits of a pipeline, with records, updates and restarts between: nothing is lost or unsaid.

``python -m benchmarks.lineage.edits SEQUENCES [SQLite PostgreSQL]`` plays another number of them.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import polars as pl

from benchmarks.claim import Outcome, at_most, fresh_home, mlflow_database, say
from benchmarks.faults.postgres_server import Postgres, running_postgres
from benchmarks.lineage.drawn_edits import FIRST, drawn, values_of
from headwater.infra.clock import SimulatedClock
from headwater.infra.offline import quiet
from headwater.infra.settings import Settings
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.declaring.edit_plan import declare, plan_edits
from headwater.loop.rebuild import rebuild, rebuild_here
from headwater.loop.training.update import train
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import ChangedError, HeadwaterError
from headwater.spec.pipeline import Pipeline

__all__ = ["measure", "played"]

_SEQUENCES, _SHORT_SEQUENCES = 3_000, 1
_MOST_EDITS = 6
_ROWS = 24
_APART = 20
_START = datetime(2026, 1, 1, tzinfo=UTC)


def measure(*, short: bool) -> Outcome:
    """Edit a pipeline at random, up to six times, and hold the log and its versions against what was.

    ``ratio`` counts what came out wrong: an acknowledged record that is not in the log, a range of
    examples that is not what it was, a version that does not rebuild, an edit that the plan did not say
    or that was refused after the plan did not, and an error that is none of ours.
    """
    kinds = ("SQLite",) if short else ("SQLite", "PostgreSQL")
    return played(_SHORT_SEQUENCES if short else _SEQUENCES, kinds)


def played(sequences: int, kinds: tuple[str, ...]) -> Outcome:
    """Play so many sequences, in turns on each kind of database; see :func:`measure`."""
    wrong: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    began_s = time.monotonic()
    with _databases(kinds) as databases:
        for seed in range(1, sequences + 1):
            with fresh_home(mlflow_database()) as home:
                settings = replace_database(home, databases[seed % len(databases)])
                sequence = _Sequence(settings, seed)
                try:
                    sequence.play()
                except HeadwaterError as error:
                    sequence.wrong.append(f"{type(error).__name__}: {error}")
                except Exception as error:  # noqa: BLE001 - the claim is that there is none
                    sequence.wrong.append(f"no error of ours: {type(error).__name__}: {error}")
            counts.update(sequence.counts)
            for text in sequence.wrong:
                say(f"  sequence {seed}, {' > '.join(sequence.edits)}: {text}")
                wrong[text.partition(":")[0]] += 1
            if seed % 50 == 0:
                say(f"  {seed} sequences in {time.monotonic() - began_s:.0f} s")
    numbers = {name.replace(" ", "_"): count for name, count in sorted(counts.items())}
    return at_most(sum(wrong.values()), 0, sequences=sequences, wrong=dict(wrong), **numbers)


def replace_database(home: Settings, postgres: Postgres | None) -> Settings:
    """Return the settings of a home with a new database of a server, or its own SQLite file."""
    if postgres is None:
        return home
    return home.model_copy(update={"database_url": postgres.new_database()})


@contextmanager
def _databases(kinds: tuple[str, ...]) -> Iterator[list[Postgres | None]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_postgres()) if kind == "PostgreSQL" else None for kind in kinds
        ]


class _Sequence:
    """One sequence of edits on a home of its own."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.wrong: list[str] = []
        self.edits: list[str] = []
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._seed = seed
        self._random = Random(seed)
        self._clock = SimulatedClock(_START)
        self._ids: set[str] = set()
        self._were: dict[int, pl.DataFrame] = {}
        self._rebuilt: set[str] = set()

    def play(self) -> None:
        pipeline = FIRST
        with self._bound(pipeline) as bound:
            declare(bound, by="claim")
            self._live(bound)
        for _ in range(self._random.randint(1, _MOST_EDITS)):
            name, edited = drawn(pipeline, self._random)
            self.edits.append(name)
            self.counts["edits"] += 1
            if self._carried_out(name, edited):
                pipeline = edited
            with self._bound(pipeline) as bound:  # as whoever starts again
                self._live(bound)
        with self._bound(pipeline) as bound:
            self._check_all(bound)

    def _bound(self, pipeline: Pipeline) -> Bound:
        return Bound(pipeline, self._settings, self._clock)

    def _carried_out(self, name: str, edited: Pipeline) -> bool:
        """Plan an edit, and say the word if it asks; return whether it is in force."""
        with self._bound(edited) as bound:
            plan = plan_edits(bound)
            if not plan.edits:
                self.wrong.append(f"unsaid: {name}")
            if plan.refused:
                self.counts["refused"] += 1
                self._refused(bound)
                return False
            if plan.asks:
                self.counts["asked"] += 1
                if self._random.random() < 0.5:
                    self._asks(bound)
                declare(bound, by="claim", apply=True)
            else:
                declare(bound, by="claim")
        return True

    def _refused(self, bound: Bound) -> None:
        """See that what the plan refuses is refused by what acts, before any effect."""
        stop = bound.log.stop()
        try:
            self._record(bound, 1)
        except ChangedError:
            pass
        else:
            self.wrong.append("refused by the plan alone")
        if bound.log.stop() != stop:
            self.wrong.append("an effect of what is refused")

    def _asks(self, bound: Bound) -> None:
        try:
            train(bound)
        except ChangedError:
            return
        self.wrong.append("trained without the word")

    def _live(self, bound: Bound) -> None:
        """Record, label, collect and train, some of it; hold what was against what is."""
        random = self._random
        for _ in range(random.randint(1, 2)):
            self._clock.advance_to(self._clock.now() + timedelta(hours=random.choice((1, 5, 30))))
            self._record(bound, random.randint(2, _ROWS))
            if random.random() < 0.8:
                collect(bound.log)
        self._check_examples(bound)
        if random.random() < 0.7 and bound.log.stop():
            updated = train(bound)
            self.counts["versions"] += updated.version is not None

    def _record(self, bound: Bound, rows: int) -> None:
        random, now = self._random, self._clock.now()
        features = bound.pipeline.features
        ids = [f"{len(self._ids)}-{row}" for row in range(rows)]
        predictions = [
            Prediction(id=id_, features=values_of(features, random), output=0.5, served_at=now)
            for id_ in ids
        ]
        bound.log.record(predictions)
        self._ids.update(ids)
        told = [id_ for id_ in self._ids if random.random() < 0.3]
        told += [id_ for id_ in ids if id_ not in told and random.random() < 0.8]
        bound.log.label(
            [Label(prediction_id=id_, value=random.random() < 0.5, known_at=now) for id_ in sorted(told)]
        )
        if bound.log.record(predictions[:3]):
            self.wrong.append("recorded twice: it was new again")

    def _check_examples(self, bound: Bound) -> None:
        """Hold ranges of examples against what they were when they were read first."""
        stop = bound.log.stop()
        for end, was in self._were.items():
            self.counts["ranges compared"] += 1
            if not bound.log.examples(0, end).equals(was):
                self.wrong.append(f"other examples: [0, {end})")
        self._were[stop] = bound.log.examples(0, stop)
        bound.log.projected(0, stop)

    def _check_all(self, bound: Bound) -> None:
        self._clock.advance_to(self._clock.now() + timedelta(days=9))
        collect(bound.log)
        self._check_examples(bound)
        there = set(bound.log.predictions()["prediction_id"].to_list())
        if there != self._ids:
            self.wrong.append(f"lost: {len(self._ids - there)} of {len(self._ids)}")
        self.counts["records"] += len(self._ids)
        folds = rebuild if self._seed % _APART == 0 else rebuild_here
        for version in bound.registry.store.versions():
            self.counts["rebuilt"] += 1
            if not folds("edited", version.number, self._settings).equal:
                self.wrong.append(f"does not rebuild: version {version.number}")


if __name__ == "__main__":
    quiet()
    print(played(int(sys.argv[1]), tuple(sys.argv[2:]) or ("SQLite",)).line("edits", short=False))

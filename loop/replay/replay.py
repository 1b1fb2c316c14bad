"""Replay events through a pipeline as they happened: predict, log, wait for labels, collect, update.

A replay calls the functions that the flows and the service call; only the clock is simulated.

If all triggers of a pipeline go by the clock, it is updated when they are due: ``Cron`` at its times, in
its zone; ``Every`` each interval after the replay began, as if its schedule had begun then. With
any other trigger, it decides at the end of each interval. A pipeline without triggers is not updated.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from heapq import merge
from itertools import groupby
from typing import NamedTuple

import pandas as pd
import polars as pl

from headwater.features.sequence.sequencer import Sequencer
from headwater.infra.clock import SimulatedClock, from_us, to_us
from headwater.learners.learner import Learner
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision.decide import decide
from headwater.loop.decision.execute import carry_out
from headwater.loop.replay.history import History
from headwater.loop.replay.import_history import import_history
from headwater.loop.training.update import UpdateResult, train
from headwater.spec.data.label import DUE_AT
from headwater.spec.data.records import Label, LabelValue, Output, Prediction, utc
from headwater.spec.errors import DeclarationError, NotEnoughError
from headwater.spec.updating.decision import Decision
from headwater.spec.updating.timetable import Due, due_times
from headwater.spec.updating.trigger import by_clock

__all__ = ["Replay", "Step"]


class Step(NamedTuple):
    """An interval that was played, or the part of one up to an update that was due within it.

    Parameters
    ----------
    stop
        Its end.
    served
        How many predictions were made in it.
    emitted
        How many examples were emitted, by labels that became known in it.
    updated
        The update at its end; None if none was due.
    decision
        The decision of the triggers; None if the pipeline goes by the clock.
    """

    stop: datetime
    served: int
    emitted: int
    updated: UpdateResult | None
    decision: Decision | None


class _ReplayEvent(NamedTuple):
    at_us: int
    is_label: bool
    record: Prediction | Label


class _Moment(NamedTuple):
    """The end of an interval, or a time at which an update is due; `updates` says whether one is."""

    at: datetime
    updates: bool
    due: Due | None = None


class Replay:
    """Plays a table of events, a row a prediction, through one pipeline.

    Parameters
    ----------
    bound
        The pipeline; its clock must be `clock`.
    clock
        The simulated clock, which the replay moves.
    events
        Columns ``id``, ``served_at``, ``label`` and ``known_at`` (both null where never known), and
        the features by name; sorted by ``served_at``. Values as for
        :func:`~headwater.loop.replay.import_history.import_history`.

    Raises
    ------
    DeclarationError
        If the pipeline learns each label: a replay learns at its updates only.
    SchemaError
        If a column is missing, or a value is not of the declared type; the error names its row.
    """

    def __init__(self, bound: Bound, clock: SimulatedClock, events: pl.DataFrame | pd.DataFrame) -> None:
        if bound.pipeline.learn == "each label":
            raise DeclarationError(
                f'pipeline {bound.pipeline.name!r} has learn="each label", which a replay in this '
                "process cannot do yet",
                hint='write learn="on schedule", or replay it over HTTP: headwater serve, and beside it '
                "headwater replay",
            )
        self._bound = bound
        self._clock = clock
        history = History(bound.pipeline, events)
        with history.placing():
            self._events = pl.concat(history.frames())
        self._began: datetime | None = None
        self._learner: tuple[str, Learner] | None = None

    def begin(self, start: datetime) -> UpdateResult:
        """Import the predictions served before `start`, and train on the labels that are known then.

        Raises
        ------
        NotEnoughError
            If nothing happened before `start`.
        """
        start = utc(start, "start")
        past = self._events.filter(pl.col("served_at") < start)
        if past.is_empty():
            raise NotEnoughError(f"nothing happened before {start:%Y-%m-%d}", hint="start later")
        known = pl.when(pl.col("known_at") <= start)
        columns = [known.then(pl.col(name)).alias(name) for name in ("label", "known_at")]
        self._clock.advance_to(start)
        names = {feature.name: feature.source_column for feature in self._bound.pipeline.features}
        import_history(self._bound.log, past.with_columns(columns).rename(names))
        collect(self._bound.log)
        self._began = start
        return train(self._bound, by="replay")

    def run(self, start: datetime, stop: datetime, every: timedelta, *, update: bool) -> Iterator[Step]:
        """Play from `start` to `stop`, and collect after each interval and each update.

        Parameters
        ----------
        start, stop
            With a zone; `start` is where :meth:`begin`, or an earlier run, ended.
        every
            Length of an interval.
        update
            Whether the pipeline is updated. If its triggers go by the clock, it is updated when they are
            due, which may be within an interval; else when they fire, which is decided at the end of
            each. An update that is due at `stop` is left to a run from there.

        Yields
        ------
        Step
            An interval, or a part of it: an interval ends early if an update is due.

        Raises
        ------
        DeclarationError
            If `every` is no length, or a cron line names no times; nothing is played then.
        """
        start, stop = utc(start, "start"), utc(stop, "stop")
        if every <= timedelta(0):
            raise DeclarationError(f"every={every!r} is no length", hint="write timedelta(days=1)")
        self._began = self._began or start
        with self._bound.log.sequencer() as sequencer:
            for at, moments in groupby(
                self._moments(start, stop, every, update), key=lambda each: each.at
            ):
                updates = [each for each in moments if each.updates]
                step = self._play(start, at, sequencer)
                yield self._updated(step, updates[0]) if updates else step
                start = at

    def _moments(
        self, start: datetime, stop: datetime, every: timedelta, update: bool
    ) -> Iterator[_Moment]:
        """Yield, in order, the ends of intervals and the times at which updates are due."""
        began, triggers = self._began or start, self._bound.pipeline.triggers
        scheduled = by_clock(triggers)
        evidence = update and not scheduled
        ends = (_Moment(end, updates=evidence and end < stop) for end in _ends(start, stop, every))
        due = due_times(triggers, began, start, stop) if update and scheduled else iter(())
        return merge(ends, (_Moment(each.at, True, each) for each in due), key=lambda each: each.at)

    def _play(self, start: datetime, end: datetime, sequencer: Sequencer) -> Step:
        served = self._events.filter(pl.col("served_at").is_between(start, end, closed="left"))
        log = self._bound.log
        with log.one_sync():
            events = sorted([*self._predict(served), *self._labels(start, end)], key=_order)
            for (at_us, is_label), group in groupby(events, key=_order):
                self._clock.advance_to(max(from_us(at_us), start))
                records = [event.record for event in group]
                log.label(records) if is_label else log.record(records)  # type: ignore[arg-type] # one kind each
        self._clock.advance_to(end)
        emitted = collect(log, sequencer).emitted
        return Step(end, served.height, emitted, None, None)

    def _updated(self, step: Step, moment: _Moment) -> Step:
        bound = self._bound
        if moment.due is not None:
            scratch = moment.due.update == "stateless"
            return step._replace(updated=train(bound, by="replay", from_scratch=scratch))
        decision = decide(bound)
        updated = carry_out(bound, decision.id, by="replay") if decision.fired else None
        return step._replace(updated=updated, decision=decision)

    def _predict(self, served: pl.DataFrame) -> Iterator[_ReplayEvent]:
        names = self._bound.pipeline.feature_names
        if served.is_empty():
            return
        version, learner = self._champion()
        outputs: Sequence[Output] = learner.predict(served.select(names))
        columns = [served[name].to_list() for name in ("id", "served_at", *names)]
        dues = served[DUE_AT].to_list() if DUE_AT in served.columns else [None] * served.height
        rows = zip(dues, *columns, strict=True)
        for output, (due_at, id_, served_at, *values) in zip(outputs, rows, strict=True):
            prediction = Prediction(
                id=id_,
                features=dict(zip(names, values, strict=True)),
                output=output,
                served_at=served_at,
                version=version,
                due_at=due_at,
            )
            yield _ReplayEvent(to_us(served_at), False, prediction)

    def _labels(self, start: datetime, end: datetime) -> Iterator[_ReplayEvent]:
        """Yield the labels that become known after `start`, up to and including `end`."""
        known = self._events.filter(
            (pl.col("known_at") > start) & (pl.col("known_at") <= end), pl.col("label").is_not_null()
        )
        rows: Iterator[tuple[str, LabelValue, datetime]] = zip(
            *(known[name].to_list() for name in ("id", "label", "known_at")), strict=True
        )
        for id_, value, known_at in rows:
            label = Label(prediction_id=id_, value=value, known_at=known_at)
            yield _ReplayEvent(to_us(known_at), True, label)

    def _champion(self) -> tuple[str, Learner]:
        champion = self._bound.registry.champion()
        if champion is None:
            raise NotEnoughError("no version serves yet", hint="call begin first")
        if self._learner is None or self._learner[0] != champion.number:
            self._learner = (champion.number, self._bound.registry.store.learner(champion))
        return self._learner


def _order(event: _ReplayEvent) -> tuple[int, bool]:
    return event.at_us, event.is_label


def _ends(start: datetime, stop: datetime, every: timedelta) -> Iterator[datetime]:
    while start < stop:
        start = min(start + every, stop)
        yield start

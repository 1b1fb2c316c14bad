"""Play events through a pipeline as they happened: predict, log, wait for labels, collect, update.

It calls what the flows and the service call; only the clock is simulated.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

import polars as pl

from headwater.features.sequencer import Sequencer
from headwater.infra.clock import SimulatedClock, from_us, to_us
from headwater.learners.learner import Learner
from headwater.loop.binding import Bound
from headwater.loop.carry_out import carry_out
from headwater.loop.collect import collect
from headwater.loop.decide import decide
from headwater.loop.history import Columns, import_history
from headwater.loop.update import Updated, train
from headwater.spec.columns import HISTORY
from headwater.spec.decision import Decision
from headwater.spec.errors import NotEnoughError
from headwater.spec.records import Label, LabelValue, Output, Prediction
from headwater.spec.trigger import by_clock

__all__ = ["Replay", "Step"]


class Step(NamedTuple):
    """One interval that was played.

    Parameters
    ----------
    stop
        Its end.
    served
        How many predictions were made in it.
    emitted
        How many examples came of labels that became known in it.
    updated
        The update at its end; None where none was due.
    decision
        What the triggers said; None where the pipeline goes by the clock.
    """

    stop: datetime
    served: int
    emitted: int
    updated: Updated | None
    decision: Decision | None


class _Event(NamedTuple):
    at_us: int
    is_label: bool
    record: Prediction | Label


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
        the features by name; sorted by ``served_at``.
    """

    def __init__(self, bound: Bound, clock: SimulatedClock, events: pl.DataFrame) -> None:
        self._bound = bound
        self._clock = clock
        self._events = events.select(*HISTORY, *bound.pipeline.feature_names)
        self._learner: tuple[str, Learner] | None = None

    def begin(self, start: datetime) -> Updated:
        """Import what was served before `start`, and train the first version on what is known then.

        Raises
        ------
        NotEnoughError
            If nothing happened before `start`.
        """
        past = self._events.filter(pl.col("served_at") < start)
        if past.is_empty():
            raise NotEnoughError(f"nothing happened before {start:%Y-%m-%d}", hint="start later")
        known = pl.when(pl.col("known_at") <= start)
        columns = [known.then(pl.col(name)).alias(name) for name in ("label", "known_at")]
        import_history(self._bound.log, past.with_columns(columns), Columns())
        self._clock.advance_to(start)
        collect(self._bound.log)
        return train(self._bound, by="replay")

    def run(self, start: datetime, stop: datetime, every: timedelta, *, update: bool) -> Iterator[Step]:
        """Play from `start` to `stop`, and collect after each interval.

        Parameters
        ----------
        start, stop
            With a zone; `start` is where :meth:`begin` ended.
        every
            Length of an interval.
        update
            Whether the pipeline is updated between them: each time where its triggers go by the clock,
            when they fire where they do not.

        Yields
        ------
        Step
            What an interval came to.
        """
        with self._bound.log.sequencer() as sequencer:
            while start < stop:
                end = min(start + every, stop)
                yield self._play(start, end, sequencer, update=update and end < stop)
                start = end

    def _play(self, start: datetime, end: datetime, sequencer: Sequencer, *, update: bool) -> Step:
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
        updated, decision = self._update() if update else (None, None)
        return Step(end, served.height, emitted, updated, decision)

    def _update(self) -> tuple[Updated | None, Decision | None]:
        bound = self._bound
        if by_clock(bound.pipeline.triggers):
            return train(bound, by="replay"), None
        decision = decide(bound)
        return (carry_out(bound, decision.id, by="replay") if decision.fired else None), decision

    def _predict(self, served: pl.DataFrame) -> Iterator[_Event]:
        names = self._bound.pipeline.feature_names
        if served.is_empty():
            return
        version, learner = self._champion()
        outputs: Sequence[Output] = learner.predict(served.select(names))
        columns = [served[name].to_list() for name in ("id", "served_at", *names)]
        rows = zip(*columns, strict=True)
        for output, (id_, served_at, *values) in zip(outputs, rows, strict=True):
            prediction = Prediction(
                id=id_,
                features=dict(zip(names, values, strict=True)),
                output=output,
                served_at=served_at,
                version=version,
            )
            yield _Event(to_us(served_at), False, prediction)

    def _labels(self, start: datetime, end: datetime) -> Iterator[_Event]:
        """Give the labels that become known after `start`, up to and including `end`."""
        known = self._events.filter(
            (pl.col("known_at") > start) & (pl.col("known_at") <= end), pl.col("label").is_not_null()
        )
        rows: Iterator[tuple[str, LabelValue, datetime]] = zip(
            *(known[name].to_list() for name in ("id", "label", "known_at")), strict=True
        )
        for id_, value, known_at in rows:
            label = Label(prediction_id=id_, value=value, known_at=known_at)
            yield _Event(to_us(known_at), True, label)

    def _champion(self) -> tuple[str, Learner]:
        champion = self._bound.registry.champion()
        if champion is None:
            raise NotEnoughError("no version serves yet", hint="call begin first")
        if self._learner is None or self._learner[0] != champion.number:
            self._learner = (champion.number, self._bound.registry.store.learner(champion))
        return self._learner


def _order(event: _Event) -> tuple[int, bool]:
    return event.at_us, event.is_label

"""Rewards for a bandit: those of the versions that answered, counted from labels as they come."""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple

import msgspec
import polars as pl
from sqlalchemy import Connection, delete, insert, select, update

from headwater.infra.store.schema import tables
from headwater.loop.binding import Bound
from headwater.spec.data.records import LabelValue, Output
from headwater.spec.errors import FencedError, SchemaError
from headwater.spec.recipe import OffsetRange
from headwater.spec.serving.bandit import (
    BanditState,
    RewardRule,
    observe,
    pulled,
    retract,
    revise,
    reward_of,
    unrewarded,
    without_rewards,
)

__all__ = ["Rewards"]

_BATCH = 5_000
_COLUMNS = ("offset", "supersedes", "label", "output", "version", "role")
_OUTPUT = msgspec.json.Decoder(dict[str, float])


class _Counts(NamedTuple):
    """The counts, up to which offset and position, and how many quarantined ranges they leave out."""

    reward: RewardRule
    scale: float | None
    first_offset: int
    next_offset: int
    next_position: int
    state: BanditState = BanditState()
    left_out: int = 0


class _Quarantined:
    """Ranges of offsets, of which some may overlap."""

    def __init__(self, spans: list[OffsetRange]) -> None:
        self.ranges = len(spans)
        self._starts = [span.start for span in spans]
        self._stops = list(accumulate((span.stop for span in spans), max))

    def __contains__(self, offset: int) -> bool:
        before = bisect_right(self._starts, offset)
        return before > 0 and offset < self._stops[before - 1]


class Rewards:
    """Counts the rewards of one pipeline's versions; the counts survive restarts.

    It begins with the examples that come after its first step, and begins anew if the reward rule or its
    scale changes. A revised label corrects its count. A label that makes no reward is counted as such. A
    prediction whose newest example is quarantined has no reward; a later quarantine has all rewards
    counted anew, a few thousand a step, while the counts before it hold.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._counts: _Counts | None = None
        self._recount: tuple[_Counts, _Counts] | None = None  # of which counts, and how far it is

    def step(self, reward: RewardRule, scale: float | None = None) -> BanditState:
        """Count new records, a few thousand at most, and return the counts.

        Parameters
        ----------
        reward, scale
            The worth of a label.

        Raises
        ------
        FencedError
            If another process counts, too; nothing is counted twice.
        StorageError, TableError
            If a store is away.
        """
        counts = self._counts or self._read()
        if counts is None or (counts.reward, counts.scale) != (reward, scale):
            counts = self._begin(reward, scale)
        self._counts = None  # until the new counts are stored
        counted = self._counted(counts)
        if counted != counts:
            self._store(counts, counted)
        self._counts = counted
        return counted.state

    def _counted(self, counts: _Counts) -> _Counts:
        quarantined = _Quarantined(self._bound.registry.quarantine.ranges())
        if counts.left_out != quarantined.ranges:
            recount = self._recounted(counts, quarantined)
            if recount.next_offset < counts.next_offset:
                self._recount = counts, recount
                return counts  # what is known holds until then
            counts, self._recount = recount, None
        log, state = self._bound.log, counts.state
        offset = min(log.stop(), counts.next_offset + _BATCH)
        position = min(log.positions(), counts.next_position + _BATCH)
        if counts.next_position < position:
            served = log.served(counts.next_position, position, ("version", "role"))
            pulls = served.filter(pl.col("role") != "imported")["version"].value_counts()
            for version, times in pulls.iter_rows():
                state = pulled(state, version, times)
        if counts.next_offset < offset:
            state = self._rewarded(counts._replace(state=state), offset, quarantined)
        return counts._replace(next_offset=offset, next_position=position, state=state)

    def _recounted(self, counts: _Counts, quarantined: _Quarantined) -> _Counts:
        """Count a few thousand rewards more of all, anew, without what is quarantined now."""
        before, recount = self._recount or (None, counts)
        if before is not counts or recount.left_out != quarantined.ranges:
            recount = counts._replace(
                next_offset=counts.first_offset,
                state=without_rewards(counts.state),
                left_out=quarantined.ranges,
            )
        stop = min(counts.next_offset, recount.next_offset + _BATCH)
        state = self._rewarded(recount, stop, quarantined)
        return recount._replace(state=state, next_offset=stop)

    def _rewarded(self, counts: _Counts, stop: int, quarantined: _Quarantined) -> BanditState:
        """Count the rewards from the next offset to `stop`."""
        state, examples = counts.state, self._bound.log.examples(counts.next_offset, stop, _COLUMNS)
        labels: dict[int, LabelValue] = dict(examples.select("offset", "label").iter_rows())
        for offset, supersedes, label, output, version in _answered_examples(examples):
            if supersedes is not None and supersedes < counts.first_offset:
                continue
            before = after = None
            if supersedes is not None and supersedes not in quarantined:
                before = self._superseded(counts, output, supersedes, labels)
            if offset not in quarantined:
                try:
                    after = reward_of(counts.reward, output, label, counts.scale)
                except SchemaError as error:
                    state = unrewarded(state, offset, error.what)
            state = _corrected(state, version, before, after)
        return state

    def _superseded(
        self, counts: _Counts, output: Output, offset: int, labels: dict[int, LabelValue]
    ) -> float | None:
        """Return the reward that a revised label had; None if it had none, and was counted as such."""
        with suppress(SchemaError):
            return reward_of(counts.reward, output, self._label(offset, labels), counts.scale)
        return None

    def _label(self, offset: int, counts: dict[int, LabelValue]) -> LabelValue:
        if offset in counts:
            return counts[offset]
        value: LabelValue = self._bound.log.examples(offset, offset + 1, ("offset", "label"))["label"][0]
        return value

    def _read(self) -> _Counts | None:
        table = tables.bandit.c
        columns = [table[name] for name in _Counts._fields]
        mine = table.pipeline_id == self._bound.log.pipeline_id
        with self._bound.database.reading() as connection:
            row = connection.execute(select(*columns).where(mine)).one_or_none()
        if row is None:
            return None
        counts = _Counts._make(row)
        return counts._replace(state=msgspec.json.decode(row.state, type=BanditState))

    def _begin(self, reward: RewardRule, scale: float | None) -> _Counts:
        table, log = tables.bandit, self._bound.log
        initial = _Counts(reward, scale, log.stop(), log.stop(), log.positions())
        with self._bound.database.transaction() as connection:
            connection.execute(delete(table).where(table.c.pipeline_id == log.pipeline_id))
            row = {**initial._asdict(), "state": msgspec.json.encode(initial.state)}
            connection.execute(insert(table).values(pipeline_id=log.pipeline_id, **row))
        return initial

    def _store(self, counts: _Counts, counted: _Counts) -> None:
        with self._bound.database.transaction() as connection:
            if self._move(connection, counts, counted) != 1:
                raise FencedError(
                    f"another process counts the rewards of {self._bound.pipeline.name!r}",
                    hint="let one service run for a pipeline's home",
                )

    def _move(self, connection: Connection, counts: _Counts, counted: _Counts) -> int:
        table = tables.bandit
        return connection.execute(
            update(table)
            .where(
                table.c.pipeline_id == self._bound.log.pipeline_id,
                table.c.reward == counts.reward,
                table.c.scale.is_not_distinct_from(counts.scale),
                table.c.next_offset == counts.next_offset,
                table.c.next_position == counts.next_position,
                table.c.left_out == counts.left_out,
            )
            .values(
                next_offset=counted.next_offset,
                next_position=counted.next_position,
                state=msgspec.json.encode(counted.state),
                left_out=counted.left_out,
            )
        ).rowcount


def _corrected(
    state: BanditState, version: str, before: float | None, after: float | None
) -> BanditState:
    """Count that the reward of a prediction was `before` and is `after`; None is no reward."""
    if before is None:
        return state if after is None else observe(state, version, after)
    return retract(state, version, before) if after is None else revise(state, version, before, after)


def _answered_examples(
    examples: pl.DataFrame,
) -> Iterator[tuple[int, int | None, LabelValue, Output, str]]:
    """Yield offset, superseded offset, label, output and version of examples that headwater answered."""
    rows = examples.filter(pl.col("role") != "imported").drop("role")
    for offset, supersedes, label, output, version in rows.iter_rows():
        yield (
            offset,
            supersedes,
            label,
            _OUTPUT.decode(output) if type(output) is str else output,
            version,
        )

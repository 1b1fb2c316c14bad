"""What a bandit learns: rewards of the versions that answered, from labels as they come."""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import polars as pl
from sqlalchemy import Connection, delete, insert, select, update

from headwater.infra.store import tables
from headwater.loop.binding import Bound
from headwater.spec.data.records import LabelValue, Output
from headwater.spec.errors import FencedError, SchemaError
from headwater.spec.serving.bandit import BanditState, RewardRule, observe, pulled, revise, reward_of

__all__ = ["Rewards"]

_BATCH = 5_000
_COLUMNS = ("offset", "supersedes", "label", "output", "version", "role")
_OUTPUT = msgspec.json.Decoder(dict[str, float])

_logger = logging.getLogger("headwater.rewards")


class _Known(NamedTuple):
    """What is counted, and how far."""

    reward: RewardRule
    first_offset: int
    next_offset: int
    next_position: int
    state: BanditState = BanditState()


class Rewards:
    """Counts the rewards of one pipeline's versions; what it has counted survives restarts.

    It begins with the examples that come after it was first asked, and begins anew where rewards come
    to mean something else. A label that is revised corrects what was counted of it.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    """

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._known: _Known | None = None
        self._told = False

    def step(self, reward: RewardRule) -> BanditState:
        """Count what came, a few thousand records at most; give what is known.

        Parameters
        ----------
        reward
            What a label is worth.

        Raises
        ------
        FencedError
            If another process counts, too: nothing is counted twice.
        StorageError, TableError
            If a store is away.
        """
        known = self._known or self._read()
        if known is None or known.reward != reward:
            known = self._begin(reward)
        self._known = None  # until what is counted is kept
        counted = self._counted(known)
        if counted != known:
            self._keep(known, counted)
        self._known = counted
        return counted.state

    def _counted(self, known: _Known) -> _Known:
        log, state = self._bound.log, known.state
        offset = min(log.stop(), known.next_offset + _BATCH)
        position = min(log.positions(), known.next_position + _BATCH)
        if known.next_position < position:
            served = log.served(known.next_position, position, ("version", "role"))
            answered = served.filter(pl.col("role") != "imported")["version"].value_counts()
            for version, times in answered.iter_rows():
                state = pulled(state, version, times)
        if known.next_offset < offset:
            state = self._rewarded(known, log.examples(known.next_offset, offset, _COLUMNS), state)
        return known._replace(next_offset=offset, next_position=position, state=state)

    def _rewarded(self, known: _Known, examples: pl.DataFrame, state: BanditState) -> BanditState:
        labels: dict[int, LabelValue] = dict(examples.select("offset", "label").iter_rows())
        for _, supersedes, label, output, version in _answered(examples):
            after = self._reward(known.reward, output, label)
            if after is None:
                continue
            if supersedes is None:
                state = observe(state, version, after)
            elif supersedes >= known.first_offset:
                before = self._reward(known.reward, output, self._label(supersedes, labels))
                counted = observe(state, version, after)
                state = counted if before is None else revise(state, version, before, after)
        return state

    def _reward(self, rule: RewardRule, output: Output, label: LabelValue) -> float | None:
        """Make a reward; None of a label that has none, which is told of once."""
        try:
            return reward_of(rule, output, label)
        except SchemaError as error:
            if not self._told:
                _logger.warning("%s: a label is left out: %s", self._bound.pipeline.name, error)
            self._told = True
            return None

    def _label(self, offset: int, known: dict[int, LabelValue]) -> LabelValue:
        if offset in known:
            return known[offset]
        found: LabelValue = self._bound.log.examples(offset, offset + 1, ("offset", "label"))["label"][0]
        return found

    def _read(self) -> _Known | None:
        table = tables.bandit.c
        columns = (table.reward, table.first_offset, table.next_offset, table.next_position, table.state)
        mine = table.pipeline_id == self._bound.log.pipeline_id
        with self._bound.database.reading() as connection:
            row = connection.execute(select(*columns).where(mine)).one_or_none()
        if row is None:
            return None
        reward, first, offset, position, state = row
        return _Known(reward, first, offset, position, msgspec.json.decode(state, type=BanditState))

    def _begin(self, reward: RewardRule) -> _Known:
        table, log = tables.bandit, self._bound.log
        begun = _Known(reward, log.stop(), log.stop(), log.positions())
        with self._bound.database.transaction() as connection:
            connection.execute(delete(table).where(table.c.pipeline_id == log.pipeline_id))
            row = {**begun._asdict(), "state": msgspec.json.encode(begun.state)}
            connection.execute(insert(table).values(pipeline_id=log.pipeline_id, **row))
        return begun

    def _keep(self, known: _Known, counted: _Known) -> None:
        with self._bound.database.transaction() as connection:
            if self._move(connection, known, counted) != 1:
                raise FencedError(
                    f"another process counts the rewards of {self._bound.pipeline.name!r}",
                    hint="let one service run for a pipeline's home",
                )

    def _move(self, connection: Connection, known: _Known, counted: _Known) -> int:
        table = tables.bandit
        return connection.execute(
            update(table)
            .where(
                table.c.pipeline_id == self._bound.log.pipeline_id,
                table.c.reward == known.reward,
                table.c.next_offset == known.next_offset,
                table.c.next_position == known.next_position,
            )
            .values(
                next_offset=counted.next_offset,
                next_position=counted.next_position,
                state=msgspec.json.encode(counted.state),
            )
        ).rowcount


def _answered(
    examples: pl.DataFrame,
) -> Iterator[tuple[int, int | None, LabelValue, Output, str]]:
    """Give offset, superseded offset, label, output and version of what headwater answered."""
    rows = examples.filter(pl.col("role") != "imported").drop("role")
    for offset, supersedes, label, output, version in rows.iter_rows():
        yield (
            offset,
            supersedes,
            label,
            _OUTPUT.decode(output) if type(output) is str else output,
            version,
        )

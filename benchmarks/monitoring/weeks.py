"""The verdict `act` without labels on whole weeks, whose rows are days that are alike; reported only."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import polars as pl
from examples.flights.data import FEATURES
from examples.flights.pipeline import by_evidence

from benchmarks.claim import Outcome, say
from benchmarks.imported import context
from benchmarks.monitoring.attention import Tally, trained
from benchmarks.monitoring.quiet import shuffled
from benchmarks.monitoring.shifts import FIGURE, TUNING, Champion, Shifted, Stream, harm_of, is_harmful
from headwater.monitoring.attention.attention import attend
from headwater.monitoring.attention.window_pair import WatchedChampion

__all__ = ["measure"]

_SEEDS = (0, 1, 2, 3)
_BEFORE, _LEARNED, _WEEKS, _SHORT_WEEKS = 60, 150, 12, 1  # days, and windows after them
_OTHERWISE = {"tilted", "reweighted", "concept-flipped", "concept-regional"}
_FAMILIES = {name: of for name, of in (TUNING | FIGURE).items() if name not in _OTHERWISE}


class _Week(NamedTuple):
    """A family, whether what was injected is harmful, None in the band between, and what was said."""

    family: str
    harmful: bool | None
    act: bool


def measure(*, short: bool) -> Outcome:
    """Inject every family that changes rows in place into whole weeks of shuffled days (three minutes).

    The days of the year are put in random order and keep their flights, so that nothing drifts but what
    is injected, and rows of a day are alike. A champion learns days 60 to 150, with what a predecessor
    served of them; the twelve weeks after it are judged without labels, each with each family. ``ratio``
    is the share of weeks with nothing injected of which `act` is said.
    """
    judge = partial(_judged, weeks=_SHORT_WEEKS if short else _WEEKS)
    with ProcessPoolExecutor(2, mp_context=context()) as pool:
        found = [week for weeks in pool.map(judge, _SEEDS[: 1 if short else None]) for week in weeks]
    quiet = [week.act for week in found if week.family == "nothing"]
    tally = Tally()
    for week in found:
        if week.harmful is not None and week.family != "nothing":
            tally.add(harmful=week.harmful, said=week.act)
    numbers = {name: round(value, 3) for name, value in tally.numbers().items()}
    return Outcome(
        ratio=sum(quiet) / len(quiet),
        bound=None,
        holds=True,
        numbers={"acts": sum(quiet), "weeks": len(quiet), "injected": numbers},
    )


def _judged(seed: int, weeks: int) -> list[_Week]:
    flights = shuffled(seed, _LEARNED + 7 * weeks)
    day = (flights["served_at"] - flights["served_at"][0]).dt.total_days().to_numpy()
    rows = flights.select(*[kind.name for kind in FEATURES], "label")
    champion = _champion(rows, day)
    drawn = np.random.default_rng(seed)
    say(f"  seed {seed}: {weeks} weeks of {len(_FAMILIES)} families")
    found: list[_Week] = []
    for week in range(weeks):
        start = _LEARNED + 7 * week
        found += _families(champion, rows.filter((day >= start) & (day < start + 7)), drawn)
    return found


def _champion(rows: pl.DataFrame, day: np.ndarray) -> Champion:
    learned = rows.filter((day >= _BEFORE) & (day < _LEARNED))
    stream = Stream("flights", rows, FEATURES, by_evidence.monitoring, learned.height, 0, 0)
    predecessor, champion = (
        trained(stream, rows.filter(day < _LEARNED - _BEFORE)),
        trained(stream, learned),
    )
    reference = learned[-by_evidence.monitoring.reference_rows :]
    reference = reference.with_columns(output=pl.Series(predecessor(reference)))
    return Champion(stream, champion, reference, reference[:0], reference)


def _families(champion: Champion, week: pl.DataFrame, drawn: np.random.Generator) -> Iterator[_Week]:
    before = champion.served(week)
    for name, family in _FAMILIES.items():
        window = family(champion, week, drawn).window
        harm, error = harm_of(champion.served(window), Shifted(window, before))
        yield _Week(name, is_harmful(harm, error), _act(champion, window))


def _act(champion: Champion, window: pl.DataFrame) -> bool:
    found = attend(
        champion.reference,
        window.drop("label"),
        WatchedChampion(
            features=champion.stream.features,
            task="binary",
            metric="roc_auc",
            predict=champion.predict,
            least=champion.stream.monitoring.least,
        ),
    )
    return found.verdict == "act"

"""The verdict `act` is said of changes that cost, and only of them: with labels, and without.

Base windows are drawn at random from a shuffled stream, so nothing drifts but what is injected. One list
of families, with its seeds, was for tuning; the printed figure comes from the other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from examples.electricity import pipeline as electricity
from examples.flights import pipeline as flights
from examples.flights.data import FEATURES, load

from benchmarks.claim import Outcome, at_least, say
from benchmarks.imported import context
from benchmarks.monitoring.preset import preset
from benchmarks.monitoring.shifts import (
    FIGURE,
    Champion,
    Family,
    Predict,
    Random,
    Stream,
    auc,
    harm_of,
    is_harmful,
)
from headwater.monitoring.attention.attention import Attention, attend
from headwater.monitoring.attention.window_pair import WatchedChampion
from headwater.spec.data.feature import Feature

__all__ = ["Case", "Tally", "cases", "measure", "streams", "trained"]

_WITHOUT, _WITH = 0.75, 0.85
_WINDOWS, _SHORT_WINDOWS = 100, 1  # of each family and stream
_CHAMPIONS = 5
_POOL = 100_000
_FIGURE_SEED = 2_000


class Case(NamedTuple):
    """Some windows, what was injected, what it cost, and what was said."""

    stream: str
    family: str
    harmful: bool | None
    needs_labels: bool
    harm: float
    error: float
    free: Attention
    labelled: Attention
    confirmed: bool | None = None

    @property
    def share(self) -> float:
        """Share of columns that drifted by themselves."""
        drifted = [column.drifted for column in self.free.columns]
        return sum(drifted) / len(drifted)


class Tally(msgspec.Struct):
    """How often `act` was right."""

    hits: int = 0
    false: int = 0
    missed: int = 0
    quiet: int = 0

    def add(self, *, harmful: bool, said: bool) -> None:
        """Count one window."""
        name = ("hits" if said else "missed") if harmful else ("false" if said else "quiet")
        setattr(self, name, getattr(self, name) + 1)

    def numbers(self) -> dict[str, float]:
        """Give precision and recall, with the lower ends of their Wilson intervals, and the counts."""
        precision, recall = (self.hits, self.hits + self.false), (self.hits, self.hits + self.missed)
        return {
            "precision": _share(*precision),
            "precision_lower": _wilson(*precision),
            "recall": _share(*recall),
            "recall_lower": _wilson(*recall),
            "harmful": self.hits + self.missed,
            "benign": self.false + self.quiet,
        }

    @property
    def lower(self) -> float:
        """The lower of both lower ends."""
        return min(self.numbers()["precision_lower"], self.numbers()["recall_lower"])


def measure(*, short: bool) -> Outcome:
    """Inject the families of the figure into windows of flights, and of elec2 (15 CPU minutes).

    The variable ``HEADWATER_ELEC2`` names the Parquet file of elec2; without it the claim does not hold,
    whatever flights come to. A window is harmful when its ROC AUC lost 0.01 or more and over two
    standard errors, benign when it lost less than both; the band between is left out. Every verdict is
    of one call of `attend` with the example's own `Monitoring`: the newest week, 6,500 flights or 336
    half hours, and the labels of as many weeks as it judges together. The shift is in all of them, and
    harm is measured on all of them. Windows of a champion are drawn from the same rows, and of elec2,
    which is short, overlap, while Wilson's intervals take them for independent.

    Evidently's default verdict, that half of the columns drifted, is computed from our columns, and by
    Evidently itself on the first window of each family and champion. ``ratio`` is the least of the lower
    bounds over what it must reach.
    """
    windows, champions = (_SHORT_WINDOWS, 1) if short else (_WINDOWS, _CHAMPIONS)
    draw = partial(_drawn, windows=windows, champions=champions, confirm=not short)
    with ProcessPoolExecutor(2, mp_context=context()) as pool:
        found = list(chain.from_iterable(pool.map(draw, streams(short=short))))
    names = sorted({case.stream for case in found})
    numbers: dict[str, object] = {}
    reached = []
    for name in names:
        mine = [case for case in found if case.stream == name]
        tallies = _tallies(mine)
        numbers |= {f"{name}_{which}": _shown(tally.numbers()) for which, tally in tallies.items()}
        numbers[f"{name}_left_out"] = sum(case.harmful is None for case in mine)
        reached += [tallies["without_labels"].lower / _WITHOUT, tallies["with_labels"].lower / _WITH]
    if "elec2" not in names:
        numbers["elec2"] = "not measured: HEADWATER_ELEC2 names no file"
    confirmed = [case.confirmed for case in found if case.confirmed is not None]
    return at_least(
        min(reached),
        1.0,
        also="elec2" in names and all(confirmed),
        windows=len(found),
        bounds={"without_labels": _WITHOUT, "with_labels": _WITH},
        evidently_itself={"windows": len(confirmed), "differs": confirmed.count(False)},
        **numbers,
    )


def _drawn(stream: Stream, windows: int, champions: int, *, confirm: bool) -> list[Case]:
    return list(cases(stream, FIGURE, _FIGURE_SEED, windows, champions=champions, confirm=confirm))


def _tallies(found: Sequence[Case]) -> dict[str, Tally]:
    """Count the verdicts; a concept that only labels can show counts only where there are labels."""
    judged = [case for case in found if case.harmful is not None]
    seen = [case for case in judged if not case.needs_labels]
    by_share = {share: _tally(seen, _over(share)) for share in {case.share for case in seen} - {0.0}}
    return {
        "without_labels": _tally(seen, lambda case: case.free.verdict == "act"),
        "with_labels": _tally(judged, lambda case: case.labelled.verdict == "act"),
        "evidently_default": _tally(seen, _over(0.5)),
        "any_column": _tally(seen, lambda case: case.share > 0),
        "share_best_in_hindsight": max(by_share.values(), key=lambda t: t.lower, default=Tally()),
    }


def _over(share: float) -> Callable[[Case], bool]:
    return lambda case: case.share >= share


def _tally(found: Sequence[Case], said: Callable[[Case], bool]) -> Tally:
    tally = Tally()
    for case in found:
        tally.add(harmful=bool(case.harmful), said=said(case))
    return tally


def _shown(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in numbers.items()}


def _share(hits: int, of: int) -> float:
    return hits / of if of else 0.0


def _wilson(hits: int, of: int) -> float:
    """Lower end of the 95 % interval (Wilson, "Probable inference", 1927)."""
    if not of:
        return 0.0
    z, share = 1.96, hits / of
    middle = share + z * z / (2 * of)
    spread = z * float(np.sqrt(share * (1 - share) / of + z * z / (4 * of * of)))
    return (middle - spread) / (1 + z * z / of)


def streams(*, short: bool) -> Iterator[Stream]:
    """Give the streams that are here."""
    known = load().drop_nulls("late")
    if short:
        known = known.sample(30_000, seed=0)
    rows = known.select(*[kind.name for kind in FEATURES], label="late")
    sizes = (5_000, 4_000, 700) if short else (20_000, 100_000, 6_500)
    yield Stream("flights", rows, FEATURES, flights.by_evidence.monitoring, *sizes)
    path = os.environ.get("HEADWATER_ELEC2")
    if path and Path(path).exists() and not short:
        yield _elec2(Path(path))


def _elec2(path: Path) -> Stream:
    """Leave the date out: a shuffled tree would learn each week by heart."""
    names = ["day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    rows = pl.read_parquet(path).select(
        *[pl.col(name).cast(pl.Float64) for name in names], label=pl.col("class") == "UP"
    )
    features = tuple(Feature(name, float, nullable=True) for name in names)
    return Stream("elec2", rows, features, electricity.stage4.monitoring, 12_000, 10_000, 336)


def cases(
    stream: Stream,
    families: dict[str, Family],
    seed: int,
    windows: int,
    *,
    champions: int,
    confirm: bool = False,
) -> Iterator[Case]:
    """Inject each family so many times, shared among some champions; `confirm` asks Evidently too."""
    for index in range(champions):
        drawn = np.random.default_rng(seed + index)
        champion = _champion(stream, drawn)
        area = auc(champion.pool["label"].to_numpy(), champion.pool["output"].to_numpy())
        say(f"{stream.name}: champion {index + 1}, ROC AUC {area:.3f}")
        for name, family in families.items():
            for window in range(index, windows, champions):
                yield _case(champion, name, family, drawn, confirm=confirm and window == index)


def _champion(stream: Stream, drawn: Random) -> Champion:
    """Train a champion; what its predecessor, trained on other rows, said of its rows was served."""
    rows = stream.rows[drawn.permutation(stream.rows.height)]
    before, learned, pool = (
        rows[: stream.learned],
        rows[stream.learned : 2 * stream.learned],
        rows[2 * stream.learned :],
    )
    predecessor, champion = trained(stream, before), trained(stream, learned)
    reference = learned.with_columns(output=pl.Series(predecessor(learned)))
    earlier, pool = pool[: stream.earlier], pool[stream.earlier :][:_POOL]
    found = Champion(stream, champion, reference, earlier, pool)
    return found._replace(earlier=found.served(earlier), pool=found.served(pool))


def trained(stream: Stream, rows: pl.DataFrame) -> Predict:
    """Train boosted trees on rows of a stream with ``label``."""
    import lightgbm  # noqa: PLC0415 - an extra

    names = [kind.name for kind in stream.features]
    known = {k.name: pl.Enum(rows[k.name].unique().sort()) for k in stream.features if k.dtype == "str"}

    def codes(frame: pl.DataFrame) -> np.ndarray:
        cast = [pl.col(name).cast(kind, strict=False).to_physical() for name, kind in known.items()]
        return frame.select(names).with_columns(cast).cast(pl.Float64).fill_null(np.nan).to_numpy()

    model = lightgbm.LGBMClassifier(
        n_estimators=80, num_leaves=15, min_child_samples=50, learning_rate=0.1, verbose=-1, n_jobs=1
    )
    places = [names.index(name) for name in known]
    model.fit(codes(rows), rows["label"].to_numpy(), categorical_feature=places or "auto")
    booster = model.booster_
    return lambda frame: list(booster.predict(codes(frame), num_threads=1))


def _case(
    champion: Champion, name: str, family: Family, drawn: Random, *, confirm: bool = False
) -> Case:
    stream = champion.stream
    at = drawn.choice(champion.pool.height, stream.drawn, replace=False)
    shifted = family(champion, champion.pool[at], drawn)
    served = champion.served(shifted.window)
    harm, error = harm_of(served, shifted)
    served = served[drawn.permutation(served.height)]
    window, judged = served[: stream.week].drop("label"), served[stream.week :]
    watched = WatchedChampion(
        features=stream.features,
        task="binary",
        metric="roc_auc",
        predict=champion.predict,
        least=stream.monitoring.least,
    )
    free, labelled = (
        attend(
            champion.reference[: stream.monitoring.reference_rows],
            window,
            watched,
            mature=mature,
            earlier=champion.earlier,
        )
        for mature in (None, judged)
    )
    confirmed = _confirmed(champion, window, free) if confirm else None
    concept = name.startswith("concept")
    harmful = is_harmful(harm, error)
    return Case(stream.name, name, harmful, concept, harm, error, free, labelled, confirmed)


def _confirmed(champion: Champion, window: pl.DataFrame, said: Attention) -> bool:
    """Tell whether Evidently itself says the same of the window, and of each column."""
    names = [kind.name for kind in champion.stream.features]
    reference = champion.reference[: champion.stream.monitoring.reference_rows]
    theirs = preset(reference[names].to_pandas(), window[names].to_pandas())
    ours = {column.name: column.drifted for column in said.columns}
    # Ours leaves out what it cannot judge, and theirs fails on some of that.
    return theirs.window == (2 * sum(ours.values()) >= len(ours)) and theirs.columns == ours

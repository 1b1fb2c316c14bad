"""Which predictions make windows: properties over real logs, timetables by hand."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import START, sgd
from tests.features.records import drain, label, prediction

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.monitoring.measure.windows import WindowSpan, standing, windows
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.pipeline import Pipeline
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.updating.update import Stateful

HOUR = timedelta(hours=1)
WAIT = 2 * HOUR
PIPELINE = Pipeline(
    name="toy",
    task="binary",
    features=(Feature("x", float), Feature("city", str, nullable=True)),
    label=LabelRule(wait="2h"),
    model=sgd,
    update=Stateful(),
)


class Player:
    """One log for all: each play begins at a whole hour, long after the one before."""

    def __init__(self, log: FeatureLog, clock: SimulatedClock) -> None:
        self.log = log
        self.clock = clock
        self.plays = 0

    def play(self, steps: list[tuple[int, str, int]]) -> datetime:
        """Let minutes pass, and record or label; a label may come before its prediction."""
        self.plays += 1
        start = START + timedelta(days=7 * self.plays)
        self.clock.advance_to(start)
        recorded = 0
        with self.log.one_sync():
            for minutes, what, which in steps:
                self.clock.advance_to(self.clock.now() + timedelta(minutes=minutes))
                if what == "predict":
                    self.log.record([prediction(f"{self.plays}-{recorded}")])
                    recorded += 1
                else:
                    self.log.label([label(f"{self.plays}-{which}", key=str(self.clock.now()))])
        drain(self.log)
        return start


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    clock = SimulatedClock(START)
    log = FeatureLog(PIPELINE, Settings(home=tmp_path_factory.mktemp("windows")), clock)
    yield Player(log, clock)
    log.close()
    log.database.close()


STEPS = st.lists(
    st.tuples(st.integers(0, 90), st.sampled_from(["predict", "predict", "label"]), st.integers(0, 9)),
    max_size=25,
)
RULES = st.sampled_from(
    [Monitoring(window="1h"), Monitoring(window="3h"), Monitoring(rows=2), Monitoring(rows=5)]
)


@given(steps=STEPS, rule=RULES, aligned=st.booleans(), last=st.sampled_from([None, 1, 3]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_part_the_predictions_whatever_the_order_of_labels(
    player: Player,
    steps: list[tuple[int, str, int]],
    rule: Monitoring,
    aligned: bool,
    last: int | None,
) -> None:
    since, log = player.play(steps), player.log
    now = player.clock.now()
    found = windows(log, rule, since, now, WAIT, last=last, aligned=aligned)
    times = log.served(log.position_at(since), log.positions(), ("version",))["recorded_at"].to_list()
    for span in found:
        within = log.served(span.first, span.behind, ("version",))["recorded_at"].to_list()
        if rule.rows is None:
            assert within == [moment for moment in times if span.start <= moment < span.stop]
        else:
            assert len(within) == rule.rows
            assert (span.start, span.stop) == (within[0], within[-1] + timedelta(microseconds=1))
        assert span.mature == (span.stop + WAIT <= now)
    assert all(one.behind == other.first for one, other in pairwise(found))
    whole = windows(log, rule, since, now, WAIT, aligned=aligned)
    assert found == (whole[-last:] if last else whole)
    if rule.rows is not None:
        assert len(whole) == len(times) // rule.rows
    elif whole:
        assert whole[0].start >= since
        assert now - whole[-1].stop < 3 * HOUR


def test_windows_are_whole_and_over(player: Player) -> None:
    start = player.play([(10, "predict", 0), (60, "predict", 0), (60, "predict", 0), (20, "predict", 0)])
    rule, log = Monitoring(window="1h"), player.log
    since, now = start + timedelta(minutes=20), start + 2.5 * HOUR
    found = windows(log, rule, since, now, WAIT)
    assert [(s.start - start, log.repository.count(s.first, s.behind)) for s in found] == [(HOUR, 1)]
    shifted = windows(log, rule, since, now, WAIT, aligned=False)
    assert [(s.start - since, log.repository.count(s.first, s.behind)) for s in shifted] == [
        (0 * HOUR, 1),
        (HOUR, 1),
    ]


@pytest.mark.parametrize(("late", "mature"), [(timedelta(microseconds=-1), False), (0 * HOUR, True)])
def test_a_window_is_mature_when_its_wait_has_passed(
    player: Player, late: timedelta, mature: bool
) -> None:
    start = player.play([(10, "predict", 0), (300, "label", 0)])
    now = start + HOUR + WAIT + late
    assert windows(player.log, Monitoring(window="1h"), start, now, WAIT)[0].mature is mature


def test_a_window_waits_for_the_longer_wait_that_its_predictions_were_recorded_under(
    player: Player,
) -> None:
    start = player.play([(10, "predict", 0), (300, "label", 0)])
    for late, mature in ((-WAIT / 2, False), (0 * HOUR, True)):
        now = start + HOUR + WAIT + late
        found = windows(player.log, Monitoring(window="1h"), start, now, WAIT / 4)
        assert found[0].mature is mature


def test_a_log_without_predictions_has_no_windows(log: FeatureLog) -> None:
    for rule in (Monitoring(window="1h"), Monitoring(rows=3)):
        assert windows(log, rule, START, START + 9 * HOUR, WAIT) == []


def test_there_are_never_more_than_a_thousand_windows(player: Player) -> None:
    start = player.play([(1, "predict", 0)])
    found = windows(player.log, Monitoring(window="1m"), start, start + 50 * HOUR, WAIT)
    assert len(found) == 1_000
    assert found[-1].stop == start + 50 * HOUR


@pytest.mark.parametrize(
    ("predictions", "labelled", "mature", "expected"),
    [
        (99, 99, True, "insufficient_data"),
        (100, 0, True, "starved"),
        (100, 99, True, "insufficient_data"),
        (100, 100, True, "enough"),
        (100, 0, False, "enough"),
        (0, 0, False, "insufficient_data"),
    ],
)
def test_the_standing_of_a_window(predictions: int, labelled: int, mature: bool, expected: str) -> None:
    span = WindowSpan(START, START + HOUR, 0, 1, mature)
    assert standing(span.window(predictions, labelled), 100) == expected

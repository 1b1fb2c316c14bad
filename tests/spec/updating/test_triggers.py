"""Triggers as timetables: each one fires at exactly the expected moments."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.spec.errors import DeclarationError
from headwater.spec.updating.decision import decision_of
from headwater.spec.updating.evidence import Evidence, Finding, Rehearsal, Score, Verdict
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.trigger import AllOf, AnyOf, AtLeast, Trigger, by_clock, decide, leaves
from headwater.spec.updating.triggers.cost import CostAware
from headwater.spec.updating.triggers.drift import Drift
from headwater.spec.updating.triggers.performance import Performance
from headwater.spec.updating.triggers.schedule import Cron, Every
from headwater.spec.updating.triggers.volume import Volume

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def evidence_of(day: float = 0, **changed: Any) -> Evidence:
    parts: dict[str, Any] = {
        "pipeline": "toy",
        "at": START + day * DAY,
        "standing": "enough",
        "champion": "1",
        "champion_since": START,
        "updated_at": START,
        "retrained_at": START,
    }
    return Evidence(**(parts | changed))


def scored(*, current: float | None = None, metric: str = "roc_auc", **more: Any) -> dict[str, Any]:
    return {"scores": (Score(metric=metric, current=current, **more),)}


def judged(verdict: Verdict) -> dict[str, Any]:
    finding = Finding(
        what="x", distance=1.0, measure="ks", drifted=True, verdict=verdict, sentence="x moved"
    )
    return {"verdict": verdict, "findings": (finding,)}


def timetable(trigger: Trigger, days: Sequence[Evidence], pace: Pace = Pace()) -> list[int]:  # noqa: B008 - frozen
    """Return the places at which it fires, each firing counting for pace and as an update."""
    fired: list[datetime] = []
    places = []
    for place, evidence in enumerate(days):
        last = max(fired, default=evidence.updated_at)
        seen = msgspec.structs.replace(evidence, fired=tuple(reversed(fired)), updated_at=last)
        if decide((trigger,), pace, seen).fired:
            fired.append(seen.at)
            places.append(place)
    return places


@pytest.mark.parametrize(
    ("gain", "error", "fires"),
    [(0.03, 0.001, True), (0.009, 0.001, False), (0.03, 0.011, False), (-0.03, 0.001, False)],
)
def test_a_gain_must_be_large_and_sure(gain: float, error: float, fires: bool) -> None:
    rehearsal = Rehearsal(update="stateless", examples=900, gain=gain, error=error)
    answer = Performance(gain=0.01, update="stateless").decide(evidence_of(rehearsal=rehearsal))
    assert (answer.fired, answer.update) == (fires, "stateless" if fires else None)


def rehearsals(*gains: float) -> Evidence:
    made = [Rehearsal(update="stateless", examples=900, gain=gain, error=0.006) for gain in gains]
    return evidence_of(rehearsal=made[-1], rehearsed=tuple(made[:-1]))


def test_a_small_gain_is_sure_over_many_windows() -> None:
    """Twice the error of one window is four times that of the mean of four."""
    assert not Performance(gain=0.01, sure=3.0).decide(rehearsals(0.012)).fired
    slow = Performance(gain=0.01, sure=3.0, over=4)
    fired = [slow.decide(rehearsals(*[0.012] * n)).fired for n in (1, 3, 4, 7)]
    assert fired == [False, False, True, True]
    assert not slow.decide(rehearsals(0.05, 0.012, 0.012, 0.012, 0.001)).fired, "the newest four"
    assert "in the mean of 4 windows" in slow.decide(rehearsals(*[0.012] * 4)).reason


@pytest.mark.parametrize("wrong", [{"over": 0}, {"over": 13}, {"over": 4, "gain": None, "fall": 0.1}])
def test_a_mean_of_no_rehearsals_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        Performance(**({"gain": 0.01} | wrong))


def test_without_a_rehearsal_no_gain_is_seen() -> None:
    assert not Performance(gain=0.01).decide(evidence_of()).fired
    fell = evidence_of(scores=(Score(metric="roc_auc", reference=0.8, current=0.6),))
    assert Performance(gain=0.01, fall=0.05).decide(fell).fired


def test_every_counts_from_the_last_update() -> None:
    assert timetable(Every("3d"), [evidence_of(day) for day in range(10)]) == [3, 6, 9]


def test_every_from_scratch_counts_from_the_line() -> None:
    late = evidence_of(40, updated_at=START + 39 * DAY)
    answer = decide((Every("30d", update="stateless"),), Pace(), late)
    assert (answer.fired, answer.update) == (True, "stateless")
    assert not decide((Every("30d"),), Pace(), late).fired


def test_cron_fires_at_its_times_in_its_zone() -> None:
    hours = [evidence_of(hour / 24) for hour in range(1, 49)]
    berlin = timetable(Cron("30 2 * * *", "Europe/Berlin"), hours)
    assert [hours[place].at.hour for place in berlin] == [2, 2]  # 01:30 UTC, seen at the next hour


def test_cron_that_names_no_time_says_so() -> None:
    answer = Cron("0 0 31 2 *").decide(evidence_of(1))
    assert not answer.fired
    assert "no times" in answer.reason


def test_volume_fires_at_the_count() -> None:
    days = [evidence_of(day, new_examples=100 * day) for day in range(5)]
    assert timetable(Volume(300), days) == [3, 4]


@pytest.mark.parametrize(
    ("trigger", "values", "fires"),
    [
        (Performance(floor=0.7), (0.8, 0.7, 0.69), [2]),
        (Performance(fall=0.05), (0.80, 0.76, 0.74), [2]),
        (Performance(fall=0.05, metric="roc_auc"), (None, 0.74), [1]),
    ],
)
def test_performance_against_a_floor_and_a_reference(
    trigger: Performance, values: Sequence[float | None], fires: list[int]
) -> None:
    days = [evidence_of(day, **scored(current=v, reference=0.8)) for day, v in enumerate(values)]
    assert timetable(trigger, days) == fires


def test_a_fall_within_chance_does_not_fire() -> None:
    fall = scored(current=0.7, reference=0.8, error=0.04)
    assert not Performance(fall=0.05).decide(evidence_of(**fall)).fired
    assert Performance(fall=0.05, sure=2.0).decide(evidence_of(**fall)).fired


def test_a_loss_is_worse_when_it_is_higher() -> None:
    better = scored(metric="log_loss", current=0.3, reference=0.4)
    worse = scored(metric="log_loss", current=0.5, reference=0.4)
    trigger = Performance(metric="log_loss", fall=0.05)
    assert [trigger.decide(evidence_of(**which)).fired for which in (better, worse)] == [False, True]


def test_performance_below_its_own_past_waits_until_it_has_one() -> None:
    past = (0.80, 0.81, 0.79, 0.80, 0.81, 0.79, 0.80, 0.80)
    trigger = Performance(below_past=3.0)
    short = scored(current=0.7, past=past[:7])
    assert not trigger.decide(evidence_of(**short)).fired
    assert trigger.decide(evidence_of(**scored(current=0.7, past=past))).fired
    assert not trigger.decide(evidence_of(**scored(current=0.79, past=past))).fired


def test_performance_uses_an_estimate_only_if_declared() -> None:
    early = scored(estimate=0.6)
    assert not Performance(floor=0.7).decide(evidence_of(**early)).fired
    assert Performance(floor=0.7, estimate=True).decide(evidence_of(**early)).fired


def test_a_change_of_the_errors_fires() -> None:
    assert Performance(change=True).decide(evidence_of(changed=True)).fired
    assert not Performance(change=True).decide(evidence_of()).fired


def test_drift_fires_on_the_verdict_not_on_the_count() -> None:
    verdicts: tuple[Verdict, ...] = ("benign", "watch", "act")
    days = [evidence_of(day, **judged(verdict)) for day, verdict in enumerate(verdicts)]
    assert timetable(Drift(), days) == [2]
    assert timetable(Drift(at="watch"), days) == [1, 2]


def test_evidence_that_was_not_judged_does_not_fire_and_names_why() -> None:
    for standing in ("insufficient_data", "starved"):
        answer = Drift().decide(evidence_of(standing=standing))
        assert not answer.fired
        assert standing in answer.reason


def test_cost_aware_fires_when_waiting_has_cost_an_update() -> None:
    trigger = CostAware(unit="money", per_loss=2.0, per_update=10.0)
    days = [
        evidence_of(day, regret=25.0 * day) for day in range(4)
    ]  # 1,000 predictions, 0.025 worse, a day
    assert timetable(trigger, days) == [2, 3]


def test_cost_aware_takes_the_last_update_s_minutes() -> None:
    trigger = CostAware(unit="minutes", per_loss=1.0)
    assert not trigger.decide(evidence_of(regret=100.0)).fired
    assert trigger.decide(evidence_of(regret=20.0, train_s=120.0)).fired


def test_combinations_count_the_triggers_that_fired() -> None:
    evidence = evidence_of(new_examples=500, **judged("act"))
    yes, no = Volume(500), Volume(501)
    assert AnyOf((no, yes)).decide(evidence).fired
    assert not AllOf((no, yes)).decide(evidence).fired
    assert AllOf((Drift(), yes)).decide(evidence).fired
    assert AtLeast(2, (no, yes, Drift())).decide(evidence).fired
    assert not AtLeast(3, (no, yes, Drift())).decide(evidence).fired


def test_an_update_from_scratch_goes_before_a_fine_tuning() -> None:
    evidence = evidence_of(new_examples=500, **judged("act"))
    triggers = (Drift(update="stateful"), Volume(500, update="stateless"))
    assert decide(triggers, Pace(), evidence).update == "stateless"
    assert decide(triggers[:1], Pace(), evidence).update == "stateful"


def test_cool_down_and_warm_up_hold_back_and_say_so() -> None:
    days = [evidence_of(day, **judged("act")) for day in range(8)]
    assert timetable(Drift(), days, Pace(cool_down="3d")) == [0, 3, 6]
    assert timetable(Drift(), days, Pace(warm_up="2d")) == [2, 3, 4, 5, 6, 7]
    answer = decide((Drift(),), Pace(warm_up="2d"), days[1])
    assert "warm-up" in answer.reason
    assert "x moved" in answer.reason


def test_a_budget_counts_within_its_period() -> None:
    days = [evidence_of(day, **judged("act")) for day in range(9)]
    assert timetable(Drift(), days, Pace(budget=2, per="4d")) == [0, 1, 4, 5, 8]


def test_nothing_fires_while_a_decision_is_carried_out() -> None:
    answer = decide((Drift(),), Pace(), evidence_of(open="abc", **judged("act")))
    assert not answer.fired
    assert "abc" in answer.reason


def test_without_a_champion_nothing_fires() -> None:
    answer = decide((Volume(1),), Pace(), evidence_of(standing="no_champion", new_examples=5))
    assert not answer.fired
    assert "headwater train" in answer.reason


@given(
    gaps=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    cool_down=st.integers(1, 60),
    budget=st.integers(1, 4),
    per=st.integers(1, 100),
)
def test_pace_holds_for_any_sequence_of_evidence(
    gaps: list[int], cool_down: int, budget: int, per: int
) -> None:
    hour, storm = 0, []
    for gap in gaps:
        hour += gap
        storm.append(evidence_of(hour / 24, **judged("act")))
    pace = Pace(cool_down=f"{cool_down}h", budget=budget, per=f"{per}h")
    times = [storm[place].at for place in timetable(Drift(), storm, pace)]
    assert times[0] == storm[0].at
    for earlier, later in itertools.pairwise(times):
        assert later - earlier >= timedelta(hours=cool_down)
    for moment in times:
        within = [t for t in times if timedelta(0) <= moment - t < timedelta(hours=per)]
        assert len(within) <= budget


def test_the_same_evidence_gives_the_same_decision() -> None:
    evidence, other = evidence_of(**judged("act")), evidence_of(1, **judged("act"))
    answer = decide((Drift(),), Pace(), evidence)
    assert decision_of(evidence, answer).id == decision_of(evidence, answer).id
    assert decision_of(evidence, answer).id != decision_of(other, answer).id


def test_triggers_round_trip_through_json() -> None:
    trigger = AnyOf((Drift(), AtLeast(1, (Every("30d", update="stateless"), Performance(fall=0.02)))))
    text = msgspec.json.encode(trigger)
    assert msgspec.json.decode(text, type=AnyOf) == trigger
    assert len(leaves((trigger,))) == 3


def test_by_clock_is_true_for_schedules_alone() -> None:
    assert by_clock((Every("1d"), Cron("0 0 * * *")))
    assert by_clock(())
    assert not by_clock((Every("1d"), Volume(10)))


@pytest.mark.parametrize(
    ("make", "instead"),
    [
        (lambda: Volume(0), "Volume(1_000)"),
        (Performance, "floor=0.7"),
        (lambda: Performance(fall=-1.0), "fall=0.02"),
        (lambda: Drift(at="maybe"), "Drift()"),  # type: ignore[arg-type] # on purpose
        (lambda: CostAware(unit="hours", per_loss=1.0), "minutes"),  # type: ignore[arg-type]
        (lambda: CostAware(unit="money", per_loss=1.0), "per_update=2.5"),
        (lambda: AnyOf(()), "Drift()"),
        (lambda: AtLeast(3, (Drift(), Volume(1))), "at most 2"),
        (lambda: Pace(budget=2), 'per="7d"'),
        (lambda: Every("1d", update="often"), "stateless"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_trigger_is_refused_with_a_hint(make: Any, instead: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        make()
    assert instead in (refused.value.hint or "")


@pytest.mark.parametrize(
    "name", ["AllOf", "Cron", "Drift", "Every", "Performance", "TriggerAnswer", "Volume"]
)
def test_code_kept_with_older_versions_still_imports_triggers(name: str) -> None:
    assert hasattr(import_module("headwater.spec.updating.trigger"), name)

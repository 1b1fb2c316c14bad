"""The fourth stage: watch what is served, decide, and carry a decision out once."""

import random
from datetime import timedelta
from typing import Any

import msgspec
import polars as pl
import pytest
from tests.conftest import START
from tests.loop.conftest import Binder, day

from headwater.infra.clock import SimulatedClock
from headwater.infra.store.open_storage import open_storage
from headwater.loop.binding import Bound
from headwater.loop.collect import collect
from headwater.loop.decision import rehearse as rehearsing
from headwater.loop.decision.decide import decide
from headwater.loop.decision.execute import carry_out
from headwater.loop.decision.performance import keep_performance
from headwater.loop.replay.history import Columns
from headwater.loop.replay.import_history import import_history
from headwater.loop.training.update import train
from headwater.monitoring import evidence as gathering
from headwater.monitoring.attention.attention import Attention
from headwater.monitoring.evidence import gather
from headwater.monitoring.performance.performance_table import read_performance
from headwater.registry.registry import Registry
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import NotEnoughError, NotFoundError, StorageError
from headwater.spec.recipe import OffsetRange
from headwater.spec.updating.decision import Decision, decision_of
from headwater.spec.updating.gate import Gate
from headwater.spec.updating.monitoring import Monitoring
from headwater.spec.updating.pace import Pace
from headwater.spec.updating.triggers.drift import Drift
from headwater.spec.updating.triggers.performance import Performance
from headwater.spec.updating.triggers.trigger_rule import TriggerAnswer
from headwater.spec.updating.triggers.volume import Volume
from headwater.spec.updating.update import Stateless

ROWS = 400
_HOURS = 8  # of a day, in which something is served
WATCHED = {
    "label": LabelRule(wait="6h"),
    "monitoring": Monitoring(window="1d", least=100, reference_rows=2_000),
    "triggers": (Performance(fall=0.05), Drift()),
    "gate": Gate(examples=50),
    "update": Stateless(window="1d"),
}


def serve(
    bound: Bound,
    days: int = 1,
    *,
    flipped: bool = False,
    labelled: bool = True,
    broken: bool = False,
) -> None:
    """Let days pass in which the champion predicts every three hours; labels come three hours after.

    What is broken is one feature: it is stuck.
    """
    champion = bound.registry.champion()
    assert champion is not None
    learner = bound.registry.store.learner(champion)
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    for _ in range(_HOURS * days):
        now = clock.now()
        rng = random.Random(str(now))
        points = {f"{now:%d-%H}-{i}": (rng.gauss(0, 1), rng.gauss(0, 1)) for i in range(ROWS // 8)}
        served = {name: (2.0 if broken else a, b) for name, (a, b) in points.items()}
        outputs = learner.predict(pl.DataFrame(list(served.values()), ("a", "b"), orient="row"))
        bound.log.record(
            [
                Prediction(
                    id=name,
                    features={"a": a, "b": b},
                    output=output,
                    served_at=now,
                    version=champion.number,
                )
                for (name, (a, b)), output in zip(served.items(), outputs, strict=True)
            ]
        )
        clock.advance_to(now + timedelta(hours=24 // _HOURS))
        if labelled:
            bound.log.label(
                [
                    Label(prediction_id=name, value=(a + b > 0) != flipped, known_at=clock.now())
                    for name, (a, b) in points.items()
                ]
            )
    collect(bound.log)


def settle(bound: Bound) -> None:
    """Train the first champion, and let it serve and be judged for three good days."""
    for _ in range(3):
        day(bound, ROWS)
    train(bound)
    serve(bound, 3)


def fire(bound: Bound) -> Decision:
    """Store a decision that fired, without evidence."""
    evidence = decide(bound).evidence
    decision = decision_of(evidence, TriggerAnswer(fired=True, reason="asked for by a test"))
    bound.decisions.store(decision)
    return decision


def test_a_decision_without_a_champion_has_that_standing(bind: Binder) -> None:
    bound = bind(**WATCHED)
    decision = decide(bound)
    assert not decision.fired
    assert decision.evidence.standing == "no_champion"
    assert bound.decisions.newest() == [decision]


def test_a_young_champion_has_insufficient_data(bind: Binder) -> None:
    bound = bind(**WATCHED)
    day(bound, ROWS)
    train(bound)
    decision = decide(bound)
    assert not decision.fired
    assert decision.evidence.standing == "insufficient_data"
    assert any("no window is over" in note for note in decision.evidence.notes)


def test_a_good_champion_is_left_alone(bind: Binder) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    decision = decide(bound)
    assert not decision.fired, decision.reason
    evidence = decision.evidence
    assert evidence.standing == "enough"
    assert evidence.mature is not None
    assert evidence.scores[0].current is not None
    assert evidence.scores[0].current > 0.9


def test_a_window_without_labels_is_starved_and_drift_is_still_judged(bind: Binder) -> None:
    bound = bind(**WATCHED)
    day(bound, ROWS)
    train(bound)
    serve(bound, 2, labelled=False)
    evidence = decide(bound).evidence
    assert evidence.standing == "starved"
    assert evidence.verdict is not None
    assert evidence.scores[0].current is None


def test_a_changed_concept_is_decided_on_when_its_window_is_mature(bind: Binder) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    serve(bound, 1, flipped=True)
    assert not decide(bound).fired  # its wait has not passed
    serve(bound, 1, flipped=True)
    decision = decide(bound)
    assert decision.fired
    updated = carry_out(bound, decision.id, by="test")
    assert updated.version is not None
    assert updated.promoted
    assert updated.version.decision == decision.id
    champion = bound.registry.champion()
    assert champion is not None
    assert champion.number == updated.version.number
    ended = bound.decisions.get(decision.id)
    assert ended.outcome is not None
    assert (ended.outcome.version, ended.outcome.promoted) == (champion.number, True)
    assert not decide(bound).fired


def test_carrying_out_twice_makes_one_version(bind: Binder) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    decision = fire(bound)
    first = carry_out(bound, decision.id, by="one")
    serve(bound, 1)
    again = carry_out(bound, decision.id, by="two")
    assert first.version is not None
    assert again.version == first.version
    assert "done already" in again.reason
    assert len(bound.registry.store.versions()) == 2


def test_the_run_after_a_kill_does_the_claimed_work(
    bind: Binder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    decision = fire(bound)
    stop = bound.log.stop()
    _killed_before_publishing(bound, decision, monkeypatch)
    assert bound.decisions.get(decision.id).open
    serve(bound, 1)
    updated = carry_out(bound, decision.id, by="next")
    assert updated.version is not None
    assert updated.version.examples.stop == stop - 50


def _killed_before_publishing(bound: Bound, decision: Decision, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as away:
        away.setattr(Registry, "publish", _away)
        with pytest.raises(StorageError):
            carry_out(bound, decision.id, by="killed")


def test_offsets_quarantined_since_the_claim_are_not_learned(
    bind: Binder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    decision = fire(bound)
    _killed_before_publishing(bound, decision, monkeypatch)
    champion = bound.registry.champion()
    assert champion is not None
    poison = OffsetRange(bound.log.stop() - 200, bound.log.stop() - 100)
    bound.registry.promote(champion.number, by="somebody", reason="poison", quarantine=[poison])
    updated = carry_out(bound, decision.id, by="next")
    assert updated.version is not None
    assert bound.registry.store.recipe(updated.version).exclusions == (poison,)
    assert len(bound.registry.store.versions()) == 2


def test_a_rollback_between_claim_and_promotion_stands(
    bind: Binder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    train(bound)  # so that there is a champion to go back to
    serve(bound, 1)
    decision = fire(bound)
    with monkeypatch.context() as away:
        away.setattr(Registry, "promote", _away)
        with pytest.raises(StorageError):
            carry_out(bound, decision.id, by="killed")
    bound.registry.rollback(by="somebody", reason="it is bad")
    champion = bound.registry.champion()
    updated = carry_out(bound, decision.id, by="next")
    assert not updated.promoted
    assert "was replaced by" in updated.reason
    assert bound.registry.champion() == champion


def _away(*_: object, **__: object) -> None:
    raise StorageError("MLflow is away")


def test_a_lasting_failure_ends_the_decision(bind: Binder, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    decision = fire(bound)

    def missing(*_: object) -> None:
        raise NotFoundError("a parent is gone")

    monkeypatch.setattr(Registry, "publish", missing)
    with pytest.raises(NotFoundError):
        carry_out(bound, decision.id, by="test")
    outcome = bound.decisions.get(decision.id).outcome
    assert outcome is not None
    assert outcome.reason == "failed: a parent is gone"
    assert bound.decisions.unended() == []


def test_a_worse_candidate_is_refused_kept_and_explained(bind: Binder) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    serve(bound, 1, flipped=True)  # it learns these ...
    serve(bound, 1)  # ... and is judged on the newest of these
    decision = fire(bound)
    champion = bound.registry.champion()
    with_poison = msgspec.structs.replace(bound.pipeline, update=Stateless(window="40h"))
    bound.pipeline = with_poison
    updated = carry_out(bound, decision.id, by="test")
    assert updated.version is not None
    assert not updated.promoted
    assert "refused by the gate" in updated.reason
    assert bound.registry.champion() == champion
    stored = bound.registry.store.get(updated.version.number)
    assert stored.refused == updated.reason
    outcome = bound.decisions.get(decision.id).outcome
    assert outcome is not None
    assert not outcome.promoted


def test_nothing_fires_while_a_decision_is_open(bind: Binder) -> None:
    bound = bind(**(WATCHED | {"triggers": (Volume(10),)}))
    settle(bound)
    first = decide(bound)
    assert first.fired
    second = decide(bound)
    assert not second.fired or second.id == first.id
    serve(bound, 1)
    third = decide(bound)
    assert not third.fired
    assert first.id in third.reason


def test_the_cool_down_counts_decisions_that_fired(bind: Binder) -> None:
    changes = WATCHED | {"triggers": (Volume(10),), "pace": Pace(cool_down="2d")}
    bound = bind(**changes)
    settle(bound)
    carry_out(bound, decide(bound).id, by="test")
    fired = []
    for _ in range(4):
        serve(bound, 1)
        decision = decide(bound)
        fired.append(decision.fired)
        if decision.fired:
            carry_out(bound, decision.id, by="test")
    assert fired == [False, True, False, True]


def test_a_decision_that_did_not_fire_cannot_be_carried_out(bind: Binder) -> None:
    bound = bind(**WATCHED)
    decision = decide(bound)
    with pytest.raises(NotEnoughError, match="did not fire"):
        carry_out(bound, decision.id, by="test")
    with pytest.raises(NotFoundError, match="no decision"):
        carry_out(bound, "nonsense", by="test")


def test_each_attempt_gets_its_number_once(bind: Binder) -> None:
    bound = bind(SimulatedClock(START), **WATCHED)
    day(bound, ROWS)
    train(bound)
    decision = fire(bound)
    assert bound.decisions.attempt(decision) == 1
    assert bound.decisions.attempt(decision) is None
    assert bound.decisions.attempt(bound.decisions.get(decision.id)) == 2


def test_performance_is_kept_and_logged_against_the_version_that_served(bind: Binder) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    storage = open_storage(bound.settings)
    assert keep_performance(bound) > 0
    assert keep_performance(bound) == 0
    measured = read_performance(storage, bound.log.identity).filter(
        "mature", metric="roc_auc", estimated=False
    )
    champion = bound.registry.champion()
    assert champion is not None
    points = bound.registry.mlflow.client.get_metric_history(champion.run_id, "window_roc_auc")
    whole = measured.filter(~pl.col("cumulative"), version=champion.number).drop_nulls("value")
    assert [point.value for point in points] == whole["value"].to_list()
    serve(bound, 2)
    assert keep_performance(bound) > 0
    again = bound.registry.mlflow.client.get_metric_history(champion.run_id, "window_roc_auc")
    assert len(again) > len(points)


REHEARSED = WATCHED | {"triggers": (Performance(gain=0.05, sure=2.0),)}


def test_a_rehearsed_gain_fires(bind: Binder) -> None:
    bound = bind(**REHEARSED)
    settle(bound)
    good = decide(bound)
    assert good.evidence.rehearsal is not None
    assert not good.fired, good.reason
    serve(bound, 1, flipped=True)
    serve(bound, 1, flipped=True)
    learned_too_little = decide(bound).evidence.rehearsal
    assert learned_too_little is not None
    assert learned_too_little.gain < 0.05, "as that window began, nothing of the change was known"
    serve(bound, 1, flipped=True)
    decision = decide(bound)
    assert decision.fired, decision.reason
    assert decision.evidence.rehearsal is not None
    assert decision.evidence.rehearsal.gain > 0.3
    assert len(bound.registry.store.versions()) == 1, "a rehearsal publishes nothing"


def test_a_window_is_rehearsed_once(bind: Binder, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = bind(**REHEARSED)
    settle(bound)
    first = decide(bound).evidence

    def again(*_: object) -> None:
        raise AssertionError("learned twice")

    monkeypatch.setattr(rehearsing, "fold", again)
    monkeypatch.setattr(gathering, "attend", again)
    second = decide(bound).evidence
    assert first.rehearsal is not None
    assert second.rehearsal == first.rehearsal
    assert second.findings == first.findings


def test_labels_of_some_windows_are_judged_together(
    bind: Binder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest two once the champion has four: what they are compared with is not given up."""
    judged: list[tuple[int, int]] = []
    attend = gathering.attend

    def recording(*arguments: Any, **labels: Any) -> Attention:
        if "mature" in labels:
            judged.append((labels["earlier"].height // ROWS, labels["mature"].height // ROWS))
        return attend(*arguments, **labels)

    monkeypatch.setattr(gathering, "attend", recording)
    monitoring = Monitoring(window="1d", label_windows=2, least=100, reference_rows=2_000)
    bound = bind(**(WATCHED | {"monitoring": monitoring}))
    settle(bound)
    for _ in range(3):
        decide(bound)
        serve(bound, 1)
    decide(bound)
    assert judged == [(1, 1), (2, 1), (2, 2), (3, 2)]


def test_a_sample_of_rows_does_not_shorten_the_reference(
    bind: Binder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual move of a window is measured over as many windows as the champion learned."""
    windows: list[int] = []
    attend = gathering.attend

    def recording(
        reference: pl.DataFrame, current: pl.DataFrame, *rest: Any, **options: Any
    ) -> Attention:
        assert reference.height == current.height == 300
        windows.append(options["windows"])
        return attend(reference, current, *rest, **options)

    monkeypatch.setattr(gathering, "attend", recording)
    bound = bind(**(WATCHED | {"update": Stateless(window="3d")}))
    settle(bound)
    gather(bound.pipeline, bound.log, bound.registry, bound.clock.now(), drift_rows=300)
    assert set(windows) == {3}


def test_labels_of_earlier_windows_do_not_excuse_a_column_that_broke_since(bind: Binder) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    serve(bound, 2)
    train(bound)  # what it learned was served by a version that knew something
    serve(bound, 2)
    assert decide(bound).evidence.verdict == "benign"
    serve(bound, 1, broken=True)
    evidence = decide(bound).evidence
    assert evidence.current is not None
    assert not evidence.current.mature, "no label of it is judged yet"
    assert evidence.verdict == "act", [finding.sentence for finding in evidence.findings]
    serve(bound, 1, broken=True)
    assert decide(bound).evidence.verdict == "act", "labels say so too"


def test_a_broken_column_is_found_if_the_champion_learned_imported_history(bind: Binder) -> None:
    """What stands in for an output where nobody served says nothing of how labels follow features."""
    bound = bind(SimulatedClock(START), **WATCHED)
    rng = random.Random(0)
    points = [(rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(3 * ROWS)]
    history = pl.DataFrame(points, ("a", "b"), orient="row").with_columns(
        id=pl.format("h-{}", pl.int_range(len(points))),
        served_at=pl.lit(START - timedelta(hours=12)),
        known_at=pl.lit(START - timedelta(hours=1)),
        label=pl.col("a") + pl.col("b") > 0,
    )
    import_history(bound.log, history, Columns())
    collect(bound.log)
    train(bound)
    serve(bound, 1)
    assert decide(bound).evidence.verdict == "benign"
    serve(bound, 1, broken=True)
    evidence = decide(bound).evidence
    assert evidence.verdict == "act", [finding.sentence for finding in evidence.findings]


def test_rehearsals_are_kept_for_as_long_as_the_champion_serves(bind: Binder) -> None:
    bound = bind(**(WATCHED | {"triggers": (Performance(gain=0.9, over=3),)}))
    settle(bound)
    first = decide(bound).evidence
    assert decide(bound).evidence.rehearsed == first.rehearsed, "the same window counts once"
    serve(bound, 1)
    second = decide(bound).evidence
    assert second.rehearsed == (*first.rehearsed, first.rehearsal)
    train(bound)
    serve(bound, 3)
    assert decide(bound).evidence.rehearsed == ()


def test_usual_ups_and_downs_are_no_reason_to_act(bind: Binder) -> None:
    bound = bind(**(WATCHED | {"update": Stateless(window="30d")}))
    settle(bound)
    for flipped in (True, False, True, False):
        serve(bound, 1, flipped=flipped)
    train(bound)
    serve(bound, 2, flipped=True)
    evidence = decide(bound).evidence
    assert evidence.verdict != "act", [finding.sentence for finding in evidence.findings]


def test_a_broken_column_is_a_reason_to_act_despite_usual_ups_and_downs(bind: Binder) -> None:
    """Its cost is played through on the same rows, so that a hard day is not in it."""
    bound = bind(**(WATCHED | {"update": Stateless(window="30d")}))
    settle(bound)
    for flipped in (False, False, False, True, False):
        serve(bound, 1, flipped=flipped)
    train(bound)
    serve(bound, 1)
    serve(bound, 1, broken=True)
    evidence = decide(bound).evidence
    assert evidence.verdict == "act", [finding.sentence for finding in evidence.findings]


def test_a_window_has_one_report(bind: Binder) -> None:
    bound = bind(**WATCHED)
    settle(bound)
    serve(bound, 2, flipped=True)
    first = decide(bound).evidence
    assert first.verdict == "act"
    assert first.report is not None
    clock = bound.clock
    assert isinstance(clock, SimulatedClock)
    clock.advance_to(clock.now() + timedelta(minutes=15))
    assert decide(bound).evidence.report == first.report


def test_a_pipeline_may_do_without_a_report(bind: Binder) -> None:
    bound = bind(**(WATCHED | {"monitoring": Monitoring(window="1d", least=100, report=False)}))
    settle(bound)
    serve(bound, 2, flipped=True)
    evidence = decide(bound).evidence
    assert evidence.verdict == "act"
    assert evidence.report is None

"""Examples follow from the records and their times, whatever the order and the batches."""

import tempfile
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, given, settings
from tests.conftest import START
from tests.features.records import drain, label, prediction

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock
from headwater.infra.settings import Settings
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import LabelValue
from headwater.spec.pipeline import Pipeline

_WAIT_MIN = 60

Event = tuple[int, str, LabelValue | None]
"""Minutes since the event before, id, and the label's value or None for the prediction."""

events = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 20, 59, 60, 61]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([None, True, False]),
    ),
    max_size=14,
)
rules = st.builds(
    LabelRule,
    wait=st.just("60m"),
    maturity=st.sampled_from(["arrival", "window"]),
    timeout=st.sampled_from([None, False]),
)


def play(
    pipeline: Pipeline, rule: LabelRule, script: list[Event], *, batch: int, drain_at: set[int]
) -> list[object]:
    """Play a script, sequencing after some of its events, and give all examples."""
    with tempfile.TemporaryDirectory() as folder:
        clock = SimulatedClock(START)
        log = FeatureLog(
            msgspec.structs.replace(pipeline, label=rule), Settings(home=Path(folder)), clock
        )
        for i, (minutes, id_, value) in enumerate(script):
            clock.advance_to(clock.now() + timedelta(minutes=minutes))
            if value is None:
                log.record([prediction(id_)])
            else:
                log.label([label(id_, value, key=str(i))])
            if i in drain_at:
                drain(log, batch)
        clock.advance_to(clock.now() + timedelta(minutes=3 * _WAIT_MIN))
        drain(log, batch)
        columns = ("offset", "prediction_id", "label", "emitted_at", "supersedes", "late", "source")
        rows = log.examples(columns=columns).rows()
        log.close()
        log.database.close()
        return list(rows)


def newest(script: list[Event], rule: LabelRule) -> dict[str, LabelValue]:
    """Say, by a plain reading of the rule, which value each id's newest example carries."""
    at, now = {}, 0
    labels: dict[str, list[tuple[int, LabelValue]]] = {}
    for minutes, id_, value in script:
        now += minutes
        if value is None:
            at.setdefault(id_, now)
        else:
            labels.setdefault(id_, []).append((now, value))
    labels_by_id: dict[str, LabelValue] = {}
    for id_, served in at.items():
        usable = [(t, v) for t, v in labels.get(id_, []) if t >= served - _WAIT_MIN]
        if (usable and any(t >= served for t, _ in usable)) or usable:
            labels_by_id[id_] = usable[-1][1]
        elif rule.timeout is not None:
            labels_by_id[id_] = rule.timeout
    return labels_by_id


@given(script=events, rule=rules, batch=st.integers(1, 5), drains=st.sets(st.integers(0, 13)))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_of_the_sequencer_change_no_example(
    pipeline: Pipeline, rule: LabelRule, script: list[Event], batch: int, drains: set[int]
) -> None:
    whole = play(pipeline, rule, script, batch=5_000, drain_at=set())
    assert play(pipeline, rule, script, batch=batch, drain_at=drains) == whole


@given(script=events, rule=rules)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_newest_example_carries_the_newest_usable_label(
    pipeline: Pipeline, rule: LabelRule, script: list[Event]
) -> None:
    rows = play(pipeline, rule, script, batch=5_000, drain_at=set())
    labels_by_id = {row[1]: row[2] for row in rows}  # type: ignore[index] # rows of the frame
    assert labels_by_id == newest(script, rule)
    assert [row[0] for row in rows] == list(range(len(rows)))  # type: ignore[index]
    emitted = [row[3] for row in rows]  # type: ignore[index]
    assert emitted == sorted(emitted)

"""What a bandit counts, whatever the order in which labels come and are revised."""

from datetime import timedelta

import pytest
from tests.conftest import START
from tests.loop.conftest import Binder
from tests.loop.other_models import line

from headwater.loop.binding import Bound
from headwater.loop.operator.rewards import Rewards
from headwater.spec.data.records import Label, LabelValue, Prediction
from headwater.spec.errors import FencedError
from headwater.spec.recipe import OffsetRange
from headwater.spec.serving.bandit import Arm


@pytest.fixture
def bound(bind: Binder) -> Bound:
    return bind()


@pytest.fixture
def regression(bind: Binder) -> Bound:
    return bind(task="regression", model=line, metrics=())


def served(bound: Bound, name: str, version: str, output: float) -> None:
    prediction = Prediction(
        id=name, features={"a": 1.0, "b": 1.0}, output=output, served_at=START, version=version
    )
    bound.log.record([prediction])


def labelled(bound: Bound, name: str, value: LabelValue, minute: int = 0) -> None:
    known_at = START + timedelta(minutes=minute)
    bound.log.label([Label(prediction_id=name, value=value, known_at=known_at)])


def sequenced(bound: Bound) -> None:
    with bound.log.sequencer() as sequencer:
        sequencer.drain()


def quarantined(bound: Bound, offset: int) -> None:
    span = OffsetRange(offset, offset + 1)
    bound.registry.quarantine.add([span], by="ada", reason="a test")


def test_rewards_are_counted_once_and_corrected(bound: Bound) -> None:
    rewards = Rewards(bound)
    rewards.step("correct")
    for name, version, output in (("p", "1", 0.9), ("q", "2", 0.9), ("r", "2", 0.1)):
        served(bound, name, version, output)
    for name in "pqr":
        labelled(bound, name, True)
    sequenced(bound)
    state = rewards.step("correct")
    assert state.arm("1") == Arm(pulls=1, labels=1, gained_ppm=1_000_000)
    assert state.arm("2") == Arm(pulls=2, labels=2, gained_ppm=1_000_000)
    labelled(bound, "p", False, minute=1)
    labelled(bound, "r", False, minute=1)
    sequenced(bound)
    state = Rewards(bound).step("correct")  # another process, after a restart
    assert state.arm("1") == Arm(pulls=1, labels=1, gained_ppm=0)
    assert state.arm("2") == Arm(pulls=2, labels=2, gained_ppm=2_000_000)


def test_rewards_before_the_first_step_are_neither_counted_nor_corrected(bound: Bound) -> None:
    served(bound, "old", "1", 0.9)
    labelled(bound, "old", True)
    sequenced(bound)
    rewards = Rewards(bound)
    rewards.step("correct")
    labelled(bound, "old", False, minute=1)
    sequenced(bound)
    assert rewards.step("correct").arms == {}


def test_counts_begin_anew_if_the_reward_rule_changes(bound: Bound) -> None:
    rewards = Rewards(bound)
    rewards.step("correct")
    served(bound, "p", "1", 0.1)
    labelled(bound, "p", True)
    sequenced(bound)
    assert rewards.step("correct").arm("1").labels == 1
    assert rewards.step("label").arms == {}


def test_counts_begin_anew_if_the_scale_changes(regression: Bound) -> None:
    rewards = Rewards(regression)
    rewards.step("error", 10.0)
    served(regression, "p", "1", 7.5)
    labelled(regression, "p", 5.0)
    sequenced(regression)
    assert rewards.step("error", 10.0).arm("1") == Arm(pulls=1, labels=1, gained_ppm=750_000)
    assert Rewards(regression).step("error", 10.0).arm("1").labels == 1
    assert rewards.step("error", 5.0).arms == {}
    assert Rewards(regression).step("error", 5.0).arms == {}


def test_errors_are_rewards_and_a_revision_corrects_them(regression: Bound) -> None:
    rewards = Rewards(regression)
    rewards.step("error", 10.0)
    for name, version, output in (("p", "1", 7.5), ("q", "2", 100.0)):
        served(regression, name, version, output)
        labelled(regression, name, 5.0)
    sequenced(regression)
    state = rewards.step("error", 10.0)
    assert [state.arm(version).gained_ppm for version in "12"] == [750_000, 0]
    labelled(regression, "q", 99.0, minute=1)
    sequenced(regression)
    state = rewards.step("error", 10.0)
    assert state.arm("2") == Arm(pulls=1, labels=1, gained_ppm=900_000)


def test_labels_without_a_reward_are_counted_and_kept(regression: Bound) -> None:
    rewards = Rewards(regression)
    rewards.step("label")
    for name, value in (("p", 0.5), ("q", 7.0), ("r", -1.0)):
        served(regression, name, "1", 0.0)
        labelled(regression, name, value)
    sequenced(regression)
    state = rewards.step("label")
    assert state.arm("1") == Arm(pulls=3, labels=1, gained_ppm=500_000)
    assert state.unrewarded is not None
    assert (state.unrewarded.labels, state.unrewarded.offset) == (2, 1)
    assert "7.0" in state.unrewarded.what
    labelled(regression, "q", 1.0, minute=1)  # a revision that has one
    sequenced(regression)
    state = Rewards(regression).step("label")
    assert state.arm("1") == Arm(pulls=3, labels=2, gained_ppm=1_500_000)
    assert Rewards(regression).step("error", 10.0).unrewarded is None


def test_two_processes_count_nothing_twice(bound: Bound) -> None:
    one, other = Rewards(bound), Rewards(bound)
    one.step("correct")
    other.step("correct")
    served(bound, "p", "1", 0.9)
    sequenced(bound)
    assert one.step("correct").arm("1").pulls == 1
    with pytest.raises(FencedError):
        other.step("correct")
    assert other.step("correct").arm("1").pulls == 1


def test_what_is_quarantined_leaves_the_rewards_also_once_it_was_counted(bound: Bound) -> None:
    rewards = Rewards(bound)
    rewards.step("correct")
    for name, version, output in (("p", "1", 0.9), ("q", "1", 0.1), ("r", "2", 0.9), ("s", "2", 0.1)):
        served(bound, name, version, output)
    for name in "pqr":
        labelled(bound, name, True)
    sequenced(bound)
    assert [rewards.step("correct").arm(version).labels for version in "12"] == [2, 1]
    quarantined(bound, 0)
    state = rewards.step("correct")
    assert state.arm("1") == Arm(pulls=2, labels=1, gained_ppm=0)
    assert state.arm("2") == Arm(pulls=2, labels=1, gained_ppm=1_000_000)
    labelled(bound, "s", True)
    sequenced(bound)
    quarantined(bound, 3)  # before it is counted
    assert rewards.step("correct") == state == Rewards(bound).step("correct")


def test_a_long_recount_goes_in_steps_while_the_counts_before_hold(
    bound: Bound, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = Rewards(bound)
    rewards.step("correct")
    for name in "pqrst":
        served(bound, name, "1", 0.9)
        labelled(bound, name, True)
    sequenced(bound)
    assert rewards.step("correct").arm("1").labels == 5
    monkeypatch.setattr("headwater.loop.operator.rewards._BATCH", 2)
    quarantined(bound, 0)
    served(bound, "u", "1", 0.9)
    labelled(bound, "u", True)
    sequenced(bound)
    labels = [rewards.step("correct").arm("1").labels for _ in range(3)]
    assert labels == [5, 5, 5]  # four of five, then the new one
    quarantined(bound, 1)  # the recount begins anew
    labels = [rewards.step("correct").arm("1").labels for _ in range(4)]
    assert labels == [5, 5, 4, 4]
    assert Rewards(bound).step("correct").arm("1") == Arm(pulls=6, labels=4, gained_ppm=4_000_000)


def test_the_newest_label_says_whether_a_prediction_is_quarantined(bound: Bound) -> None:
    rewards = Rewards(bound)
    rewards.step("correct")
    served(bound, "p", "1", 0.9)
    labelled(bound, "p", True)
    sequenced(bound)
    rewards.step("correct")
    labelled(bound, "p", False, minute=1)
    sequenced(bound)
    quarantined(bound, 1)  # the revision
    assert rewards.step("correct").arm("1") == Arm(pulls=1)
    labelled(bound, "p", True, minute=2)
    sequenced(bound)
    assert rewards.step("correct").arm("1") == Arm(pulls=1, labels=1, gained_ppm=1_000_000)
    quarantined(bound, 0)
    assert rewards.step("correct").arm("1") == Arm(pulls=1, labels=1, gained_ppm=1_000_000)


def test_a_quarantine_ends_what_is_said_of_a_label_without_a_reward(regression: Bound) -> None:
    rewards = Rewards(regression)
    rewards.step("label")
    for name, value in (("p", 0.5), ("q", 7.0)):
        served(regression, name, "1", 0.0)
        labelled(regression, name, value)
    sequenced(regression)
    assert rewards.step("label").unrewarded is not None
    quarantined(regression, 1)
    state = rewards.step("label")
    assert (state.arm("1").labels, state.unrewarded) == (1, None)


def test_a_revision_that_makes_no_reward_ends_the_one_before(regression: Bound) -> None:
    rewards = Rewards(regression)
    rewards.step("label")
    served(regression, "p", "1", 0.0)
    for minute, value in enumerate((0.5, 7.0, 1.0)):
        labelled(regression, "p", value, minute)
        sequenced(regression)
    assert rewards.step("label").arm("1") == Arm(pulls=1, labels=1, gained_ppm=1_000_000)

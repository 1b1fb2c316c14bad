"""What a bandit counts, whatever the order in which labels come and are revised."""

from datetime import timedelta

import pytest
from tests.conftest import START
from tests.loop.conftest import Binder

from headwater.loop.binding import Bound
from headwater.loop.operator.rewards import Rewards
from headwater.spec.data.records import Label, Prediction
from headwater.spec.errors import FencedError
from headwater.spec.serving.bandit import Arm


@pytest.fixture
def line(bind: Binder) -> Bound:
    return bind()


def served(bound: Bound, name: str, version: str, output: float) -> None:
    prediction = Prediction(
        id=name, features={"a": 1.0, "b": 1.0}, output=output, served_at=START, version=version
    )
    bound.log.record([prediction])


def labelled(bound: Bound, name: str, value: bool, minute: int = 0) -> None:
    known_at = START + timedelta(minutes=minute)
    bound.log.label([Label(prediction_id=name, value=value, known_at=known_at)])


def sequenced(bound: Bound) -> None:
    with bound.log.sequencer() as sequencer:
        sequencer.drain()


def test_rewards_are_counted_once_and_corrected(line: Bound) -> None:
    rewards = Rewards(line)
    rewards.step("correct")
    for name, version, output in (("p", "1", 0.9), ("q", "2", 0.9), ("r", "2", 0.1)):
        served(line, name, version, output)
    for name in "pqr":
        labelled(line, name, True)
    sequenced(line)
    state = rewards.step("correct")
    assert state.arm("1") == Arm(pulls=1, labels=1, gained_ppm=1_000_000)
    assert state.arm("2") == Arm(pulls=2, labels=2, gained_ppm=1_000_000)
    labelled(line, "p", False, minute=1)
    labelled(line, "r", False, minute=1)
    sequenced(line)
    state = Rewards(line).step("correct")  # another process, after a restart
    assert state.arm("1") == Arm(pulls=1, labels=1, gained_ppm=0)
    assert state.arm("2") == Arm(pulls=2, labels=2, gained_ppm=2_000_000)


def test_rewards_before_the_first_step_are_neither_counted_nor_corrected(line: Bound) -> None:
    served(line, "old", "1", 0.9)
    labelled(line, "old", True)
    sequenced(line)
    rewards = Rewards(line)
    rewards.step("correct")
    labelled(line, "old", False, minute=1)
    sequenced(line)
    assert rewards.step("correct").arms == {}


def test_counts_begin_anew_if_the_reward_rule_changes(line: Bound) -> None:
    rewards = Rewards(line)
    rewards.step("correct")
    served(line, "p", "1", 0.1)
    labelled(line, "p", True)
    sequenced(line)
    assert rewards.step("correct").arm("1").labels == 1
    assert rewards.step("label").arms == {}


def test_two_processes_count_nothing_twice(line: Bound) -> None:
    one, other = Rewards(line), Rewards(line)
    one.step("correct")
    other.step("correct")
    served(line, "p", "1", 0.9)
    sequenced(line)
    assert one.step("correct").arm("1").pulls == 1
    with pytest.raises(FencedError):
        other.step("correct")
    assert other.step("correct").arm("1").pulls == 1

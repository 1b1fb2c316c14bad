"""Claims, answers, skips, leases that end and labels from elsewhere, in any order, by several people."""

import tempfile
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace
from tests.conftest import START, sgd
from tests.features.records import drain, label, prediction

from headwater.features.log import FeatureLog
from headwater.infra.clock import SimulatedClock, to_us
from headwater.infra.settings import Settings
from headwater.spec.data.feature import Feature
from headwater.spec.data.label import LabelRule
from headwater.spec.errors import ConflictError, NotFoundError
from headwater.spec.pipeline import Pipeline
from headwater.spec.serving.queue import People, ask, question_key, required_answers
from headwater.spec.updating.update import Stateful

PEOPLE = ("ada", "bob", "cleo", "dora")
PIPELINE = Pipeline(
    name="toy",
    task="binary",
    features=(Feature("x", float), Feature("city", str, nullable=True)),
    label=LabelRule(wait="1d"),
    model=sgd,
    update=Stateful(),
    people=People(random=0.4, twice=0.5),
)
persons = st.sampled_from(PEOPLE)
values = st.booleans()


class QueueMachine(RuleBasedStateMachine):
    """Does what people do, and remembers what must come of it."""

    predictions = Bundle("predictions")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = SimulatedClock(START)
        self.log = FeatureLog(PIPELINE, Settings(home=Path(self.folder.name)), self.clock)
        self.queue = self.log.queue()
        self.leases: dict[tuple[str, str], int] = {}
        self.said: dict[tuple[str, str], list[bool]] = defaultdict(list)
        self.skipped: set[tuple[str, str]] = set()
        self.natural: set[str] = set()
        self.count = 0

    def teardown(self) -> None:
        self.log.close()
        self.log.database.close()
        self.folder.cleanup()

    @property
    def now_us(self) -> int:
        return to_us(self.clock.now())

    def holders(self, id_: str) -> set[str]:
        return {who for (who, of), until in self.leases.items() if of == id_ and until > self.now_us}

    def answers(self, id_: str) -> list[bool]:
        """Newest answer of each person, in the order of their first ones; kept in insertion order."""
        return [said[-1] for (_, of), said in self.said.items() if of == id_ and said]

    def meant_for(self, id_: str) -> int:
        people = PIPELINE.people
        assert people is not None
        shown = question_key({"x": float(id_[1:]), "city": None}, {})
        return ask(people, "binary", "toy 0", shown, 0.5).people

    @rule(target=predictions, outputs=st.lists(st.floats(0, 1), min_size=1, max_size=3))
    def serve(self, outputs: list[float]) -> Any:
        id_ = f"p{self.count}"
        for output in outputs:
            one = prediction(f"p{self.count}", float(self.count), output)
            self.log.record([replace(one, version="1")])
            self.count += 1
        drain(self.log)
        return id_

    @rule(person=persons, many=st.integers(1, 4), lease_s=st.sampled_from([30, 600]))
    def claim(self, person: str, many: int, lease_s: int) -> None:
        held = {of for (who, of), until in self.leases.items() if who == person and until > self.now_us}
        self.queue.fill()
        found = [asked.prediction_id for asked in self.queue.claim(person, many, lease_s)]
        assert len(found) == len(set(found)) <= many
        for id_ in found:
            assert not self.said[person, id_], "answered, and asked again"
            assert (person, id_) not in self.skipped, "skipped, and asked again"
            assert id_ not in self.natural
            self.leases[person, id_] = self.now_us + lease_s * 1_000_000
            people = PIPELINE.people
            assert people is not None
            answers = self.answers(id_)
            if id_ not in held:
                most = required_answers(people, self.meant_for(id_), answers)
                assert len(answers) + len(self.holders(id_)) <= most, "held beyond need"

    @rule(person=persons, id_=predictions, value=values)
    def answer(self, person: str, id_: str, value: bool) -> None:
        said = self.said[person, id_]
        try:
            status = self.queue.answer(person, id_, value)
        except (ConflictError, NotFoundError):
            assert person not in self.holders(id_) or id_ in self.natural, "his, and refused"
            assert not said or id_ in self.natural, "no change of mind"
            return
        assert id_ not in self.natural
        assert status == ("known" if said[-1:] == [value] else "recorded")
        self.leases.pop((person, id_), None)
        self.skipped.discard((person, id_))
        if status == "recorded":
            if not said:
                del self.said[person, id_]  # so that first answers come in their order
            self.said[person, id_] = [*said, value]

    @rule(person=persons, id_=predictions)
    def skip(self, person: str, id_: str) -> None:
        try:
            self.queue.skip(person, id_)
        except (ConflictError, NotFoundError):
            assert person not in self.holders(id_) or id_ in self.natural
            return
        self.leases.pop((person, id_), None)
        self.skipped.add((person, id_))

    @rule(id_=predictions, value=values, sequenced=st.booleans())
    def become_known(self, id_: str, value: bool, sequenced: bool) -> None:
        if id_ not in self.natural:
            self.log.label([label(id_, value, key="truth")])
        self.natural.add(id_)
        if sequenced:
            drain(self.log)

    @rule(seconds=st.sampled_from([1, 29, 30, 31, 600]))
    def wait(self, seconds: int) -> None:
        self.clock.advance_to(self.clock.now() + timedelta(seconds=seconds))

    @invariant()
    def every_answer_is_in_the_log_once(self) -> None:
        for n in range(self.count):
            found = self.log.recorder.find(f"p{n}")
            assert found is not None
            by: dict[str, list[bool]] = defaultdict(list)
            for one in found.labels:
                if one.label.source == "human":
                    assert isinstance(one.label.value, bool)
                    by[one.label.by].append(one.label.value)
            said = {who: list(all_) for (who, of), all_ in self.said.items() if of == f"p{n}" and all_}
            assert by == said

    @invariant()
    def the_counts_are_those_of_what_people_did(self) -> None:
        counts = self.queue.counts()
        assert counts.answers == sum(1 for said in self.said.values() if said)
        assert counts.skips == len(self.skipped)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)

"""The joining rule equals a plain model of it, for any entries cut anywhere into chunks."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import NamedTuple

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings
from msgspec import UNSET

from headwater.features.sequence.join_records import Arrival, Deadline, StoredLabel
from headwater.features.sequence.joining import Joiner, before
from headwater.features.sequence.joining_rule import JoiningRule, JoiningRules, KnownPrediction
from headwater.infra.clock import from_us
from headwater.spec.data.checksum import payload_crc
from headwater.spec.data.label import LabelRule
from headwater.spec.data.records import LabelValue, Source

_WAIT_US = 60_000_000
_END_US = 10**12
_MOST_US = 90_000_000


class Entry(NamedTuple):
    """A record and its time; `value` is None for a prediction, `known_us` if nobody told.

    A prediction was recorded under the `rule` of that number; `due_us` is the time that it names.
    """

    at_us: int
    id: str
    value: LabelValue | None
    known_us: int | None = None
    source: Source = "natural"
    rule: int = 0
    due_us: int | None = None


class Found(NamedTuple):
    """An example, by what makes it."""

    offset: int
    id: str
    value: LabelValue
    emitted_us: int
    revision: int
    late: bool
    supersedes: int | None


@st.composite
def _entries(draw: st.DrawFn, rules: int = 1) -> list[Entry]:
    gaps = st.sampled_from([0, 0, 1, 20_000_000, 59_999_999, 60_000_000, 60_000_001, 200_000_000])
    ages = st.sampled_from([None, None, 0, 1, 20_000_000, 60_000_000, 260_000_000, -1, -(10**9)])
    dues = st.sampled_from([None, -(10**9), -1, 0, 0, 1, 20_000_000, 60_000_000, 10**9])
    sources: st.SearchStrategy[Source] = st.sampled_from(["natural", "natural", "human"])
    now_us, made = 0, []
    for _ in range(draw(st.integers(0, 16))):
        now_us += draw(gaps)
        value = draw(st.sampled_from([None, None, True, False]))
        age, due = draw(ages), draw(dues)
        known_us = None if age is None else now_us - age
        made.append(
            Entry(
                now_us,
                draw(st.sampled_from("abc")),
                value,
                known_us,
                draw(sources),
                draw(st.integers(0, rules - 1)),
                None if due is None else now_us + due,
            )
        )
    return made


_precedence = st.sampled_from(
    [UNSET, UNSET, ("human", "natural"), ("human",), ("natural",), ("natural", "human", "timeout")]
)
_timeout = st.sampled_from([None, False, True])
rules = st.builds(
    LabelRule,
    wait=st.just("60s"),
    maturity=st.sampled_from(["arrival", "window"]),
    timeout=_timeout,
    precedence=_precedence,
)
any_rules = st.lists(
    st.one_of(
        st.builds(
            LabelRule,
            wait=st.sampled_from(["1s", "20s", "60s", "3m"]),
            maturity=st.sampled_from(["arrival", "window"]),
            timeout=_timeout,
            precedence=_precedence,
        ),
        st.builds(
            LabelRule,
            due=st.just("due_at"),
            most=st.just("90s"),
            timeout=_timeout,
            precedence=_precedence,
        ),
    ),
    min_size=3,
    max_size=3,
)


def fold_in_chunks(rule: LabelRule, entries: Sequence[Entry], cuts: set[int]) -> list[Found]:
    """Fold chunk by chunk, and return the examples."""
    return fold([rule], entries, cuts)[0]


def fold(
    rules: Sequence[LabelRule], entries: Sequence[Entry], cuts: set[int]
) -> tuple[list[Found], int]:
    """Fold chunk by chunk, each with a joiner of its own that knows what the ones before stored.

    Returns the examples, and how many labels expired.
    """
    by_number: dict[int | None, JoiningRule] = dict(enumerate(map(JoiningRule, rules)))
    known: dict[str, KnownPrediction] = {}
    opened: list[Deadline] = []
    labels: dict[int, tuple[LabelValue, int, bool]] = {}
    ids: dict[int, str] = {}
    found: list[Found] = []
    position = offset = parked = expired = 0
    edges = [0, *sorted(cut for cut in cuts if cut < len(entries)), len(entries)]
    for start, stop in pairwise(edges):
        chunk = entries[start:stop]
        last = stop == len(entries)
        until = before(_END_US if last else chunk[-1].at_us if chunk else 0)
        due = [deadline for deadline in opened if deadline < until]
        joiner = Joiner(JoiningRules(rules[0], by_number), known, due, position, offset, parked, expired)
        joined = joiner.fold([_arrival(entry) for entry in chunk], until)
        opened = [deadline for deadline in opened if deadline >= until] + joiner.due
        ids |= {row.position: row.id for row in joined.predictions}
        for row in joined.labels:
            value = msgspec.json.decode(row.payload)["value"]
            labels[row.position] = (value, row.revision, row.late)
        for example in joined.examples:
            value, revision, late = labels[example.label_position]
            found.append(
                Found(
                    example.offset,
                    ids[example.prediction_position],
                    value,
                    example.emitted_at_us,
                    revision,
                    late,
                    example.supersedes,
                )
            )
        position, offset = joiner.next_position, joiner.next_offset
        parked, expired = joiner.parked, joiner.expired
    assert parked == sum(len(one.labels) for one in known.values() if one.position is None)
    return found, expired


def _arrival(entry: Entry) -> Arrival:
    if entry.value is None:
        due_at = None if entry.due_us is None else from_us(entry.due_us)
        payload = msgspec.json.encode({"features": {}, "due_at": due_at})
        return Arrival(entry.id, entry.at_us, None, payload, payload_crc(payload), entry.rule)
    on_receipt = entry.known_us is None
    known_at = from_us(entry.at_us if entry.known_us is None else entry.known_us)
    told = StoredLabel(entry.value, known_at, entry.source, on_receipt)
    payload = msgspec.json.encode(told)
    return Arrival(entry.id, entry.at_us, told, payload, payload_crc(payload))


class TimedLabel(NamedTuple):
    """A label, when it was received, and since when it is known."""

    value: LabelValue
    at_us: int
    late: bool
    known_us: int
    source: Source


class ByHand:
    """Walks a timeline of records and deadlines, as the documentation tells it."""

    def __init__(self, rules: Sequence[LabelRule], entries: Sequence[Entry]) -> None:
        self.rules = rules
        self.expired = 0
        self.served: dict[str, Entry] = {}
        self.come: set[str] = set()
        self.labels: dict[str, list[TimedLabel]] = {}
        self.newest: dict[str, Found] = {}
        self.found: list[Found] = []
        timeline = [(entry.at_us, 0, entry) for entry in entries]
        for entry in entries:
            if entry.value is None and entry.id not in self.served:
                self.served[entry.id] = entry
                timeline.append((self.due(entry.id), 1, entry))
        timeline.sort(key=lambda moment: moment[:2])  # a record at the deadline is on time
        for now_us, is_deadline, entry in timeline:
            id_, value = entry.id, entry.value
            if is_deadline:
                self.end_wait(id_, now_us)
            elif value is None:
                self.take_prediction(id_, now_us)
            else:
                self.take_label(entry)

    def rule(self, id_: str) -> LabelRule:
        return self.rules[self.served[id_].rule]

    def due(self, id_: str) -> int:
        entry = self.served[id_]
        if self.rule(id_).due is UNSET:
            return entry.at_us + self.wait_us(id_)
        if entry.due_us is None or entry.due_us > entry.at_us + _MOST_US:
            return entry.at_us + _MOST_US
        return max(entry.due_us, entry.at_us)

    def wait_us(self, id_: str) -> int:
        """The longest that a label may wait for its prediction."""
        wait = self.rule(id_).wait
        return int(wait[:-1]) * {"s": 1_000_000, "m": 60_000_000}[wait[-1]]

    def holds(self, id_: str) -> bool:
        return self.rule(id_).maturity == "window" or self.rule(id_).due is not UNSET

    def take_prediction(self, id_: str, now_us: int) -> None:
        usable = self.usable(id_)
        if id_ not in self.come and usable and not self.holds(id_):
            self.emit(id_, now_us, self.truth(id_))
        if id_ not in self.come:
            self.expired += len(self.labels.get(id_, [])) - len(usable)
        self.come.add(id_)

    def take_label(self, entry: Entry) -> None:
        now_us, id_, value, known_us, source = entry[:5]
        assert value is not None
        late = id_ in self.come and now_us > self.due(id_)
        known_us = now_us if known_us is None or known_us > now_us else known_us
        labels = self.labels.setdefault(id_, [])
        labels.append(TimedLabel(value, now_us, late, known_us, source))
        if id_ not in self.come or (self.holds(id_) and not late):
            return
        is_truth = self.truth(id_) == len(labels) - 1
        if is_truth and (id_ not in self.newest or self.newest[id_].value != value):
            self.emit(id_, now_us, len(labels) - 1)

    def end_wait(self, id_: str, now_us: int) -> None:
        usable = self.usable(id_)
        if id_ in self.newest:
            return
        timeout = self.rule(id_).timeout
        if usable and self.holds(id_):
            self.emit(id_, now_us, self.truth(id_))
        elif not usable and timeout is not None:
            labels = self.labels.setdefault(id_, [])
            labels.append(TimedLabel(timeout, now_us, False, now_us, "timeout"))
            self.emit(id_, now_us, len(labels) - 1)

    def truth(self, id_: str) -> int:
        """Take the revisions one by one: each beats the one before unless that one beats it."""
        labels, best = self.labels[id_], -1
        for revision in self.usable(id_):
            if best < 0 or not self.beats(id_, labels[best], labels[revision]):
                best = revision
        return best

    def beats(self, id_: str, held: TimedLabel, coming: TimedLabel) -> bool:
        """Whether a label that is held stays the truth when another one comes."""
        if held.source != coming.source:
            if "timeout" in (held.source, coming.source):
                return coming.source == "timeout"
            precedence = self.rule(id_).precedence
            order = [] if precedence is UNSET else list(precedence)
            places = [order.index(s) if s in order else 9 for s in (held.source, coming.source)]
            if places[0] != places[1]:
                return places[0] < places[1]
        return held.known_us > coming.known_us

    def usable(self, id_: str) -> list[int]:
        """Revisions that did not wait too long for their prediction."""
        since = self.served[id_].at_us - self.wait_us(id_) if id_ in self.served else 0
        return [i for i, told in enumerate(self.labels.get(id_, [])) if told.at_us >= since]

    def emit(self, id_: str, now_us: int, revision: int) -> None:
        value, _, late, *_ = self.labels[id_][revision]
        before = self.newest[id_].offset if id_ in self.newest else None
        self.newest[id_] = Found(len(self.found), id_, value, now_us, revision, late, before)
        self.found.append(self.newest[id_])


@given(rule=rules, entries=_entries(), cuts=st.sets(st.integers(1, 15)))
@settings(max_examples=600, deadline=None)
def test_the_examples_are_those_of_the_model_however_entries_are_cut(
    rule: LabelRule, entries: list[Entry], cuts: set[int]
) -> None:
    model = ByHand([rule], entries)
    assert fold([rule], entries, cuts) == (model.found, model.expired)


@given(rules=any_rules, entries=_entries(3), cuts=st.sets(st.integers(1, 15)))
@settings(max_examples=400, deadline=None)
def test_each_record_is_joined_by_its_own_rule_and_due_time_however_entries_are_cut(
    rules: list[LabelRule], entries: list[Entry], cuts: set[int]
) -> None:
    model = ByHand(rules, entries)
    assert fold(rules, entries, cuts) == (model.found, model.expired)


@given(rules=any_rules, entries=_entries(3))
@settings(max_examples=200, deadline=None)
def test_offsets_have_no_gap_times_never_fall_and_each_example_is_corrected_once(
    rules: list[LabelRule], entries: list[Entry]
) -> None:
    found, _ = fold(rules, entries, set())
    assert [example.offset for example in found] == list(range(len(found)))
    times = [example.emitted_us for example in found]
    assert times == sorted(times)
    superseded = [example.supersedes for example in found if example.supersedes is not None]
    assert len(set(superseded)) == len(superseded)
    for example in found:
        if example.supersedes is not None:
            assert found[example.supersedes].id == example.id
            assert found[example.supersedes].value != example.value


@given(rule=rules, batch=st.permutations("abcdefgh"), before=st.booleans(), split=st.integers(1, 7))
def test_any_order_of_a_batch_of_labels_ends_in_the_same_values(
    rule: LabelRule, batch: list[str], before: bool, split: int
) -> None:
    served = [Entry(10, id_, None) for id_ in "abcdefgh"]
    told = [Entry(5 if before else 20, id_, id_ in "aceg") for id_ in batch]
    entries = told + served if before else served + told
    found = fold_in_chunks(rule, entries, {split})
    assert {example.id: example.value for example in found} == {id_: id_ in "aceg" for id_ in batch}
    assert len(found) == len(batch)


@pytest.mark.parametrize(("known_us", "late"), [(_WAIT_US, False), (_WAIT_US + 1, True)])
def test_a_label_exactly_at_the_deadline_is_on_time(known_us: int, late: bool) -> None:
    entries = [Entry(0, "a", None), Entry(known_us, "a", True)]
    (example,) = fold_in_chunks(LabelRule(wait="60s"), entries, set())
    assert example.late is late


@pytest.mark.parametrize("maturity", ["arrival", "window"])
def test_the_truth_supersedes_a_timeout(maturity: str) -> None:
    rule = LabelRule(wait="60s", timeout=False, maturity=maturity)  # type: ignore[arg-type] # one of the two
    entries = [Entry(0, "a", None), Entry(_WAIT_US + 5, "a", True)]
    first, second = fold_in_chunks(rule, entries, set())
    assert (first.value, first.emitted_us, first.late) == (False, _WAIT_US, False)
    assert (second.value, second.supersedes, second.late) == (True, 0, True)


def test_a_late_truth_like_the_timeout_changes_nothing() -> None:
    rule = LabelRule(wait="60s", timeout=False)
    entries = [Entry(0, "a", None), Entry(_WAIT_US + 5, "a", False)]
    assert len(fold_in_chunks(rule, entries, set())) == 1


@given(
    rule=rules,
    told=st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(["natural", "human"]), st.booleans()),
        min_size=1,
        max_size=6,
        unique_by=lambda label: label[0],
    ),
    order=st.randoms(use_true_random=False),
)
def test_labels_end_in_the_same_truth_in_whatever_order_they_come(
    rule: LabelRule, told: list[tuple[int, Source, bool]], order: Random
) -> None:
    """Their times differ: ties go by receipt, and so by the order."""
    ends = set()
    for _ in range(3):
        order.shuffle(told)
        entries = [Entry(0, "a", None)]
        entries += [Entry(30, "a", value, known_us, source) for known_us, source, value in told]
        found = fold_in_chunks(rule, entries, set())
        ends.add(found[-1].value)
    assert len(ends) == 1


def test_an_older_truth_that_comes_later_is_a_revision_and_no_example() -> None:
    entries = [Entry(0, "a", None), Entry(9, "a", False, 8), Entry(10, "a", True, 7)]
    (example,) = fold_in_chunks(LabelRule(wait="60s"), entries, set())
    assert example.value is False


def test_the_same_truth_known_again_later_holds_against_one_known_in_between() -> None:
    entries = [
        Entry(0, "a", None),
        Entry(1, "a", True, 1),
        Entry(5, "a", True, 5),
        Entry(6, "a", False, 3),
        Entry(7, "a", False, 6),
    ]
    found = fold_in_chunks(LabelRule(wait="60s"), entries, set())
    assert [(example.value, example.revision) for example in found] == [(True, 0), (False, 3)]


def test_a_time_after_receipt_counts_as_receipt() -> None:
    entries = [Entry(0, "a", None), Entry(1, "a", True, 10**9), Entry(2, "a", False, 2)]
    assert [example.value for example in fold_in_chunks(LabelRule(wait="60s"), entries, set())] == [
        True,
        False,
    ]


@pytest.mark.parametrize("late_us", [1, _WAIT_US + 1])
def test_a_truth_supersedes_a_timeout_whenever_it_became_known(late_us: int) -> None:
    rule = LabelRule(wait="60s", timeout=False)
    entries = [Entry(0, "a", None), Entry(_WAIT_US + late_us, "a", True, 3)]
    assert [example.value for example in fold_in_chunks(rule, entries, set())] == [False, True]


def test_a_lower_source_never_supersedes_a_higher() -> None:
    rule = LabelRule(wait="60s", precedence=("human", "natural"))
    entries = [
        Entry(0, "a", None),
        Entry(1, "a", True, 1, "natural"),
        Entry(2, "a", False, 0, "human"),
        Entry(3, "a", True, 3, "natural"),
        Entry(4, "a", True, 4, "human"),
    ]
    found = fold_in_chunks(rule, entries, set())
    assert [(example.value, example.revision) for example in found] == [
        (True, 0),
        (False, 1),
        (True, 3),
    ]


def test_a_window_ends_with_the_truth_known_last() -> None:
    rule = LabelRule(wait="60s", maturity="window")
    entries = [Entry(0, "a", None), Entry(9, "a", False, 8), Entry(10, "a", True, 7)]
    (example,) = fold_in_chunks(rule, entries, set())
    assert (example.value, example.emitted_us) == (False, _WAIT_US)

"""One value of a row that changed changes its checksum; the forms for many rows give the same ones."""

from collections.abc import Callable

import hypothesis.strategies as st
from hypothesis import given

from headwater.spec.data.checksum import (
    entry_checksum,
    entry_checksums,
    example_checksum,
    label_checksum,
    payload_crc,
    prediction_checksum,
)

NUMBER = st.integers(0, 2**31 - 1)
TIME = st.integers(0, 2**53)
FLIP = st.integers(0, 30)
Rows = tuple[Callable[..., int], tuple[int, ...]]

ROWS = st.one_of(
    st.tuples(
        st.just(lambda *n: prediction_checksum(n[0], "a", n[1], n[2])), st.tuples(NUMBER, TIME, NUMBER)
    ),
    st.tuples(
        st.just(lambda *n: prediction_checksum(n[0], "a", n[1], n[2], n[3], n[4])),
        st.tuples(NUMBER, TIME, NUMBER, NUMBER, TIME),
    ),
    st.tuples(
        st.just(lambda *n: label_checksum(n[0], n[1], n[2], n[3], False, n[4])),
        st.tuples(NUMBER, NUMBER, NUMBER, TIME, NUMBER),
    ),
    st.tuples(st.just(example_checksum), st.tuples(NUMBER, NUMBER, NUMBER, TIME, NUMBER)),
)


@given(ROWS, st.integers(0, 4), FLIP)
def test_a_bit_of_a_number_that_changed_changes_the_checksum(row: Rows, place: int, bit: int) -> None:
    checksum, numbers = row
    place %= len(numbers)
    changed = (*numbers[:place], numbers[place] ^ 1 << bit, *numbers[place + 1 :])
    assert checksum(*changed) != checksum(*numbers)


@given(st.text(min_size=1), st.text(), TIME, st.binary(min_size=1), st.data())
def test_a_byte_of_an_entry_that_changed_changes_the_checksum(
    id_: str, key: str, us: int, payload: bytes, data: st.DataObject
) -> None:
    checksum = entry_checksum(0, id_, key, us, payload_crc(payload), 7)
    at = data.draw(st.integers(0, len(payload) - 1))
    changed = payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]
    assert entry_checksum(0, id_, key, us, payload_crc(changed), 7) != checksum
    assert entry_checksum(1, id_, key, us, payload_crc(payload), 7) != checksum
    assert entry_checksum(0, id_ + "x", key, us, payload_crc(payload), 7) != checksum
    assert entry_checksum(0, id_, key, us, payload_crc(payload), 7 ^ 1 << at % 63) != checksum
    assert entry_checksum(0, id_, key, us, payload_crc(payload), 0) == entry_checksum(
        0, id_, key, us, payload_crc(payload)
    )


ENTRY = st.tuples(NUMBER, st.integers(0, 1), st.text(), TIME, st.binary(), st.text())


@given(st.lists(st.tuples(ENTRY, st.none() | st.integers(0, 2**63 - 1))))
def test_the_checksums_of_many_entries_are_those_of_each(drawn: list[tuple]) -> None:  # type: ignore[type-arg]
    rows = [(*row, None, hash_) for row, hash_ in drawn]
    crcs = [payload_crc(row[4]) for row in rows]
    each = [
        entry_checksum(kind, id_, key, us, crc, hash_)
        for (_, kind, id_, us, _, key, _, hash_), crc in zip(rows, crcs, strict=True)
    ]
    assert entry_checksums(rows, crcs) == each

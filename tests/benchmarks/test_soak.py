"""The soak sees a leak through kills, and takes a worker that begins anew for none."""

import pytest
from benchmarks.service.soak import Sample, growth

_MB = 1_000_000
_LOOKS = 600


def lives(leak: float) -> list[Sample]:
    """Two workers, one killed every 200 s, at one look a second; each fills up within half a minute."""
    found = []
    for look in range(_LOOKS):
        found.append(Sample("1", 1, float(look), 50 * _MB))
        for slot in (0, 1):
            born = (look + 100 * slot) // 200
            age = look - (born * 200 - 100 * slot)
            held = 100 * _MB + min(age, 30) * _MB + leak * age
            found.append(Sample("worker", 10 + 2 * born + slot, float(age), int(held)))
    return found


def test_workers_that_begin_anew_are_no_leak() -> None:
    assert growth(lives(0.0), _LOOKS) == pytest.approx(0.0, abs=1e-9)


def test_a_leak_is_seen_through_kills() -> None:
    assert growth(lives(0.02 * _MB), _LOOKS) == pytest.approx(24 / 310, rel=0.05)


def test_nobody_old_enough_is_no_growth() -> None:
    assert growth([Sample("1", 1, 5.0, _MB)], 1) == 0.0

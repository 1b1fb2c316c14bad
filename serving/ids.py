"""Prediction ids that the service makes: UUIDv7, which sort by time."""

import os
import random
import time

__all__ = ["new_id"]

_VERSION_7 = 0x7 << 76
_VARIANT = 0x2 << 62
_drawn = random.Random(os.urandom(32))  # noqa: S311 - ids must differ, not be secret
os.register_at_fork(after_in_child=lambda: _drawn.seed(os.urandom(32)))


def new_id() -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds, and 74 random ones.

    >>> len(new_id()), new_id()[14]
    (36, '7')
    """
    drawn = _drawn.getrandbits(74)
    high, low = drawn >> 62 & 0xFFF, drawn & (1 << 62) - 1
    number = (time.time_ns() // 1_000_000 & 0xFFFFFFFFFFFF) << 80
    text = f"{number | _VERSION_7 | high << 64 | _VARIANT | low:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

"""Ids that headwater makes: UUIDv7, which sort by time and tell it."""

import os
import random
import time
import uuid
from datetime import datetime

from headwater.infra.clock import from_us

__all__ = ["made_at", "new_id"]

_VERSION_7 = 0x7 << 76
_VARIANT = 0x2 << 62
_random = random.Random(os.urandom(32))  # noqa: S311 - ids must differ, not be secret
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))


def new_id() -> str:
    """Make a UUIDv7 (RFC 9562, section 5.7): 48 bits of milliseconds, and 74 random ones.

    >>> len(new_id()), new_id()[14]
    (36, '7')
    """
    bits = _random.getrandbits(74)
    high, low = bits >> 62 & 0xFFF, bits & (1 << 62) - 1
    number = (time.time_ns() // 1_000_000 & 0xFFFFFFFFFFFF) << 80
    text = f"{number | _VERSION_7 | high << 64 | _VARIANT | low:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def made_at(id_: str) -> datetime | None:
    """Return when a UUIDv7 was made, in UTC; None for any other text.

    >>> print(made_at("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"))
    2022-02-22 19:22:22+00:00
    """
    try:
        parsed = uuid.UUID(id_)
    except ValueError:
        return None
    return from_us((parsed.int >> 80) * 1_000) if parsed.version == 7 else None

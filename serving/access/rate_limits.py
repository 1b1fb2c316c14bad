"""Rate limits: the requests a second that each key may send, over all workers of a service."""

import fcntl
import mmap
import os

from headwater.infra.clock import Clock, to_us
from headwater.infra.settings import Settings
from headwater.spec.errors import DeclarationError, TooOftenError

__all__ = ["RateLimits"]

_SLOTS = 4_096
_SLOT_BYTES = 8


class RateLimits:
    """A token bucket for each key, shared by the workers; it holds one second's requests, at least one.

    A bucket is one number, the time at which it will be full again: the generic cell rate algorithm.
    The numbers are in a mapped file, so that a request costs no message to another process.

    Source: ITU-T I.371, annex A; https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm

    Parameters
    ----------
    settings
        The address of the home folder.
    rate
        Requests a second.
    clock
        The time. If it is set back, a bucket is empty at worst.

    Raises
    ------
    DeclarationError
        If the rate is not above 0.
    """

    def __init__(self, settings: Settings, rate: float, clock: Clock) -> None:
        if not rate > 0:
            raise DeclarationError(f"a rate of {rate} lets nobody in", hint="give --rate above 0")
        self._rate = rate
        self._clock = clock
        self._interval_us = max(1, round(1_000_000 / rate))
        self._full_us = max(1, int(rate)) * self._interval_us
        folder = settings.root / "live"
        folder.mkdir(exist_ok=True)
        self._file = os.open(folder / "rates", os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(self._file, 0, _SLOTS * _SLOT_BYTES)
        self._map = mmap.mmap(self._file, _SLOTS * _SLOT_BYTES)

    def take(self, number: int) -> None:
        """Take a token for one request.

        Parameters
        ----------
        number
            Number of the key; 0 for requests without a key.

        Raises
        ------
        TooOftenError
            If the key's bucket is empty; nothing is taken then.
        """
        now_us = to_us(self._clock.now())
        start = number % _SLOTS * _SLOT_BYTES
        stop = start + _SLOT_BYTES
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            full_at_us = int.from_bytes(self._map[start:stop], "little")
            full_at_us = min(max(full_at_us, now_us), now_us + self._full_us) + self._interval_us
            wait_us = full_at_us - now_us - self._full_us
            if wait_us <= 0:
                self._map[start:stop] = full_at_us.to_bytes(_SLOT_BYTES, "little")
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        if wait_us > 0:
            raise TooOftenError(
                f"this key may send {self._rate:g} requests a second",
                hint="send fewer, or many items in one request",
                wait_s=wait_us / 1_000_000,
            )

    def close(self) -> None:
        """Close the file."""
        self._map.close()
        os.close(self._file)

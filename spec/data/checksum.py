"""Checksums of stored records, by which damage is found: CRC-32, as `zlib` computes it.

A checksum finds what a disk or a person did to a row, and no attack: whoever can write a row can write
its checksum. It covers the row's place, so that a row that stands in another's place is found, too.
"""

from zlib import crc32

__all__ = ["entry_checksum", "example_checksum", "label_checksum", "prediction_checksum"]


_BITS = 0xFFFFFFFF
_SPREAD = 0x9E3779B1  # an odd number: each place has another start


def entry_checksum(kind: int, id_: str, key: str, received_at_us: int, payload: bytes) -> int:
    """Return the checksum of an entry of an inbox; its position, which rises by one, is not covered.

    >>> entry_checksum(0, "a", "", 1, b"{}")
    1441382286
    """
    start = (received_at_us ^ received_at_us >> 32 ^ kind) & _BITS  # cheaper than their digits
    return crc32(payload, crc32((id_ + key).encode(), start))


def prediction_checksum(position: int, id_: str, effective_at_us: int, payload: bytes) -> int:
    """Return the checksum of a sequenced prediction."""
    start = (position * _SPREAD ^ effective_at_us ^ effective_at_us >> 32) & _BITS
    return crc32(payload, crc32(id_.encode(), start))


def label_checksum(
    position: int,
    of: int | str | None,
    revision: int,
    effective_at_us: int,
    late: bool,
    payload: bytes,
) -> int:
    """Return the checksum of a sequenced label; `of` is its prediction's position, or else its id."""
    start = (position * _SPREAD ^ effective_at_us ^ effective_at_us >> 32) & _BITS
    return crc32(payload, crc32(b"%d %d" % (revision, late), crc32(str(of).encode(), start)))


def example_checksum(
    offset: int, prediction: int, label: int, emitted_at_us: int, supersedes: int | None
) -> int:
    """Return the checksum of an example, which names its prediction and its label by position."""
    superseded = -1 if supersedes is None else supersedes
    return crc32(b"%d %d %d %d %d" % (offset, prediction, label, emitted_at_us, superseded))

"""Checksums of stored records, by which damage is found: CRC-32, as `zlib` computes it.

A checksum finds what a disk or a person did to a row, and no attack: whoever can write a row can write
its checksum. It covers the row's place, so that a row that stands in another's place is found, too.

The numbers of a row are spread over the 32 bits, and joined by exclusive or with the CRC of its bytes:
so the CRC of a payload, which takes longest, is computed once for an entry and for the row that is made
of it. One number that changed always changes the checksum.
"""

from collections.abc import Iterable
from zlib import crc32

__all__ = [
    "entry_checksum",
    "entry_checksums",
    "example_checksum",
    "label_checksum",
    "payload_crc",
    "prediction_checksum",
]

payload_crc = crc32
"""Computes the part of a record's checksum that covers its payload."""

_BITS = 0xFFFFFFFF
_A, _B, _C, _D = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F  # odd: no two numbers share a product


def entry_checksum(
    kind: int, id_: str, key: str, received_at_us: int, crc: int, declaration: int | None = None
) -> int:
    """Return the checksum of an entry of an inbox; its position, which rises by one, is not covered.

    >>> entry_checksum(0, "a", "", 1, payload_crc(b"{}"))
    1259405569
    """
    hashed = declaration or 0
    numbers = received_at_us ^ received_at_us >> 32 ^ kind ^ hashed ^ hashed >> 32
    return crc ^ crc32((id_ + key).encode()) ^ numbers & _BITS


def entry_checksums(
    rows: Iterable[tuple[int, int, str, int, bytes, str, int | None, int | None]], crcs: Iterable[int]
) -> list[int]:
    """Return the checksums of rows (position, kind, id, time, payload, key, checksum, declaration).

    Without calls: the sequencer holds each entry against its checksum.
    """
    return [
        crc
        ^ crc32((id_ + key).encode())
        ^ (us ^ us >> 32 ^ kind ^ (hashed or 0) ^ (hashed or 0) >> 32) & _BITS
        for (_, kind, id_, us, _, key, _, hashed), crc in zip(rows, crcs, strict=True)
    ]


def prediction_checksum(
    position: int,
    id_: str,
    effective_at_us: int,
    crc: int,
    recorded_by: int | None = None,
    due_us: int | None = None,
) -> int:
    """Return the checksum of a sequenced prediction, given the CRC of its payload.

    A due time is covered where there is one, so that a row without keeps the checksum that it had.
    """
    numbers = position * _A ^ effective_at_us ^ effective_at_us >> 32 ^ (recorded_by or 0) * _C
    if due_us is not None:
        numbers ^= (due_us ^ due_us >> 32) * _B ^ _D  # one that became null is found, too
    return crc ^ crc32(id_.encode()) ^ numbers & _BITS


def label_checksum(
    position: int, of: int | str, revision: int, effective_at_us: int, late: bool, crc: int
) -> int:
    """Return the checksum of a sequenced label; `of` is its prediction's position, or else its id."""
    place = crc32(of.encode()) if isinstance(of, str) else of * _B
    numbers = position * _A ^ place ^ revision * _C ^ late ^ effective_at_us ^ effective_at_us >> 32
    return crc ^ numbers & _BITS


def example_checksum(
    offset: int, prediction: int, label: int, emitted_at_us: int, supersedes: int | None
) -> int:
    """Return the checksum of an example, which names its prediction and its label by position."""
    superseded = -1 if supersedes is None else supersedes
    numbers = offset * _A ^ prediction * _B ^ label * _C ^ emitted_at_us ^ emitted_at_us >> 32
    return (numbers ^ superseded * _D) & _BITS

"""How far the records of a file were acknowledged, kept beside it: so a loss of the newest is found."""

import os
from contextlib import suppress
from pathlib import Path
from struct import Struct

__all__ = ["EndMark"]

_FORM = Struct("<36sQQ")
_COMPLEMENT = 0xFFFF_FFFF_FFFF_FFFF


class EndMark:
    """The position of the newest record that was acknowledged, in a small file of its own.

    It is written after the record was synced, and not synced itself: a killed process leaves it as it
    is, and after a power cut an older one may be there, by which less of a loss is found. So it is a
    witness, and never what a record's durability rests on; a disk that refuses it refuses nothing.

    Parameters
    ----------
    path
        Of the file with the records. The mark is beside it, and ends in ``.end``.
    of
        The UUID of that file: the mark of another one is none.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path, of: str) -> None:
        self._of = of.encode()
        there = os.open(path.with_suffix(".end"), os.O_RDWR | os.O_CREAT, 0o666)
        self._file = os.fdopen(there, "r+b", buffering=0)
        self._last = self.read()

    def read(self) -> int:
        """Return the position; 0 if there is no mark, or if it is another file's."""
        with suppress(OSError):
            content = os.pread(self._file.fileno(), _FORM.size, 0)
            if len(content) == _FORM.size:
                of, position, complement = _FORM.unpack(content)
                if of == self._of and position ^ complement == _COMPLEMENT:  # else half written
                    return int(position)
        return 0

    def move(self, position: int) -> None:
        """Note that the records up to a position are durable; a lower one than before is passed over."""
        if position > self._last:
            self._last = position
            with suppress(OSError):
                os.pwrite(self._file.fileno(), _FORM.pack(self._of, position, position ^ _COMPLEMENT), 0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

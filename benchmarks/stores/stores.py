"""What happens to the stores of a home under load, line by line: each comes out as the page states."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.claim import Outcome, at_most, say
from benchmarks.stores import damaged, disk_lines, machine_lines, version_lines
from benchmarks.stores.backends import KINDS, backends
from benchmarks.stores.course import Line, Row, play

__all__ = ["measure", "played"]

LINES: tuple[Line, ...] = (*damaged.LINES, *version_lines.LINES, *disk_lines.LINES, *machine_lines.LINES)
_SHORT = ("a row of the database is changed",)


def measure(*, short: bool) -> Outcome:
    """Do each harm of docs/stores.md to a home that serves under load, on each kind of stores.

    ``ratio`` is the number of lines that did not come out as stated: with an outcome, an alarm within
    ten seconds, 0 acknowledged records lost where a copy is left and each named else, and without a
    restart where the cause goes away.
    """
    rows = played(_SHORT if short else [line.name for line in LINES], KINDS[:1] if short else KINDS)
    wrong = [row for row in rows if not row.stated]
    return at_most(
        len(wrong),
        0,
        lines=len(rows),
        acknowledged=sum(row.acknowledged for row in rows),
        lost=sum(row.lost for row in rows),
        named=sum(row.named for row in rows),
        slowest_alarm_s=max((row.alarm_s for row in rows if row.alarm_s is not None), default=None),
        wrong=[f"{row.line}, {row.stores}: {'; '.join(row.wrong)}" for row in wrong],
    )


def played(names: "list[str] | tuple[str, ...]", kinds: tuple[str, ...] = KINDS) -> list[Row]:
    """Play lines on each kind of stores that makes a case of its own, and show each."""
    rows = []
    with backends(kinds) as there:
        for line in LINES:
            for backend in there:
                if line.name in names and line.on(backend.kind):
                    rows.append(play(line, backend))
                    say(f"  {rows[-1]}")
    _show(rows)
    return rows


def _show(rows: list[Row]) -> None:
    table = Table(*Row._fields[:-1], box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(str(field) for field in row[:-1]))
    Console(stderr=True, width=160).print(table)


if __name__ == "__main__":
    played([line.name for line in LINES if sys.argv[1] in line.name], tuple(sys.argv[2:]) or KINDS)

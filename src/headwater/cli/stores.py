"""The parts that commands share: arguments that name a pipeline, and its stores."""

import getpass
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer

from headwater.spec.errors import DeclarationError

if TYPE_CHECKING:
    from headwater.infra.settings import Settings
    from headwater.infra.store.database import Database
    from headwater.loop.binding import Bound
    from headwater.loop.operator.operations import Operator
    from headwater.spec.recipe import OffsetRange

__all__ = [
    "AsJson",
    "Declared",
    "Named",
    "Reason",
    "bound_to",
    "by_flow",
    "database_now",
    "name_of",
    "open_operator",
    "settings_now",
    "span_of",
    "stored",
    "user",
]

Declared = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="module:attribute or path.py:attribute")
]
Named = Annotated[
    str,
    typer.Argument(metavar="PIPELINE", help="The pipeline's name, or a reference to its declaration"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines")]
Reason = Annotated[str, typer.Option(help="Why, for the record")]

_Result = TypeVar("_Result")

_MOST_DIGITS = 18  # of an offset: what a column of 64 bits holds


def settings_now() -> "Settings":
    """Return the settings; they are read when a command first needs them."""
    from headwater.infra.settings import settings

    return settings()


def bound_to(reference: str) -> "Bound":
    """Bind a declared pipeline to its stores."""
    from headwater.loop.binding import Bound
    from headwater.spec.loading import load_pipeline

    return Bound(load_pipeline(reference), settings_now())


def by_flow(name: str, reference: str, kind: "type[_Result]") -> "_Result | None":
    """Run a flow against the stack, and return its result; None if no stack runs."""
    from headwater.flows.stack.record import find_stack
    from headwater.flows.stack.runs import run_flow

    if find_stack(settings_now()) is None:
        return None
    return msgspec.convert(run_flow(name, reference, settings_now()), kind)


def name_of(pipeline: str) -> str:
    """Return the name of a pipeline, which is given by name or by reference."""
    if ":" not in pipeline:
        return pipeline
    from headwater.spec.loading import load_pipeline

    return load_pipeline(pipeline).name


@contextmanager
def database_now() -> "Iterator[Database]":
    """Yield the operational database."""
    from headwater.infra.store.database import Database

    with closing(Database(settings_now().operational_url)) as database:
        yield database


@contextmanager
def stored(pipeline: str) -> "Iterator[tuple[str, int, Database]]":
    """Yield a pipeline's name, its number, and the database that holds its rows."""
    from headwater.features.read.repository import find

    name = name_of(pipeline)
    with database_now() as database:
        yield name, find(database, name, settings_now()), database


@contextmanager
def open_operator(pipeline: str) -> "Iterator[Operator]":
    """Yield the operator of a pipeline, which is given by name or by reference."""
    from headwater.loop.operator.operations import Operator
    from headwater.spec.loading import load_pipeline

    declared_or_name = load_pipeline(pipeline) if ":" in pipeline else pipeline
    with database_now() as database:
        yield Operator(declared_or_name, settings_now(), database)


def user() -> str:
    """Return the name of the user who runs the command, for the audit."""
    return getpass.getuser()


def span_of(text: str) -> "OffsetRange":
    """Read a range of offsets.

    Raises
    ------
    DeclarationError
        If the text is no such range.
    """
    from headwater.spec.recipe import OffsetRange

    start, colon, stop = text.partition(":")
    digits = start.isdecimal() and stop.isdecimal() and max(len(start), len(stop)) <= _MOST_DIGITS
    if not colon or not digits or int(start) >= int(stop):
        raise DeclarationError(
            f"{text!r} is no range of offsets",
            hint="write START:STOP, with START < STOP, such as 1200:1900",
        )
    return OffsetRange(int(start), int(stop))

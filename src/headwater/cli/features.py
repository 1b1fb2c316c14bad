"""Commands of batch features."""

from typing import Annotated

import typer

from headwater.cli.screen import busy, show, table
from headwater.cli.stores import AsJson, Declared, bound_to

__all__ = ["commands"]

commands = typer.Typer(no_args_is_help=True, help="Batch features: materialise, show.")


@commands.command("materialise")
def materialise_features(
    pipeline: Declared,
    only: Annotated[
        list[str] | None,
        typer.Option("--table", help="Name of a table; can be repeated, all by default"),
    ] = None,
    json: AsJson = False,
) -> None:
    """Read the sources of batch features, check them, and publish them to the service.

    A running service looks up the new values within a moment, and no request fails meanwhile. A source
    that does not fit the declaration is refused, and the values published before stay.

    headwater deploy puts this on the schedule that each table declares.
    """
    from headwater.loop.batch.materialise import materialise, table_of, table_states

    with bound_to(pipeline) as bound:
        names = only or [state.table for state in table_states(bound)]
        chosen = [table_of(bound, name) for name in names]
        made = []
        for one in chosen:
            with busy(f"materialising {one.name}", json):
                made.append(materialise(bound, one))
    show(
        made,
        json,
        lambda: [f"{one.table}: {one.rows:,} rows, materialisation {one.number}" for one in made],
    )


@commands.command("show")
def show_features(pipeline: Declared, json: AsJson = False) -> None:
    """Show the tables of batch features, and the age of their published values."""
    from headwater.loop.batch.materialise import TableState, table_states

    def row(state: TableState) -> tuple[str, ...]:
        newest = state.newest
        read = (
            ("never", "-")
            if newest is None
            else (f"{newest.read_at:%Y-%m-%d %H:%M:%S}", f"{newest.rows:,}")
        )
        return (state.table, *read, state.every, state.max_age or "-", state.source)

    with bound_to(pipeline) as bound:
        states = table_states(bound)
    heads = ("table", "read (UTC)", "rows", "every", "max age", "source")
    show(states, json, lambda: [table(heads, map(row, states))])

"""Commands on the records of a pipeline: import, collect, status, examples."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli.screen import busy, plain, show, show_lines, table
from headwater.cli.stores import AsJson, Declared, bound_to, by_flow

__all__ = ["commands"]

commands = typer.Typer()


@commands.command("import")
def import_(  # noqa: PLR0913, PLR0917 - an option a column
    pipeline: Declared,
    file: Annotated[
        Path, typer.Argument(help="Parquet, CSV or TSV (.csv.gz and .tsv.gz, too), a row a prediction")
    ],
    id_column: Annotated[str, typer.Option("--id")] = "id",
    served_at: Annotated[str, typer.Option(help="Column: time of the prediction")] = "served_at",
    label: Annotated[str, typer.Option(help="Column: the label; empty if not known")] = "label",
    known_at: Annotated[
        str, typer.Option(help="Column: time at which the label became known")
    ] = "known_at",
    output: Annotated[str | None, typer.Option(help="Column: the output, if there is one")] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD", help="A word for null in a CSV, beside the empty field; can be repeated"
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Import past predictions with their labels.

    Each record counts as received at its own time. Times need a zone (2013-01-01T05:15:00Z).
    Feature columns bear the features' names. A CSV is read by the types that the pipeline declares: text
    stays as it is, and a value of another type is refused with its line. All rows are stored or none;
    rows that are stored already are skipped.
    """
    from headwater.loop.replay.import_history import Columns, import_history

    columns = Columns(
        id=id_column,
        served_at=served_at,
        label=label,
        known_at=known_at,
        output=output,
        null=tuple(null or ()),
    )
    with bound_to(pipeline) as bound, busy(f"importing {file}", json):
        added = import_history(bound.log, file, columns)
    show(
        {"records_added": added},
        json,
        lambda: [f"{added:,} records added. Next: headwater train {pipeline}"],
    )


@commands.command()
def collect(pipeline: Declared, json: AsJson = False) -> None:
    """Make examples of the recorded predictions and labels.

    Joins labels to predictions, gives the examples their offsets, and writes them to the archive.
    """
    from headwater.loop.collect import CollectResult
    from headwater.loop.collect import collect as collect_now

    with bound_to(pipeline) as bound, busy("collecting", json):
        result = by_flow("collect", pipeline, CollectResult) or collect_now(bound.log)
    show(
        result,
        json,
        lambda: [
            f"{result.emitted:,} new examples, {result.archived:,} archived, {result.stop:,} in all"
        ],
    )


@commands.command()
def status(pipeline: Declared, json: AsJson = False) -> None:
    """Count the records of the log, and show the champion."""
    with bound_to(pipeline) as bound:
        counts = bound.log.counts()
        registry = bound.registry
        reign, spans = registry.championship.reign(), registry.quarantine.ranges()
    rows = [(name, f"{value:,}") for name, value in plain(counts).items()]
    champion = (
        "none" if reign is None else f"version {reign.version} since {reign.since:%Y-%m-%d %H:%M} UTC"
    )
    show(
        {"counts": counts, "champion": reign, "quarantined": spans},
        json,
        lambda: [table(("records", "count"), rows), f"champion: {champion}"],
    )


@commands.command()
def examples(
    pipeline: Declared,
    start: Annotated[int, typer.Option(help="First offset")] = 0,
    stop: Annotated[int | None, typer.Option(help="Offset behind the last")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write Parquet or CSV here instead of printing")
    ] = None,
    json: AsJson = False,
) -> None:
    """Print a range of examples; a range never changes."""
    with bound_to(pipeline) as bound:
        frame = bound.log.examples(start, stop)
    flat = frame.unnest("features")
    if out is not None:
        flat.write_csv(out) if out.suffix == ".csv" else flat.write_parquet(out)
        show({"rows": frame.height, "file": str(out)}, json, lambda: [f"{frame.height:,} rows in {out}"])
    elif json:
        sys.stdout.write(frame.write_ndjson())
    else:
        show_lines([str(flat)])

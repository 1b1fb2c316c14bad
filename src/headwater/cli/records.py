"""Commands on the records of a pipeline: import, collect, status, examples."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.screen import (
    alarm_lines,
    busy,
    pairing_lines,
    plain,
    preview_lines,
    progress,
    show,
    show_lines,
    table,
)
from headwater.cli.stores import AsJson, Declared, bound_to, by_flow

if TYPE_CHECKING:
    from headwater.loop.binding import Bound
    from headwater.serving.published.pairing import Pairing

__all__ = ["commands"]

commands = typer.Typer()


def _words(what: str) -> Any:
    return typer.Option(metavar="WORD", help=f"A word of a text file for {what}; can be repeated")


@commands.command("import")
def import_(  # noqa: PLR0913, PLR0917 - an option a column
    context: typer.Context,
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
    due_at: Annotated[
        str, typer.Option(help='Column: time at which the label is due; read if due="due_at"')
    ] = "due_at",
    output: Annotated[str | None, typer.Option(help="Column: the output, if there is one")] = None,
    null: Annotated[list[str] | None, _words("null, beside the empty field; not if in quotes")] = None,
    true: Annotated[list[str] | None, _words("true, instead of true and 1")] = None,
    false: Annotated[list[str] | None, _words("false, instead of false and 0")] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="Splits the fields of a text file; a comma, or a tab in a .tsv, if not given"),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(help="The form of times: '%d.%m.%Y %H:%M'; 2013-01-01T05:15:00Z if not given"),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Zone of times that say none: Europe/Berlin; refused if not given")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and check all of it, show it, and record nothing")
    ] = False,
    json: AsJson = False,
) -> None:
    """Import past predictions with their labels.

    Each record counts as received at its own time. Feature columns bear the features' names, or those of
    Feature(..., column=...). A CSV is read by the types that the pipeline declares: text stays as it is,
    and a value of another type is refused with its line. All rows are stored or none, also if the import
    is stopped; rows that are stored already are skipped. A running service does not wait.
    """
    from headwater.loop.replay.history import Columns
    from headwater.loop.replay.import_history import import_history, preview_import

    columns = Columns(
        id=id_column,
        served_at=served_at,
        label=label,
        known_at=known_at,
        due_at=due_at,
        output=output,
        null=tuple(null or ()),
        delimiter=delimiter,
        true=tuple(true or Columns().true),
        false=tuple(false or Columns().false),
        time_format=time_format,
        zone=zone,
    )
    with bound_to(pipeline) as bound, progress(f"importing {file}", json) as told:
        if dry_run:
            preview = preview_import(bound.log, file, columns, told)
        else:
            added = import_history(bound.log, file, columns, told)
    if dry_run:
        show(preview, json, lambda: preview_lines(preview, _same_command(context, "dry_run", "json")))
    else:
        show(
            {"records_added": added},
            json,
            lambda: [f"{added:,} records added. Next: headwater train {pipeline}"],
        )


def _same_command(context: typer.Context, *left_out: str) -> str:
    """Return a command as it may be typed again, without some of its options."""
    words = ["headwater", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name in left_out:
            continue
        value = context.params[name]
        for one in value if isinstance(value, list | tuple) else [value]:
            words += (
                [str(one)] if parameter.param_type_name == "argument" else [parameter.opts[0], str(one)]
            )
    return shlex.join(words)


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
    """Count the records of the log, and show the champion, what serves, and the alarms that hold.

    The alarms are those of the service, as it wrote them last; it need not run.
    """
    from headwater.serving.published.alarms import KeeperStatusFile
    from headwater.spec.answering import feature_types

    with bound_to(pipeline) as bound:
        counts = bound.log.counts()
        registry = bound.registry
        reign, spans = registry.championship.reign(), registry.quarantine.ranges()
        alarms = KeeperStatusFile(bound.pipeline.name, bound.settings).read().alarms
        pairing = _pairing(bound)
    rows = [(name, f"{value:,}") for name, value in plain(counts).items()]
    champion = (
        "none" if reign is None else f"version {reign.version} since {reign.since:%Y-%m-%d %H:%M} UTC"
    )
    show(
        {
            "counts": counts,
            "champion": reign,
            "quarantined": spans,
            "declared": {"features": feature_types(bound.pipeline.features)},
            "serves": None if pairing is None else pairing.shown(),
            "alarms": alarms,
        },
        json,
        lambda: [
            table(("records", "count"), rows),
            f"champion: {champion}",
            *pairing_lines(pairing),
            *alarm_lines(alarms),
        ],
    )


def _pairing(bound: "Bound") -> "Pairing | None":
    """Return what a service of this declaration serves of what is published; None if nothing is."""
    from headwater.serving.published.pairing import pairing_of
    from headwater.serving.published.published_models import PublishedModels
    from headwater.spec.errors import HeadwaterError

    try:
        serving = PublishedModels(bound.pipeline, bound.settings).read()
        return None if serving is None else pairing_of(bound.pipeline, serving)
    except HeadwaterError:  # the service shows what is wrong with it
        return None


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

"""Commands on versions: how they do, where they come from, and whether they can be made again."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headwater.cli.screen import (
    busy,
    plain,
    print_json,
    rebuilt_lines,
    show,
    show_lines,
    table,
    tree_lines,
)
from headwater.cli.stores import AsJson, Declared, Named, bound_to, name_of, settings_now, stored
from headwater.spec.errors import ChangedError

if TYPE_CHECKING:
    from headwater.registry.version import Version

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
def performance(
    pipeline: Declared,
    last: Annotated[int, typer.Option(help="How many windows, newest last")] = 8,
    by: Annotated[Literal["version", "slice"], typer.Option(help="The subject of a row")] = "version",
    json: AsJson = False,
) -> None:
    """Show the metrics of every version, window by window.

    If labels are not mature, an estimate is shown and marked. Rows of "all" are over the mature windows
    among the newest thirty.
    """
    from headwater.loop.collect import collect as collect_now
    from headwater.monitoring.performance.performance_row import newest_rows
    from headwater.monitoring.performance.window_performance import performance_of

    with bound_to(pipeline) as bound, busy("measuring", json):
        declared = bound.pipeline
        try:
            collect_now(bound.log)
        except ChangedError as error:
            sys.stderr.write(f"warning: nothing was collected: {error}\n")
            declared = bound.log.declared.readable()
        measured = performance_of(bound.log, declared, bound.clock.now(), last=max(last, 30))
    rows = newest_rows(measured, last, of_slices=by == "slice")
    if json:
        print_json(rows.to_dicts())
    else:
        heads = ("version", "role", "window (UTC)", "slice", "predictions", "labelled", "metrics")
        show_lines([table(heads, _performance_rows(rows.to_dicts()))])


def _performance_rows(measured: "list[dict[str, Any]]") -> list[tuple[str, ...]]:
    """Return a row for each version and window; estimates stand in if labels are not mature."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for row in measured:
        span = f"{row['window_start']:%Y-%m-%d %H:%M} to {row['window_stop']:%m-%d %H:%M}"
        sliced = "-" if row["slice"] is None else f"{row['slice']}={row['slice_value']}"
        key = (row["version"], row["role"], f"all, {span}" if row["cumulative"] else span, sliced)
        cells = rows.setdefault((*key, f"{row['predictions']:,}", f"{row['labelled']:,}"), [])
        if row["value"] is None or (row["estimated"] and row["mature"]):
            continue
        error = "" if row["error"] is None else f" ± {row['error']:.4f}"
        mark = " (estimate)" if row["estimated"] else error
        cells.append(f"{row['metric']} {row['value']:.4f}{mark}")
    return [(*key, ", ".join(cells) or "too few labels yet") for key, cells in rows.items()]


@commands.command()
def lineage(
    pipeline: Named,
    version: Annotated[str | None, typer.Option(help="Only this version's line")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw all generations into this .png or .svg")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show the parent of each version.

    Prints a tree or JSON, or draws a picture of all generations.
    """
    from headwater.registry.lineage import draw, walk
    from headwater.registry.lineage import lineage as trace
    from headwater.registry.registry import Registry

    with stored(pipeline) as (name, pipeline_id, database):
        registry = Registry(name, pipeline_id, settings_now(), database)
        line = registry.store.versions()
        if version is not None:
            line = _line_of(registry.store.get(version), line)
        roots = trace(line, registry.championship.history())
    if picture is not None:
        draw(roots, picture, f"{registry.pipeline}: lineage")
        sys.stderr.write(f"drawn: {picture}\n")
    if json:
        print_json(
            [plain(node.version) | {"depth": d, "serving": node.serving} for d, node in walk(roots)]
        )
    else:
        show_lines(tree_lines(list(walk(roots))))


def _line_of(version: "Version", known: "list[Version]") -> "list[Version]":
    """Return a version, its ancestors and its descendants."""
    numbers, by_number = {version.number}, {other.number: other for other in known}
    above: Version | None = version
    while above is not None and above.parent is not None:
        numbers.add(above.parent)
        above = by_number.get(above.parent)
    for other in known:
        if other.parent in numbers and int(other.number) > int(version.number):
            numbers.add(other.number)
    return [other for other in known if other.number in numbers]


@commands.command()
def rebuild(
    pipeline: Named,
    version: Annotated[str, typer.Argument(help="Number of the version")],
    from_root: Annotated[
        bool, typer.Option("--from-root", help="Fold every ancestor too, without any stored state")
    ] = False,
    json: AsJson = False,
) -> None:
    """Make a version again, and compare digests.

    Its recipe is folded in another process, with another hash seed and the stored code.
    """
    from headwater.loop.rebuild import rebuild as rebuild_elsewhere

    name = name_of(pipeline)
    with busy(f"rebuilding version {version}", json):
        rebuilt = rebuild_elsewhere(name, version, settings_now(), from_root=from_root)
    show(rebuilt, json, lambda: rebuilt_lines(rebuilt))
    raise typer.Exit(0 if rebuilt.equal else 1)

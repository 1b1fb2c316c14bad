"""The command line: thin commands over the loop, which import what is heavy when they need it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from headwater.cli.batch import commands as batch_commands
from headwater.cli.features import commands as features_commands
from headwater.cli.operator import commands as operating_commands
from headwater.cli.screen import (
    busy,
    decision_lines,
    decisions_table,
    plain,
    print_json,
    rebuilt_lines,
    show,
    show_lines,
    table,
    tree_lines,
    update_lines,
    warnings_told,
)
from headwater.cli.serving import commands as serving_commands
from headwater.cli.stores import AsJson, Declared, Named, name_of, settings_now, stored, user
from headwater.infra.offline import quiet
from headwater.spec.errors import ChangedError, HeadwaterError

if TYPE_CHECKING:
    from headwater.loop.binding import Bound
    from headwater.loop.doctor import CheckResult
    from headwater.registry.registry import Registry
    from headwater.registry.version import Version

__all__ = ["app", "main"]

app = typer.Typer(
    name="headwater",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Keep a production model learning: log and wait, retrain, fine-tune, trace, rebuild.\n\n"
    "A PIPELINE is where it is declared, module:attribute or "
    "path.py:attribute; where only its records matter, its name will do.\n\n"
    "A first round: import history, train on it, look at "
    "versions; up and deploy make it go by itself.",
)
app.add_typer(operating_commands)
app.add_typer(serving_commands)
app.add_typer(features_commands, name="features")
app.add_typer(batch_commands, name="batch")

_ANEW = "headwater deploy makes it anew; what it did not start, monitoring asks for all the same"


@app.command()
def doctor(json: AsJson = False) -> None:
    """Check settings, libraries and stores; and the automations of the stack, where it runs."""
    from headwater.loop.doctor import checkup

    with busy("checking", json):
        findings = [*checkup(settings_now()), *_automations_checked()]
    rows = [("ok" if f.good else "BAD", f.what, f.found, f.hint) for f in findings]
    show(findings, json, lambda: [table(("", "what", "found", "next"), rows)])
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)


@app.command("import")
def import_(  # noqa: PLR0913, PLR0917 - an option a column
    pipeline: Declared,
    file: Annotated[
        Path, typer.Argument(help="Parquet, CSV or TSV (.csv.gz and .tsv.gz, too), a row a prediction")
    ],
    id_column: Annotated[str, typer.Option("--id")] = "id",
    served_at: Annotated[str, typer.Option(help="Column: when it was predicted")] = "served_at",
    label: Annotated[str, typer.Option(help="Column: the truth; empty where not known")] = "label",
    known_at: Annotated[str, typer.Option(help="Column: when the truth became known")] = "known_at",
    output: Annotated[
        str | None, typer.Option(help="Column: what was predicted, if anything was")
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(metavar="WORD", help="Stands for null in a CSV, as an empty field does; repeat it"),
    ] = None,
    json: AsJson = False,
) -> None:
    """Import past predictions with their labels.

    Each record counts as received at its own time. Times need a zone (2013-01-01T05:15:00Z).
    Feature columns bear the features' names. A CSV is read by the types that the pipeline declares: text
    stays as it is, and a value of another type is refused with its line. All rows are kept or none; rows
    that are there already are skipped.
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
    with _bound(pipeline) as bound, busy(f"importing {file}", json):
        added = import_history(bound.log, file, columns)
    show(
        {"records_added": added},
        json,
        lambda: [f"{added:,} records added. Next: headwater train {pipeline}"],
    )


@app.command()
def collect(pipeline: Declared, json: AsJson = False) -> None:
    """Make examples of what was recorded.

    Joins labels to predictions, gives the examples their offsets, writes them to the archive.
    """
    from headwater.loop.collect import CollectResult
    from headwater.loop.collect import collect as collect_now

    with _bound(pipeline) as bound, busy("collecting", json):
        ran = _by_flow("collect", pipeline)
        found = collect_now(bound.log) if ran is None else msgspec.convert(ran, CollectResult)
    show(
        found,
        json,
        lambda: [f"{found.emitted:,} new examples, {found.archived:,} archived, {found.stop:,} in all"],
    )


@app.command()
def train(
    pipeline: Declared,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a stateful line anew")] = False,
    json: AsJson = False,
) -> None:
    """Update the model: retrain, or fine-tune.

    Collects first, then does what the pipeline says: retrains from scratch, or fine-tunes the champion.

    Where the stack runs (headwater up), this is a flow run that its Prefect page shows.
    """
    from headwater.loop.collect import collect as collect_now
    from headwater.loop.training.update import UpdateResult, check_update
    from headwater.loop.training.update import train as train_now
    from headwater.spec.updating.update import Stateless

    with _bound(pipeline) as bound, busy("updating", json):
        scratch = fresh or isinstance(bound.pipeline.update, Stateless)
        bound.log.agree(fresh=fresh)
        check_update(bound, from_scratch=scratch)
        ran = _by_flow("retrain" if scratch else "fine-tune", pipeline)
        if ran is None:
            collect_now(bound.log)
            found = train_now(bound, by=user(), from_scratch=fresh)
        else:
            found = msgspec.convert(ran, UpdateResult)
        said = [] if ran is None else [*map(str, bound.cautions)]
    for text in found.warnings if ran is not None else ():
        if text not in said:  # what only the flow saw
            sys.stderr.write(f"warning: {text}\n")
    show(found, json, lambda: update_lines(found))


@app.command()
def status(pipeline: Declared, json: AsJson = False) -> None:
    """Count what the log holds, and say who serves."""
    with _bound(pipeline) as bound:
        counts = bound.log.counts()
        championship = bound.registry.championship
        reign, spans = championship.reign(), championship.quarantined()
    rows = [(name, f"{value:,}") for name, value in plain(counts).items()]
    champion = (
        "none" if reign is None else f"version {reign.version} since {reign.since:%Y-%m-%d %H:%M} UTC"
    )
    show(
        {"counts": counts, "champion": reign, "quarantined": spans},
        json,
        lambda: [table(("records", "count"), rows), f"champion: {champion}"],
    )


@app.command()
def examples(
    pipeline: Declared,
    start: Annotated[int, typer.Option(help="First offset")] = 0,
    stop: Annotated[int | None, typer.Option(help="Offset behind the last")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write Parquet or CSV here instead of printing")
    ] = None,
    json: AsJson = False,
) -> None:
    """Give a range of examples, the same for ever."""
    with _bound(pipeline) as bound:
        frame = bound.log.examples(start, stop)
    flat = frame.unnest("features")
    if out is not None:
        flat.write_csv(out) if out.suffix == ".csv" else flat.write_parquet(out)
        show({"rows": frame.height, "file": str(out)}, json, lambda: [f"{frame.height:,} rows in {out}"])
    elif json:
        sys.stdout.write(frame.write_ndjson())
    else:
        show_lines([str(flat)])


@app.command()
def performance(
    pipeline: Declared,
    last: Annotated[int, typer.Option(help="How many windows, newest last")] = 8,
    by: Annotated[Literal["version", "slice"], typer.Option(help="What a row is of")] = "version",
    json: AsJson = False,
) -> None:
    """Show how every version does, window by window.

    Where labels are not mature, an estimate stands instead, marked as such. Rows of "all" are over the
    mature windows among the newest thirty.
    """
    from headwater.loop.collect import collect as collect_now
    from headwater.monitoring.performance.performance_row import newest_rows
    from headwater.monitoring.performance.window_performance import performance_of

    with _bound(pipeline) as bound, busy("measuring", json):
        declared = bound.pipeline
        try:
            collect_now(bound.log)
        except ChangedError as error:
            sys.stderr.write(f"warning: nothing was collected: {error}\n")
            declared = bound.log.declared.readable()
        measured = performance_of(bound.log, declared, bound.clock.now(), last=max(last, 30))
    found = newest_rows(measured, last, of_slices=by == "slice")
    if json:
        print_json(found.to_dicts())
    else:
        heads = ("version", "role", "window (UTC)", "slice", "predictions", "labelled", "metrics")
        show_lines([table(heads, _performance_rows(found.to_dicts()))])


def _performance_rows(measured: "list[dict[str, Any]]") -> list[tuple[str, ...]]:
    """Give a row a version and window: measured values, and estimates where labels are not mature."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for row in measured:
        span = f"{row['window_start']:%Y-%m-%d %H:%M} to {row['window_stop']:%m-%d %H:%M}"
        sliced = "-" if row["slice"] is None else f"{row['slice']}={row['slice_value']}"
        key = (row["version"], row["role"], f"all, {span}" if row["cumulative"] else span, sliced)
        told = rows.setdefault((*key, f"{row['predictions']:,}", f"{row['labelled']:,}"), [])
        if row["value"] is None or (row["estimated"] and row["mature"]):
            continue
        error = "" if row["error"] is None else f" ± {row['error']:.4f}"
        mark = " (estimate)" if row["estimated"] else error
        told.append(f"{row['metric']} {row['value']:.4f}{mark}")
    return [(*key, ", ".join(told) or "too few labels yet") for key, told in rows.items()]


@app.command()
def lineage(
    pipeline: Named,
    version: Annotated[str | None, typer.Option(help="Only this version's line")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw all generations into this .png or .svg")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show which version was fine-tuned from which.

    As a tree, as JSON, or as a picture over all generations.
    """
    from headwater.registry.lineage import draw, walk
    from headwater.registry.lineage import lineage as trace

    with _registry(pipeline) as registry:
        found = registry.store.versions()
        if version is not None:
            found = _line_of(registry.store.get(version), found)
        roots = trace(found, registry.championship.history())
    if picture is not None:
        draw(roots, picture, f"{registry.pipeline}: lineage")
        sys.stderr.write(f"drawn: {picture}\n")
    if json:
        print_json(
            [plain(node.version) | {"depth": d, "serving": node.serving} for d, node in walk(roots)]
        )
    else:
        show_lines(tree_lines(list(walk(roots))))


@app.command()
def rebuild(
    pipeline: Named,
    version: Annotated[str, typer.Argument(help="Number of the version")],
    from_root: Annotated[
        bool, typer.Option("--from-root", help="Fold every ancestor too, without any stored state")
    ] = False,
    json: AsJson = False,
) -> None:
    """Make a version again, and compare digests.

    Its recipe is folded in another process, with another hash seed and the code that was kept.
    """
    from headwater.loop.rebuild import rebuild as rebuild_elsewhere

    name = name_of(pipeline)
    with busy(f"rebuilding version {version}", json):
        found = rebuild_elsewhere(name, version, settings_now(), from_root=from_root)
    show(found, json, lambda: rebuilt_lines(found))
    raise typer.Exit(0 if found.equal else 1)


@app.command()
def monitor(pipeline: Declared, json: AsJson = False) -> None:
    """Decide whether an update is due.

    Collects, compares what the champion served since with what it learned from, asks the triggers,
    and stores the decision, fired or not.

    Where the stack runs (headwater up), this is a flow run, and a decision that fires starts the update.
    """
    from headwater.loop.collect import collect as collect_now
    from headwater.loop.decision.decide import decide
    from headwater.loop.decision.performance import keep_performance
    from headwater.spec.updating.decision import Decision

    with _bound(pipeline) as bound, busy("monitoring", json):
        ran = _by_flow("monitor", pipeline)
        if ran is None:
            collect_now(bound.log)
            keep_performance(bound)
            found = decide(bound)
        else:
            found = msgspec.convert(ran, Decision)
    done = f"Next: headwater update {pipeline}" if found.fired and ran is None else ""
    show(found, json, lambda: [*decision_lines(found), *([done] if done else [])])
    for failed in _failing_automations().get(found.pipeline, [])[:1] if ran is not None else []:
        sys.stderr.write(
            f"warning: the automation that starts updates failed: {failed}.\nnext: {_ANEW}.\n"
        )


@app.command()
def decisions(
    pipeline: Named,
    last: Annotated[int, typer.Option(help="How many, newest last; 0 for all")] = 20,
    fired: Annotated[bool, typer.Option("--fired", help="Only those that asked for an update")] = False,
    json: AsJson = False,
) -> None:
    """List what the triggers decided, and why."""
    from headwater.infra.clock import SystemClock
    from headwater.registry.decisions import Decisions

    with stored(pipeline) as (name, pipeline_id, database):
        kept = Decisions(name, pipeline_id, database, SystemClock())
        found = kept.newest(last or None, fired=fired)
    show(found, json, lambda: [decisions_table(found)])


@app.command()
def update(
    pipeline: Declared,
    decision: Annotated[
        str | None, typer.Option(help="Its id; the oldest that waits where not given")
    ] = None,
    json: AsJson = False,
) -> None:
    """Carry out a decision that fired.

    Claims it, collects, learns, passes the gate, registers the version with its decision, promotes it.
    However often this is called, and whatever is killed, a decision ends in one version.
    """
    from headwater.loop.collect import collect as collect_now
    from headwater.loop.decision.execute import carry_out

    with _bound(pipeline) as bound, busy("updating", json):
        waiting = [decision] if decision else [found.id for found in bound.decisions.unended()]
        if waiting:
            collect_now(bound.log)
        found = carry_out(bound, waiting[0], by=user()) if waiting else None
    nothing = f"no decision waits. Next: headwater monitor {pipeline}, or headwater train {pipeline}"
    show(found, json, lambda: [nothing] if found is None else update_lines(found))


@app.command()
def deploy(
    pipelines: Annotated[list[str], typer.Argument(metavar="PIPELINE...", help="One or more")],
    collect_every: Annotated[str, typer.Option(help="How often to collect, such as 1h or 15m")] = "1h",
    monitor_every: Annotated[
        str, typer.Option(help="How often to decide, where triggers ask for evidence")
    ] = "15m",
    prefect_api: Annotated[
        str | None,
        typer.Option(envvar="PREFECT_API_URL", help="Of a Prefect of one's own; the stack's by default"),
    ] = None,
    json: AsJson = False,
) -> None:
    """Put pipelines on their schedules.

    Makes deployments for the worker of the stack, which must run: headwater up. A Prefect of one's own
    serves as well, with a worker of the pool headwater that has this HEADWATER_HOME.
    """
    from headwater.flows.deployments import deploy as deploy_all

    with busy("deploying", json):
        found = deploy_all(
            pipelines,
            settings_now(),
            collect_every=collect_every,
            monitor_every=monitor_every,
            prefect_api=prefect_api,
        )
    rows = [(d.name, d.flow, d.pipeline, ", ".join(d.schedules) or "on request") for d in found]
    show(found, json, lambda: [table(("deployment", "flow", "pipeline", "schedule"), rows)])


@app.command()
def up(
    pipelines: Annotated[
        list[str] | None, typer.Argument(metavar="[PIPELINE...]", help="Serve these, too")
    ] = None,
    prefect_port: Annotated[int, typer.Option(help="0 takes a free one")] = 0,
    mlflow_port: Annotated[int, typer.Option(help="0 takes a free one")] = 0,
    service_port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
) -> None:
    """Start Prefect, MLflow, a worker, and the service.

    All of them listen on loopback only. One that ends is started again. Ctrl-C ends them.
    """
    from headwater.flows.stack.stack import running_stack

    served = pipelines or []
    with running_stack(settings_now(), prefect_port, mlflow_port, served, service_port) as stack:
        stack.wait()


def _bound(reference: str) -> "Bound":
    from headwater.loop.binding import Bound
    from headwater.spec.loading import load_pipeline

    return Bound(load_pipeline(reference), settings_now())


@contextmanager
def _registry(pipeline: str) -> Iterator["Registry"]:
    from headwater.registry.registry import Registry

    with stored(pipeline) as (name, pipeline_id, database):
        yield Registry(name, pipeline_id, settings_now(), database)


def _by_flow(name: str, reference: str) -> "dict[str, Any] | None":
    """Run a flow against the stack, if one runs; None where none does."""
    from headwater.infra.settings import settings

    if not (settings().root / "stack.json").is_file():
        return None
    from headwater.flows.stack.stack import find_stack, run_flow

    return run_flow(name, reference, settings()) if find_stack(settings()) else None


def _failing_automations() -> "dict[str, list[str]]":
    """Say how the automations of the stack fail, by pipeline; empty where no stack runs."""
    if not (settings_now().root / "stack.json").is_file():
        return {}
    from headwater.flows.automations import failures_now

    return failures_now(settings_now())


def _automations_checked() -> "Iterator[CheckResult]":
    from headwater.loop.doctor import CheckResult

    try:
        found = _failing_automations()
    except HeadwaterError as error:
        yield CheckResult(what="automations", good=False, found=error.what, hint=error.hint)
        return
    for name, failed in found.items():
        said, hint = (failed[0], _ANEW) if failed else ("it works", "")
        yield CheckResult(what=f"automation of {name}", good=not failed, found=said, hint=hint)


def _line_of(version: "Version", known: "list[Version]") -> "list[Version]":
    """Give a version, its ancestors and its descendants."""
    kept, by_number = {version.number}, {found.number: found for found in known}
    above: Version | None = version
    while above is not None and above.parent is not None:
        kept.add(above.parent)
        above = by_number.get(above.parent)
    for found in known:
        if found.parent in kept and int(found.number) > int(version.number):
            kept.add(found.number)
    return [found for found in known if found.number in kept]


def main() -> None:
    """Run a command; an expected error ends with what to do next, and status 1."""
    quiet()
    try:
        with warnings_told():
            app()
    except HeadwaterError as error:
        if "--json" in sys.argv:
            print_json({"error": type(error).__name__, "what": error.what, "hint": error.hint})
        else:
            sys.stderr.write(
                f"error: {error.what}.\n" + (f"next: {error.hint}.\n" if error.hint else "")
            )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("stopped: nothing half done was kept\n")
        raise SystemExit(130) from None

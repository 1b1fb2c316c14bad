"""The command line: thin commands over the loop, which import heavy libraries when they need them."""

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
    warnings_shown,
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
    "A PIPELINE is a reference to its declaration, module:attribute or "
    "path.py:attribute; commands that need only its records take its name as well.\n\n"
    "To begin: import history, train on it, list the "
    "versions; up and deploy put it on a schedule.",
)
app.add_typer(operating_commands)
app.add_typer(serving_commands)
app.add_typer(features_commands, name="features")
app.add_typer(batch_commands, name="batch")

_ANEW = "headwater deploy makes it anew; monitoring asks again for updates that were not started"


@app.command()
def doctor(json: AsJson = False) -> None:
    """Check settings, libraries, stores, and the automations of a running stack."""
    from headwater.loop.doctor import checkup

    with busy("checking", json):
        findings = [*checkup(settings_now()), *_check_automations()]
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
    with _bound(pipeline) as bound, busy(f"importing {file}", json):
        added = import_history(bound.log, file, columns)
    show(
        {"records_added": added},
        json,
        lambda: [f"{added:,} records added. Next: headwater train {pipeline}"],
    )


@app.command()
def collect(pipeline: Declared, json: AsJson = False) -> None:
    """Make examples of the recorded predictions and labels.

    Joins labels to predictions, gives the examples their offsets, and writes them to the archive.
    """
    from headwater.loop.collect import CollectResult
    from headwater.loop.collect import collect as collect_now

    with _bound(pipeline) as bound, busy("collecting", json):
        flow_result = _by_flow("collect", pipeline)
        result = (
            collect_now(bound.log)
            if flow_result is None
            else msgspec.convert(flow_result, CollectResult)
        )
    show(
        result,
        json,
        lambda: [
            f"{result.emitted:,} new examples, {result.archived:,} archived, {result.stop:,} in all"
        ],
    )


@app.command()
def train(
    pipeline: Declared,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a stateful line anew")] = False,
    json: AsJson = False,
) -> None:
    """Update the model: retrain, or fine-tune.

    Collects first, then updates as the pipeline declares: retrains from scratch, or fine-tunes the
    champion.

    If the stack runs (headwater up), this is a flow run that its Prefect page shows.
    """
    from headwater.loop.collect import collect as collect_now
    from headwater.loop.training.update import UpdateResult, check_update
    from headwater.loop.training.update import train as train_now
    from headwater.spec.updating.update import Stateless

    with _bound(pipeline) as bound, busy("updating", json):
        scratch = fresh or isinstance(bound.pipeline.update, Stateless)
        bound.log.agree(fresh=fresh)
        check_update(bound, from_scratch=scratch)
        flow_result = _by_flow("retrain" if scratch else "fine-tune", pipeline)
        if flow_result is None:
            collect_now(bound.log)
            updated = train_now(bound, by=user(), from_scratch=fresh)
        else:
            updated = msgspec.convert(flow_result, UpdateResult)
        shown = [] if flow_result is None else [*map(str, bound.cautions)]
    for text in updated.warnings if flow_result is not None else ():
        if text not in shown:  # only the flow saw it
            sys.stderr.write(f"warning: {text}\n")
    show(updated, json, lambda: update_lines(updated))


@app.command()
def status(pipeline: Declared, json: AsJson = False) -> None:
    """Count the records of the log, and show the champion."""
    with _bound(pipeline) as bound:
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
    """Print a range of examples; a range never changes."""
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

    with _bound(pipeline) as bound, busy("measuring", json):
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


@app.command()
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

    with _registry(pipeline) as registry:
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

    Its recipe is folded in another process, with another hash seed and the stored code.
    """
    from headwater.loop.rebuild import rebuild as rebuild_elsewhere

    name = name_of(pipeline)
    with busy(f"rebuilding version {version}", json):
        rebuilt = rebuild_elsewhere(name, version, settings_now(), from_root=from_root)
    show(rebuilt, json, lambda: rebuilt_lines(rebuilt))
    raise typer.Exit(0 if rebuilt.equal else 1)


@app.command()
def monitor(pipeline: Declared, json: AsJson = False) -> None:
    """Decide whether an update is due.

    Collects, compares the requests that the champion served with the examples that it learned, asks the
    triggers, and stores the decision, fired or not.

    If the stack runs (headwater up), this is a flow run, and a decision that fires starts the update.
    """
    from headwater.loop.collect import collect as collect_now
    from headwater.loop.decision.decide import decide
    from headwater.loop.decision.performance import keep_performance
    from headwater.spec.updating.decision import Decision

    with _bound(pipeline) as bound, busy("monitoring", json):
        flow_result = _by_flow("monitor", pipeline)
        if flow_result is None:
            collect_now(bound.log)
            keep_performance(bound)
            decision = decide(bound)
        else:
            decision = msgspec.convert(flow_result, Decision)
    done = f"Next: headwater update {pipeline}" if decision.fired and flow_result is None else ""
    show(decision, json, lambda: [*decision_lines(decision), *([done] if done else [])])
    for failed in (
        _failing_automations().get(decision.pipeline, [])[:1] if flow_result is not None else []
    ):
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
        store = Decisions(name, pipeline_id, database, SystemClock())
        newest = store.newest(last or None, fired=fired)
    show(newest, json, lambda: [decisions_table(newest)])


@app.command()
def update(
    pipeline: Declared,
    decision: Annotated[
        str | None, typer.Option(help="Its id; the oldest waiting one by default")
    ] = None,
    json: AsJson = False,
) -> None:
    """Carry out a decision that fired.

    Claims it, collects, learns, passes the gate, registers the version with its decision, and promotes
    it. A decision ends in one version, however often this is called, and whichever process is killed.
    """
    from headwater.loop.collect import collect as collect_now
    from headwater.loop.decision.execute import carry_out

    with _bound(pipeline) as bound, busy("updating", json):
        waiting = [decision] if decision else [unended.id for unended in bound.decisions.unended()]
        if waiting:
            collect_now(bound.log)
        updated = carry_out(bound, waiting[0], by=user()) if waiting else None
    nothing = f"no decision waits. Next: headwater monitor {pipeline}, or headwater train {pipeline}"
    show(updated, json, lambda: [nothing] if updated is None else update_lines(updated))


@app.command()
def deploy(
    pipelines: Annotated[list[str], typer.Argument(metavar="PIPELINE...", help="One or more")],
    collect_every: Annotated[str, typer.Option(help="How often to collect, such as 1h or 15m")] = "1h",
    monitor_every: Annotated[
        str, typer.Option(help="How often to decide, if triggers need evidence")
    ] = "15m",
    prefect_api: Annotated[
        str | None,
        typer.Option(
            envvar="PREFECT_API_URL", help="Address of your own Prefect; the stack's by default"
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Put pipelines on their schedules.

    Makes deployments for the worker of the stack, which must run: headwater up. Your own Prefect serves
    as well, if a worker of its pool headwater has this HEADWATER_HOME.
    """
    from headwater.flows.deployments import deploy as deploy_all

    with busy("deploying", json):
        deployments = deploy_all(
            pipelines,
            settings_now(),
            collect_every=collect_every,
            monitor_every=monitor_every,
            prefect_api=prefect_api,
        )
    rows = [(d.name, d.flow, d.pipeline, ", ".join(d.schedules) or "on request") for d in deployments]
    show(deployments, json, lambda: [table(("deployment", "flow", "pipeline", "schedule"), rows)])


@app.command()
def up(
    pipelines: Annotated[
        list[str] | None, typer.Argument(metavar="[PIPELINE...]", help="Pipelines to serve as well")
    ] = None,
    prefect_port: Annotated[int, typer.Option(help="0 takes a free one")] = 0,
    mlflow_port: Annotated[int, typer.Option(help="0 takes a free one")] = 0,
    service_port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
) -> None:
    """Start Prefect, MLflow, a worker, and the service.

    All of them listen on loopback only. A process that ends is started again. Ctrl-C ends all.
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
    """Run a flow on the stack, and return its result; None if no stack runs."""
    from headwater.infra.settings import settings

    if not (settings().root / "stack.json").is_file():
        return None
    from headwater.flows.stack.record import find_stack
    from headwater.flows.stack.runs import run_flow

    return run_flow(name, reference, settings()) if find_stack(settings()) else None


def _failing_automations() -> "dict[str, list[str]]":
    """Return the failures of the stack's automations, by pipeline; empty if no stack runs."""
    if not (settings_now().root / "stack.json").is_file():
        return {}
    from headwater.flows.automations import failures_now

    return failures_now(settings_now())


def _check_automations() -> "Iterator[CheckResult]":
    from headwater.loop.doctor import CheckResult

    try:
        failures = _failing_automations()
    except HeadwaterError as error:
        yield CheckResult(what="automations", good=False, found=error.what, hint=error.hint)
        return
    for name, messages in failures.items():
        state, hint = (messages[0], _ANEW) if messages else ("it works", "")
        yield CheckResult(what=f"automation of {name}", good=not messages, found=state, hint=hint)


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


def main() -> None:
    """Run a command; an expected error ends with the next step and status 1."""
    quiet()
    try:
        with warnings_shown():
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
        sys.stderr.write("stopped: nothing unfinished was stored\n")
        raise SystemExit(130) from None

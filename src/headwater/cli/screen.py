"""The output of the command line: tables, trees and lines, or JSON."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from headwater.spec.errors import HeadwaterWarning

if TYPE_CHECKING:
    from rich.table import Table

    from headwater.features.batch.batch_runs import BatchRun
    from headwater.loop.rebuild import RebuildResult
    from headwater.loop.replay.import_history import ImportPreview
    from headwater.loop.training.update import UpdateResult
    from headwater.registry.lineage import Node
    from headwater.registry.version import Version
    from headwater.serving.published.alarms import Alarm
    from headwater.serving.published.pairing import Pairing
    from headwater.spec.rulings import AppearedClass, Learning, RoutingStatus
    from headwater.spec.serving.queue_results import QueueStatistics
    from headwater.spec.updating.decision import Decision

__all__ = [
    "alarm_lines",
    "batch_lines",
    "busy",
    "classes_table",
    "decision_lines",
    "decisions_table",
    "pairing_lines",
    "plain",
    "preview_lines",
    "print_json",
    "progress",
    "queue_lines",
    "rebuilt_lines",
    "routing_lines",
    "show",
    "show_lines",
    "table",
    "table_of_runs",
    "tree_lines",
    "update_lines",
    "versions_table",
    "warnings_shown",
]

_SHORT = 12
_FILE_WIDTH = 140


def plain(record: object) -> Any:
    """Return a record as dictionaries, lists, strings and numbers."""
    return msgspec.to_builtins(record)


def print_json(record: object) -> None:
    """Print one line of JSON."""
    sys.stdout.write(msgspec.json.encode(plain(record)).decode() + "\n")


def show(record: object, as_json: bool, lines: Callable[[], Iterable[object]]) -> None:
    """Print a record as JSON, or as lines for people."""
    if as_json:
        print_json(record)
    else:
        show_lines(lines())


def show_lines(lines: Iterable[object]) -> None:
    """Print lines and tables."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _FILE_WIDTH
    console = Console(highlight=False, soft_wrap=True, width=width)
    for line in lines:
        console.print(line, markup=False)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show each of headwater's own warnings once, in the form of an error."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show_once(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any
        ) -> None:
            if not isinstance(message, HeadwaterWarning):
                show_others(message, category, filename, lineno, *rest)
            elif str(message) not in shown:
                shown.add(str(message))
                sys.stderr.write(f"warning: {message.what}.\nnext: {message.hint}.\n")

        warnings.showwarning = show_once  # type: ignore[assignment] # it takes the same, by position
        warnings.simplefilter("always", HeadwaterWarning)
        yield


@contextmanager
def busy(what: str, as_json: bool) -> Iterator[None]:
    """Show on a terminal that a command is busy."""
    if as_json or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} ..."):
        yield


@contextmanager
def progress(what: str, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """Show progress on a terminal; yield a function that takes the part done and the total."""
    if as_json or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Make a table; columns of numbers after the first are aligned to the right."""
    from rich import box
    from rich.table import Table

    cells = [list(row) for row in rows]
    table_ = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        numeric = i > 0 and all(row[i][:1].isdigit() or row[i] in ("", "-") for row in cells)
        table_.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table_.add_row(*row)
    return table_


def versions_table(versions: Sequence["Version"], roles: Mapping[str, Sequence[str]]) -> "Table":
    """List versions with their roles, oldest first; the champion is marked."""
    rows = [
        (
            f"{v.number} *" if "champion" in roles.get(v.number, ()) else v.number,
            ", ".join(roles.get(v.number, ())) or ("refused" if v.refused else "-"),
            v.update,
            v.parent or "-",
            str(v.examples),
            f"{v.learned:,}",
            f"{v.train_cpu_s:.2f}",
            f"{v.made_at:%Y-%m-%d %H:%M}",
            v.digest[:_SHORT],
        )
        for v in versions
    ]
    heads = ("version", "role", "update", "parent", "offsets", "learned", "CPU s", "made at (UTC)")
    return table((*heads, "digest"), rows)


def tree_lines(walked: Sequence[tuple[int, "Node"]]) -> list[str]:
    """Draw lineage as a tree; a line without branches goes straight down."""
    lines = []
    indents: dict[str, int] = {}
    for _, node in walked:
        version = node.version
        parent = indents.get(version.parent or "", 0)
        indent = parent
        indents[version.number] = indent + (1 if len(node.children) > 1 else 0)
        joint = "" if version.parent is None else "└ "
        mark = "  ← champion" if node.serving else ""
        lines.append(
            f"{'  ' * indent}{joint}{version.number}  {version.update}  {version.examples}  "
            f"{version.learned:,} examples  {version.made_at:%Y-%m-%d %H:%M}  "
            f"{version.digest[:_SHORT]}{mark}"
        )
    return lines or ["no versions yet. Next: headwater train PIPELINE"]


def decisions_table(decisions: Sequence["Decision"]) -> "Table":
    """Show decisions, oldest first."""
    rows = [
        (
            d.id,
            f"{d.at:%Y-%m-%d %H:%M}",
            ("fired" if d.outcome else "fired, waits") if d.fired else "no",
            d.evidence.champion or "none",
            d.reason,
            _outcome(d),
        )
        for d in decisions
    ]
    return table(("decision", "at (UTC)", "fired", "champion", "why", "what came of it"), rows)


def decision_lines(decision: "Decision") -> list[str]:
    """Describe a decision and its evidence."""
    evidence = decision.evidence
    verdict = "an update is due" if decision.fired else "no update"
    lines = [f"{verdict}: {decision.reason}", f"decision {decision.id}, {evidence.standing}"]
    lines += [
        f"  {s.metric}: reference {_number(s.reference)}, current {_number(s.current)}, "
        f"estimate {_number(s.estimate)}"
        for s in evidence.scores
    ]
    lines += [f"  {f.verdict}: {f.sentence}" for f in evidence.findings]
    return lines + [f"  note: {note}" for note in evidence.notes]


def routing_lines(status: "RoutingStatus") -> list[str]:
    """Describe the routing, its history, and the progress of shadows."""
    from headwater.spec.serving.routing_text import shortly

    in_force = "as declared" if status.routing is None else shortly(status.routing)
    declared = "" if status.declared is None else f"; declared: {shortly(status.declared)}"
    lines = [f"{status.pipeline} is routed: {in_force}{declared}"]
    for ruling in status.history:
        what = "as declared" if ruling.routing is None else shortly(ruling.routing)
        lines.append(f"  {ruling.since:%Y-%m-%d %H:%M} UTC, {ruling.by}: {what} ({ruling.reason})")
    return lines + [f"  shadow {one.version} is {one.behind:,} records behind" for one in status.shadows]


def classes_table(classes: "Sequence[AppearedClass]") -> "Table":
    """Make a table of the classes that were not declared."""
    rows = [
        (one.name or "''", f"{one.appeared_at:%Y-%m-%d %H:%M} UTC", f"{one.held:,}", _becomes(one))
        for one in classes
    ]
    return table(("new class", "appeared", "held labels", "is"), rows)


def _becomes(one: "AppearedClass") -> str:
    if one.becomes is None:
        return "not named"
    return "itself" if one.becomes == one.name else one.becomes


def alarm_lines(alarms: Iterable["Alarm"]) -> list[str]:
    """Describe the alarms that hold, each with the next step."""
    lines = []
    for alarm in alarms:
        lines.append(f"alarm: {alarm.kind} since {alarm.since:%Y-%m-%d %H:%M} UTC: {alarm.what}")
        lines.append(f"next: {alarm.hint}")
    return lines


def pairing_lines(pairing: "Pairing | None") -> list[str]:
    """Describe what serves: a version, the features of its requests, and why it is no other."""
    if pairing is None:
        return []
    version, names = pairing.serving.states[0].version, ", ".join(pairing.pipeline.feature_names)
    lines = [f"serves: version {version}, which is asked for {names}"]
    if (misfit := pairing.misfit) is not None:
        lines += [f"not as declared: {misfit.what}", f"next: {misfit.hint}"]
    return lines


def learning_lines(learning: "Learning") -> list[str]:
    """Describe the pause of learning, and the quarantined offsets."""
    pause, lines = learning.pause, [f"{learning.pipeline} learns"]
    if pause is not None:
        since = f"{pause.since:%Y-%m-%d %H:%M} UTC"
        where = f"{learning.pipeline} is paused at offset {pause.offset:,}"
        lines = [f"{where} since {since}, by {pause.by} ({pause.reason})"]
    spans = ", ".join(map(str, learning.quarantined))
    return [*lines, f"quarantined: {spans}"] if spans else lines


def _outcome(decision: "Decision") -> str:
    outcome = decision.outcome
    if outcome is None:
        again = f"; runs asked for again: {decision.attempts}" if decision.attempts else ""
        return f"claimed by {decision.claimed_by or 'nobody yet'}{again}" if decision.fired else ""
    made = "no version" if outcome.version is None else f"version {outcome.version}"
    return f"{made}{', champion' if outcome.promoted else ''}: {outcome.reason}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def update_lines(updated: "UpdateResult") -> list[str]:
    """Describe the result of an update."""
    version = updated.version
    if version is None:
        return [f"no new version: {updated.reason}"]
    served = ", ".join(f"{name} {value:.4f}" for name, value in updated.served.items())
    made = (
        f"version {version.number} ({version.update}, {updated.reason}): "
        f"learned {version.learned:,} examples {version.examples} "
        f"in {version.train_cpu_s:.2f} CPU s, digest {version.digest[:_SHORT]}"
    )
    by_hand = f"to let it serve: headwater promote {version.pipeline} {version.number}"
    refused = f"it is kept, and does not serve; to let it serve all the same: {by_hand.split(': ')[1]}"
    not_promoted = by_hand if version.refused is None else refused
    lines = [made, "it is champion now" if updated.promoted else not_promoted]
    return [*lines, f"served since the last champion learned: {served}"] if served else lines


def rebuilt_lines(rebuilt: "RebuildResult") -> list[str]:
    """Describe the digests of a rebuild, version by version."""
    lines = [
        f"process {rebuilt.process_id} folded {len(rebuilt.versions)} version(s) of {rebuilt.pipeline}"
    ]
    for version in rebuilt.versions:
        same = "equal" if version.equal else "NOT EQUAL"
        lines.append(f"version {version.number}: {version.learned:,} examples, digests {same}")
        lines.append(f"  registered {version.digest}")
        lines.append(f"  rebuilt    {version.rebuilt_digest}")
    return lines


def preview_lines(preview: "ImportPreview", import_: str) -> list[str]:
    """Describe what an import would record, what it would leave out, and the command that imports."""
    if not preview.rows:
        return ["the table has no rows: there is nothing to import"]
    lines = ["the first rows, as they would be recorded:"]
    for prediction, label in preview.first:
        lines.append(f"  {msgspec.json.encode(prediction).decode()}")
        lines.append(f"  {'no label' if label is None else msgspec.json.encode(label).decode()}")
    counts = preview.counts
    lines.append(
        f"{preview.rows:,} rows: {counts.predictions:,} predictions and {counts.labels:,} labels would "
        "be recorded"
    )
    known = "recorded before with the same values, or twice in the table"
    left_out = (
        (preview.unlabelled, "rows have no label: their predictions wait for it"),
        (counts.predictions_known, f"predictions are left out: {known}"),
        (counts.labels_known, f"labels are left out: {known}"),
    )
    lines += [f"{count:,} {why}" for count, why in left_out if count]
    for labels, why in (
        (preview.late, "come after the wait, and are marked as late"),
        (preview.expired, "are dropped: their prediction comes after the wait"),
        (preview.undeclared, "are of classes that are not declared"),
    ):
        if labels is not None:
            classes = f" ({', '.join(map(repr, labels.classes))})" if labels.classes else ""
            first = f"the first is that of {labels.prediction_id!r}"
            lines.append(f"{labels.rows:,} labels {why}{classes}; {first}")
    if preview.unused:
        lines.append(f"columns that are not read: {', '.join(preview.unused)}")
    return [*lines, f"nothing was recorded. Next: {import_}"]


def queue_lines(counts: "QueueStatistics") -> list[str]:
    """Describe the label queue, and the agreement of people."""
    agreement, waiting = counts.agreement, counts.open_random + counts.open_uncertain
    strata = f"{counts.open_uncertain:,} uncertain, {counts.open_random:,} at random"
    answers = (
        f"{counts.answered:,} answered, with {counts.answers:,} answers of {counts.people:,} people"
    )
    rest = (
        f"{counts.skips:,} skipped, {counts.given_up:,} given up, {counts.labelled:,} labelled meanwhile"
    )
    shared = f"{counts.equal:,} predictions share the question of an equal one"
    waits = f"{waiting:,} questions wait: {strata}; {counts.claimed:,} claimed; {shared}"
    lines = [waits, f"{answers}; {rest}"]
    if not agreement.pairs:
        return [*lines, "no question has two answers yet: agreement is unknown"]
    beyond = f", mean difference {_number(agreement.mean_difference)}"
    if agreement.mean_difference is None:
        beyond = f", Cohen's kappa {_number(agreement.kappa)}"
    return [*lines, f"agreement: {_number(agreement.raw)} of {agreement.pairs:,} pairs{beyond}"]


def batch_lines(run: "BatchRun") -> list[str]:
    """Describe the run of a batch prediction."""
    made = f"{run.rows:,} predictions of version {run.version} in run {run.id}, logged and published"
    return [made, "headwater batch status counts how many are read"]


def table_of_runs(runs: Sequence["BatchRun"], pipeline: str) -> "list[Table | str]":
    """List runs of batch prediction, oldest first, with the share of their answers that was read."""
    rows = [
        (
            run.id,
            run.state,
            f"{run.at:%Y-%m-%d %H:%M}",
            run.version,
            f"{run.rows:,}",
            f"{run.read:,}",
            f"{run.read / run.rows:.1%}" if run.rows else "-",
            run.by,
        )
        for run in runs
    ]
    if not rows:
        return [f"no runs yet. Next: headwater batch predict {pipeline}"]
    heads = ("run", "state", "served at (UTC)", "version", "predictions", "read", "share", "by")
    return [table(heads, rows)]

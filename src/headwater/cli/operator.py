"""Commands that operate serving models; every ruling is audited."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.screen import (
    busy,
    classes_table,
    learning_lines,
    plain,
    print_json,
    routing_lines,
    show,
    show_lines,
    table,
    versions_table,
)
from headwater.cli.stores import (
    AsJson,
    Named,
    Reason,
    bound_to,
    open_operator,
    settings_now,
    span_of,
    user,
)
from headwater.spec.errors import DeclarationError

if TYPE_CHECKING:
    from headwater.loop.training.guard.suspects import Suspect

__all__ = ["commands"]

_UNUSUAL_SHOWN = 20

commands = typer.Typer()
shadow = typer.Typer(no_args_is_help=True, help="Versions that predict beside the answer: add, drop.")
commands.add_typer(shadow, name="shadow")

Number = Annotated[str, typer.Argument(help="Number of the version")]


@commands.command()
def versions(
    pipeline: Named,
    last: Annotated[int, typer.Option(help="How many, newest last; 0 for all")] = 20,
    json: AsJson = False,
) -> None:
    """List the versions with their roles."""
    with open_operator(pipeline) as operator:
        newest = operator.registry.store.versions()[-last:]
        roles = operator.roles()
        reign = operator.registry.championship.reign()
    serving = reign.version if reign else None
    if json:
        facts = [{"serving": v.number == serving, "roles": roles.get(v.number, [])} for v in newest]
        print_json([plain(v) | more for v, more in zip(newest, facts, strict=True)])
    else:
        show_lines([versions_table(newest, roles)])


@commands.command()
def promote(
    pipeline: Named, version: Number, reason: Reason = "promoted by hand", json: AsJson = False
) -> None:
    """Make a version champion, once its state is verified.

    With learn="each label", the service catches the version up first: it learns the examples that it
    missed, and becomes a new version, which the gate compares with the served outputs. While learning is
    paused, the version serves as it is.
    """
    with open_operator(pipeline) as operator:
        reign = operator.promote(version, by=user(), reason=reason)
    show(
        reign,
        json,
        lambda: [f"version {reign.version} is champion; before it, {reign.previous or 'none'}"],
    )


@commands.command()
def rollback(
    pipeline: Named,
    to: Annotated[
        str | None, typer.Option(help="Version to return to; the one before by default")
    ] = None,
    quarantine: Annotated[
        list[str] | None,
        typer.Option(
            help="START:STOP, offsets that no later update learns, can be repeated; or learned, for all "
            "since the version to return to stopped learning"
        ),
    ] = None,
    reason: Reason = "rolled back by hand",
    json: AsJson = False,
) -> None:
    """Return to an earlier champion.

    Quarantined offsets are left out of every later recipe, so that a poison is not learned again.
    With learn="each label", the service catches the earlier version up: it learns the examples since
    then, but for the quarantined ones.
    """
    from headwater.serving.published.alarms import KeeperStatusFile

    everything = quarantine == ["learned"]
    spans = [] if everything else [span_of(text) for text in quarantine or ()]
    with open_operator(pipeline) as operator:
        before = operator.registry.quarantine.ranges()
        reign = operator.roll_back(
            to, by=user(), reason=reason, quarantine="learned" if everything else spans
        )
        new = [span for span in operator.registry.quarantine.ranges() if span not in before]
    lines = [f"version {reign.version} is champion again"]
    if new:
        lines.append(f"quarantined: {', '.join(map(str, new))}")
    if KeeperStatusFile(operator.name, settings_now()).read().learns:
        lines.append(
            "the service catches it up with the examples since then, but for the quarantined ones"
        )
        if not new:
            lines.append(f"to leave them out: headwater rollback {operator.name} --quarantine learned")
    show(reign, json, lambda: lines)


@commands.command()
def routing(
    pipeline: Named,
    to: Annotated[
        str | None,
        typer.Option(
            "--set",
            help="champion, shadow:7,9, canary:0.05, canary:0.05:7, ab:champion=0.5,challenger=0.5, "
            "bandit:champion,challenger; or JSON",
        ),
    ] = None,
    declared: Annotated[
        bool, typer.Option("--declared", help="Return to what the pipeline declares")
    ] = False,
    reason: Reason = "routed by hand",
    json: AsJson = False,
) -> None:
    """Show how requests are routed, or set it.

    A running service follows within a moment, between two requests.
    """
    from headwater.spec.serving.routing_text import parse_routing

    if to is not None and declared:
        raise DeclarationError("--set and --declared are both given", hint="give one of them")
    with open_operator(pipeline) as operator:
        if to is not None or declared:
            new_routing = None if to is None else parse_routing(to)
            operator.routing.set(new_routing, by=user(), reason=reason)
        status = operator.routing.status()
    show(status, json, lambda: routing_lines(status))


@shadow.command("add")
def add_shadow(
    pipeline: Named, version: Number, reason: Reason = "added by hand", json: AsJson = False
) -> None:
    """Let a version predict every request beside the answer, from the next prediction on.

    It answers no request, and is scored on the same labels: headwater performance.
    """
    with open_operator(pipeline) as operator:
        status = operator.routing.add_shadow(version, by=user(), reason=reason)
    show(status, json, lambda: routing_lines(status))


@shadow.command("drop")
def drop_shadow(
    pipeline: Named, version: Number, reason: Reason = "dropped by hand", json: AsJson = False
) -> None:
    """Let a version stop predicting beside the answer; its outputs are kept."""
    with open_operator(pipeline) as operator:
        status = operator.routing.drop_shadow(version, by=user(), reason=reason)
    show(status, json, lambda: routing_lines(status))


@commands.command()
def pause(pipeline: Named, reason: Reason = "paused by hand", json: AsJson = False) -> None:
    """Pause online learning.

    The learned state goes on serving, and labels are recorded as before. headwater resume goes on from
    there.
    """
    with open_operator(pipeline) as operator:
        learning = operator.pause(by=user(), reason=reason)
    show(learning, json, lambda: learning_lines(learning))


@commands.command()
def resume(pipeline: Named, reason: Reason = "resumed by hand", json: AsJson = False) -> None:
    """Resume paused learning.

    Labels that came meanwhile are learned; none is lost.
    """
    with open_operator(pipeline) as operator:
        learning = operator.resume(by=user(), reason=reason)
    show(learning, json, lambda: learning_lines(learning))


@commands.command()
def classes(
    pipeline: Named,
    accept: Annotated[
        str | None, typer.Option(metavar="CLASS", help="A new class that is right, or --as another")
    ] = None,
    becomes: Annotated[
        str | None, typer.Option("--as", metavar="CLASS", help="The class that it is really")
    ] = None,
    reason: Reason = "named by hand",
    json: AsJson = False,
) -> None:
    """List the classes of labels that were not declared, or name one.

    With LabelRule(hold=True), labels of a new class are held back until it is named; they are emitted at
    the next offsets then. Later labels of that class bear the name at once.
    """
    if becomes is not None and accept is None:
        raise DeclarationError("--as is given without --accept", hint="write --accept CLASS --as CLASS")
    with open_operator(pipeline) as operator:
        if accept is not None:
            name = accept if becomes is None else becomes
            operator.name_class(accept, name, by=user(), reason=reason)
        found = operator.classes()
    notes = []
    if accept is not None and becomes in {None, accept}:
        notes.append(
            f"labels of {accept!r} make examples from the next collect on; a learner that must know its "
            "classes ahead, as those of scikit-learn and LightGBM, learns them once it is declared: "
            f"LabelRule(classes=(..., {accept!r}))"
        )
    show(found, json, lambda: [classes_table(found), *notes])


@commands.command()
def quarantine(
    pipeline: Named,
    spans: Annotated[
        list[str] | None, typer.Argument(metavar="START:STOP...", help="Offsets, stop excluded")
    ] = None,
    find: Annotated[
        bool, typer.Option("--find", help="List what to quarantine, and quarantine nothing")
    ] = False,
    reason: Reason = "quarantined by hand",
    json: AsJson = False,
) -> None:
    """Exclude examples from every later recipe, and from metrics.

    A service that learns each label excludes them at once. A version that has learned them keeps them:
    headwater rollback returns to an earlier version. --find, with a reference to the declaration, lists
    the examples that no learner takes, or whose numbers are far beyond those before them; and apart from
    these, those whose numbers are unusual, which may be true.
    """
    if find == bool(spans):
        raise DeclarationError(
            "there is nothing to quarantine" if not find else "--find takes no offsets",
            hint="give START:STOP, or --find to list what is suspect",
        )
    if find:
        _show_suspects(pipeline, json)
        return
    ranges = [span_of(text) for text in spans or ()]
    with open_operator(pipeline) as operator:
        learning = operator.quarantine(ranges, by=user(), reason=reason)
    show(learning, json, lambda: learning_lines(learning))


def _show_suspects(pipeline: str, json: bool) -> None:
    """List the examples that may have to be quarantined."""
    from headwater.loop.training.guard.suspects import find_suspects
    from headwater.spec.recipe import OffsetRange

    with bound_to(pipeline) as bound, busy("reading the examples", json):
        name, whole = bound.pipeline.name, OffsetRange(0, bound.log.stop())
        suspects = list(find_suspects(bound.log, bound.pipeline.task, whole))
    groups = {
        "suspects": [one for one in suspects if not one.unusual],
        "unusual": [one for one in suspects if one.unusual],
    }
    show(groups, json, lambda: _suspects_lines(name, groups["suspects"], groups["unusual"]))


def _suspects_lines(
    name: str, suspects: Sequence["Suspect"], unusual: Sequence["Suspect"]
) -> Iterator[object]:
    """List what to quarantine, and then what may be true."""
    if suspects:
        yield table(
            ("offsets", "prediction", "what", "learnable"),
            [(*_cells(one), "yes" if one.learnable else "no") for one in suspects],
        )
        yield f"Next: headwater quarantine {name} START:STOP"
    else:
        yield "no example is suspect"
    if unusual:
        yield "unusual, may be true: nothing to quarantine unless you know that it is wrong"
        yield table(("offsets", "prediction", "what"), [_cells(one) for one in unusual[:_UNUSUAL_SHOWN]])
    if len(unusual) > _UNUSUAL_SHOWN:
        yield f"and {len(unusual) - _UNUSUAL_SHOWN:,} more, which --json has"


def _cells(one: "Suspect") -> tuple[str, str, str]:
    return f"{one.offset}:{one.offset + 1}", one.prediction_id, one.what

"""Commands that update a model: train; monitor, decisions and update, as triggers decide."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.screen import busy, decision_lines, decisions_table, show, table, update_lines
from headwater.cli.stack import RENEW_HINT, failing_automations
from headwater.cli.stores import AsJson, Declared, Named, bound_to, by_flow, stored, user

if TYPE_CHECKING:
    from headwater.loop.declaring.edit_plan import EditPlan

__all__ = ["commands"]

commands = typer.Typer()


@commands.command()
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
    from headwater.loop.declaring.edit_plan import declare
    from headwater.loop.training.plan import check_update
    from headwater.loop.training.update import UpdateResult
    from headwater.loop.training.update import train as train_now
    from headwater.spec.updating.update import Stateless

    with bound_to(pipeline) as bound, busy("updating", json):
        scratch = fresh or isinstance(bound.pipeline.update, Stateless)
        bound.log.agree(fresh=fresh)
        check_update(bound, from_scratch=scratch)
        for edit in declare(bound, by=user()):
            sys.stderr.write(f"declared: {edit}: {edit.means}\n")
        updated = by_flow("retrain" if scratch else "fine-tune", pipeline, UpdateResult)
        if updated is None:
            collect_now(bound.log)
            updated = train_now(bound, by=user(), from_scratch=fresh)
            shown = updated.warnings
        else:
            shown = tuple(map(str, bound.cautions))
    for text in updated.warnings:
        if text not in shown:  # only the flow saw it
            sys.stderr.write(f"warning: {text}\n")
    show(updated, json, lambda: update_lines(updated))


@commands.command()
def plan(
    pipeline: Declared,
    apply: Annotated[
        bool, typer.Option("--apply", help="Put it in force; the next update may begin a new line")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show what an edited declaration will do, before it does anything.

    Each edit is listed with its kind: it is refused until its way on is taken; the next update begins a
    new line; the next update learns it; or it has no effect on what is learned. Below stands what the
    next update, the running service and the archive will do, and the commands that carry it out.

    Training, deploying and serving put a declaration in force by themselves, but for one that begins a
    new line: that needs --apply, or headwater train --fresh. Exits with 1 if an edit is refused.
    """
    from headwater.loop.declaring.edit_plan import declare, plan_edits

    with bound_to(pipeline) as bound, busy("planning", json):
        if apply and not plan_edits(bound).refused:
            declare(bound, by=user(), apply=True)
        planned = plan_edits(bound)
    show(planned, json, lambda: _lines(planned, pipeline))
    raise typer.Exit(1 if planned.refused else 0)


@commands.command()
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

    with bound_to(pipeline) as bound, busy("monitoring", json):
        of_flow = by_flow("monitor", pipeline, Decision)
        if of_flow is None:
            collect_now(bound.log)
            keep_performance(bound)
        decision = of_flow or decide(bound)
    done = [f"Next: headwater update {pipeline}"] if decision.fired and of_flow is None else []
    show(decision, json, lambda: [*decision_lines(decision), *done])
    failures = {} if of_flow is None else failing_automations()
    for failed in failures.get(decision.pipeline, [])[:1]:
        sys.stderr.write(
            f"warning: the automation that starts updates failed: {failed}.\nnext: {RENEW_HINT}.\n"
        )


@commands.command()
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


@commands.command()
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

    with bound_to(pipeline) as bound, busy("updating", json):
        waiting = [decision] if decision else [unended.id for unended in bound.decisions.unended()]
        if waiting:
            collect_now(bound.log)
        updated = carry_out(bound, waiting[0], by=user()) if waiting else None
    nothing = f"no decision waits. Next: headwater monitor {pipeline}, or headwater train {pipeline}"
    show(updated, json, lambda: [nothing] if updated is None else update_lines(updated))


def _lines(plan: "EditPlan", reference: str) -> list[object]:
    """List what an edited declaration will do; commands name it as it was named."""
    force = "nothing was put in force yet"
    if plan.in_force is not None:
        force = f"declaration {plan.in_force} is in force since {plan.since}, by {plan.by}"
    lines: list[object] = [f"{plan.pipeline}: {force}"]
    rows = [(edit.kind, edit.field, edit.was, edit.now, edit.means) for edit in plan.edits]
    lines.append(table(("kind", "field", "was", "is", "what it does"), rows) if rows else "No edits.")
    lines += [
        f"next update: {plan.next_update}".replace("PIPELINE", reference),
        f"service: {plan.service}",
        f"archive: {plan.archive}",
    ]
    return lines + [f"Next: {step}".replace("PIPELINE", reference) for step in plan.do]

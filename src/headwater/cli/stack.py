"""Commands of the stores, the stack and its schedules: doctor, adopt, deploy, up."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.screen import busy, show, table
from headwater.cli.stores import AsJson, Named, database_now, name_of, settings_now, user
from headwater.cli.upkeep import renewed_lines
from headwater.spec.errors import HeadwaterError

if TYPE_CHECKING:
    from headwater.loop.adopt import AdoptedLog
    from headwater.loop.doctor import CheckResult
    from headwater.loop.upkeep.signing import RenewedStates

__all__ = ["RENEW_HINT", "commands", "failing_automations"]

commands = typer.Typer()

RENEW_HINT = "headwater deploy makes it anew; monitoring asks again for updates that were not started"
"""What to do about an automation that fails."""


@commands.command()
def doctor(
    damage: Annotated[
        bool, typer.Option("--damage", help="Look at every record and archived file, too")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what is damaged from a whole copy")
    ] = False,
    json: AsJson = False,
) -> None:
    """Check settings, libraries, stores, and the automations of a running stack.

    With --damage it looks at every record, which takes about a second for each 30,000; rows that have a
    whole copy are mended. With --repair a damaged table of the archive is written anew, too.
    """
    from headwater.loop.damage import check_damage
    from headwater.loop.doctor import checkup

    with busy("checking", json):
        findings = [*checkup(settings_now()), *_check_automations()]
        if damage or repair:
            findings += check_damage(settings_now(), by=user(), repair=repair)
    rows = [("ok" if f.good else "BAD", f.what, f.found, f.hint) for f in findings]
    show(findings, json, lambda: [table(("", "what", "found", "next"), rows)])
    raise typer.Exit(0 if all(finding.good for finding in findings) else 1)


@commands.command()
def adopt(
    pipeline: Named,
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="The signing key is lost, too: each state must be folded again"),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --new-key: fold them now; it runs the recipes' code")
    ] = False,
    json: AsJson = False,
) -> None:
    """Take over the log of a home that is gone, from its database, its storage and its MLflow.

    Positions and offsets go on where they ended. What is missing is named: what the lost inbox had
    acknowledged behind the position that the database has read is lost. The old home is refused from
    then on, should it turn up again. If the database is lost, too, the log is read from the archive, up
    to the last collect; if MLflow's records are, versions are registered anew from their files. If the
    database alone is lost, this home's inbox goes on, and nothing that was acknowledged is lost.

    It needs the signing key of the lost home: copy its signing.key here, or set HEADWATER_SIGNING_KEY.
    Without it, --new-key: states are then refused until headwater signing-key renew has folded them.
    """
    from headwater.loop.adopt import adopt as adopt_now
    from headwater.loop.upkeep.signing import renew_states

    name = name_of(pipeline)
    with database_now() as database, busy(f"adopting {name}", json):
        adopted = adopt_now(name, settings_now(), database, by=user(), new_key=new_key)
    renewed = None
    if yes and adopted.refused:
        with busy(f"folding {name}", json):
            renewed = renew_states(name, settings_now())
    result = adopted if renewed is None else {"adopted": adopted, "renewed": renewed}
    show(result, json, lambda: list(_adopted_lines(adopted, renewed)))
    raise typer.Exit(1 if renewed is not None and renewed.left else 0)


@commands.command()
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


@commands.command()
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

    What operates the service needs a key from then on: the one in operator.key of the home, which only
    you can read. Clients on this machine send it by themselves. Predicting, labelling and reading stay
    open.
    """
    from headwater.flows.stack.stack import running_stack

    served = pipelines or []
    with running_stack(settings_now(), prefect_port, mlflow_port, served, service_port) as stack:
        stack.wait()


def failing_automations() -> "dict[str, list[str]]":
    """Return the failures of the stack's automations, by pipeline; empty if no stack runs."""
    from headwater.flows.stack.record import find_stack

    if find_stack(settings_now()) is None:
        return {}
    from headwater.flows.automations import failures_now

    return failures_now(settings_now())


def _check_automations() -> "Iterator[CheckResult]":
    from headwater.loop.doctor import CheckResult

    try:
        failures = failing_automations()
    except HeadwaterError as error:
        yield CheckResult(what="automations", good=False, found=error.what, hint=error.hint)
        return
    for name, messages in failures.items():
        state, hint = (messages[0], RENEW_HINT) if messages else ("it works", "")
        yield CheckResult(what=f"automation of {name}", good=not messages, found=state, hint=hint)


def _adopted_lines(adopted: "AdoptedLog", renewed: "RenewedStates | None") -> "Iterator[str]":
    """Say what was taken over, and what is missing."""
    yield f"log {adopted.log} of {adopted.pipeline} goes on here, at offset {adopted.offset:,}"
    yield f"{adopted.archived:,} examples are archived, {adopted.versions} versions hold under the key"
    for lost in adopted.lost:
        until = lost.received_until
        since = "" if until is None else f", received {until:%Y-%m-%d %H:%M:%S} UTC"
        yield f"lost: what inbox {lost.inbox} acknowledged behind position {lost.read_to:,}{since}"
    if adopted.alone:
        yield (
            "lost with the database: earlier champions, decisions, routings, pauses, shadows, rewards, "
            "the label queue, API keys, batch runs, materialisations, the audit"
        )
    if adopted.again:
        yield f"registered anew, without their metrics: versions {', '.join(adopted.again)}"
    yield from (f"lost: version {number}: {why}" for number, why in adopted.left.items())
    if adopted.gone:
        yield f"gone from MLflow: versions {', '.join(adopted.gone)}"
    if renewed is not None:
        yield from renewed_lines(renewed)
    elif adopted.refused:
        yield f"refused under this key: versions {', '.join(adopted.refused)}"
        yield f"next: headwater signing-key renew {adopted.pipeline}, which folds them again"
    number = adopted.champion
    yield "no version is champion" if number is None else f"version {number} is champion"
    yield "then: headwater up, and headwater deploy for the schedules"

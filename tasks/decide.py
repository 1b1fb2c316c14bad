"""A decision as a task; an artifact shows the evidence and the verdict."""

from prefect import task
from prefect.artifacts import create_markdown_artifact

from headwater.loop.binding import Bound
from headwater.loop.decision.decide import decide
from headwater.loop.decision.performance import keep_performance
from headwater.spec.loading import load_pipeline
from headwater.spec.updating.decision import Decision
from headwater.tasks.prefect_errors import RETRIED

__all__ = ["make_decision"]


@task(name="decide", **RETRIED)
def make_decision(reference: str) -> Decision:
    """Store the measured performance, gather evidence, decide, store the decision, and show it.

    Parameters
    ----------
    reference
        The pipeline, as :func:`~headwater.spec.loading.load_pipeline` takes it.

    Raises
    ------
    BusyError, StorageError
        If they last longer than the retries.
    TableError
        If a table is corrupt.
    """
    with Bound(load_pipeline(reference)) as bound:
        keep_performance(bound)
        decision = decide(bound)
    create_markdown_artifact(
        _text(decision), f"{decision.pipeline}-decision", "What was decided, and why"
    )
    return decision


def _text(decision: Decision) -> str:
    evidence = decision.evidence
    verdict = "an update is due" if decision.fired else "no update"
    lines = [
        f"# {decision.pipeline}: {verdict}",
        "",
        f"{decision.reason}",
        "",
        f"Decision `{decision.id}` at {decision.at:%Y-%m-%d %H:%M} UTC",
        f"Champion {evidence.champion or 'none'}, {evidence.standing}.",
    ]
    if evidence.scores:
        lines += ["", "| metric | reference | current | estimate |", "|---|---:|---:|---:|"]
        lines += [
            f"| {s.metric} | {_number(s.reference)} | {_number(s.current)} | {_number(s.estimate)} |"
            for s in evidence.scores
        ]
    if evidence.findings:
        lines += ["", "| what | verdict | moved | costs | |", "|---|---|---:|---:|---|"]
        lines += [
            f"| {f.what} | {f.verdict} | {f.distance:.3f} | {_number(f.metric_effect)} | {f.sentence} |"
            for f in evidence.findings
        ]
    if evidence.report:
        lines += ["", f"[Evidently's report]({evidence.report})"]
    lines += [f"\n* {note}" for note in evidence.notes]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"

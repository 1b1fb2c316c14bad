"""Promote the best shadow, if the routing asks for that."""

import polars as pl

from headwater.loop.binding import Bound
from headwater.monitoring.measure.scores import gained, score
from headwater.spec.duration import duration
from headwater.spec.pipeline import Metric
from headwater.spec.rulings import Reign
from headwater.spec.serving.plan import Aliases, plan
from headwater.spec.serving.routing import Shadow
from headwater.spec.serving.serve_best import Progress, ServeBest, best

__all__ = ["progress_of", "serve_best"]

_MOST = 100_000


def serve_best(bound: Bound) -> Reign | None:
    """Make the best shadow champion, if it beats the champion by the margin of the routing's rule.

    Each shadow is compared with the champion on the predictions that both made and whose labels are
    mature. If the rule names no metric, the pipeline's first metric decides.

    Parameters
    ----------
    bound
        The pipeline with its stores.

    Returns
    -------
    Reign or None
        The reign that began, if one did.

    Raises
    ------
    ConflictError
        If somebody else promoted meanwhile.
    DigestError, StorageError
        If the shadow's state does not hold, or a store is away; the champion stays.
    """
    registry = bound.registry
    routing, reign = registry.routings.in_force(bound.pipeline.routing), registry.championship.reign()
    if not isinstance(routing, Shadow) or routing.serve_best is None or reign is None:
        return None
    rule, champion = routing.serve_best, reign.version
    aliases = Aliases(champion, registry.store.aliases().get("challenger"))
    passed = [
        (gain, shadow)
        for gain, serving, shadow in progress_of(bound, champion, plan(routing, aliases).shadows, rule)
        if best((serving, shadow), champion, rule) is not None
    ]
    if not passed:
        return None
    _, better = max(passed, key=lambda each: each[0])
    return registry.promote(better.version, by="serve_best", reason=_reason(better, champion))


def progress_of(
    bound: Bound, champion: str, shadows: tuple[str, ...], rule: ServeBest
) -> list[tuple[float, Progress, Progress]]:
    """Compare each shadow with the champion on the newest predictions that both made.

    Parameters
    ----------
    bound
        The pipeline with its stores.
    champion, shadows
        Numbers of the versions.
    rule
        Names the metric, if it is not the pipeline's first.

    Returns
    -------
    list of tuple
        For each shadow with labels: its gain, the champion's progress and the shadow's, on the same
        labels.
    """
    log, pipeline = bound.log, bound.pipeline
    places = log.shadows.places()
    shadows_began_at = min((places[v].first for v in shadows if v in places), default=None)
    mature = log.position_at(bound.clock.now() - duration(pipeline.label.wait))
    if shadows_began_at is None or shadows_began_at >= mature:
        return []
    start = max(shadows_began_at, mature - _MOST)
    frame = log.served(start, mature, ("version", "role", "output"), shadows=True, judged=True)
    frame = frame.drop_nulls("label")
    answered = frame.filter(pl.col("role") == "champion")
    if (
        pipeline.learn != "each label"
    ):  # else the champion is one fold, with a number for each checkpoint
        answered = answered.filter(pl.col("version") == champion)
    metric: Metric = next((m for m in pipeline.judged_by if m == rule.metric), pipeline.judged_by[0])
    progress = []
    for version in shadows:
        of_shadow = frame.filter(pl.col("role") == "shadow", pl.col("version") == version)
        joined = answered.join(
            of_shadow.select("position", shadow_output="output"), on="position", maintain_order="left"
        )
        compared = _compared(bound, metric, champion, version, joined)
        progress += [] if compared is None else [compared]
    return progress


def _compared(
    bound: Bound, metric: Metric, champion: str, version: str, joined: pl.DataFrame
) -> tuple[float, Progress, Progress] | None:
    """Compare the outputs of champion and shadow, which both stand in one frame with the labels."""
    task, labels = bound.pipeline.task, joined["label"]
    gain = (
        gained(task, metric, joined["shadow_output"], joined["output"], labels)
        if joined.height
        else None
    )
    if gain is None:
        return None
    values = [
        score(task, (metric,), joined[name], labels)[metric] for name in ("output", "shadow_output")
    ]
    serving, shadow = (
        Progress(version=v, metric=metric, value=value, labels=joined.height, error=error)
        for v, value, error in zip((champion, version), values, (None, gain[1]), strict=True)
    )
    return gain[0], serving, shadow


def _reason(better: Progress, champion: str) -> str:
    return (
        f"shadow {better.version} has {better.metric} {better.value:.4g} on {better.labels:,} labels "
        f"and is better than champion {champion} by what serve_best asks for"
    )

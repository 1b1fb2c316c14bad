"""The flows of the loop: each a table of contents of tasks, with its result as plain JSON values.

Prefect starts a flow as ``headwater.flows.NAME:NAME``: a module for each is that name.
"""

from typing import Any

import msgspec
from prefect import flow

from headwater.flows.dispatch import dispatch_lost
from headwater.flows.events import tell_appeared, tell_decided, tell_promoted
from headwater.flows.stack.silent_runs import close_silent_runs
from headwater.spec.loading import load_pipeline
from headwater.tasks.batch_predict import predict_batch
from headwater.tasks.collect import collect_examples
from headwater.tasks.decide import make_decision
from headwater.tasks.materialise import find_due_tables, materialise_tables
from headwater.tasks.new_classes import find_new_classes, store_announced
from headwater.tasks.shadows import promote_best_shadow
from headwater.tasks.update import carry_out_decision, record_version, update_model

__all__ = ["batch_predict", "collect", "fine_tune", "materialise", "monitor", "retrain", "update"]


@flow(name="collect")
def collect(pipeline: str) -> dict[str, Any]:
    """Collect the records that are due, emit events of new classes, and close runs that fell silent.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of :class:`~headwater.loop.collect.CollectResult`.
    """
    result: dict[str, Any] = msgspec.to_builtins(collect_examples(pipeline))
    _announce_classes(pipeline)
    close_silent_runs(pipeline)
    return result


@flow(name="retrain")
def retrain(pipeline: str) -> dict[str, Any]:
    """Collect, then train from scratch.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of :class:`~headwater.loop.training.update.UpdateResult`.
    """
    return _train(pipeline, from_scratch=True)


@flow(name="fine-tune")
def fine_tune(pipeline: str) -> dict[str, Any]:
    """Collect, then fine-tune the champion on what is new.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of :class:`~headwater.loop.training.update.UpdateResult`.
    """
    return _train(pipeline, from_scratch=False)


@flow(name="monitor")
def monitor(pipeline: str) -> dict[str, Any]:
    """Collect, promote a better shadow, decide, emit events, and request lost runs again.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of the :class:`~headwater.spec.updating.decision.Decision`.
    """
    collect_examples(pipeline)
    _announce_classes(pipeline)
    promote_best_shadow(pipeline)
    decision = make_decision(pipeline)
    tell_decided(decision)
    dispatch_lost(pipeline)
    close_silent_runs(pipeline)
    result: dict[str, Any] = msgspec.to_builtins(decision)
    return result


@flow(name="update")
def update(pipeline: str, decision: str | None = None) -> dict[str, Any] | None:
    """Collect, claim a decision, learn, pass the gate, publish, promote, and emit an event.

    Whatever process is killed, a decision ends in one version: the flow may run again as often as you
    like.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.
    decision
        Its id; by default the oldest decision that fired and has not ended.

    Returns
    -------
    dict or None
        The fields of :class:`~headwater.loop.training.update.UpdateResult`; None if there is
        nothing to do.
    """
    collect_examples(pipeline)
    updated = carry_out_decision(pipeline, decision)
    if updated is None:
        return None
    record_version(updated)
    tell_promoted(updated)
    result: dict[str, Any] = msgspec.to_builtins(updated)
    return result


@flow(name="materialise")
def materialise(pipeline: str, tables: list[str] | None = None) -> list[dict[str, Any]]:
    """Read sources, check them, and publish them to the service.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.
    tables
        Names of the tables; by default those that are due.

    Returns
    -------
    list of dict
        The fields of each :class:`~headwater.features.tables.materialisations.Materialised`.
    """
    names = find_due_tables(pipeline) if tables is None else tables
    result: list[dict[str, Any]] = msgspec.to_builtins(materialise_tables(pipeline, names))
    return result


@flow(name="batch-predict")
def batch_predict(pipeline: str) -> dict[str, Any]:
    """Score the table that the pipeline declares, log the predictions, publish them by key.

    Parameters
    ----------
    pipeline
        ``path.py:attribute`` or ``module:attribute``.

    Returns
    -------
    dict
        The fields of :class:`~headwater.features.batch.batch_runs.BatchRun`.
    """
    result: dict[str, Any] = msgspec.to_builtins(predict_batch(pipeline))
    return result


def _announce_classes(pipeline: str) -> None:
    """Emit the events of classes that are not declared; the rows say which were emitted."""
    if not load_pipeline(pipeline).label.takes_others:
        return
    classes = find_new_classes(pipeline)
    if classes:
        tell_appeared(classes)
        store_announced(pipeline, classes)


def _train(pipeline: str, *, from_scratch: bool) -> dict[str, Any]:
    collect_examples(pipeline)
    updated = update_model(pipeline, from_scratch=from_scratch)
    record_version(updated)
    result: dict[str, Any] = msgspec.to_builtins(updated)
    return result

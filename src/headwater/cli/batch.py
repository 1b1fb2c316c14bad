"""Commands of batch prediction."""

from typing import Annotated

import typer

from headwater.cli.screen import batch_lines, busy, show, table_of_runs
from headwater.cli.stores import AsJson, Declared, by_flow, stored, user

__all__ = ["commands"]

commands = typer.Typer(
    no_args_is_help=True,
    help="Score a table with the champion, and count how many answers are read.",
)


@commands.command()
def predict(pipeline: Declared, json: AsJson = False) -> None:
    """Score the pipeline's table.

    The pipeline declares the table: batch=BatchPrediction(...).

    All rows are scored, or none. Each prediction is logged with its features, so that its label can join
    it, and stored by key: GET /batch/PIPELINE/KEY of a running service looks it up. The staged work of a
    killed run is finished.

    If the stack runs (headwater up), this is a flow run that its Prefect page shows.
    """
    from headwater.features.batch.batch_runs import BatchRun
    from headwater.infra.settings import settings
    from headwater.loop.batch.batch_predict import batch_predict, check_declared
    from headwater.loop.binding import Bound
    from headwater.spec.loading import load_pipeline

    declared = load_pipeline(pipeline)
    check_declared(declared)
    with busy("predicting", json):
        run = by_flow("batch-predict", pipeline, BatchRun)
        if run is None:
            with Bound(declared, settings()) as bound:
                run = batch_predict(bound, by=user())
    show(run, json, lambda: batch_lines(run))


@commands.command()
def status(
    pipeline: Declared,
    last: Annotated[int, typer.Option(min=1, help="How many runs, newest last")] = 20,
    json: AsJson = False,
) -> None:
    """List runs, with the share of their answers that was read.

    An answer is read if its key was looked up. An answer that is never read costs as much as any other.
    A running service counts the reads; they show here within a few seconds.
    """
    from headwater.features.batch.batch_runs import BatchRuns

    with stored(pipeline) as (_, pipeline_id, database):
        runs = BatchRuns(pipeline_id, database).newest(last)
    show(runs, json, lambda: table_of_runs(runs, pipeline))

"""Commands of the service."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli.screen import busy, progress, queue_lines, show, show_lines, table
from headwater.cli.stores import AsJson, Declared, database_now, user
from headwater.spec.errors import DeclarationError, NotReadyError

if TYPE_CHECKING:
    import polars as pl

    from headwater.serving.access.key_store import KeyStore
    from headwater.serving.client.client import Client
    from headwater.spec.pipeline import Pipeline

__all__ = ["commands"]

commands = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="API keys of the service: add, list, revoke.")
commands.add_typer(keys, name="keys")

_READY_S = 60.0
_LOOK_S = 0.2
_SHOWN = "%Y-%m-%d %H:%M"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@commands.command()
def serve(
    pipelines: Annotated[
        list[str], typer.Argument(metavar="PIPELINE...", help="module:attribute or path.py:attribute")
    ],
    port: Annotated[int, typer.Option(help="0 takes a free one")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Worker processes; one for each core is usual")
    ] = min(2, os.cpu_count() or 1),
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Requests a second for each key, over all workers; any by default"),
    ] = None,
) -> None:
    """Serve pipelines over HTTP: predict, log, label.

    Each pipeline serves its champion; a new champion is swapped in between two requests. Ctrl-C drains,
    then ends. kill -HUP replaces the workers one by one. Once a key is made (headwater keys add), every
    request needs one, or those that the key closes. If other machines can reach the address, every
    request needs a key from the start.

    Try it: curl localhost:8000/docs
    """
    from headwater.infra.settings import settings
    from headwater.learners.cautions import warn_of
    from headwater.serving.access.authentication import Access
    from headwater.serving.process.server import bind
    from headwater.serving.process.server import serve as serve_now
    from headwater.spec.loading import load_pipeline

    outside = host not in _LOOPBACK
    if outside:
        _check_keys(host)
    declared = [load_pipeline(reference) for reference in pipelines]
    names = [pipeline.name for pipeline in declared]
    if len(set(names)) < len(names):
        raise DeclarationError(f"a pipeline is named twice among {names}", hint="name each once")
    for pipeline in declared:
        warn_of(pipeline)  # the keeper warns in a log of its own
    listening = bind(host, port)
    address = f"http://{host}:{listening.getsockname()[1]}"
    show_lines([f"serving {', '.join(names)} at {address}; {address}/docs tells how. Ctrl-C ends it."])
    sys.stdout.flush()
    serve_now(pipelines, listening, workers, settings(), Access(needs_key=outside, rate=rate))


def _check_keys(host: str) -> None:
    """Refuse to listen for other machines without a valid key.

    Raises
    ------
    DeclarationError
        If there is no valid key.
    """
    with _key_store() as store:
        if store.hashes().keys:
            return
    raise DeclarationError(
        f"--host {host} would let other machines in, and there is no key",
        hint="headwater keys add NAME --scope predict --scope label, then serve again",
    )


@commands.command()
def replay(
    what: Annotated[
        str,
        typer.Argument(metavar="EXAMPLE", help="A folder: its live.py has pipeline, events() and START"),
    ],
    start: Annotated[
        datetime | None, typer.Option(help="First day, UTC; earlier events are history")
    ] = None,
    days: Annotated[float, typer.Option(help="How many")] = 7.0,
    speed: Annotated[
        float, typer.Option(min=0.001, help="Factor by which it is faster than the events")
    ] = 1000.0,
    address: Annotated[str, typer.Option(help="Address of the service")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(envvar="HEADWATER_API_KEY", help="API key, if the service needs one")
    ] = None,
    json: AsJson = False,
) -> None:
    """Replay past events to a live service.

    Sends predictions when they were made, and labels when they became known, in their order. If no
    version serves yet, imports the events before the start, and trains the first version on them.

    Try it: headwater serve examples/flights/live.py:pipeline, and beside it headwater replay
    examples/flights
    """
    from headwater.serving.client.client import Client
    from headwater.serving.client.replay_client import ReplayProgress
    from headwater.serving.client.replay_client import replay as replay_now

    pipeline, events, declared_start = _example(what)
    first = declared_start if start is None else start.replace(tzinfo=UTC)
    _prepare(pipeline, events, first)
    served_at, stop = events["served_at"], first + timedelta(days=days)
    chosen = events.filter((served_at >= first) & (served_at < stop))
    later = events.filter((served_at < first) & (events["known_at"] > first))
    sent = ReplayProgress(total=0)
    with Client(address, key=key) as client, progress("replaying", json) as advance:
        _await_ready(client, address)
        for sent in replay_now(client, pipeline, chosen, speed, known_later=later):
            advance(sent.predictions + sent.labels, sent.total)
    answered = ", ".join(f"version {name} {count:,}" for name, count in sent.versions.items())
    show(
        sent,
        json,
        lambda: [f"{sent.predictions:,} predicted, {sent.labels:,} labelled; answered: {answered}"],
    )


@commands.command()
def queue(pipeline: Declared, json: AsJson = False) -> None:
    """Show the label queue, and how far people agree.

    Adds the predictions that were sequenced since the last time, then counts. The pipeline declares the
    queue: people=People().
    """
    from headwater.features.log import FeatureLog
    from headwater.infra.settings import settings
    from headwater.spec.loading import load_pipeline

    log = FeatureLog(load_pipeline(pipeline), settings())
    try:
        label_queue = log.queue()
        with busy("filling the queue", json):
            label_queue.fill()
        counts = label_queue.counts()
    finally:
        log.close()
        log.database.close()
    show(counts, json, lambda: queue_lines(counts))


@keys.command("add")
def add_key(
    name: Annotated[
        str, typer.Argument(help="Its owner; labels that it sends are recorded under this name")
    ],
    scope: Annotated[
        list[str],
        typer.Option(help="predict, label, operate or read; can be repeated, none includes another"),
    ],
    closes: Annotated[
        list[str] | None,
        typer.Option(
            help="Scope whose requests need a key from now on, this or another; can be repeated. All "
            "four by default"
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Make a key, and print it once.

    A client sends it as Authorization: Bearer KEY. From then on every request needs a key, or, with
    --closes operate, only those that operate: predicting, labelling and reading stay open to programs of
    this machine. What a key closed stays closed when it is revoked.

    To replace a key, add another under a new name, hand it out, then revoke the old one.
    """
    from headwater.serving.api.operation import SCOPES

    closed = list(closes or SCOPES)
    with _key_store() as store:
        key = store.add(name, scope, by=user(), closes=closed)
    show({"name": name, "scopes": scope, "closes": closed, "key": key}, json, lambda: [key])
    sys.stderr.write(
        f"note: {', '.join(closed)}: closed from now on to requests without a key, also once this "
        "one is revoked.\n"
        + ("" if closes else "next: to close less, add keys with --closes operate.\n")
    )


@keys.command("list")
def list_keys(json: AsJson = False) -> None:
    """List the keys, the revoked ones too; the keys themselves are not stored.

    A request needs a key if all scopes that allow it are closed, by whichever key.
    """
    with _key_store() as store:
        listed = store.keys()
    rows = [
        (
            key.name,
            ", ".join(key.scopes),
            ", ".join(key.closes),
            f"{key.made_at:{_SHOWN}}",
            key.made_by,
            "-" if key.revoked_at is None else f"{key.revoked_at:{_SHOWN}}",
        )
        for key in listed
    ]
    heads = ("name", "may", "closes", "made (UTC)", "by", "revoked (UTC)")
    show(listed, json, lambda: [table(heads, rows)])


@keys.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="Of the key")], json: AsJson = False) -> None:
    """Revoke a key: the service refuses it within a second. What it closed stays closed."""
    with _key_store() as store:
        store.revoke(name, by=user())
    show({"revoked": name}, json, lambda: [f"{name} is revoked"])


@commands.command()
def audit(
    last: Annotated[int, typer.Option(min=1, help="How many rows, newest last")] = 50,
    json: AsJson = False,
) -> None:
    """Show the audit: every ruling and key, with its author and time.

    A label is audited by its record, which bears its sender, its source, and its time.
    """
    from headwater.infra.store.audit import audited

    with database_now() as database:
        rulings = audited(database, last)
    rows = [
        (f"{row.at:{_SHOWN}}", row.by, row.action, row.pipeline or "-", _detail(row.detail))
        for row in rulings
    ]
    show(rulings, json, lambda: [table(("at (UTC)", "by", "did", "pipeline", "detail"), rows)])


def _detail(detail: dict[str, Any]) -> str:
    shown = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in detail.items()
        if value is not None
    }
    return "; ".join(f"{name} {value}" for name, value in shown.items())


@contextmanager
def _key_store() -> "Iterator[KeyStore]":
    from headwater.infra.clock import SystemClock
    from headwater.serving.access.key_store import KeyStore

    with database_now() as database:
        yield KeyStore(database, SystemClock())


def _await_ready(client: "Client", address: str) -> None:
    """Wait until the service has loaded the champion.

    Raises
    ------
    NotReadyError
        If no version serves after a minute.
    """
    until = time.monotonic() + _READY_S
    with busy("waiting for the service", False):
        while not client.is_ready():
            if time.monotonic() > until:
                raise NotReadyError(
                    f"the service at {address} serves no version after {_READY_S:.0f} seconds",
                    hint="start it for this pipeline, with the same HEADWATER_HOME: headwater serve",
                )
            time.sleep(_LOOK_S)


def _example(folder: str) -> "tuple[Pipeline, pl.DataFrame, datetime]":
    """Load an example's pipeline, its events, and the default start of a replay.

    Raises
    ------
    DeclarationError
        If its module lacks one of them.
    """
    from headwater.spec.loading import load_module, load_pipeline

    where = str(Path(folder) / "live.py")
    live = load_module(where)
    for name, what in (("events", "a function that gives a table"), ("START", "a time with a zone")):
        if not hasattr(live, name):
            raise DeclarationError(
                f"{where} has no {name}", hint=f"write {name}, {what}: see examples/flights/live.py"
            )
    return load_pipeline(f"{where}:pipeline"), live.events(), live.START


def _prepare(pipeline: "Pipeline", events: "pl.DataFrame", start: datetime) -> None:
    """Import the events before the start and train on them, if no version serves yet."""
    import polars as pl

    from headwater.infra.settings import settings
    from headwater.loop.binding import Bound
    from headwater.loop.collect import collect
    from headwater.loop.replay.history import Columns
    from headwater.loop.replay.import_history import import_history
    from headwater.loop.training.update import train

    with Bound(pipeline, settings()) as bound:
        if bound.registry.championship.epoch() is not None:
            return
        known = pl.when(pl.col("known_at") <= start)
        past = events.filter(pl.col("served_at") < start).with_columns(
            known.then(pl.col(name)).alias(name) for name in ("label", "known_at")
        )
        with busy(f"importing {past.height:,} earlier predictions, and training on them", False):
            import_history(bound.log, past, Columns())
            collect(bound.log)
            train(bound, by="headwater replay")

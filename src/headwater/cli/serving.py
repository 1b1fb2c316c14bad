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
from headwater.cli.stores import AsJson, user
from headwater.spec.errors import DeclarationError, NotReadyError

if TYPE_CHECKING:
    import polars as pl

    from headwater.infra.store.database import Database
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
        int, typer.Option(min=1, max=64, help="Processes that answer; one a core is usual")
    ] = min(2, os.cpu_count() or 1),
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Requests a second for each key, over all workers; any by default"),
    ] = None,
) -> None:
    """Serve pipelines over HTTP: predict, log, label.

    Each serves its champion; a new one is swapped in between two requests. Ctrl-C drains, then ends.
    kill -HUP replaces the workers one by one. Once a key was made (headwater keys add), every request
    needs one; listening where other machines come in needs one from the start.

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
    """Refuse to let other machines in where no key holds.

    Raises
    ------
    DeclarationError
        If none does.
    """
    with _key_store() as store:
        if store.hashes().keys:
            return
    raise DeclarationError(
        f"--host {host} would let other machines in, and no key was made",
        hint="headwater keys add NAME --scope predict --scope label, then serve again",
    )


@commands.command()
def replay(
    what: Annotated[
        str,
        typer.Argument(metavar="EXAMPLE", help="A folder: its live.py has pipeline, events() and START"),
    ],
    start: Annotated[
        datetime | None, typer.Option(help="First day, UTC; what came before is history")
    ] = None,
    days: Annotated[float, typer.Option(help="How many")] = 7.0,
    speed: Annotated[float, typer.Option(min=0.001, help="Times faster than it happened")] = 1000.0,
    address: Annotated[str, typer.Option(help="Of the service")] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(envvar="HEADWATER_API_KEY", help="Where the service asks for one")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Send what happened to a live service, as it happened.

    Predictions are asked for when they were, labels told when they became known, in their order. Where
    no version serves yet, what came before the start is imported, and the first version trained on it.

    Try it: headwater serve examples/flights/live.py:pipeline, and beside it headwater replay
    examples/flights
    """
    from headwater.serving.client.client import Client
    from headwater.serving.client.replay_client import ReplayProgress
    from headwater.serving.client.replay_client import replay as replay_now

    pipeline, events, usual = _example(what)
    first = usual if start is None else start.replace(tzinfo=UTC)
    _prepare(pipeline, events, first)
    served_at, stop = events["served_at"], first + timedelta(days=days)
    chosen = events.filter((served_at >= first) & (served_at < stop))
    later = events.filter((served_at < first) & (events["known_at"] > first))
    sent = ReplayProgress(total=0)
    with Client(address, key=key) as client, progress("replaying", json) as tell:
        _await_ready(client, address)
        for sent in replay_now(client, pipeline, chosen, speed, known_later=later):
            tell(sent.predictions + sent.labels, sent.total)
    answered = ", ".join(f"version {name} {count:,}" for name, count in sent.versions.items())
    show(
        sent,
        json,
        lambda: [f"{sent.predictions:,} predicted, {sent.labels:,} labelled; answered: {answered}"],
    )


@commands.command()
def queue(
    pipeline: Annotated[
        str, typer.Argument(metavar="PIPELINE", help="module:attribute or path.py:attribute")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines")] = False,
) -> None:
    """Show what people are asked to label, and how far they agree.

    Looks at what was sequenced since the last time, then counts. The pipeline says how people are
    asked: people=People().
    """
    from headwater.features.log import FeatureLog
    from headwater.infra.settings import settings
    from headwater.spec.loading import load_pipeline

    log = FeatureLog(load_pipeline(pipeline), settings())
    try:
        asked = log.queue()
        with busy("looking at what was predicted", json):
            asked.fill()
        found = asked.counts()
    finally:
        log.close()
        log.database.close()
    show(found, json, lambda: queue_lines(found))


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Whose it is; labels that it sends are by this name")],
    scope: Annotated[
        list[str],
        typer.Option(help="predict, label, operate or read; can be repeated, none has another"),
    ],
    json: AsJson = False,
) -> None:
    """Make a key, and print it: this once.

    A client sends it as Authorization: Bearer KEY. From the first key on, every request needs one.

    To replace a key, add another under a new name, hand it out, then revoke the old one.
    """
    with _key_store() as store:
        made = store.add(name, scope, by=user())
    show({"name": name, "scopes": scope, "key": made}, json, lambda: [made])


@keys.command("list")
def list_keys(json: AsJson = False) -> None:
    """List the keys, also the revoked ones; what a key is itself is kept nowhere."""
    with _key_store() as store:
        found = store.keys()
    rows = [
        (
            key.name,
            ", ".join(key.scopes),
            f"{key.made_at:{_SHOWN}}",
            key.made_by,
            "-" if key.revoked_at is None else f"{key.revoked_at:{_SHOWN}}",
        )
        for key in found
    ]
    heads = ("name", "may", "made (UTC)", "by", "revoked (UTC)")
    show(found, json, lambda: [table(heads, rows)])


@keys.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="Of the key")], json: AsJson = False) -> None:
    """End a key: the service refuses it within a second. Where none is left, nobody is let in."""
    with _key_store() as store:
        store.revoke(name, by=user())
    show({"revoked": name}, json, lambda: [f"{name} is revoked"])


@commands.command()
def audit(
    last: Annotated[int, typer.Option(min=1, help="How many rows, newest last")] = 50,
    json: AsJson = False,
) -> None:
    """Show who promoted, rolled back, routed, paused, quarantined, made and revoked keys, and when.

    A label is audited by its record, which bears who sent it, as what, and when it came.
    """
    from headwater.infra.store.audit import audited

    with _database() as database:
        found = audited(database, last)
    rows = [
        (f"{row.at:{_SHOWN}}", row.by, row.action, row.pipeline or "-", _detail(row.detail))
        for row in found
    ]
    show(found, json, lambda: [table(("at (UTC)", "by", "did", "pipeline", "detail"), rows)])


def _detail(detail: dict[str, Any]) -> str:
    told = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in detail.items()
        if value is not None
    }
    return "; ".join(f"{name} {value}" for name, value in told.items())


@contextmanager
def _key_store() -> "Iterator[KeyStore]":
    from headwater.infra.clock import SystemClock
    from headwater.serving.access.key_store import KeyStore

    with _database() as database:
        yield KeyStore(database, SystemClock())


@contextmanager
def _database() -> "Iterator[Database]":
    from headwater.infra.settings import settings
    from headwater.infra.store.database import Database

    database = Database(settings().operational_url)
    try:
        yield database
    finally:
        database.close()


def _await_ready(client: "Client", address: str) -> None:
    """Wait until the service has taken up the champion.

    Raises
    ------
    NotReadyError
        If it has none after a minute.
    """
    until = time.monotonic() + _READY_S
    with busy("waiting for the service", False):
        while not client.is_ready():
            if time.monotonic() > until:
                raise NotReadyError(
                    f"the service at {address} has no version that serves after {_READY_S:.0f} seconds",
                    hint="start it for this pipeline, with the same HEADWATER_HOME: headwater serve",
                )
            time.sleep(_LOOK_S)


def _example(folder: str) -> "tuple[Pipeline, pl.DataFrame, datetime]":
    """Load an example's pipeline, its events, and where a replay starts if nobody says.

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
    """Import what came before the start and train on it, where no version serves yet."""
    import polars as pl

    from headwater.infra.settings import settings
    from headwater.loop.binding import Bound
    from headwater.loop.collect import collect
    from headwater.loop.replay.import_history import Columns, import_history
    from headwater.loop.training.update import train

    with Bound(pipeline, settings()) as bound:
        if bound.registry.championship.epoch() is not None:
            return
        known = pl.when(pl.col("known_at") <= start)
        past = events.filter(pl.col("served_at") < start).with_columns(
            known.then(pl.col(name)).alias(name) for name in ("label", "known_at")
        )
        with busy(f"importing {past.height:,} predictions of before, and training on them", False):
            import_history(bound.log, past, Columns())
            collect(bound.log)
            train(bound, by="headwater replay")

"""Commands of upkeep: backup, restore, moving, deleting, the signing key."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.screen import show, table
from headwater.cli.stores import AsJson, Named, name_of, settings_now, user
from headwater.spec.errors import few

if TYPE_CHECKING:
    from headwater.loop.upkeep.manifest import Manifest, Told
    from headwater.loop.upkeep.signing import RenewedStates

__all__ = ["commands", "renewed_lines"]

commands = typer.Typer()
pipelines = typer.Typer(no_args_is_help=True, help="The pipelines of a home: delete one.")
commands.add_typer(pipelines, name="pipelines")
signing_key = typer.Typer(
    no_args_is_help=True, help="The key that signs states: put another one in its place."
)
commands.add_typer(signing_key, name="signing-key")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the backup")]


@commands.command()
def backup(
    folder: Folder,
    with_key: Annotated[
        bool,
        typer.Option("--with-key", help="Put the signing key into it; whoever reads it can sign states"),
    ] = False,
    json: AsJson = False,
) -> None:
    """Copy inboxes, database, MLflow's records, tables and states to a new folder.

    The service serves on, and everything may go on learning. The backup states its position: every
    record that was acknowledged up to it is in the backup. Without --with-key, keep the signing key
    elsewhere: headwater restore needs it as HEADWATER_SIGNING_KEY.
    """
    from headwater.loop.upkeep.backup import back_up

    with _steps(json) as told:
        manifest = back_up(settings_now(), folder, with_key=with_key, told=told)
    show(_summary(manifest), json, lambda: _backup_lines(folder, manifest))


@commands.command()
def restore(
    folder: Folder,
    lost_key: Annotated[
        bool,
        typer.Option("--lost-key", help="The signing key is lost: each state must be rebuilt"),
    ] = False,
    json: AsJson = False,
) -> None:
    """Restore a backup into HEADWATER_HOME, which must be empty, and so must storage and database.

    Every file is compared with its checksum before anything is written. Where the stores go is told by
    the settings, as for any command: another folder, bucket or database than before will do.
    """
    from headwater.loop.upkeep.restore import restore_backup

    settings = settings_now()
    with _steps(json) as told:
        manifest = restore_backup(settings, folder, told=told, lost_key=lost_key)
    show(
        _summary(manifest),
        json,
        lambda: [
            f"restored into {settings.place}, as of {manifest.at:%Y-%m-%d %H:%M:%S} UTC",
            _positions(manifest),
            *_notes(manifest),
            "next: headwater doctor; then headwater up, and headwater deploy for the schedules",
        ],
    )


@commands.command()
def moved(json: AsJson = False) -> None:
    """Follow a home or storage that was moved: change the addresses in MLflow's records.

    Everything else is found by the settings: move the folder, set HEADWATER_HOME or HEADWATER_STORAGE,
    and run this once.
    """
    from headwater.loop.upkeep.moving import follow_move

    result = follow_move(settings_now())
    show(
        result,
        json,
        lambda: [
            f"states are at {result.after}: {result.changed:,} addresses were changed",
            "next: headwater up, and headwater deploy, since schedules name the home",
        ],
    )


@pipelines.command("delete")
def delete(
    pipeline: Named,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it without asking")] = False,
    json: AsJson = False,
) -> None:
    """Delete a pipeline with all that was recorded and learned; its name can be used afresh then.

    Inbox, rows, tables, states, and records of MLflow go, and schedules if the stack runs. What serves,
    trains or records it must be ended first. If it is interrupted, run it again: it goes on.
    """
    from headwater.flows.deployments import undeploy
    from headwater.loop.upkeep.deletion import delete_pipeline

    name, settings = name_of(pipeline), settings_now()
    if not yes:
        typer.confirm(f"Delete {name} with all that it recorded and learned?", abort=True, err=True)
    undeployed: list[bool] = []
    result = delete_pipeline(
        name, settings, by=user(), first=lambda: undeployed.append(undeploy(name, settings))
    )
    lines = [f"{name} is deleted, with {result.versions:,} versions; backups may still hold it"]
    if undeployed != [True] and (settings.place / "prefect").exists():
        lines.append(
            "its schedules stay with Prefect, if it was deployed: remove them on Prefect's page"
        )
    show(result, json, lambda: lines)


@signing_key.command("rotate")
def rotate(json: AsJson = False) -> None:
    """Draw another signing key, and sign the state of every version with it.

    What serves and trains must be ended first, and is started with the new key afterwards. If it is
    interrupted, run it again: it goes on. Backups made before need the old key.
    """
    from headwater.loop.upkeep.signing import rotate_key

    with _steps(json) as told:
        result = rotate_key(settings_now(), told)
    lines = [f"{result.signed + result.already:,} states are signed with the new key"]
    if result.by_settings:
        lines.append(f"next: set HEADWATER_SIGNING_KEY to what {result.key_file} holds, then remove it")
    else:
        lines.append(f"the new key is in {result.key_file}. Next: headwater up")
    if result.refused:
        lines.append(
            f"{len(result.refused):,} were refused before, and are still: {few(result.refused)}"
        )
    show(result, json, lambda: lines)


@signing_key.command("renew")
def renew(
    pipeline: Named,
    yes: Annotated[bool, typer.Option("--yes", help="Run the recipes' code without asking")] = False,
    json: AsJson = False,
) -> None:
    """Fold every state again that the signing key did not sign, and sign it: for a key that is lost.

    The recipes' code is run, which no signature vouches for then, but only its hash in MLflow. Do it
    where you trust who can write MLflow's records.
    """
    from headwater.loop.upkeep.signing import renew_states

    name = name_of(pipeline)
    if not yes:
        typer.confirm(
            f"Run the code of every recipe of {name}, which no signature vouches for?",
            abort=True,
            err=True,
        )
    with _steps(json) as told:
        result = renew_states(name, settings_now(), told)
    show(result, json, lambda: list(renewed_lines(result)))
    raise typer.Exit(1 if result.left else 0)


def renewed_lines(result: "RenewedStates") -> "Iterator[str]":
    """Say which states were folded again, and which could not be."""
    yield f"{len(result.folded):,} states were folded again and signed; {len(result.held):,} held"
    yield from (f"version {number} is still refused: {why}" for number, why in result.left.items())


@contextmanager
def _steps(as_json: bool) -> "Iterator[Told]":
    """Show the progress of each step on a terminal."""
    if as_json or not sys.stderr.isatty():
        yield lambda _step, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True)) as bar:
        shown: dict[str, TaskID] = {}

        def told(step: str, done: int, total: int) -> None:
            if step not in shown:
                shown[step] = bar.add_task(step, total=None)
            bar.update(shown[step], completed=done, total=total or None)

        yield told


def _summary(manifest: "Manifest") -> dict[str, object]:
    """Return what machines are told: the manifest without its files, and their number and size."""
    return {
        "at": manifest.at,
        "pipelines": manifest.pipelines,
        "with_key": manifest.with_key,
        "notes": manifest.notes,
        "files": len(manifest.files),
        "bytes": manifest.bytes,
    }


def _backup_lines(folder: Path, manifest: "Manifest") -> Iterator[object]:
    size = f"{len(manifest.files):,} files, {manifest.bytes / 1e6:,.1f} MB"
    yield f"backed up to {folder}, as of {manifest.at:%Y-%m-%d %H:%M:%S} UTC: {size}"
    yield _positions(manifest)
    if manifest.with_key:
        yield "the signing key is in it: whoever reads signing.key can make states that are loaded"
    else:
        yield "the signing key is not in it: keep it elsewhere, headwater restore needs it"
    yield from _notes(manifest)


def _positions(manifest: "Manifest") -> object:
    rows = [
        (name, f"{log.position:,}", f"{log.sequenced:,}", f"{log.examples:,}")
        for name, log in manifest.pipelines.items()
    ]
    return table(("pipeline", "records up to", "sequenced", "examples"), rows)


def _notes(manifest: "Manifest") -> Iterator[str]:
    yield from (f"note: {note}" for note in manifest.notes)

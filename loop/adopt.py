"""``headwater adopt``: a new home takes over the stores of one that is gone."""

import msgspec

from headwater.features.identity.adoption import LostInbox, adopt_log, check_adoptable, has_inbox_of
from headwater.features.identity.kept_log import find_kept
from headwater.features.read.archive import Archive
from headwater.features.read.repository import LogRepository, registered
from headwater.infra.clock import Clock, SystemClock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import Identity, identity_of
from headwater.infra.store.lease import holding
from headwater.infra.store.open_storage import open_storage
from headwater.loop.adopt_storage import is_from_archive, register_again, take_champion, write_archived
from headwater.registry.mlflow_store.connection import check_owned
from headwater.registry.registry import Registry
from headwater.spec.errors import DigestError, NotFoundError, StorageError, few

__all__ = ["AdoptedLog", "adopt"]


class AdoptedLog(msgspec.Struct, frozen=True, kw_only=True):
    """A log that a new home has taken over, and what of it is missing.

    Parameters
    ----------
    pipeline, log
        The pipeline's name, and the log's id.
    position, offset
        The next ones: both go on where they ended.
    archived
        How many examples are in the archive; the others are in the database.
    lost
        The inboxes of homes that are gone: what they acknowledged behind these positions is lost.
    versions
        How many versions are there, and hold under the signing key.
    refused
        Numbers of the versions whose files are gone, or do not hold under the signing key.
    gone
        Numbers of the versions that were champion once, and that MLflow no longer has.
    champion
        Number of the version that serves; None if there is none.
    again
        Numbers of the versions that MLflow had lost, and that were registered anew from storage.
    left
        Those that could not be, by number, with the reason of each.
    alone
        Whether the database was lost, too, and the log was put into a new one from the archive.
    """

    pipeline: str
    log: str
    position: int
    offset: int
    archived: int
    lost: tuple[LostInbox, ...]
    versions: int
    refused: tuple[str, ...]
    gone: tuple[str, ...]
    champion: str | None
    again: tuple[str, ...]
    left: dict[str, str]
    alone: bool


def adopt(
    pipeline: str,
    settings: Settings,
    database: Database,
    clock: Clock | None = None,
    *,
    by: str,
    new_key: bool = False,
) -> AdoptedLog:
    """Take over a log whose home is gone: storage and MLflow bear its id, and the database knows it.

    If the database is lost, too, the log is put into a new one from the archive, up to the last collect.
    If it is lost alone, and this home has the log's inbox, what came since is sequenced again from that.
    Versions that MLflow does not know, and whose files hold, are registered anew. Whoever comes after a
    kill goes on, or begins anew.

    Parameters
    ----------
    pipeline
        The pipeline's name.
    settings
        Of the new home, with the addresses of the stores that are left.
    database
        The operational database that is left, or a new one.
    clock
        The machine's if none is given.
    by
        Who adopts, for the audit.
    new_key
        Whether the signing key is lost, too: then no version that it signed is loaded again.

    Raises
    ------
    NotFoundError
        If neither the database nor storage keeps a log of that pipeline.
    ConflictError
        If this home has an inbox of the pipeline already, and the database is not lost.
    BusyError
        If a process of the old home lives.
    IdentityError
        If storage or MLflow belong to another log.
    TableError
        If the database is lost, and the archive is damaged.
    DigestError
        If the champion does not hold under the signing key, or there is none. But for the rows of a
        lost database, nothing is changed by any of these.
    """
    clock = clock or SystemClock()
    known, kept = registered(database), find_kept(open_storage(settings), pipeline)
    if pipeline not in known and kept is None:
        raise _nothing(pipeline, settings.storage_uri, known)
    put = pipeline not in known or is_from_archive(database, known[pipeline])
    own = kept is not None and put and has_inbox_of(pipeline, settings, kept.inboxes)
    if not own:
        check_adoptable(database, known.get(pipeline, 0), pipeline, settings)
    _check_key(settings, new_key)
    pipeline_id = known.get(pipeline) or _written(pipeline, settings, database, clock, by=by)
    identity = identity_of(database, pipeline_id)
    archive = Archive(open_storage(settings), identity)
    archive.check()
    registry = Registry(pipeline, pipeline_id, settings, database, clock)
    position, offset = LogRepository(database, pipeline_id).ends()
    with (
        holding(database, clock, f"sequence/{pipeline}"),
        holding(database, clock, f"train/{pipeline}") as lease,
    ):
        again, left = register_again(registry, settings, offset, lease)
        numbers, refused = _verified(registry)
        if not _check_champion(registry, refused, new_key=new_key):
            take_champion(registry, settings, refused, by=by)
        lost = () if own else adopt_log(database, pipeline_id, identity, settings, clock, by=by)
    reign = registry.championship.reign()
    reigned = {past.version for past in registry.championship.history()}
    return AdoptedLog(
        pipeline=pipeline,
        log=identity.log,
        position=position,
        offset=offset,
        archived=archive["examples"].stop(),
        lost=lost,
        versions=len(numbers) - len(refused),
        refused=tuple(refused),
        gone=tuple(sorted(reigned - set(numbers), key=int)),
        champion=None if reign is None else reign.version,
        again=again,
        left=left,
        alone=is_from_archive(database, pipeline_id),
    )


def _written(pipeline: str, settings: Settings, database: Database, clock: Clock, *, by: str) -> int:
    """Put a log that the database has lost into it, from the archive."""
    storage = open_storage(settings)
    kept = find_kept(storage, pipeline)
    if kept is None:
        raise _nothing(pipeline, storage.root, {})
    check_owned(Identity(pipeline, kept.log), settings)
    return write_archived(pipeline, storage, kept, database, clock, by=by)


def _check_champion(registry: Registry, refused: list[str], *, new_key: bool) -> bool:
    """Refuse a champion that does not hold; return whether there is one.

    Raises
    ------
    DigestError
        If there is, and the key is not said to be lost.
    """
    champion = registry.championship.reign()
    if champion is not None and champion.version in refused and not new_key:
        raise DigestError(
            f"version {champion.version} of {registry.pipeline!r}, the champion, does not hold under "
            "this key",
            hint=_KEY_HINT,
        )
    return champion is not None


_KEY_HINT = (
    "copy signing.key of the lost home into this one, or set HEADWATER_SIGNING_KEY; if it is lost: "
    "headwater adopt --new-key, then fold every state again: headwater signing-key renew"
)


def _check_key(settings: Settings, new_key: bool) -> None:
    """Refuse to make a signing key unasked: with another one no version could be loaded."""
    there = settings.signing_key is not None or (settings.place / "signing.key").exists()
    if not there and not new_key:
        raise DigestError("this home has no signing key, without which no version loads", hint=_KEY_HINT)


def _verified(registry: Registry) -> tuple[list[str], list[str]]:
    """Return the numbers of all versions, and of those that do not hold, or whose files are gone."""
    numbers, refused = [], []
    for version in registry.store.versions():
        numbers.append(version.number)
        try:
            registry.store.verified_files(version, again=True)
        except (DigestError, StorageError):
            refused.append(version.number)
    return numbers, refused


def _nothing(pipeline: str, storage: str, known: dict[str, int]) -> NotFoundError:
    return NotFoundError(
        f"neither the database nor {storage} keeps a log of {pipeline!r}: there is nothing to adopt",
        hint="set HEADWATER_DATABASE_URL to the database of the lost home, or HEADWATER_STORAGE to its "
        f"storage{_others(known)}",
    )


def _others(known: dict[str, int]) -> str:
    return f"; this database knows {few(sorted(known))}" if known else ""

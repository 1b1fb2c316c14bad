"""``headwater adopt``: a new home takes over the stores of one that is gone."""

from contextlib import ExitStack

import msgspec

from headwater.features.identity.adoption import LostInbox, adopt_log, check_adoptable
from headwater.features.read.archive import Archive
from headwater.features.read.repository import LogRepository, registered
from headwater.infra.clock import Clock, SystemClock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import identity_of
from headwater.infra.store.lease import holding
from headwater.infra.store.open_storage import open_storage
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


def adopt(
    pipeline: str,
    settings: Settings,
    database: Database,
    clock: Clock | None = None,
    *,
    by: str,
    new_key: bool = False,
) -> AdoptedLog:
    """Take over a log whose home is gone: the database knows it, and storage and MLflow bear its id.

    Parameters
    ----------
    pipeline
        The pipeline's name.
    settings
        Of the new home, with the addresses of the stores that are left.
    database
        The operational database that is left.
    clock
        The machine's if none is given.
    by
        Who adopts, for the audit.
    new_key
        Whether the signing key is lost, too: then no version that it signed is loaded again.

    Raises
    ------
    NotFoundError
        If the database keeps no log of that pipeline.
    ConflictError
        If this home has an inbox of the pipeline already.
    BusyError
        If a process of the old home lives.
    IdentityError
        If storage or MLflow belong to another log.
    DigestError
        If the champion does not hold under the signing key, or there is none. Nothing is changed by any
        of these.
    """
    clock = clock or SystemClock()
    known = registered(database)
    if pipeline not in known:
        raise NotFoundError(
            f"the database keeps no log of {pipeline!r}: there is nothing to adopt",
            hint=f"set HEADWATER_DATABASE_URL to the database of the lost home{_others(known)}",
        )
    pipeline_id = known[pipeline]
    identity = identity_of(database, pipeline_id)
    check_adoptable(database, pipeline_id, pipeline, settings)
    _check_key(settings, new_key)
    archive = Archive(open_storage(settings), identity)
    archive.check()
    registry = Registry(pipeline, pipeline_id, settings, database, clock)
    numbers, refused = _verified(registry)
    champion = registry.championship.reign()
    if champion is not None and champion.version in refused and not new_key:
        raise DigestError(
            f"version {champion.version} of {pipeline!r}, the champion, does not hold under this key",
            hint=_KEY_HINT,
        )
    with ExitStack() as leases:
        for work in ("sequence", "train"):
            leases.enter_context(holding(database, clock, f"{work}/{pipeline}"))
        lost = adopt_log(database, pipeline_id, identity, settings, clock, by=by)
    position, offset = LogRepository(database, pipeline_id).ends()
    reigned = {reign.version for reign in registry.championship.history()}
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
    )


_KEY_HINT = (
    "copy signing.key of the lost home into this one, or set HEADWATER_SIGNING_KEY; if it is lost: "
    "headwater adopt --new-key, then learn from the log again: headwater train --fresh"
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


def _others(known: dict[str, int]) -> str:
    return f"; this one knows {few(sorted(known))}" if known else ""

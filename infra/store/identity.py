"""The identity of a log: an id, drawn once, which all that it keeps outside of its database bears.

Two homes may meet on one storage or one MLflow: of another person, or of a home that was lost and made
anew. Whoever opens a store checks the id that it bears before anything is read or written.
"""

import msgspec
from sqlalchemy import select

from headwater.infra.commit_points import reached
from headwater.infra.ids import made_at
from headwater.infra.store.database import Database
from headwater.infra.store.schema import tables
from headwater.infra.store.storage import Storage
from headwater.spec.errors import IdentityError

__all__ = ["Claim", "Identity", "identity_of"]

_DESCRIPTION = "headwater log "
_FILE = "log.json"


class Identity(msgspec.Struct, frozen=True):
    """The log that a home keeps for a pipeline.

    Parameters
    ----------
    pipeline
        The pipeline's name.
    log
        The log's UUID.
    """

    pipeline: str
    log: str

    @property
    def description(self) -> str:
        """The description that Delta tables of the log bear."""
        return f"{_DESCRIPTION}{self.log}"

    def check(self, thing: str, where: str, whose: str | None, setting: str) -> None:
        """Refuse a store of another log.

        Parameters
        ----------
        thing, where
            The store, in words, and its address.
        whose
            The id that it bears; None for none.
        setting
            Name of the variable that says where the store is.

        Raises
        ------
        IdentityError
            If it bears another id, or none.
        """
        if whose == self.log:
            return
        since = None if whose is None else made_at(whose)
        raise IdentityError.met(thing, where, log=self.log, whose=whose, since=since, setting=setting)

    def check_table(self, name: str, where: str, description: str | None) -> None:
        """Refuse a Delta table without this log's description.

        Raises
        ------
        IdentityError
            As :meth:`check` does.
        """
        text = description or ""
        whose = text.removeprefix(_DESCRIPTION) if text.startswith(_DESCRIPTION) else None
        self.check(f"table {name!r} of {self.pipeline!r}", where, whose, "HEADWATER_STORAGE")


class _Claimed(msgspec.Struct, frozen=True):
    """The content of a claim's file."""

    log: str
    pipeline: str


class Claim:
    """A log's claim to its pipeline's name on a storage: a small file beside the tables.

    It covers all that is kept below the storage root under that name: tables, materialisations, batch
    runs, reports. Of several logs that claim a name at once, one gets it.

    Parameters
    ----------
    storage, identity
        Where, and whose.

    Attributes
    ----------
    pipeline
        The name that is claimed.
    """

    def __init__(self, storage: Storage, identity: Identity) -> None:
        self.pipeline = identity.pipeline
        self._storage = storage
        self._identity = identity
        self._place = ("tables", identity.pipeline, _FILE)
        self._held = False

    def check(self) -> None:
        """Refuse a storage on which another log has claimed the name; read until the claim is seen.

        Raises
        ------
        IdentityError
            If another log has it, or the file that says so is damaged.
        StorageError
            If storage is away.
        """
        if self._held:
            return
        content = self._storage.find(*self._place)
        if content is None:
            return
        try:
            whose = msgspec.json.decode(content, type=_Claimed).log
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IdentityError(
                f"{self._storage.address(*self._place)}, which says whose the tables are, is damaged",
                hint="if no other home uses this storage, remove that file: collecting writes it anew",
            ) from error
        where = self._storage.address(*self._place[:-1])
        thing = f"the storage of {self._identity.pipeline!r}"
        self._identity.check(thing, where, whose, "HEADWATER_STORAGE")
        self._held = True

    def take(self) -> None:
        """Claim the name before the first write; do nothing once it is claimed.

        Raises
        ------
        IdentityError
            If another log has it, or was faster.
        StorageError
            If storage is away.
        """
        self.check()
        if self._held:
            return
        claimed = _Claimed(self._identity.log, self._identity.pipeline)
        reached("collect.before_claim")
        self._storage.create(msgspec.json.encode(claimed), *self._place)
        reached("collect.after_claim")
        self.check()  # read back: another log may have been faster


def identity_of(database: Database, pipeline_id: int) -> Identity:
    """Return the identity of a registered pipeline's log.

    Raises
    ------
    IdentityError
        If the database was made before logs had ids.
    """
    pipeline, log = tables.pipeline.c, tables.log.c
    with database.reading() as connection:
        name, uuid = connection.execute(
            select(pipeline.name, log.uuid)
            .select_from(tables.pipeline.outerjoin(tables.log, pipeline.id == log.pipeline_id))
            .where(pipeline.id == pipeline_id)
        ).one()
    if uuid is None:
        raise IdentityError(
            f"the database has no id for the log of {name!r}: it was made before logs had ids",
            hint="set HEADWATER_HOME and HEADWATER_DATABASE_URL to a new place, and import the history",
            thing="the database",
        )
    return Identity(name, uuid)

"""The registry of one pipeline: its versions, its champion, and the routing of requests."""

from collections.abc import Callable, Sequence
from typing import Literal

from headwater.infra.clock import Clock, SystemClock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import identity_of
from headwater.infra.store.lease import Lease, check
from headwater.registry.alias_mirror import AliasMirror
from headwater.registry.champion import Championship
from headwater.registry.learning_stops import LearningStops
from headwater.registry.mlflow_store.connection import MlflowConnection
from headwater.registry.mlflow_store.publisher import VersionPublisher
from headwater.registry.mlflow_store.versions import CHALLENGER, VersionStore
from headwater.registry.rulings.pauses import Pauses
from headwater.registry.rulings.quarantine import Quarantine
from headwater.registry.rulings.routings import Routings
from headwater.registry.version import Candidate, Version
from headwater.spec.errors import ConflictError, HeadwaterError, NotFoundError
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import Reign

__all__ = ["Registry"]

_Quarantined = Sequence[OffsetRange] | Literal["learned"]


class Registry:
    """Publishes versions and promotes them.

    Parameters
    ----------
    pipeline, pipeline_id
        Whose versions, and its number in the database.
    settings, database, clock
        Where MLflow is, where the champion's row is, and the time.

    Raises
    ------
    IdentityError
        If MLflow has something of another log under the pipeline's name.
    StorageError
        If MLflow's store cannot be opened.
    """

    def __init__(
        self,
        pipeline: str,
        pipeline_id: int,
        settings: Settings,
        database: Database,
        clock: Clock | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.mlflow = MlflowConnection(identity_of(database, pipeline_id), settings)
        self.store = VersionStore(self.mlflow)
        self._publisher = VersionPublisher(self.mlflow, self.store)
        clock = clock or SystemClock()
        self.quarantine = Quarantine(pipeline_id, database, clock)
        self.championship = Championship(pipeline, pipeline_id, database, clock, self.quarantine)
        self._aliases = AliasMirror(self.mlflow, self.store, self.championship)
        self.routings = Routings(self.store, pipeline_id, database, clock)
        self.pauses = Pauses(pipeline_id, database, clock)
        self.learning_stops = LearningStops(pipeline_id, database, clock)
        self._database = database

    def publish(self, candidate: Candidate, lease: Lease) -> Version:
        """Register a candidate as a version, while the trainer's lease holds.

        The same recipe published twice is one version.

        Raises
        ------
        FencedError
            If another trainer took the lease over: nothing is registered then.
        StorageError
            If MLflow refuses.
        """

        def fenced(create: Callable[[], None]) -> None:
            with self._database.transaction() as connection:  # nobody takes over meanwhile
                check(connection, lease)
                create()

        return self._publisher.register(candidate, fenced)

    def challenge(self, version: Version) -> None:
        """Point the alias ``challenger`` at a version that may become champion."""
        self._aliases.set(CHALLENGER, version.number)

    def champion(self) -> Version | None:
        """Return the version that serves; None if no version was promoted yet.

        Raises
        ------
        NotFoundError
            If somebody deleted it from MLflow.
        """
        reign = self.championship.reign()
        return None if reign is None else self.store.get(reign.version)

    def promote(
        self,
        number: str,
        *,
        by: str,
        reason: str,
        lease: Lease | None = None,
        quarantine: Sequence[OffsetRange] = (),
        action: str = "promote",
    ) -> Reign:
        """Make a version champion, after its state has been verified.

        Promoting the champion again changes nothing, except that ranges are quarantined.

        Raises
        ------
        NotFoundError
            If the version does not exist.
        DigestError
            If its state is not what was registered; the champion stays.
        ConflictError, FencedError
            If somebody else promoted, or took the lease over, meanwhile.
        """
        self.store.verified_files(self.store.get(number), again=True)
        expected = self.championship.reign()
        if expected is not None and expected.version == number:
            self.quarantine.add(quarantine, by=by, reason=reason)
            self._aliases.mirror()
            return expected
        reign = self.championship.swap(
            number,
            expected=expected,
            by=by,
            reason=reason,
            lease=lease,
            quarantine=quarantine,
            action=action,
        )
        self._aliases.mirror()
        return reign

    def succeed(self, parent: Version, child: Version, *, by: str, reason: str, lease: Lease) -> Reign:
        """Make a version champion in place of its parent, if the parent is still champion.

        Raises
        ------
        ConflictError
            If another version is champion.
        FencedError
            If the lease was taken over.
        """
        expected = self.championship.reign()
        if expected is None or expected.version != parent.number:
            now = "none" if expected is None else f"version {expected.version}"
            raise ConflictError(
                f"the champion of {self.pipeline!r} is {now}, and no longer version {parent.number}",
                hint="do nothing: the service follows the new champion",
            )
        reign = self.championship.swap(
            child.number, expected=expected, by=by, reason=reason, lease=lease
        )
        self._aliases.mirror()
        return reign

    def put_back(self, version: Version, *, expected: Reign, by: str, reason: str) -> Reign:
        """Make the version that still serves champion again, in place of one that cannot serve.

        Raises
        ------
        ConflictError
            If another version became champion meanwhile.
        """
        reign = self.championship.swap(
            version.number, expected=expected, by=by, reason=reason, action="put back"
        )
        self._aliases.mirror()
        return reign

    def rollback(
        self, *, by: str, reason: str, to: str | None = None, quarantine: _Quarantined = ()
    ) -> Reign:
        """Make the previous champion champion again.

        Parameters
        ----------
        to
            The version to return to; by default the champion before the present reign.
        quarantine
            Offsets that later recipes exclude, so that no version learns them again; ``"learned"``
            excludes all from where the version to return to stopped learning.

        Raises
        ------
        NotFoundError
            If there is no version to return to.
        """
        reign = self.championship.reign()
        target = to or (reign.previous if reign else None)
        if target is None:
            hint = f"train one: headwater train {self.pipeline}"
            if reign is not None:
                hint = "return to this one without what it learned since: "
                hint += f"--to {reign.version} --quarantine learned"
            raise NotFoundError(f"pipeline {self.pipeline!r} has no earlier champion", hint=hint)
        if quarantine == "learned":
            quarantine = self.quarantine.since(self.store.get(target).examples.stop)
        return self.promote(target, by=by, reason=reason, quarantine=quarantine, action="roll back")

    def heed_aliases(self) -> Reign | None:
        """Take an alias that was changed from outside as a request to promote.

        Returns
        -------
        Reign or None
            The reign that the request began, if there was one.
        """
        requested = self._aliases.requested()
        if requested is None:
            return None
        try:
            return self.promote(
                requested, by="alias", reason="the alias 'champion' was changed in MLflow"
            )
        except HeadwaterError:
            self._aliases.mirror()
            raise

"""Operations on serving models: promote, roll back, pause, quarantine; the audit has each."""

from collections.abc import Sequence
from contextlib import closing
from typing import Literal

from headwater.features.read.repository import LogRepository, find, register
from headwater.features.read.shadow_outputs import ShadowOutputs
from headwater.features.record.encoder import open_inbox
from headwater.features.sequence.new_classes import NewClasses
from headwater.infra.clock import Clock, SystemClock
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.loop.operator.routing_operations import RoutingOperations, check_reason
from headwater.registry.registry import Registry
from headwater.registry.version import Version
from headwater.spec.errors import DeclarationError, NotFoundError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import OffsetRange
from headwater.spec.rulings import AppearedClass, Learning, Reign, VersionInRole

__all__ = ["Operator"]


class Operator:
    """The operations of people on one pipeline's versions; a running service follows within a moment.

    The command line makes it, and the keeper for requests over HTTP.

    Parameters
    ----------
    pipeline
        As declared, or its name alone.
    settings, database
        Where the versions are, and the rows.
    clock
        By default the machine's.

    Raises
    ------
    NotFoundError
        If there are no records of a pipeline of that name.
    IdentityError
        If inbox, database and MLflow are not of one log.
    StorageError
        If MLflow's store cannot be opened.
    """

    def __init__(
        self,
        pipeline: Pipeline | str,
        settings: Settings,
        database: Database,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._declared = None if isinstance(pipeline, str) else pipeline
        self.name = pipeline if isinstance(pipeline, str) else pipeline.name
        number = _number_of(pipeline, database, settings)
        self.registry = Registry(self.name, number, settings, database, clock)
        self._classes = NewClasses(self.name, number, database, clock)
        self.routing = RoutingOperations(
            self.registry,
            self._declared,
            LogRepository(database, number),
            ShadowOutputs(database, number),
        )

    def learning(self) -> Learning:
        """Return the status of learning: the pause, if there is one, and the quarantined offsets."""
        return Learning(
            pipeline=self.name,
            pause=self.registry.pauses.in_force(),
            quarantined=tuple(self.registry.quarantine.ranges()),
        )

    def pause(self, *, by: str, reason: str) -> Learning:
        """Halt learning: the learned state serves on, and new examples wait at their offsets.

        Raises
        ------
        DeclarationError
            If the pipeline does not learn each label.
        """
        if self._declared is not None and self._declared.learn != "each label":
            raise DeclarationError(
                f"pipeline {self.name!r} learns on schedule, so there is nothing to pause",
                hint="pause its deployments in Prefect, or declare learn='each label'",
            )
        check_reason(reason)
        self.registry.pauses.pause(by=by, reason=reason)
        return self.learning()

    def resume(self, *, by: str, reason: str) -> Learning:
        """Let learning go on from the offset at which it halted; it learns the examples that waited."""
        check_reason(reason)
        self.registry.pauses.resume(by=by, reason=reason)
        return self.learning()

    def quarantine(self, spans: Sequence[OffsetRange], *, by: str, reason: str) -> Learning:
        """Exclude offsets from every later recipe, and at once from learning each label.

        Raises
        ------
        NotFoundError
            If a range holds no offsets, or offsets of no example.
        """
        check_reason(reason)
        self.registry.quarantine.add(spans, by=by, reason=reason)
        return self.learning()

    def classes(self) -> list[AppearedClass]:
        """List the classes of labels that were not declared when they came, oldest first."""
        return self._classes.all()

    def name_class(self, name: str, becomes: str, *, by: str, reason: str) -> list[AppearedClass]:
        """Say what a new class is, so that labels held back for it make examples.

        Parameters
        ----------
        name, becomes
            The class as it was told, and the class that it is: the same, or a known one.
        by, reason
            Who says so, and why.

        Raises
        ------
        NotFoundError, DeclarationError, ConflictError
            If no label of it came, `becomes` is not known, or it was named otherwise before.
        """
        check_reason(reason)
        self._classes.name(name, becomes, by=by, reason=reason)
        return self.classes()

    def promote(self, version: str, *, by: str, reason: str) -> Reign:
        """Make a version champion, as the registry's ``promote`` does."""
        check_reason(reason)
        return self.registry.promote(version, by=by, reason=reason)

    def roll_back(
        self,
        to: str | None,
        *,
        by: str,
        reason: str,
        quarantine: Sequence[OffsetRange] | Literal["learned"] = (),
    ) -> Reign:
        """Return to an earlier champion, as the registry's ``rollback`` does.

        A service that learns each label catches it up: it learns the examples since then again, but for
        the quarantined ones.
        """
        check_reason(reason)
        return self.registry.rollback(by=by, reason=reason, to=to, quarantine=quarantine)

    def versions(self, last: int = 0) -> list[VersionInRole]:
        """List the versions with their present roles, oldest first.

        Parameters
        ----------
        last
            How many of the newest; 0 for all.
        """
        roles, versions = self.roles(), self.registry.store.versions()
        return [_version_in_role(version, roles.get(version.number, ())) for version in versions[-last:]]

    def roles(self) -> dict[str, list[str]]:
        """Return the present roles of versions, by number, as :class:`VersionInRole` has them."""
        reign = self.registry.championship.reign()
        aliases = self.registry.store.aliases()
        routing = self.routing.in_force(self.registry.routings.history())
        roles: dict[str, list[str]] = {}
        if reign is not None:
            roles.setdefault(reign.version, []).append("champion")
            if reign.previous is not None and reign.previous != reign.version:
                roles.setdefault(reign.previous, []).append("previous")
        if "challenger" in aliases:
            roles.setdefault(aliases["challenger"], []).append("challenger")
        for name in () if routing is None else routing.named:
            number = aliases.get(name, name)
            role = "shadow" if routing is not None and name in routing.beside else "answers"
            if "champion" not in roles.get(number, ()):
                roles.setdefault(number, []).append(role)
        return roles


def _number_of(pipeline: Pipeline | str, database: Database, settings: Settings) -> int:
    try:
        name = pipeline if isinstance(pipeline, str) else pipeline.name
        return find(database, name, settings)
    except NotFoundError:
        if isinstance(pipeline, str):
            raise
    with closing(open_inbox(pipeline, settings)) as inbox:
        return register(database, pipeline, inbox)


def _version_in_role(version: Version, roles: Sequence[str]) -> VersionInRole:
    return VersionInRole(
        number=version.number,
        parent=version.parent,
        roles=tuple(roles),
        update=version.update,
        examples=version.examples,
        learned=version.learned,
        made_at=version.made_at,
        digest=version.digest,
        refused=version.refused,
    )

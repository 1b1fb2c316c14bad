"""A pipeline bound to its stores, on which every step of the loop works."""

from contextlib import suppress
from functools import cached_property
from typing import Self

from headwater.features.log import FeatureLog
from headwater.infra.clock import Clock, SimulatedClock, SystemClock
from headwater.infra.settings import Settings, settings
from headwater.infra.store.database import Database
from headwater.learners.cautions import warn_of
from headwater.learners.learner import Capabilities
from headwater.learners.wrap import check_bound, check_folds
from headwater.registry.decisions import Decisions
from headwater.registry.declarations import Declarations
from headwater.registry.registry import Registry
from headwater.spec.errors import HeadwaterWarning, StorageError
from headwater.spec.pipeline import Pipeline

__all__ = ["Bound"]


class Bound:
    """A declared pipeline with its log, its registry and its clock.

    The command line, a flow or a test makes it, and uses it in a ``with`` block or closes it.

    Parameters
    ----------
    pipeline
        As declared.
    settings
        Where its stores are; by default read from the environment.
    clock
        By default that of the settings, or else the machine's.
    database
        An open operational database, to share one.

    Warns
    -----
    HeadwaterWarning
        If versions will not rebuild, or need modules that are not kept.

    Raises
    ------
    DeclarationError
        If the model does not fit the pipeline's update or learning.
    IdentityError, IntegrityError
        If inbox and database are not of one log, or the inbox has lost records.
    StorageError
        If a store cannot be opened.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings | None = None,
        clock: Clock | None = None,
        database: Database | None = None,
    ) -> None:
        learner = check_bound(pipeline)
        self.cautions: tuple[HeadwaterWarning, ...] = warn_of(pipeline)
        if pipeline.learn == "each label":
            check_folds(pipeline, learner)
        self.capabilities: Capabilities = learner.capabilities
        self.pipeline = pipeline
        self.settings = settings or _settings()
        self.clock = clock or _clock(self.settings)
        self._owns_database = database is None
        self.database = database or Database(self.settings.operational_url)
        try:
            self.log = FeatureLog(pipeline, self.settings, self.clock, self.database)
        except BaseException:
            if self._owns_database:
                self.database.close()
            raise
        id_ = self.log.pipeline_id
        self.decisions = Decisions(pipeline.name, id_, self.database, self.clock)
        self.declarations = Declarations(pipeline.name, id_, self.database, self.clock)

    @cached_property
    def registry(self) -> Registry:
        """The pipeline's versions; the first use imports MLflow."""
        return Registry(
            self.pipeline.name, self.log.pipeline_id, self.settings, self.database, self.clock
        )

    def check(self) -> None:
        """Refuse stores that belong to another log, before anything is done with them.

        Every step that works on storage or on versions calls it first. A store that is away is no fault
        here: the step that uses it fails.

        Raises
        ------
        IdentityError
            If storage or MLflow has something of another log under the pipeline's name.
        """
        self.log.archive.check()
        with suppress(StorageError):
            self.registry  # noqa: B018 - made here, it checks MLflow

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the log, and the database if this object opened it."""
        self.log.close()
        if self._owns_database:
            self.database.close()


_settings = settings


def _clock(settings: Settings) -> Clock:
    return SystemClock() if settings.now is None else SimulatedClock(settings.now)

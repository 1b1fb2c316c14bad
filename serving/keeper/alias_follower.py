"""Heed an alias that was moved in MLflow: it asks for another champion of a running service."""

from datetime import datetime, timedelta

from headwater.infra.clock import Clock
from headwater.registry.registry import Registry
from headwater.serving.published.alarms import Alarms
from headwater.spec.errors import HeadwaterError, StorageError

__all__ = ["AliasFollower"]

_EVERY = timedelta(seconds=40)


class AliasFollower:
    """Looks at the alias of one pipeline's champion once or twice a minute.

    A look at a silent server of MLflow takes long: a keeper of many pipelines looks in a thread of
    its own (:attr:`in_thread`), and its steps only show what came of it.

    Parameters
    ----------
    registry, clock
        The pipeline's versions, and the time.
    alarms
        Raised if the version that an alias asks for is refused; it holds until another reign begins.

    Attributes
    ----------
    in_thread
        Whether a thread calls :meth:`look`; else each step does.
    """

    def __init__(self, registry: Registry, clock: Clock, alarms: Alarms) -> None:
        self.in_thread = False
        self._registry = registry
        self._clock = clock
        self._alarms = alarms
        self._due: datetime | None = None
        self._away: StorageError | None = None
        self._refused: HeadwaterError | None = None
        self._refused_in: int | None = None

    def look(self) -> bool:
        """Promote the version that an alias asks for, if a look is due; return whether a reign began."""
        now = self._clock.now()
        if self._due is not None and now < self._due:
            return False
        epoch = self._registry.championship.epoch()
        away, reign = None, None
        try:
            reign = self._registry.heed_aliases()
        except StorageError as error:
            away = error
        except HeadwaterError as error:
            self._refused, self._refused_in = error, epoch
        else:
            if reign is not None or epoch != self._refused_in:
                self._refused = None
        self._due, self._away = self._clock.now() + _EVERY, away
        return reign is not None

    def step(self) -> bool:
        """Show what came of the last look; return whether a reign began by it.

        Raises
        ------
        StorageError
            If MLflow is away, until it is looked at again and is not.
        """
        began = False if self.in_thread else self.look()
        if self._refused is None:
            self._alarms.clear("alias")
        else:
            what = f"the alias 'champion' that was moved in MLflow is refused: {self._refused.what}"
            self._alarms.sound("alias", HeadwaterError(what, self._refused.hint))
        if self._away is not None:
            raise self._away
        return began

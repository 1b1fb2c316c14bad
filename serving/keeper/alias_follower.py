"""Heed an alias that was moved in MLflow: it asks for another champion of a running service."""

from datetime import datetime, timedelta

from headwater.infra.clock import Clock
from headwater.registry.registry import Registry
from headwater.serving.published.alarms import Alarms
from headwater.spec.errors import HeadwaterError, StorageError

__all__ = ["AliasFollower"]

_EVERY = timedelta(seconds=40)


class AliasFollower:
    """Looks at the alias of one pipeline's champion a few times a minute.

    Parameters
    ----------
    registry, clock
        The pipeline's versions, and the time.
    alarms
        Raised if the version that an alias asks for is refused; it holds until another reign begins.
    """

    def __init__(self, registry: Registry, clock: Clock, alarms: Alarms) -> None:
        self._registry = registry
        self._clock = clock
        self._alarms = alarms
        self._due: datetime | None = None
        self._away: StorageError | None = None
        self._refused_in: int | None = None

    def step(self) -> bool:
        """Promote the version that an alias asks for; return whether a reign began by that.

        Raises
        ------
        StorageError
            If MLflow is away, until it is looked at again and is not.
        """
        now = self._clock.now()
        if self._due is not None and now < self._due:
            if self._away is not None:
                raise self._away
            return False
        self._due, self._away = now + _EVERY, None
        epoch = self._registry.championship.epoch()
        try:
            reign = self._registry.heed_aliases()
        except StorageError as error:
            self._away = error
            raise
        except HeadwaterError as error:
            self._refused_in = epoch
            refused = f"the alias 'champion' that was moved in MLflow is refused: {error.what}"
            self._alarms.sound("alias", HeadwaterError(refused, error.hint))
            return False
        if self._refused_in is not None and (reign is not None or epoch != self._refused_in):
            self._refused_in = None
            self._alarms.clear("alias")
        return reign is not None

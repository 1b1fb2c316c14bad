"""Publishes materialised tables to the workers, from a thread of the keeper's process."""

import logging
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple, Self

from headwater.features.read.repository import register
from headwater.features.record.encoder import open_inbox
from headwater.features.tables.materialisations import Materialisations
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.serving.published.published_tables import PublishedTables
from headwater.spec.data.feature_table import Materialised
from headwater.spec.errors import HeadwaterError
from headwater.spec.pipeline import Pipeline

__all__ = ["TablePublisher"]

_LOOK_S = 0.25
_logger = logging.getLogger("headwater.tables")


class _Watched(NamedTuple):
    name: str
    kept: Materialisations
    live: PublishedTables


class TablePublisher:
    """Publishes the newest materialisations whenever there are others.

    A thread of its own, since the keeper may be busy learning, and a table may take long to copy. In a
    ``with`` block, at whose beginning the tables are published.

    Parameters
    ----------
    pipelines
        Which ones; those without tables cost nothing.
    settings
        Where the stores and the home folder are.
    """

    def __init__(self, pipelines: Sequence[Pipeline], settings: Settings) -> None:
        self._database = Database(settings.operational_url)
        self._watched = [
            _Watched(
                one.name,
                Materialisations(
                    one.name, _number_of(one, self._database, settings), self._database, settings
                ),
                PublishedTables(one, settings),
            )
            for one in pipelines
            if one.tables
        ]
        self._published: dict[str, dict[str, Materialised]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tables", daemon=True)

    def __enter__(self) -> Self:
        self.step()
        if self._watched:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._database.close()

    def step(self) -> bool:
        """Publish what changed; say whether anything did. What fails leaves what was published."""
        return sum(map(self._publish, self._watched)) > 0

    def _publish(self, one: _Watched) -> bool:
        try:
            newest = one.kept.newest()
            if newest == self._published.get(one.name, {}):
                return False
            one.live.publish(newest, one.kept.fetch)
        except (HeadwaterError, OSError) as error:
            _logger.warning("%s: the tables published before stay: %s", one.name, error)
            return False
        self._published[one.name] = newest
        told = {"pipeline": one.name, "tables": {name: m.number for name, m in newest.items()}}
        _logger.info("%s: tables are published", one.name, extra={"told": told})
        return True

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self.step()


def _number_of(pipeline: Pipeline, database: Database, settings: Settings) -> int:
    with closing(open_inbox(pipeline, settings)) as inbox:
        return register(database, pipeline, inbox)

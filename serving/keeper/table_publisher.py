"""Publish materialised tables to the workers, from a thread of the keeper's process."""

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


class _PublishedPipeline(NamedTuple):
    """A pipeline whose tables are published: where they come from, and where they go."""

    name: str
    materialisations: Materialisations
    live: PublishedTables


class TablePublisher:
    """Publish the newest materialisations whenever they change.

    It has its own thread, since the keeper may be busy learning, and a table may take long to copy. It
    is used in a ``with`` block, which publishes the tables when it begins.

    Parameters
    ----------
    pipelines
        The pipelines; those without tables cost nothing.
    settings
        The addresses of the stores and of the home folder.
    """

    def __init__(self, pipelines: Sequence[Pipeline], settings: Settings) -> None:
        self._database = Database(settings.operational_url)
        self._pipelines = [
            _PublishedPipeline(
                pipeline.name,
                Materialisations(
                    pipeline.name,
                    _number_of(pipeline, self._database, settings),
                    self._database,
                    settings,
                ),
                PublishedTables(pipeline, settings),
            )
            for pipeline in pipelines
            if pipeline.tables
        ]
        self._published: dict[str, dict[str, Materialised]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tables", daemon=True)

    def __enter__(self) -> Self:
        self.step()
        if self._pipelines:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._database.close()

    def step(self) -> bool:
        """Publish changed tables; return whether any did. If a table fails, the one before stays."""
        return sum(map(self._publish, self._pipelines)) > 0

    def _publish(self, pipeline: _PublishedPipeline) -> bool:
        try:
            newest = pipeline.materialisations.newest()
            if newest == self._published.get(pipeline.name, {}):
                return False
            pipeline.live.copy_and_publish(newest, pipeline.materialisations.fetch)
        except (HeadwaterError, OSError) as error:
            _logger.warning("%s: the tables published before stay: %s", pipeline.name, error)
            return False
        self._published[pipeline.name] = newest
        fields = {"pipeline": pipeline.name, "tables": {name: m.number for name, m in newest.items()}}
        _logger.info("%s: tables are published", pipeline.name, extra={"told": fields})
        return True

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self.step()


def _number_of(pipeline: Pipeline, database: Database, settings: Settings) -> int:
    with closing(open_inbox(pipeline, settings)) as inbox:
        return register(database, pipeline, inbox)

"""Publish materialised tables to the workers, from a thread of the keeper's process."""

import logging
from collections.abc import Sequence
from contextlib import closing
from typing import Self

from headwater.features.read.repository import register
from headwater.features.record.encoder import open_inbox
from headwater.features.tables.materialisations import Materialisations
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.serving.published.published_tables import PublishedTables
from headwater.serving.published.repeating import Repeating
from headwater.spec.data.feature_table import Materialised
from headwater.spec.pipeline import Pipeline

__all__ = ["TablePublisher"]

_LOOK_S = 0.25
_logger = logging.getLogger("headwater.tables")


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
        steps = {
            f"{pipeline.name}: the tables published before stay": _PipelineTables(
                pipeline, self._database, settings
            ).publish_newest
            for pipeline in pipelines
            if pipeline.tables
        }
        self._repeating = Repeating("tables", _LOOK_S, steps, _logger)

    def __enter__(self) -> Self:
        self._repeating.take_each()
        self._repeating.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._repeating.__exit__(*error)
        self._database.close()


class _PipelineTables:
    """The tables of one pipeline: where they come from, and where they go."""

    def __init__(self, pipeline: Pipeline, database: Database, settings: Settings) -> None:
        number = _number_of(pipeline, database, settings)
        self._name = pipeline.name
        self._materialisations = Materialisations(pipeline.name, number, database, settings)
        self._live = PublishedTables(pipeline, settings)
        self._published: dict[str, Materialised] = {}

    def publish_newest(self) -> None:
        newest = self._materialisations.newest()
        if newest == self._published:
            return
        self._live.copy_and_publish(newest, self._materialisations.fetch)
        self._published = newest
        fields = {"pipeline": self._name, "tables": {name: m.number for name, m in newest.items()}}
        _logger.info("%s: tables are published", self._name, extra={"json_fields": fields})


def _number_of(pipeline: Pipeline, database: Database, settings: Settings) -> int:
    with closing(open_inbox(pipeline, settings)) as inbox:
        return register(database, pipeline, inbox)

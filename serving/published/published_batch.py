"""The answers of the newest batch run on this host: the keeper copies them, and every worker follows.

Below ``live/PIPELINE/batch``: ``batch.json`` names the run, ``RUN.sqlite`` finds a key's answer, and in
``RUN.reads`` each answer has a byte, which a look-up sets to one. All workers map that file: a read is
one store, the same read twice counts once, and the counts of a killed worker stay.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from headwater.features.identity.home_log import HomeLog, OwnedFile
from headwater.infra.settings import Settings

__all__ = ["BatchFile", "PublishedBatch"]


class BatchFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``batch.json``.

    Parameters
    ----------
    run, version
        Id of the run, and number of its version.
    at
        When its predictions count as served.
    rows
        The number of its predictions.
    """

    run: str
    version: str
    at: datetime
    rows: int


class PublishedBatch(OwnedFile[BatchFile]):
    """The file that names the run whose answers are on this host, and the files of the answers.

    Parameters
    ----------
    pipeline, settings
        The pipeline's name, and the address of the home folder.
    """

    def __init__(self, pipeline: str, settings: Settings) -> None:
        self.folder = settings.root / "live" / pipeline / "batch"
        hint = "remove it, and the keeper makes it anew"
        super().__init__(self.folder / "batch.json", BatchFile, hint, HomeLog(pipeline, settings))

    def table(self, run: str) -> Path:
        """Return the file that holds a run's answers by key."""
        return self.folder / f"{run}.sqlite"

    def reads(self, run: str) -> Path:
        """Return the file in which reads of a run are counted."""
        return self.folder / f"{run}.reads"

    def make_reads(self, run: str, rows: int) -> None:
        """Make the file in which reads are counted, unless it exists, with its blocks reserved."""
        file = os.open(self.reads(run), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(file, 0, rows)  # so that no store meets a full disk
        finally:
            os.close(file)

    def count_reads(self) -> dict[str, int]:
        """Count the answers that were read, by run."""
        counts = {}
        for path in self.folder.glob("*.reads"):
            with suppress(FileNotFoundError):
                counts[path.stem] = int(np.count_nonzero(np.fromfile(path, np.uint8)))
        return counts

    def keep(self, runs: Sequence[str]) -> None:
        """Remove the files of all other runs."""
        for path in self.folder.iterdir():
            if path.name != "batch.json" and path.name.partition(".")[0] not in runs:
                path.unlink(missing_ok=True)

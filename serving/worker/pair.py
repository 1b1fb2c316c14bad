"""The pair that answers in a worker: a declaration, and the versions that answer by it."""

from headwater.features.record.encoder import RecordEncoder
from headwater.infra.clock import Clock
from headwater.infra.settings import Settings
from headwater.serving.metrics.service_metrics import PipelineMetrics
from headwater.serving.published.pairing import Pairing, pairing_of
from headwater.serving.published.published_models import ServingFile
from headwater.serving.worker.active_versions import ActiveVersions, VersionLoader
from headwater.serving.worker.feature_lookup import FeatureLookup
from headwater.spec.errors import ChangedError, StorageError
from headwater.spec.pipeline import Pipeline

__all__ = ["Pair", "PairLoader"]


class Pair:
    """What a request is decoded, predicted and recorded by. It is replaced whole, between two requests.

    Parameters
    ----------
    recorder
        Decodes and records by the pair's declaration.
    tables
        Looks features up, if the declaration has tables.
    active, pairing
        The versions that answer, and how they were chosen; None before the first.

    Attributes
    ----------
    pipeline
        The declaration.
    hint
        What a request must send, in words.
    """

    __slots__ = ("active", "hint", "pairing", "pipeline", "recorder", "tables")

    def __init__(
        self,
        recorder: RecordEncoder,
        tables: FeatureLookup | None,
        active: ActiveVersions | None = None,
        pairing: Pairing | None = None,
    ) -> None:
        self.pipeline = recorder.pipeline
        self.recorder = recorder
        self.tables = tables
        self.active = active
        self.pairing = pairing
        self.hint = _hint(recorder.pipeline)

    @property
    def misfit(self) -> ChangedError | None:
        """Why it is not what is declared with the champion; None if it is."""
        return None if self.pairing is None else self.pairing.misfit

    def answered_by(self, active: ActiveVersions, pairing: Pairing | None) -> "Pair":
        """Return the same declaration with other versions."""
        return Pair(self.recorder, self.tables, active, pairing)

    def give_way(self, to: "Pair") -> None:
        """Close what the next pair does without."""
        if self.tables is not None and self.tables is not to.tables:
            self.tables.close()


class PairLoader:
    """Make pairs of publications, ready to answer: versions loaded, and tables open.

    Parameters
    ----------
    versions
        Loads the states of versions.
    declared
        Records by the declaration that the service was started with.
    settings, clock, metrics
        The address of the published tables, the time, and the counters.
    """

    def __init__(
        self,
        versions: VersionLoader,
        declared: RecordEncoder,
        settings: Settings,
        clock: Clock,
        metrics: PipelineMetrics,
    ) -> None:
        self._versions = versions
        self._declared = declared
        self._settings = settings
        self._clock = clock
        self._metrics = metrics

    def of(self, pipeline: Pipeline) -> Pair:
        """Return the pair of a declaration that no version answers by yet."""
        recorder = self._declared
        if pipeline != recorder.pipeline:
            recorder = RecordEncoder(pipeline, recorder.inbox, self._clock)
            recorder.declare()
        tables = FeatureLookup(pipeline, self._settings, self._metrics) if pipeline.tables else None
        return Pair(recorder, tables)

    async def load(self, serving: ServingFile, before: Pair) -> Pair:
        """Load a publication for the declaration by which it answers.

        Parameters
        ----------
        serving
            What is published.
        before
            The pair that answers until then; it is not changed.

        Raises
        ------
        HeadwaterError, OSError, MemoryError
            If the champion, or a table that the pair before does without, cannot be loaded.
        """
        kept = None if before.active is None else before.active.champion.state
        pairing = pairing_of(self._declared.pipeline, serving, kept)
        active = await self._versions.load(pairing.serving, pairing.pipeline)
        if pairing.pipeline == before.pipeline:
            return before.answered_by(active, pairing)
        pair = self.of(pairing.pipeline)
        if pair.tables is not None:
            await pair.tables.follow(self._clock.now())
            missing = pair.tables.missing_table()
            if missing is not None and before.active is not None:
                pair.tables.close()
                raise StorageError(
                    f"version {active.champion.version} looks up in table {missing!r}, which was never "
                    "materialised",
                    hint="materialise it: headwater features materialise",
                )
        return pair.answered_by(active, pairing)


def _hint(pipeline: Pipeline) -> str:
    features = pipeline.request_features
    names = ", ".join(feature.name for feature in features) or "none: all are looked up"
    within = (
        ", within what they declare: see /docs" if any(feature.is_ranged for feature in features) else ""
    )
    return f"send exactly the features {names}{within}"

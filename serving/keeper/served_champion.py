"""The champion's state as the keeper publishes it, with the probes by which workers try it."""

from collections.abc import Sequence

import polars as pl
from msgspec.structs import replace

from headwater.loop.binding import Bound
from headwater.serving.keeper.online_learning import LearnedState
from headwater.serving.keeper.trials import try_state
from headwater.serving.published.alarms import Alarms
from headwater.serving.published.published_models import PublishedModels, ServedState
from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.records import FeatureValue
from headwater.spec.errors import ModelError, NotRebuildableError
from headwater.spec.feature_differences import unreadable
from headwater.spec.recipe import Recipe

__all__ = ["ServedChampion"]

_PROBES = 8


class ServedChampion:
    """The state that is to serve as champion.

    Parameters
    ----------
    bound, live
        The pipeline with its stores, and the folder of states for the workers.
    number
        Of the version that workers serve since an earlier keeper.

    Attributes
    ----------
    state, number
        As it is to be published, and its version's number; None before the first.
    probe_rows
        Features on which states are tried.
    """

    def __init__(self, bound: Bound, live: PublishedModels, number: str | None) -> None:
        self.state: ServedState | None = None
        self.number = number
        self.probe_rows: list[dict[str, FeatureValue]] = []
        self._bound = bound
        self._live = live
        self._unserved: tuple[str, LearnedState] | None = None

    def read_probes(self, learned: Sequence[FeatureKind]) -> None:
        """Read the features of the newest predictions, those that a version has learned among them.

        One that lacks a value where none may be null was made before the feature was: it is left out.
        """
        log, types = self._bound.log, self._bound.pipeline.features
        stop, names = log.positions(), {feature.name for feature in learned}
        frame = log.frames.predictions(log.repository.predictions(max(0, stop - _PROBES), stop))
        others = [feature for feature in types if feature.name not in names]
        wanted = (*learned, *(replace(feature, nullable=True) for feature in others))
        fit = [
            number
            for number, one in log.frames.features.declarations.items()
            if not unreadable([one.features], wanted)
        ]
        frame = frame.filter(pl.col("recorded_by").is_in(fit))
        read = log.project(frame, "position", wanted)["features"].to_list()
        nullable = {feature.name: feature.nullable for feature in (*learned, *types)}
        needed = [feature.name for feature in learned if not nullable[feature.name]]
        self.probe_rows = [row for row in read if all(row[name] is not None for name in needed)]

    def serve(self, version: str, learned: LearnedState) -> None:
        """Set the champion's state, which is published at the end of the step.

        Raises
        ------
        ModelError, NotRebuildableError
            If it does not answer in a process of its own: the state before stays.
        StorageError
            If the disk refuses it.
        """
        content = learned.state, learned.recipe, learned.proof
        bound = self._bound
        trial = try_state(version, content, self.probe_rows, bound.pipeline.serving, bound.settings)
        self.state = ServedState(
            version=version,
            role="champion",
            name=self._live.put(*content),
            learned_to=learned.learned_to,
            probes=trial.probes,
            isolated=trial.isolated,
            features=Recipe.from_json(learned.recipe).features,
        )
        self.number = version
        self._unserved = None

    def serve_learned(self, version: str, learned: LearnedState, alarms: Alarms) -> None:
        """Let a learned state serve; if it fails its trial, the state before stays, with an alarm.

        Raises
        ------
        StorageError
            If the disk refuses it: :meth:`serve_unserved` tries again.
        """
        self._unserved = version, learned
        try:
            self.serve(version, learned)
        except (ModelError, NotRebuildableError) as error:
            self._unserved = None
            alarms.sound("model", error)
        else:
            alarms.clear("model")

    def serve_unserved(self, alarms: Alarms) -> None:
        """Let the learned state serve that the disk refused, if there is one.

        Raises
        ------
        StorageError
            If the disk refuses it again.
        """
        if self._unserved is not None:
            self.serve_learned(*self._unserved, alarms)

"""The champion's state as the keeper publishes it, with the probes by which workers try it."""

from headwater.loop.binding import Bound
from headwater.registry.restore import restore
from headwater.serving.keeper.online_learning import LearnedState
from headwater.serving.published.published_models import Probe, PublishedModels, ServedState
from headwater.spec.data.records import FeatureValue
from headwater.spec.data.scalars import plain_output

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

    def read_probes(self) -> None:
        """Read the features of the newest predictions."""
        log = self._bound.log
        stop = log.positions()
        served = log.served(max(0, stop - _PROBES), stop, ("features",))
        self.probe_rows = list(served["features"].to_list())

    def serve(self, version: str, learned: LearnedState) -> None:
        """Set the champion's state, which is published at the end of the step."""
        content = learned.state, learned.recipe, learned.proof
        learner = restore(*content, self._bound.settings.key())
        self.state = ServedState(
            version=version,
            role="champion",
            name=self._live.put(*content),
            learned_to=learned.learned_to,
            probes=tuple(Probe(row, plain_output(learner.predict_one(row))) for row in self.probe_rows),
        )
        self.number = version

"""Let versions predict, on the loop or in a process of their own, and check their outputs."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from time import perf_counter
from typing import NamedTuple

import msgspec

from headwater.serving.worker.active_versions import LoadedVersion
from headwater.serving.worker.isolated_models import IsolatedModel
from headwater.serving.worker.loop_model import LoopModel
from headwater.serving.worker.model_thread import FailedRow
from headwater.spec.data.records import FeatureValue, Output
from headwater.spec.errors import SchemaError
from headwater.spec.outputs import misfit_of_output, where_to_look
from headwater.spec.pipeline import Task

__all__ = ["CheckedRequest", "ModelOutputs"]

_TURN_S = 0.002
_logger = logging.getLogger("headwater.serving")


class CheckedRequest(NamedTuple):
    """A request that fits, with the version that is to answer it."""

    id: str
    loaded: LoadedVersion
    share: float
    features: msgspec.Struct
    values: dict[str, FeatureValue]
    ages_s: dict[str, float] | None
    entity: dict[str, str]
    due_at: datetime | None
    where: str


class ModelOutputs:
    """The outputs of one pipeline's versions.

    Parameters
    ----------
    task
        The task for which they must be valid.
    """

    def __init__(self, task: Task) -> None:
        self._task: Task = task

    async def outputs(self, requests: Sequence[CheckedRequest]) -> list[Output]:
        """Return the outputs for many requests, or for some of an isolated version.

        On the loop other requests have their turn every few milliseconds.
        """
        isolated: dict[str, tuple[IsolatedModel, list[int]]] = {}
        outputs: list[Output] = [0.0] * len(requests)
        turn_s = perf_counter()
        for place, request in enumerate(requests):
            model = request.loaded.model
            if isinstance(model, LoopModel) and model.moved_to is not None:  # by a request before
                model = model.moved_to
            if isinstance(model, IsolatedModel):
                isolated.setdefault(model.state.name, (model, []))[1].append(place)
                continue
            outputs[place] = self.output_on_loop(request)
            if perf_counter() - turn_s > _TURN_S:
                await asyncio.sleep(0)
                turn_s = perf_counter()
        for model, places in isolated.values():
            found = await model.predict([requests[place].values for place in places])
            for place, output in zip(places, found, strict=True):
                outputs[place] = self._answered(requests[place], output)
        return outputs

    def output_on_loop(self, request: CheckedRequest) -> Output:
        """Let a version predict; refuse a request on which it fails, since it passed its probes."""
        model = request.loaded.model
        assert isinstance(model, LoopModel)  # noqa: S101 - the caller has chosen
        try:
            output = model.predict_one(request.values)
        except BaseException as error:  # of the model's own code, whatever it raises
            name = type(error).__name__
            _logger.exception("version %s fails on prediction %s", request.loaded.version, request.id)
            raise self._refused(request, f" ({name})") from error
        return self._valid(request, output)

    def _answered(self, request: CheckedRequest, output: Output | FailedRow) -> Output:
        if isinstance(output, FailedRow):
            _logger.error("a model fails:\n%s", output.trace)
            raise self._refused(request, f" ({output.error})", output.error)
        return self._valid(request, output)

    def _valid(self, request: CheckedRequest, output: Output) -> Output:
        """Return an output; one that is not valid for the task is neither answered nor logged."""
        why = misfit_of_output(self._task, output)
        if why is None:
            return output
        raise self._refused(request, f": its output {why}", f"its output {why}")

    def _refused(self, request: CheckedRequest, how: str, logged: str = "") -> SchemaError:
        """Return the refusal of a request on which a version fails."""
        version = request.loaded.version
        if logged:
            _logger.error("version %s fails on prediction %s: %s", version, request.id, logged)
        return SchemaError(
            f"{request.where}features: version {version} cannot answer them{how}",
            hint=where_to_look(request.values),
        )

"""Whether a version's errors have risen: ADWIN over the loss of each example."""

import numpy as np
import polars as pl

from headwater.monitoring.measure.scores import example_losses
from headwater.spec.pipeline import Metric, Task

__all__ = ["errors_rose"]

_NEWEST = 50_000
_BATCH = 32
_CONFIDENCE = 0.002


def errors_rose(outputs: pl.Series, labels: pl.Series, task: Task) -> bool:
    """Tell whether a version's errors have risen.

    The loss is log loss, or the absolute error of a regression, of the newest 50,000 examples. ADWIN
    sees means of 32 examples, which makes it cheap.

    Parameters
    ----------
    outputs, labels
        Of mature predictions, oldest first; neither is null.
    task
        What is predicted.

    References
    ----------
    Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.
    """
    from river.drift import ADWIN  # noqa: PLC0415 - a second to import

    metric: Metric = "mae" if task == "regression" else "log_loss"
    losses = example_losses(task, metric, outputs.tail(_NEWEST), labels.tail(_NEWEST))
    if losses is None or len(losses) < 2 * _BATCH:
        return False
    spread = max(float(np.quantile(losses, 0.99)), 1e-12)  # ADWIN's bound is for values in [0, 1]
    scaled = np.minimum(losses / spread, 1.0)
    batches = scaled[len(scaled) % _BATCH :].reshape(-1, _BATCH).mean(axis=1)
    detector = ADWIN(delta=_CONFIDENCE, clock=1)  # type: ignore[no-untyped-call] # untyped in River
    rose, previous = False, float(batches[0])
    for value in batches.tolist():
        detector.update(value)  # type: ignore[no-untyped-call]
        if detector.drift_detected:
            rose = rose or detector.estimation > previous
        previous = detector.estimation
    return rose

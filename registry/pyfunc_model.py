"""The model by which MLflow loads a version; every version stores this file ("models from code").

``mlflow.pyfunc.load_model("models:/PIPELINE@champion").predict(frame)`` takes a pandas frame with the
pipeline's features and returns one output a row. It needs headwater installed, and the signing key.
"""

from pathlib import Path

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from headwater.registry.restore import restore

__all__ = ["ServedVersion"]


class ServedVersion(PythonModel):
    """A version behind MLflow's interface."""

    _skip_type_hint_validation = True  # the stored schema says what goes in

    def load_context(self, context: PythonModelContext) -> None:
        """Verify the stored state, then load it."""
        files = {name: Path(path).read_bytes() for name, path in context.artifacts.items()}
        self.learner = restore(files["state"], files["recipe"], files["proof"])

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # noqa: ARG002 - MLflow reads hints as a schema
        """Predict one output a row: probability of the positive class, value, or shares by class."""
        import polars as pl  # noqa: PLC0415 - the model is loaded first

        from headwater.features.read.frames import feature_schema  # noqa: PLC0415

        schema = feature_schema(self.learner.schema.features)
        frame = pl.DataFrame(
            {
                name: pl.Series(model_input[name].to_list(), dtype=dtype, strict=False)
                for name, dtype in schema.items()
            }
        )
        outputs = self.learner.predict(frame)
        if self.learner.schema.task == "multiclass":
            return pd.DataFrame(outputs).fillna(0.0)
        return pd.Series(outputs, name="output", dtype=float)


mlflow.models.set_model(ServedVersion())

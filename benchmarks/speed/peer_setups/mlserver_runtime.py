"""The model as a custom runtime of MLServer, which reads the tensor's values as they come."""

import pickle
from pathlib import Path

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Served(MLModel):
    """Answers the probability that a row is true."""

    async def load(self) -> bool:
        """Load the estimator that the benchmark has trained."""
        self.estimator = pickle.loads(Path(self.settings.parameters.uri).read_bytes())
        self.names = self.settings.parameters.extra["names"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one row of the Open Inference Protocol."""
        (row,) = payload.inputs
        features = dict(zip(self.names, row.data.root, strict=True))
        probability = self.estimator.predict_proba_one(features)[True]
        output = ResponseOutput(name="probability", shape=[1], datatype="FP64", data=[probability])
        return InferenceResponse(model_name=self.name, outputs=[output])

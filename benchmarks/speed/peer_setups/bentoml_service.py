"""The model as a service of BentoML; an async method, which costs less than one in its thread pool."""

import os
import pickle
from pathlib import Path

import bentoml


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Served:
    """Answers the probability that a row is true."""

    def __init__(self) -> None:
        self.estimator = pickle.loads(Path(os.environ["PEER_ESTIMATOR"]).read_bytes())

    @bentoml.api
    async def predict(self, features: dict[str, float]) -> float:
        """Answer one row."""
        return float(self.estimator.predict_proba_one(features)[True])

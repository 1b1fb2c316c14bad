"""Save the model in MLflow's form: ``python mlflow_save.py ESTIMATOR FOLDER``."""

import sys
from pathlib import Path

import mlflow

if __name__ == "__main__":
    mlflow.pyfunc.save_model(
        sys.argv[2],
        python_model=str(Path(__file__).with_name("mlflow_model.py")),
        artifacts={"estimator": sys.argv[1]},
        pip_requirements=["river"],  # given, so that it does not start the model to find out
    )

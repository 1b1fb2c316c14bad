"""The local stack: Prefect, MLflow, a worker and the service."""

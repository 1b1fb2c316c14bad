"""The numbers of versions, which MLflow gives one after another, and none twice."""

from headwater.registry.mlflow_store.connection import MlflowConnection, guarded

__all__ = ["forget_version", "reserve_numbers"]


def reserve_numbers(connection: MlflowConnection, stop: int) -> int:
    """Use up the numbers below one that are free, so that the next version may get it.

    Returns
    -------
    int
        The number that the next version gets, as far as MLflow's records show it.

    Raises
    ------
    StorageError
        If MLflow refuses.
    """
    pipeline, client = connection.pipeline, connection.client
    with guarded(connection.settings):
        connection.owned.name_model()
        listed = client.search_model_versions(f"name = '{pipeline}'")
        after = max((int(entry.version) for entry in listed), default=0) + 1
        while after < stop:
            made = client.create_model_version(pipeline, source=f"reserved:/{pipeline}")
            client.delete_model_version(pipeline, made.version)
            after = int(made.version) + 1
    return after


def forget_version(connection: MlflowConnection, number: str) -> None:
    """Delete a version from MLflow's records; its number is not given again.

    Raises
    ------
    StorageError
        If MLflow refuses.
    """
    with guarded(connection.settings):
        connection.client.delete_model_version(connection.pipeline, number)

"""The places of a backup: the folders in it, and the storages that they are copied from and to."""

from collections.abc import Collection

from headwater.infra.settings import Settings
from headwater.infra.store.open_storage import open_storage, states_of
from headwater.infra.store.storage import Storage
from headwater.spec.errors import StorageError

__all__ = [
    "ARTIFACTS",
    "DATABASE",
    "INBOX",
    "KEY",
    "MLFLOW",
    "STORAGE",
    "names_in",
    "placed",
    "storages_of",
]

INBOX, DATABASE, MLFLOW, KEY = "inbox", "headwater.sqlite", "mlflow.sqlite", "signing.key"
"""The names in a backup: of the folder of inboxes, and of files."""

STORAGE, ARTIFACTS = "storage", "artifacts"
"""The folders of a backup that hold tables, and states."""


def placed(settings: Settings) -> Settings:
    """Return the settings with the place of each store, for which the home need not be there."""
    home = settings.place
    return settings.model_copy(
        update={
            "storage": settings.storage or str(home / "storage"),
            "database_url": settings.database_url or f"sqlite:///{home / DATABASE}",
            "mlflow_uri": settings.mlflow_uri or f"sqlite:///{home / MLFLOW}",
        }
    )


def storages_of(settings: Settings) -> dict[str, Storage]:
    """Return the storages that hold tables and states, by the folders that they have in a backup.

    Raises
    ------
    StorageError
        If states are kept where no file can be listed.
    """
    states = states_of(settings)
    if states is not None:
        return {STORAGE: open_storage(settings), ARTIFACTS: states}
    raise StorageError(
        f"MLflow's states are kept at {settings.artifact_uri}, which is neither a folder nor on S3",
        hint="set HEADWATER_ARTIFACTS to a folder or to s3://bucket/prefix",
    )


def names_in(storages: dict[str, Storage], pipelines: Collection[str]) -> dict[str, list[str]]:
    """Return the paths of all files of pipelines, by their storage; states are in one of them only.

    A table's path is ``tables/PIPELINE/...``, and a state's ``PIPELINE/...``.
    """
    states = f"{storages[ARTIFACTS].root}/".removeprefix(f"{storages[STORAGE].root}/")
    found = {place: storage.names() for place, storage in storages.items()}
    return {
        STORAGE: [
            name
            for name in found[STORAGE]
            if not name.startswith(states) and name.count("/") > 1 and name.split("/")[1] in pipelines
        ],
        ARTIFACTS: [name for name in found[ARTIFACTS] if name.split("/")[0] in pipelines],
    }

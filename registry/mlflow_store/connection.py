"""The connection to MLflow: client, experiment and key of one log; errors that say what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from headwater.infra.offline import quiet
from headwater.infra.settings import Settings
from headwater.infra.store.identity import Identity
from headwater.registry.mlflow_store.owned import Owned
from headwater.spec.errors import HeadwaterError, StorageError

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["PAGE_ROWS", "MlflowConnection", "check_owned", "check_reachable", "forget", "guarded"]

PAGE_ROWS = 1_000
"""How many rows one query returns."""

_NOT_THE_REASON = "(raised as a result of Query-invoked autoflush"
_LIBRARIES = ("mlflow", "sqlalchemy", "botocore", "boto3", "requests")


class MlflowConnection:
    """MLflow's client, with the experiment and the registered model of one log.

    Parameters
    ----------
    identity
        The log. Its pipeline's name is that of the registered model and of the experiment, which bear
        the log's id as a tag.
    settings
        Where MLflow keeps its records and states, and the signing key.

    Raises
    ------
    IdentityError
        If the experiment or the registered model belongs to another log, or to nobody; nothing is
        changed then.
    StorageError
        If MLflow's store cannot be opened.
    """

    def __init__(self, identity: Identity, settings: Settings) -> None:
        self.pipeline = identity.pipeline
        self.settings = settings
        self.key = settings.key()
        quiet()
        if settings.s3_endpoint:
            os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", settings.s3_endpoint)
        with guarded(settings):
            import mlflow  # noqa: PLC0415 - seconds to import

            mlflow.set_tracking_uri(settings.tracking_uri)
            self.client = mlflow.MlflowClient()
            self.owned = Owned(self.client, identity, settings)
            self.owned.check()
            self.experiment_id = self.owned.experiment()


def check_owned(identity: Identity, settings: Settings) -> None:
    """Refuse an experiment or model under a pipeline's name that is not the log's; change nothing.

    Raises
    ------
    IdentityError
        If it belongs to another log, or to nobody.
    StorageError
        If MLflow's store cannot be opened.
    """
    with guarded(settings):
        Owned(_client(settings), identity, settings).check()


def forget(identity: Identity, settings: Settings) -> int:
    """Delete a log's registered model and experiment; return how many versions the model had.

    MLflow keeps a deleted experiment under its name, so that it gets another name first: a new pipeline
    may take the old one. ``mlflow gc`` removes what is deleted for good.

    Raises
    ------
    IdentityError
        If they belong to another log.
    StorageError
        If MLflow's store refuses.
    """
    with guarded(settings):
        owned = Owned(_client(settings), identity, settings)
        owned.check()
        return owned.forget()


def check_reachable(settings: Settings) -> str:
    """Send MLflow's store a query, and return its address.

    Raises
    ------
    StorageError
        If it cannot be opened.
    """
    with guarded(settings):
        _client(settings).search_experiments(max_results=1)
    return _address(settings)


@contextmanager
def guarded(settings: Settings) -> Iterator[None]:
    """Turn exceptions of MLflow and its stores into errors that say what to do.

    Raises
    ------
    StorageError
        If MLflow, its database or its storage refuses; no password is in the text.
    """
    try:
        yield
    except HeadwaterError:
        raise
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if library in _LIBRARIES or isinstance(error, OSError):
            raise _refused(settings, error) from error
        raise


def _client(settings: Settings) -> "MlflowClient":
    quiet()
    import mlflow  # noqa: PLC0415 - seconds to import

    return mlflow.MlflowClient(settings.tracking_uri)


def _address(settings: Settings) -> str:
    return make_url(settings.tracking_uri).render_as_string(hide_password=True)


def _refused(settings: Settings, error: Exception) -> StorageError:
    where, password = _address(settings), make_url(settings.tracking_uri).password
    lines = str(error).splitlines() or [type(error).__name__]
    first = lines[1] if len(lines) > 1 and lines[0].startswith(_NOT_THE_REASON) else lines[0]
    first = first.replace(settings.tracking_uri, where)
    if password:
        first = first.replace(str(password), "***")
    return StorageError(
        f"MLflow's store at {where} refuses: {first[:200]}",
        hint="check HEADWATER_MLFLOW_URI and HEADWATER_ARTIFACTS, and that their servers run; "
        "recorded predictions and labels are safe, so try again",
    )

"""Whose experiment and registered model MLflow has under a pipeline's name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from headwater.infra.settings import Settings
from headwater.infra.store.identity import Identity

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["PIPELINE_TAG", "Owned"]

PIPELINE_TAG = "headwater.pipeline"
_LOG_TAG = "headwater.log"
_TAKEN = "RESOURCE_ALREADY_EXISTS"
_ABSENT = "RESOURCE_DOES_NOT_EXIST"


class Owned:
    """What MLflow has under a pipeline's name, made and checked for one log.

    MLflow makes a name once, with its tags: of several logs that make one at the same time, one gets it,
    and the others are refused when they read the tag.

    Parameters
    ----------
    client, identity, settings
        MLflow's client, the log, and where MLflow is.
    """

    def __init__(self, client: "MlflowClient", identity: Identity, settings: Settings) -> None:
        self._client = client
        self._identity = identity
        self._settings = settings
        self._name = f"headwater/{identity.pipeline}"
        self._named = False

    def check(self) -> None:
        """Refuse an experiment or a model that is not this log's; there may be neither.

        Raises
        ------
        IdentityError
            If one belongs to another log, or to nobody.
        """
        self._find_experiment()
        self._find_model()

    def experiment(self) -> str:
        """Give the id of the log's experiment; made where there is none.

        Raises
        ------
        IdentityError
            If another log was faster.
        """
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy

        found = self._find_experiment()
        if found is not None:
            return found
        location = f"{self._settings.artifact_uri}/{self._identity.pipeline}"
        try:
            made = self._client.create_experiment(
                self._name, artifact_location=location, tags=self._tags()
            )
        except MlflowException as error:
            if error.error_code != _TAKEN or (found := self._find_experiment()) is None:
                raise
            return found
        return str(made)

    def name_model(self) -> None:
        """Make the registered model where there is none.

        Raises
        ------
        IdentityError
            If another log was faster.
        """
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy

        if self._named:
            return
        try:
            self._client.create_registered_model(self._identity.pipeline, tags=self._tags())
        except MlflowException as error:
            if error.error_code != _TAKEN:
                raise
            self._find_model()
        self._named = True

    def _tags(self) -> dict[str, str]:
        return {PIPELINE_TAG: self._identity.pipeline, _LOG_TAG: self._identity.log}

    def _find_experiment(self) -> str | None:
        found = self._client.get_experiment_by_name(self._name)
        if found is None:
            return None
        self._check(f"MLflow's experiment {self._name!r}", found.tags)
        return str(found.experiment_id)

    def _find_model(self) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy

        name = self._identity.pipeline
        try:
            tags = dict(self._client.get_registered_model(name).tags)
        except MlflowException as error:
            if error.error_code != _ABSENT:
                raise
            return
        self._check(f"MLflow's registered model {name!r}", tags)

    def _check(self, thing: str, tags: Mapping[str, str]) -> None:
        where = make_url(self._settings.tracking_uri).render_as_string(hide_password=True)
        self._identity.check(thing, where, tags.get(_LOG_TAG), "HEADWATER_MLFLOW_URI")

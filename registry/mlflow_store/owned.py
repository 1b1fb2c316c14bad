"""The experiment and registered model under a pipeline's name in MLflow, and the log that owns them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from sqlalchemy.engine import make_url

from headwater.infra.settings import Settings
from headwater.infra.store.identity import Identity
from headwater.spec.errors import IntegrityError

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["PIPELINE_TAG", "Owned"]

PIPELINE_TAG = "headwater.pipeline"
_LOG_TAG = "headwater.log"
_TAKEN = "RESOURCE_ALREADY_EXISTS"
_ABSENT = "RESOURCE_DOES_NOT_EXIST"


class Owned:
    """The experiment and registered model of one pipeline in MLflow, made and checked for one log.

    MLflow makes a name once, with its tags. If several logs make it at the same time, one log gets it,
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
        self._model_exists = False
        self._place = ""

    def check(self) -> None:
        """Refuse an experiment or a model that is not this log's; neither need exist.

        Raises
        ------
        IdentityError
            If one belongs to another log, or to nobody.
        """
        self._find_experiment()
        self._find_model()

    def experiment(self) -> str:
        """Return the id of the log's experiment; make it if there is none.

        Raises
        ------
        IdentityError
            If another log was faster.
        IntegrityError
            If the states are gone from where MLflow keeps them: the home was moved.
        """
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy

        existing = self._find_experiment()
        if existing is not None:
            if _is_gone(self._place):
                self.check_place()
            return existing
        location = self._location
        try:
            experiment_id = self._client.create_experiment(
                self._name, artifact_location=location, tags=self._tags()
            )
        except MlflowException as error:
            if error.error_code != _TAKEN or (existing := self._find_experiment()) is None:
                raise
            return existing
        return str(experiment_id)

    def name_model(self) -> None:
        """Make the registered model if there is none.

        Raises
        ------
        IdentityError
            If another log was faster.
        """
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy

        if self._model_exists:
            return
        try:
            self._client.create_registered_model(self._identity.pipeline, tags=self._tags())
        except MlflowException as error:
            if error.error_code != _TAKEN:
                raise
            self._find_model()
        self._model_exists = True

    def forget(self) -> int:
        """Delete the model and the experiment, and free its name; return the number of versions."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - heavy

        name, versions = self._identity.pipeline, 0
        try:
            versions = len(self._client.search_model_versions(f"name = '{name}'"))
            self._client.delete_registered_model(name)
        except MlflowException as error:
            if error.error_code != _ABSENT:
                raise
        experiment = self._find_experiment()
        if experiment is not None:
            self._client.rename_experiment(experiment, f"{self._name} deleted {self._identity.log}")
            self._client.delete_experiment(experiment)
        return versions

    def _tags(self) -> dict[str, str]:
        return {PIPELINE_TAG: self._identity.pipeline, _LOG_TAG: self._identity.log}

    def _find_experiment(self) -> str | None:
        experiment = self._client.get_experiment_by_name(self._name)
        if experiment is None:
            return None
        self._check(f"MLflow's experiment {self._name!r}", experiment.tags)
        self._place = str(experiment.artifact_location)
        return str(experiment.experiment_id)

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

    @property
    def _location(self) -> str:
        """The place of the pipeline's states, by the settings."""
        return f"{self._settings.artifact_uri}/{self._identity.pipeline}"

    def check_place(self) -> None:
        """Refuse the records of a home that was moved or copied: a new state would go to the old place.

        Raises
        ------
        IntegrityError
            If MLflow keeps the states at another place than the settings say.
        """
        place = self._place
        if not place.startswith(("/", "file:", "s3:")) or _path(place) == _path(self._location):
            return
        raise IntegrityError(
            f"MLflow keeps the states of {self._identity.pipeline!r} at {place}, and the settings say "
            f"{self._location}",
            hint="if the home or its storage was moved or copied: headwater moved; otherwise correct "
            "HEADWATER_ARTIFACTS or HEADWATER_STORAGE",
        )

    def _check(self, kind: str, tags: Mapping[str, str]) -> None:
        where = make_url(self._settings.tracking_uri).render_as_string(hide_password=True)
        self._identity.check(kind, where, tags.get(_LOG_TAG), "HEADWATER_MLFLOW_URI")


def _is_gone(place: str) -> bool:
    """Return whether a place is a folder of this machine, and neither it nor its parent is there."""
    return _path(place).startswith("/") and not Path(_path(place)).parent.exists()


def _path(place: str) -> str:
    """Return an address without what MLflow may write in another way: scheme of files, quoting."""
    return unquote(place.removeprefix("file://")).rstrip("/")

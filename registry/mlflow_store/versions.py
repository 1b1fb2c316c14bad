"""Reading: the versions of one pipeline, their verified files, and the aliases that point at them."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from headwater.learners.learner import Learner
from headwater.registry.mlflow_store.connection import PAGE_ROWS, MlflowConnection, guarded
from headwater.registry.proof import prove, read_proof, verify
from headwater.registry.restore import restore
from headwater.registry.version import Version
from headwater.spec.errors import DigestError, NotFoundError, StorageError, few
from headwater.spec.recipe import Recipe

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "FILES",
    "RECIPE_TAG",
    "StoredVersion",
    "VersionStore",
    "damaged",
    "folder_of",
]

CHAMPION, CHALLENGER = "champion", "challenger"
"""The aliases of the version that serves, and of the one that may."""

RECIPE_TAG = "headwater.recipe_id"
"""The tag by which the version of a recipe is found."""

FILES = {
    "state": "state.bin",
    "recipe": "recipe.json",
    "proof": "proof.json",
    "code": "model.py",
    "version": "version.json",
}
"""The names of a version's files in MLflow, by what they hold."""


class StoredVersion:
    """The verified files of a version.

    Parameters
    ----------
    state, recipe, proof
        Their bytes, whose signature held.
    """

    def __init__(self, state: bytes, recipe: bytes, proof: bytes) -> None:
        self.state = state
        self.recipe = recipe
        self.proof = proof


class VersionStore:
    """Finds versions and loads them.

    Parameters
    ----------
    connection
        MLflow, for one log.
    """

    def __init__(self, connection: MlflowConnection) -> None:
        self.pipeline = connection.pipeline
        self._client = connection.client
        self._settings = connection.settings
        self._key = connection.key
        self._known: dict[str, Version] = {}
        self._verified: dict[str, StoredVersion] = {}

    def versions(self) -> list[Version]:
        """List all versions, oldest first."""
        versions: list[Version] = []
        token = None
        with guarded(self._settings):
            while True:
                page = self._client.search_model_versions(
                    f"name = '{self.pipeline}'", max_results=PAGE_ROWS, page_token=token
                )
                versions += [version for entry in page if (version := self.read(entry)) is not None]
                token = page.token
                if not token:
                    return sorted(versions, key=lambda version: int(version.number))

    def get(self, number: str) -> Version:
        """Return the version of a number.

        Raises
        ------
        NotFoundError
            If it does not exist.
        """
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        version = None
        if number.isdecimal():
            with guarded(self._settings):
                try:
                    version = self.read(self._client.get_model_version(self.pipeline, number))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                        raise
        if version is None:
            numbers = few(version.number for version in self.versions())
            raise NotFoundError(
                f"pipeline {self.pipeline!r} has no version {number!r}",
                hint=f"it has {numbers}" if numbers else "make one: headwater train",
            )
        return version

    def remembered(self, number: str) -> Version:
        """Return the version of a number, which is not asked for again if it was read before."""
        return self._known.get(number) or self.get(number)

    def holds(self, number: str) -> bool:
        """Tell whether a version exists; somebody may have deleted it in MLflow."""
        try:
            self.get(number)
        except NotFoundError:
            return False
        return True

    def find(self, recipe_id: str) -> Version | None:
        """Return the version that was made by a recipe; None if there is none."""
        with guarded(self._settings):
            page = self._client.search_model_versions(
                f"name = '{self.pipeline}' and tag.`{RECIPE_TAG}` = '{recipe_id}'", max_results=1
            )
        return self.read(page[0]) if page else None

    def read(self, entry: Any) -> Version | None:
        """Read MLflow's record of a version; None if its tags are not headwater's."""
        model_id = str(entry.source or "").removeprefix("models:/")
        version = Version.from_tags(
            self.pipeline, str(entry.version), model_id, str(entry.run_id), dict(entry.tags)
        )
        if version is not None:
            self._known[version.number] = version
        return version

    def verified_files(self, version: Version, *, again: bool = False) -> StoredVersion:
        """Return the files of a version, verified against the registry's tags.

        The files that were verified last are remembered, since a version never changes.

        Parameters
        ----------
        again
            Fetch and verify them again, although they are remembered.

        Raises
        ------
        DigestError
            If a hash or the signature does not hold.
        StorageError
            If the files are gone.
        """
        if not again and version.number in self._verified:
            return self._verified[version.number]
        state, recipe, proof = self._fetch(version, "state", "recipe", "proof")
        self._verify(version, state, recipe, proof)
        files = StoredVersion(state, recipe, proof)
        self._verified = {version.number: files}
        return files

    def recipe(self, version: Version) -> Recipe:
        """Return a version's recipe, verified; its state may be gone.

        Raises
        ------
        DigestError, StorageError
            As for :meth:`verified_files`.
        """
        recipe, proof = self._fetch(version, "recipe", "proof")
        self._verify(version, None, recipe, proof)
        return Recipe.from_json(recipe)

    def learner(self, version: Version, factory: Callable[[], object] | None = None) -> Learner:
        """Load a version's learner.

        Parameters
        ----------
        factory
            Makes the estimator; if it is None, the stored code does.

        Raises
        ------
        DigestError, StorageError, NotRebuildableError
            As for :meth:`verified_files` and :func:`~headwater.registry.restore.restore`.
        """
        files = self.verified_files(version)
        return restore(files.state, files.recipe, files.proof, self._key, factory)

    def put_back(self, version: Version, state: bytes) -> None:
        """Store a state anew, signed, in place of a damaged one of the same digest.

        Raises
        ------
        DigestError, StorageError
            If the recipe is damaged too, or MLflow refuses.
        """
        (recipe,) = self._fetch(version, "recipe")
        proof = prove(self._key, self.pipeline, version.digest, state, recipe)
        if proof.recipe_id != version.recipe_id:
            raise damaged(version)
        contents = {"state": state, "proof": msgspec.json.encode(proof)}
        with guarded(self._settings), tempfile.TemporaryDirectory() as folder:
            for name, content in contents.items():
                (Path(folder) / FILES[name]).write_bytes(content)
            self._client.log_model_artifacts(version.model_id, folder, "artifacts")

    def aliases(self) -> dict[str, str]:
        """Return the aliases with their version numbers; none before the first version.

        Raises
        ------
        StorageError
            If MLflow is away.
        """
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        with guarded(self._settings):
            try:
                model = self._client.get_registered_model(self.pipeline)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}
        return {str(name): str(number) for name, number in dict(model.aliases).items()}

    def unverified(self, version: Version, name: str) -> bytes:
        """Return a file of a version whose signature was not checked: nothing of it may be run.

        Raises
        ------
        StorageError
            If it is gone.
        """
        return self._fetch(version, name)[0]

    def _fetch(self, version: Version, *names: str) -> list[bytes]:
        from mlflow.artifacts import download_artifacts  # noqa: PLC0415 - heavy

        with guarded(self._settings), tempfile.TemporaryDirectory() as folder:
            where = self._client.get_logged_model(version.model_id).artifact_location
            uris = [f"{where}/artifacts/{FILES[name]}" for name in names]
            return [Path(download_artifacts(uri, dst_path=folder)).read_bytes() for uri in uris]

    def _verify(self, version: Version, state: bytes | None, recipe: bytes, proof: bytes) -> None:
        claimed = read_proof(proof)
        verify(self._key, claimed, self.pipeline, state, recipe)
        if (claimed.digest, claimed.recipe_id) != (version.digest, version.recipe_id):
            raise damaged(version)


def damaged(version: Version) -> DigestError:
    """Return the refusal of a version whose files or tags are another's."""
    return DigestError(
        f"version {version.number} of {version.pipeline!r} holds the files of another version",
        hint="rebuild it with headwater rebuild, or roll back with headwater rollback",
    )


def folder_of(connection: MlflowConnection, version: Version) -> list[str]:
    """Return the path of a version's files below the root of all states.

    Raises
    ------
    StorageError
        If they are elsewhere.
    """
    root = connection.settings.artifact_uri
    with guarded(connection.settings):
        where = str(connection.client.get_logged_model(version.model_id).artifact_location)
    if not where.startswith(f"{root}/"):
        raise StorageError(
            f"the files of version {version.number} are at {where}, not below {root}",
            hint="correct HEADWATER_ARTIFACTS; if the home was moved: headwater moved",
        )
    return [*where.removeprefix(f"{root}/").split("/"), "artifacts"]

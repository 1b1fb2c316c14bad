"""The versions of one pipeline in MLflow's model registry."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine import make_url

from headwater.infra.commit_points import reached
from headwater.infra.offline import quiet
from headwater.infra.settings import Settings
from headwater.infra.store.identity import Identity
from headwater.learners.learner import Learner
from headwater.registry.owned import PIPELINE_TAG, Owned
from headwater.registry.proof import Proof, prove, verify
from headwater.registry.restore import restore
from headwater.registry.version import Candidate, Version
from headwater.spec.errors import DigestError, HeadwaterError, NotFoundError, StorageError, few
from headwater.spec.recipe import Recipe

__all__ = ["StoredVersion", "VersionStore", "check_owned", "check_reachable"]

_TYPES = {"float": "double", "int": "long", "str": "string", "bool": "boolean"}
_RECIPE_TAG = "headwater.recipe_id"
_PAGE = 1_000
_FILES = {"state": "state.bin", "recipe": "recipe.json", "proof": "proof.json", "code": "model.py"}


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
    """Registers versions, finds them and loads them.

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
        self._settings = settings
        self._key = settings.key()
        quiet()
        if settings.s3_endpoint:
            os.environ.setdefault("MLFLOW_S3_ENDPOINT_URL", settings.s3_endpoint)
        with _guarded(settings):
            import mlflow  # noqa: PLC0415 - seconds to import

            self._mlflow = mlflow
            mlflow.set_tracking_uri(settings.tracking_uri)
            self.client = mlflow.MlflowClient()
            owned = Owned(self.client, identity, settings)
            owned.check()
            self.experiment_id = owned.experiment()
            self._owned = owned
        self._read_versions: dict[str, Version] = {}
        self._verified: dict[str, StoredVersion] = {}

    def register(self, candidate: Candidate, publish: Callable[[Callable[[], None]], None]) -> Version:
        """Store a candidate and give it a number; a registered recipe keeps its version.

        Parameters
        ----------
        candidate
            The learned state.
        publish
            Called with a function that makes the version; it calls the function while nobody can take
            the lease over, or refuses.

        Raises
        ------
        FencedError
            If `publish` refuses; the upload is left to the janitor then.
        StorageError
            If MLflow refuses.
        """
        recipe = Recipe.from_json(candidate.recipe)
        proof = prove(self._key, self.pipeline, candidate.digest, candidate.state, candidate.recipe)
        if (registered := self.find(proof.recipe_id)) is not None:
            return registered
        versions: list[Version] = []
        with _guarded(self._settings), self._run(recipe, candidate) as run_id:
            reached("register.before_upload")
            model_id = self._upload(recipe, candidate, proof)
            reached("register.after_upload")
            publish(lambda: versions.append(self._create(recipe, candidate, proof, model_id, run_id)))
            reached("register.after_version")
        return versions[0]

    def versions(self) -> list[Version]:
        """List all versions, oldest first."""
        versions: list[Version] = []
        token = None
        with _guarded(self._settings):
            while True:
                page = self.client.search_model_versions(
                    f"name = '{self.pipeline}'", max_results=_PAGE, page_token=token
                )
                versions += [version for entry in page if (version := self._read(entry)) is not None]
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
            try:
                version = self._read(self.client.get_model_version(self.pipeline, number))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise _refused(self._settings, error) from error
        if version is None:
            numbers = few(version.number for version in self.versions())
            raise NotFoundError(
                f"pipeline {self.pipeline!r} has no version {number!r}",
                hint=f"it has {numbers}" if numbers else "make one: headwater train",
            )
        return version

    def holds(self, number: str) -> bool:
        """Tell whether a version exists; somebody may have deleted it in MLflow."""
        try:
            self.get(number)
        except NotFoundError:
            return False
        return True

    def kept(self, version: Version, *, again: bool = False) -> StoredVersion:
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

    def _verify(self, version: Version, state: bytes | None, recipe: bytes, proof: bytes) -> None:
        claimed = _read_proof(proof)
        verify(self._key, claimed, self.pipeline, state, recipe)
        if (claimed.digest, claimed.recipe_id) != (version.digest, version.recipe_id):
            raise _swapped(version)

    def _fetch(self, version: Version, *names: str) -> list[bytes]:
        with _guarded(self._settings), tempfile.TemporaryDirectory() as folder:
            where = self.client.get_logged_model(version.model_id).artifact_location
            download = self._mlflow.artifacts.download_artifacts
            return [
                Path(
                    download(artifact_uri=f"{where}/artifacts/{_FILES[name]}", dst_path=folder)
                ).read_bytes()
                for name in names
            ]

    def recipe(self, version: Version) -> Recipe:
        """Return a version's recipe, verified; its state may be gone.

        Raises
        ------
        DigestError, StorageError
            As for :meth:`kept`.
        """
        recipe, proof = self._fetch(version, "recipe", "proof")
        self._verify(version, None, recipe, proof)
        return Recipe.from_json(recipe)

    def log_metrics(
        self, version: Version, metrics: dict[str, float], at: datetime, step: int = 0
    ) -> None:
        """Log numbers against a version; logging the same numbers again changes nothing.

        Parameters
        ----------
        metrics
            By name.
        at, step
            The time they are of, and their place on MLflow's charts.

        Raises
        ------
        StorageError
            If MLflow refuses.
        """
        from mlflow.entities import Metric  # noqa: PLC0415

        at_ms = int(at.timestamp() * 1_000)
        rows = [
            Metric(name, value, at_ms, step, model_id=version.model_id, run_id=version.run_id)
            for name, value in metrics.items()
        ]
        with _guarded(self._settings):
            self.client.log_batch(version.run_id, metrics=rows)

    def learner(self, version: Version, factory: Callable[[], object] | None = None) -> Learner:
        """Load a version's learner.

        Parameters
        ----------
        factory
            Makes the estimator; if it is None, the stored code does.

        Raises
        ------
        DigestError, StorageError, NotRebuildableError
            As for :meth:`kept` and :func:`~headwater.registry.restore.restore`.
        """
        files = self.kept(version)
        return restore(files.state, files.recipe, files.proof, self._key, factory)

    def close_leftovers(self) -> int:
        """Close the runs and models that a killed trainer left open; only the holder of the lease may.

        Returns
        -------
        int
            How many were closed.
        """
        from mlflow.entities import LoggedModelStatus  # noqa: PLC0415 - heavy

        # MLflow keeps the status as a number and compares it with what stands in the filter: by its name
        # SQLite finds none, and PostgreSQL refuses.
        pending = LoggedModelStatus.PENDING.to_int()
        closed = 0
        with _guarded(self._settings):
            running = self.client.search_runs(
                [self.experiment_id], "attributes.status = 'RUNNING'", max_results=_PAGE
            )
            for run in running:
                self.client.set_terminated(run.info.run_id, "KILLED")
                closed += 1
            for model in self.client.search_logged_models(
                [self.experiment_id], filter_string=f"status = '{pending}'", max_results=_PAGE
            ):
                self.client.finalize_logged_model(model.model_id, "FAILED")
                closed += 1
        return closed

    def aliases(self) -> dict[str, str]:
        """Return the aliases with their version numbers."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        try:
            model = self.client.get_registered_model(self.pipeline)
        except MlflowException:
            return {}
        return {str(name): str(number) for name, number in dict(model.aliases).items()}

    def set_alias(self, alias: str, number: str | None) -> None:
        """Point an alias at a version, or remove it."""
        with _guarded(self._settings):
            if number is None:
                self.client.delete_registered_model_alias(self.pipeline, alias)
            else:
                self.client.set_registered_model_alias(self.pipeline, alias, number)

    def find(self, recipe_id: str) -> Version | None:
        """Return the version that was made by a recipe; None if there is none."""
        with _guarded(self._settings):
            page = self.client.search_model_versions(
                f"name = '{self.pipeline}' and tag.`{_RECIPE_TAG}` = '{recipe_id}'", max_results=1
            )
        return self._read(page[0]) if page else None

    def _read(self, entry: Any) -> Version | None:
        model_id = str(entry.source or "").removeprefix("models:/")
        version = Version.from_tags(
            self.pipeline, str(entry.version), model_id, str(entry.run_id), dict(entry.tags)
        )
        if version is not None:
            self._read_versions[version.number] = version
        return version

    @contextmanager
    def _run(self, recipe: Recipe, candidate: Candidate) -> Iterator[str]:
        """Open a run with its inputs; the run's status says how it ended."""
        name = f"{recipe.update} {recipe.examples}"
        with self._mlflow.start_run(
            experiment_id=self.experiment_id,
            run_name=name,
            nested=True,
            tags={PIPELINE_TAG: self.pipeline, _RECIPE_TAG: recipe.id},
        ) as run:
            run_id = str(run.info.run_id)
            self._log_run(run_id, recipe, candidate)
            yield run_id

    def _log_run(self, run_id: str, recipe: Recipe, candidate: Candidate) -> None:
        from mlflow.entities import (  # noqa: PLC0415
            Dataset,
            DatasetInput,
            InputTag,
            LoggedModelInput,
            Metric,
            Param,
        )

        params = {
            "update": recipe.update,
            "parent": recipe.parent or "",
            "examples.start": recipe.examples.start,
            "examples.stop": recipe.examples.stop,
            "batch_rows": recipe.batch_rows or "all",
            "passes": recipe.passes,
            "seed": recipe.seed,
            "decision": candidate.decision or "",
        }
        numbers = {
            "examples_learned": float(candidate.learned),
            "train_cpu_s": candidate.train_cpu_s,
            **candidate.metrics,
        }
        at_ms = int(candidate.made_at.timestamp() * 1_000)
        self.client.log_batch(
            run_id,
            params=[Param(name, str(value)) for name, value in params.items()],
            metrics=[Metric(name, value, at_ms, 0) for name, value in numbers.items()],
        )
        dataset = Dataset(
            name=f"{self.pipeline} examples {recipe.examples}",
            digest=recipe.id[:32],
            source_type="delta_table",
            source=f'{{"path": "{self._settings.storage_uri}/tables/{self.pipeline}/examples"}}',
        )
        parents = []
        if recipe.parent is not None:
            parent = self._read_versions.get(recipe.parent) or self.get(recipe.parent)
            parents.append(LoggedModelInput(parent.model_id))
        self.client.log_inputs(
            run_id,
            datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])],
            models=parents or None,
        )

    def _upload(self, recipe: Recipe, candidate: Candidate, proof: Proof) -> str:
        files = {
            "state": candidate.state,
            "recipe": candidate.recipe,
            "proof": msgspec.json.encode(proof),
            "code": recipe.learner.source.encode(),
        }
        with tempfile.TemporaryDirectory() as folder:
            artifacts = {}
            for name, content in files.items():
                path = Path(folder) / _FILES[name]
                path.write_bytes(content)
                artifacts[name] = str(path)
            with warnings.catch_warnings():  # remarks on type hints that a schema replaces
                warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")
                info = self._mlflow.pyfunc.log_model(
                    name=self.pipeline,
                    python_model=str(Path(__file__).parent / "pyfunc_model.py"),
                    artifacts=artifacts,
                    signature=_signature(recipe),
                    pip_requirements=[f"{name}=={v}" for name, v in sorted(recipe.libraries.items())],
                    tags={_RECIPE_TAG: proof.recipe_id, "headwater.digest": proof.digest},
                )
        return str(info.model_id)

    def _create(
        self, recipe: Recipe, candidate: Candidate, proof: Proof, model_id: str, run_id: str
    ) -> Version:
        version = Version(
            pipeline=self.pipeline,
            number="",
            update=recipe.update,
            parent=recipe.parent,
            examples=recipe.examples,
            learned=candidate.learned,
            train_cpu_s=candidate.train_cpu_s,
            made_at=candidate.made_at,
            line_started_at=candidate.line_started_at,
            digest=proof.digest,
            recipe_id=proof.recipe_id,
            model_id=model_id,
            run_id=run_id,
            decision=candidate.decision,
            report=candidate.report,
            refused=candidate.refused,
        )
        self._owned.name_model()
        tags = version.tags() | {"headwater.signature": proof.signature}
        entry = self.client.create_model_version(
            self.pipeline,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=tags,
            model_id=model_id,  # a server holds it against the source
        )
        registered = self._read(entry)
        if registered is None:
            raise _swapped(version)
        return registered


def check_owned(identity: Identity, settings: Settings) -> None:
    """Refuse an experiment or model under a pipeline's name that is not the log's; change nothing.

    Raises
    ------
    IdentityError
        If it belongs to another log, or to nobody.
    StorageError
        If MLflow's store cannot be opened.
    """
    quiet()
    with _guarded(settings):
        import mlflow  # noqa: PLC0415 - seconds to import

        Owned(mlflow.MlflowClient(settings.tracking_uri), identity, settings).check()


def check_reachable(settings: Settings) -> str:
    """Send MLflow's store a query, and return its address.

    Raises
    ------
    StorageError
        If it cannot be opened.
    """
    quiet()
    with _guarded(settings):
        import mlflow  # noqa: PLC0415 - seconds to import

        mlflow.MlflowClient(settings.tracking_uri).search_experiments(max_results=1)
    return make_url(settings.tracking_uri).render_as_string(hide_password=True)


@contextmanager
def _guarded(settings: Settings) -> Iterator[None]:
    """Turn exceptions of MLflow and its stores into errors that say what to do."""
    try:
        yield
    except HeadwaterError:
        raise
    except Exception as error:
        module = type(error).__module__.partition(".")[0]
        if module in ("mlflow", "sqlalchemy", "botocore", "boto3", "requests") or isinstance(
            error, OSError
        ):
            raise _refused(settings, error) from error
        raise


def _refused(settings: Settings, error: Exception) -> StorageError:
    address = make_url(settings.tracking_uri)
    where = address.render_as_string(hide_password=True)
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    first = first.replace(settings.tracking_uri, where)
    if address.password:
        first = first.replace(str(address.password), "***")
    first = first[:200]
    return StorageError(
        f"MLflow's store at {where} refuses: {first}",
        hint="check HEADWATER_MLFLOW_URI and HEADWATER_ARTIFACTS, and that their servers run; "
        "recorded predictions and labels are safe, so try again",
    )


def _read_proof(text: bytes) -> Proof:
    try:
        return msgspec.json.decode(text, type=Proof)
    except msgspec.DecodeError as error:
        raise DigestError(
            "a version's proof cannot be read", hint="rebuild it from the log with headwater rebuild"
        ) from error


def _swapped(version: Version) -> DigestError:
    return DigestError(
        f"version {version.number} of {version.pipeline!r} holds the files of another version",
        hint="rebuild it with headwater rebuild, or roll back with headwater rollback",
    )


def _signature(recipe: Recipe) -> Any:
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    columns: list[Any] = [
        ColSpec(_TYPES[f.dtype], f.name, required=not f.nullable) for f in recipe.features
    ]
    outputs = None if recipe.task == "multiclass" else Schema([ColSpec("double")])
    return ModelSignature(inputs=Schema(columns), outputs=outputs)

"""Publishing: from a learned state to a numbered version, with its run, files and signature."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from headwater.infra.commit_points import reached
from headwater.learners.process_state import ignoring_warnings
from headwater.registry.mlflow_store.connection import MlflowConnection, guarded
from headwater.registry.mlflow_store.owned import PIPELINE_TAG
from headwater.registry.mlflow_store.versions import FILES, RECIPE_TAG, VersionStore, damaged
from headwater.registry.proof import Proof, prove
from headwater.registry.version import Candidate, Version
from headwater.spec.errors import NotFoundError
from headwater.spec.recipe import Recipe

__all__ = ["VersionPublisher"]

_MODEL = Path(__file__).parents[1] / "pyfunc_model.py"
_TYPES = {"float": "double", "int": "long", "str": "string", "bool": "boolean"}


class VersionPublisher:
    """Makes versions of candidates.

    Parameters
    ----------
    connection, store
        MLflow, and the versions that are there.
    """

    def __init__(self, connection: MlflowConnection, store: VersionStore) -> None:
        self._connection = connection
        self._client = connection.client
        self._store = store

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
        IntegrityError
            If MLflow's records name another place for states than the settings.
        StorageError
            If MLflow refuses.
        """
        recipe = Recipe.from_json(candidate.recipe)
        connection = self._connection
        connection.owned.check_place()
        proof = prove(
            connection.key, connection.pipeline, candidate.digest, candidate.state, candidate.recipe
        )
        if (registered := self._store.find(proof.recipe_id)) is not None:
            return registered
        versions: list[Version] = []
        with guarded(connection.settings), self._run(recipe, candidate) as run_id:
            reached("register.before_upload")
            model_id = self._upload(recipe, candidate, proof)
            reached("register.after_upload")
            publish(lambda: versions.append(self._create(recipe, candidate, proof, model_id, run_id)))
            self._keep(versions[0])
            reached("register.after_version")
        return versions[0]

    def _keep(self, version: Version) -> None:
        """Put what MLflow's records say of a version beside its state, in case they are lost."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / FILES["version"]).write_bytes(msgspec.json.encode(version))
            self._client.log_model_artifacts(version.model_id, folder, "artifacts")

    @contextmanager
    def _run(self, recipe: Recipe, candidate: Candidate) -> Iterator[str]:
        """Open a run with its inputs; the run's status says how it ended."""
        import mlflow  # noqa: PLC0415 - heavy

        with mlflow.start_run(
            experiment_id=self._connection.experiment_id,
            run_name=f"{recipe.update} {recipe.examples}",
            nested=True,
            tags={PIPELINE_TAG: self._connection.pipeline, RECIPE_TAG: recipe.id},
        ) as run:
            run_id = str(run.info.run_id)
            self._log_numbers(run_id, recipe, candidate)
            self._log_inputs(run_id, recipe)
            yield run_id

    def _log_numbers(self, run_id: str, recipe: Recipe, candidate: Candidate) -> None:
        from mlflow.entities import Metric, Param  # noqa: PLC0415 - heavy

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
        self._client.log_batch(
            run_id,
            params=[Param(name, str(value)) for name, value in params.items()],
            metrics=[Metric(name, value, at_ms, 0) for name, value in numbers.items()],
        )

    def _log_inputs(self, run_id: str, recipe: Recipe) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput  # noqa: PLC0415

        pipeline, storage = self._connection.pipeline, self._connection.settings.storage_uri
        dataset = Dataset(
            name=f"{pipeline} examples {recipe.examples}",
            digest=recipe.id[:32],
            source_type="delta_table",
            source=f'{{"path": "{storage}/tables/{pipeline}/examples"}}',
        )
        parent = None
        with suppress(NotFoundError):  # the parent of a version of a lost MLflow may be lost
            parent = None if recipe.parent is None else self._store.remembered(recipe.parent)
        self._client.log_inputs(
            run_id,
            datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])],
            models=None if parent is None else [LoggedModelInput(parent.model_id)],
        )

    def _upload(self, recipe: Recipe, candidate: Candidate, proof: Proof) -> str:
        import mlflow  # noqa: PLC0415 - heavy

        files = {
            "state": candidate.state,
            "recipe": candidate.recipe,
            "proof": msgspec.json.encode(proof),
            "code": recipe.learner.source.encode(),
        }
        # MLflow remarks on type hints that a schema replaces.
        with tempfile.TemporaryDirectory() as folder, ignoring_warnings(UserWarning, "mlflow"):
            paths = {name: Path(folder) / FILES[name] for name in files}
            for name, path in paths.items():
                path.write_bytes(files[name])
            info = mlflow.pyfunc.log_model(
                name=self._connection.pipeline,
                python_model=str(_MODEL),
                artifacts={name: str(path) for name, path in paths.items()},
                signature=_signature(recipe),
                pip_requirements=[f"{name}=={v}" for name, v in sorted(recipe.libraries.items())],
                tags={RECIPE_TAG: proof.recipe_id, "headwater.digest": proof.digest},
            )
        return str(info.model_id)

    def _create(
        self, recipe: Recipe, candidate: Candidate, proof: Proof, model_id: str, run_id: str
    ) -> Version:
        version = Version(
            pipeline=self._connection.pipeline,
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
        self._connection.owned.name_model()
        entry = self._client.create_model_version(
            self._connection.pipeline,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=version.tags() | {"headwater.signature": proof.signature},
            model_id=model_id,  # a server holds it against the source
        )
        registered = self._store.read(entry)
        if registered is None:
            raise damaged(version)
        return registered


def _signature(recipe: Recipe) -> Any:
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    columns: list[Any] = [
        ColSpec(_TYPES[f.dtype], f.name, required=not f.nullable) for f in recipe.features
    ]
    outputs = None if recipe.task == "multiclass" else Schema([ColSpec("double")])
    return ModelSignature(inputs=Schema(columns), outputs=outputs)

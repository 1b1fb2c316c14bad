"""The versions whose files are on storage, for an MLflow whose records are lost."""

import msgspec

from headwater.infra.store.storage import Storage
from headwater.registry.mlflow_store.versions import FILES
from headwater.registry.proof import read_proof, verify
from headwater.registry.version import Candidate, Version
from headwater.spec.errors import DigestError, NotFoundError

__all__ = ["KeptVersions", "keep_champion"]

_CHAMPION = "champion.json"


def keep_champion(states: Storage, pipeline: str, number: str) -> None:
    """Write down beside the states which version is champion.

    Raises
    ------
    StorageError
        If storage is away, or refuses.
    """
    states.write(msgspec.json.encode({"version": number}), pipeline, _CHAMPION)


class KeptVersions:
    """The files of one pipeline's versions below the root of all states.

    Parameters
    ----------
    artifacts, pipeline, key
        The root, whose, and the signing key.
    """

    def __init__(self, artifacts: Storage, pipeline: str, key: bytes) -> None:
        self._artifacts = artifacts
        self._pipeline = pipeline
        self._key = key

    def list(self) -> list[tuple[Version, str]]:
        """Return what was said of each version, with the folder of its files, by rising number.

        Of a version that was registered anew there may be two folders; one that a killed trainer has
        left says nothing, and is no version.
        """
        found = []
        for below in self._artifacts.names(self._pipeline):
            name = f"{self._pipeline}/{below}"
            folder, _, file = name.rpartition("/")
            if file == FILES["version"] and (version := self._read(name)) is not None:
                found.append((version, folder))
        return sorted(found, key=lambda one: (int(one[0].number), one[1]))

    def champion(self) -> str | None:
        """Return the number of the version that was champion; None if nothing says so."""
        content = self._artifacts.find(self._pipeline, _CHAMPION)
        try:
            return None if content is None else str(msgspec.json.decode(content)["version"])
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            return None

    def candidate(self, version: Version, folder: str) -> Candidate:
        """Return a version to be registered anew, verified under the key.

        Raises
        ------
        DigestError
            If its files are not what was signed under this key.
        NotFoundError
            If one of them is gone.
        """
        state, recipe, proof = (self._file(folder, name) for name in ("state", "recipe", "proof"))
        claimed = read_proof(proof)
        verify(self._key, claimed, self._pipeline, state, recipe)
        if (claimed.digest, claimed.recipe_id) != (version.digest, version.recipe_id):
            raise DigestError(
                f"the files in {self._artifacts.address(folder)} are another version's",
                hint="put an earlier copy of them back, if the storage keeps versions of files",
            )
        return Candidate(
            recipe=recipe,
            state=state,
            digest=version.digest,
            made_at=version.made_at,
            line_started_at=version.line_started_at,
            learned=version.learned,
            train_cpu_s=version.train_cpu_s,
            decision=version.decision,
            report=version.report,
            refused=version.refused,
        )

    def remove(self, folder: str) -> None:
        """Remove the files of a version that was registered anew, with copies of them."""
        self._artifacts.remove(*folder.split("/"))

    def _file(self, folder: str, name: str) -> bytes:
        content = self._artifacts.find(*folder.split("/"), FILES[name])
        if content is None:
            raise NotFoundError(f"{self._artifacts.address(folder, FILES[name])} is gone")
        return content

    def _read(self, name: str) -> Version | None:
        try:
            version = msgspec.json.decode(self._artifacts.read(*name.split("/")), type=Version)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return version if version.pipeline == self._pipeline and version.number.isdecimal() else None

"""The models to serve, as files below the home folder: the keeper writes them, every worker follows.

A worker needs neither MLflow nor the operational database to answer. A small file,
``live/PIPELINE/serving.json``, which is replaced whole, names the verified states beside it. Like every
file of that folder it bears the log's id: files of another log are not served.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

import msgspec

from headwater.features.identity.home_log import HomeLog, OwnedFile
from headwater.infra.settings import Settings
from headwater.infra.store.published_file import replacing
from headwater.learners.learner import Learner
from headwater.registry.proof import Proof
from headwater.registry.restore import restore
from headwater.spec.answering import answering, check_answers
from headwater.spec.data.feature import FeatureKind
from headwater.spec.data.records import FeatureValue, Output
from headwater.spec.errors import DigestError, StorageError
from headwater.spec.pipeline import Pipeline
from headwater.spec.recipe import Recipe
from headwater.spec.serving.bandit import BanditState
from headwater.spec.serving.routing import ChampionOnly, Routing

__all__ = ["Probe", "PublishedModels", "ServedState", "ServingFile", "check_probes"]

_KEPT_STATES = 4


class Probe(msgspec.Struct, frozen=True):
    """Features on which a state is tried before it serves, and its output where it was learned."""

    features: dict[str, FeatureValue]
    output: Output


class ServedState(msgspec.Struct, frozen=True, kw_only=True):
    """A state that is to serve.

    Parameters
    ----------
    version
        Number of the version, or of the one from which the state was learned on.
    role
        Its role.
    name
        Name of its files: a hash of all of them.
    learned_to
        The offset up to which it has learned.
    probes
        Probes whose outputs it must give again.
    isolated
        Why it must predict in a process of its own; empty if it need not.
    features
        What it has learned; empty in a file of before, when it was what is declared.
    """

    version: str
    role: Literal["champion", "challenger"]
    name: str
    learned_to: int
    probes: tuple[Probe, ...] = ()
    isolated: str = ""
    features: tuple[FeatureKind, ...] = ()


class ServingFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``serving.json``.

    Parameters
    ----------
    number
        Rises with every change.
    epoch
        Epoch of the champion's reign.
    states
        The champion first, then the others that the routing lets answer.
    routing
        Decides which of them answers a request.
    challenger
        Number of the version that has the alias.
    shadows
        Numbers of the versions that predict beside the answer; workers do not load them.
    earlier
        The last champions of other features than the champion's, newest first: workers whose declaration
        is theirs go on with them.
    recorded
        The features that the log ever had: no worker may record them with other types.
    bandit
        The bandit's knowledge of the versions, if the routing is a bandit.
    """

    number: int
    epoch: int
    states: tuple[ServedState, ...]
    routing: Routing = ChampionOnly()
    challenger: str | None = None
    shadows: tuple[str, ...] = ()
    earlier: tuple[ServedState, ...] = ()
    recorded: tuple[FeatureKind, ...] = ()
    bandit: BanditState = BanditState()


class _Signed(msgspec.Struct, frozen=True):
    """What the file holds, and its HMAC-SHA256 under the signing key."""

    content: msgspec.Raw
    signature: str


class PublishedModels(OwnedFile[ServingFile]):
    """The file that names the states to serve of one pipeline, and the files of the states.

    Parameters
    ----------
    pipeline, settings
        The pipeline, and the addresses of the home folder and of the signing key.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self._pipeline = pipeline
        self._key = settings.key()
        self.folder = settings.root / "live" / pipeline.name
        hint, home = "start the service again: headwater serve", HomeLog(pipeline.name, settings)
        super().__init__(self.folder / "serving.json", ServingFile, hint, home)

    def encode(self, value: ServingFile) -> bytes:
        """Return what the file holds for a value, signed."""
        content = msgspec.json.encode(value)
        signed = _Signed(msgspec.Raw(content), self._sign(content))
        return self._home.wrap(msgspec.json.encode(signed))

    def decode(self, content: bytes) -> ServingFile:
        """Return the value of what the file holds.

        Raises
        ------
        DigestError
            If its signature does not hold: somebody edited it.
        IdentityError, msgspec.DecodeError
            If it is another log's, or damaged.
        """
        signed = msgspec.json.decode(self._home.unwrap(content, self.path), type=_Signed)
        if not hmac.compare_digest(self._sign(bytes(signed.content)), signed.signature):
            raise DigestError(
                f"{self.path} is not what the keeper published: its signature does not hold",
                hint="do nothing: the keeper publishes it anew",
            )
        return msgspec.json.decode(signed.content, type=ServingFile)

    def _sign(self, content: bytes) -> str:
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()

    def put(self, state: bytes, recipe: bytes, proof: bytes) -> str:
        """Store a signed state; return its name.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        name = hashlib.sha256(proof).hexdigest()[:32]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for kind, content in (("state", state), ("recipe", recipe), ("proof", proof)):
                with replacing(self.folder / f"{name}.{kind}") as draft:
                    draft.write_bytes(content)
        except OSError as error:
            raise StorageError(
                f"no state can be written in {self.folder}: {error.strerror or error}",
                hint="make room on the disk of the home; it is tried again by itself",
            ) from error
        return name

    def publish(self, value: ServingFile) -> None:
        """Replace what is to serve, and remove old states; workers follow within a moment."""
        super().publish(value)
        named = {state.name for state in (*value.states, *value.earlier)}
        proofs = sorted(self.folder.glob("*.proof"), key=lambda file: file.stat().st_mtime_ns)
        for old in [file for file in proofs if file.stem not in named][:-_KEPT_STATES]:
            for file in self.folder.glob(f"{old.stem}.*"):  # its three, and drafts of a killed keeper
                file.unlink(missing_ok=True)

    def load(self, served: ServedState) -> Learner:
        """Verify a state, load it, and try it on its probes.

        Raises
        ------
        DigestError
            If the signature or a hash does not match, in which case nothing is parsed; or if the output
            of a probe differs from that where the state was made.
        NotRebuildableError
            If it was made by another version of its library.
        ChangedError
            If it learned other features than are declared, so that it could answer no request.
        StorageError
            If its files are missing.
        """
        content = self.files(served)
        learner = restore(*content, self._key)
        self.check_learned(content, served)
        outputs = [learner.predict_one(probe.features) for probe in served.probes]
        check_probes(self._pipeline.name, served.version, served.probes, outputs)
        return learner

    def files(self, served: ServedState) -> tuple[bytes, bytes, bytes]:
        """Read the state, the recipe and the proof of a published state; only the proof is parsed.

        Raises
        ------
        DigestError
            If the state is another pipeline's.
        StorageError
            If its files are missing.
        """
        try:
            state, recipe, proof = (
                (self.folder / f"{served.name}.{kind}").read_bytes()
                for kind in ("state", "recipe", "proof")
            )
        except OSError as error:
            raise StorageError(
                f"the state of version {served.version} is gone from {self.folder}: {error}",
                hint="start the service again: headwater serve",
            ) from error
        _check_owner(proof, self._pipeline.name)
        return state, recipe, proof

    def check_learned(self, content: tuple[bytes, bytes, bytes], served: ServedState) -> None:
        """Check that a state whose signature holds has learned the task, and what it was published for.

        Raises
        ------
        ChangedError
            If it has learned others.
        """
        pipeline, version = self._pipeline, served.version
        declared = answering(pipeline, served.features, version) if served.features else pipeline
        check_answers(Recipe.from_json(content[1]), declared, version)


def check_probes(
    pipeline: str, version: str, probes: Sequence[Probe], outputs: Sequence[Output | None]
) -> None:
    """Compare what a version gives for its probes with what it gave where it was made.

    Raises
    ------
    DigestError
        If an output differs.
    """
    for probe, output in zip(probes, outputs, strict=True):
        if output is None or not _alike(output, probe.output):
            raise DigestError(
                f"version {version} of {pipeline!r} gives {output} for a probe, "
                f"and gave {probe.output} where it was made",
                hint="compare the installed libraries with the recipe's: headwater doctor",
            )


def _check_owner(proof: bytes, pipeline: str) -> None:
    try:
        claimed = msgspec.json.decode(proof, type=Proof)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DigestError("a proof cannot be read", hint="promote the version again") from error
    if claimed.pipeline != pipeline:
        raise DigestError(
            f"a state of {claimed.pipeline!r} was offered to {pipeline!r}",
            hint="promote a version of this pipeline",
        )


def _alike(first: Output, second: Output) -> bool:
    if isinstance(first, dict) or isinstance(second, dict):
        return (
            isinstance(first, dict)
            and isinstance(second, dict)
            and first.keys() == second.keys()
            and all(_alike(first[name], second[name]) for name in first)
        )
    return abs(first - second) <= 1e-9 * max(1.0, abs(first), abs(second))

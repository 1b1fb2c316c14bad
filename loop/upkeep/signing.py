"""Another signing key: every state is signed anew, or folded anew where the old key is lost.

Nothing is unpickled before its signature holds under the old key or the new one.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
from pydantic import SecretStr

from headwater.features.log import FeatureLog
from headwater.features.read.repository import find, registered
from headwater.infra.settings import Settings
from headwater.infra.store.database import Database
from headwater.infra.store.identity import identity_of
from headwater.infra.store.published_file import replacing
from headwater.loop.rebuild import check_libraries, declared_by
from headwater.loop.training.fold import fold
from headwater.loop.upkeep.manifest import Told
from headwater.loop.upkeep.places import ARTIFACTS, names_in, storages_of
from headwater.loop.upkeep.use import home_alone
from headwater.registry.mlflow_store.connection import MlflowConnection, guarded
from headwater.registry.mlflow_store.versions import FILES, VersionStore, folder_of
from headwater.registry.proof import is_signed_by, prove, read_proof, signed
from headwater.registry.version import Version
from headwater.spec.errors import DigestError, HeadwaterError, NotFoundError
from headwater.spec.recipe import Recipe

__all__ = ["RenewedStates", "SignedStates", "renew_states", "rotate_key"]

_NEW = "signing.key.new"
_TAG = "headwater.signature"


class SignedStates(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a rotation.

    Parameters
    ----------
    signed, already
        How many states were signed anew, and how many a rotation that was interrupted had signed.
    refused
        Those whose signature held under neither key, as before: they stay refused.
    key_file
        Where the new key is.
    by_settings
        Whether the old key came from ``HEADWATER_SIGNING_KEY``, which must be changed to the new one.
    """

    signed: int
    already: int
    refused: tuple[str, ...]
    key_file: str
    by_settings: bool


class RenewedStates(msgspec.Struct, frozen=True, kw_only=True):
    """The result of folding states anew under another key.

    Parameters
    ----------
    folded, held
        The versions that were folded, and those whose signature held.
    left
        Those that could not be, with the reason of each; they stay refused.
    """

    folded: tuple[str, ...]
    held: tuple[str, ...]
    left: dict[str, str]


def rotate_key(settings: Settings, told: Told = lambda *_: None) -> SignedStates:
    """Draw another signing key, and sign every state with it; what was interrupted is resumed.

    Raises
    ------
    BusyError
        If a service or a trainer uses a pipeline of the home.
    NotFoundError
        If there is no key yet.
    StorageError
        If a state's proof cannot be read or written; a later call goes on.
    """
    if not settings.has_key:
        raise NotFoundError("there is no signing key yet", hint="it is made when it is first needed")
    with home_alone(settings):
        old, path = settings.key(), settings.root / _NEW
        new = _drawn(path)
        counts = {"signed": 0, "already": 0}
        refused: list[str] = []
        for name, outcome in _sign_all(settings, old, new, told):
            if outcome in counts:
                counts[outcome] += 1
            else:
                refused.append(name)
        _set_tags(settings, new)
        by_settings = settings.signing_key is not None
        if not by_settings:
            path = path.replace(settings.root / "signing.key")
        return SignedStates(
            **counts, refused=tuple(refused), key_file=str(path), by_settings=by_settings
        )


def renew_states(pipeline: str, settings: Settings, told: Told = lambda *_: None) -> RenewedStates:
    """Fold every state again whose signature does not hold, from its recipe, and sign it with the key.

    For a key that is lost. A recipe holds code, which is run, and no signature vouches for it now: only
    its hash in MLflow does, and the digest that the state must reach.

    Raises
    ------
    NotFoundError
        If nothing was recorded for the pipeline.
    StorageError
        If a store is away; a later call goes on.
    """
    folded, held, left = [], [], {}
    with closing(Database(settings.operational_url)) as database:
        identity = identity_of(database, find(database, pipeline, settings))
        connection = MlflowConnection(identity, settings)
        store = VersionStore(connection)
        versions = store.versions()
        for number, version in enumerate(versions, 1):
            try:
                store.verified_files(version)
                held.append(version.number)
            except DigestError:
                try:
                    _renew(connection, store, version, database)
                    folded.append(version.number)
                except HeadwaterError as error:
                    left[version.number] = error.what
            told(f"folding {pipeline}", number, len(versions))
    return RenewedStates(folded=tuple(folded), held=tuple(held), left=left)


def _renew(
    connection: MlflowConnection, store: VersionStore, version: Version, database: Database
) -> None:
    """Fold a version again from its parent, whose signature holds already, and replace its files."""
    text, settings = store.unverified(version, "recipe"), connection.settings
    if hashlib.sha256(text).hexdigest() != version.recipe_id:
        raise DigestError(
            f"the recipe of version {version.number} is not the one that was registered",
            hint="restore it from a backup",
        )
    recipe = Recipe.from_json(text)
    check_libraries(version, recipe)
    parent = None if recipe.parent is None else store.learner(store.get(recipe.parent))
    with closing(FeatureLog(declared_by(recipe), settings, database=database)) as log:
        learner, _ = fold(recipe, log, parent)
    if learner.digest() != version.digest:
        raise DigestError(
            f"version {version.number} was folded to another digest than the registered one",
            hint="fold it where it was made: with the same libraries, on the same kind of machine",
        )
    state = learner.dump()
    proof = prove(settings.key(), version.pipeline, version.digest, state, text)
    artifacts, below = storages_of(settings)[ARTIFACTS], folder_of(connection, version)
    artifacts.write(state, *below, FILES["state"])
    artifacts.write(msgspec.json.encode(proof), *below, FILES["proof"])


def _drawn(path: Path) -> bytes:
    """Return the key that a rotation goes to, which a first call draws and keeps."""
    if not path.exists():
        with (
            replacing(path) as draft,
            os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
        ):
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
    return path.read_bytes()


def _sign_all(settings: Settings, old: bytes, new: bytes, told: Told) -> Iterator[tuple[str, str]]:
    """Sign every proof anew, in storage and for the workers; yield each one's name and outcome."""
    storages = storages_of(settings)
    with closing(Database(settings.operational_url)) as database:
        names = names_in(storages, registered(database))[ARTIFACTS]
    artifacts = storages[ARTIFACTS]
    names = [name for name in names if name.rpartition("/")[2] == FILES["proof"]]
    for number, name in enumerate(names, 1):
        again, outcome = _signed_again(artifacts.read(*name.split("/")), old, new)
        if again is not None:
            artifacts.write(again, *name.split("/"))
        told("signing", number, len(names))
        yield name, outcome
    for path in sorted((settings.root / "live").glob("*/*.proof")):
        again, _ = _signed_again(path.read_bytes(), old, new)
        if again is not None:
            with replacing(path) as draft:
                draft.write_bytes(again)


def _signed_again(text: bytes, old: bytes, new: bytes) -> tuple[bytes | None, str]:
    """Return a proof signed with another key, if it was signed with the old one."""
    try:
        proof = read_proof(text)
    except DigestError:
        return None, "refused"
    if is_signed_by(new, proof):
        return None, "already"
    if not is_signed_by(old, proof):
        return None, "refused"
    return msgspec.json.encode(signed(new, proof)), "signed"


def _set_tags(settings: Settings, key: bytes) -> None:
    """Put the new signatures into the registry, where people see them."""
    with_new = settings.model_copy(update={"signing_key": SecretStr(key.decode())})
    with closing(Database(settings.operational_url)) as database:
        for pipeline, number in registered(database).items():
            connection = MlflowConnection(identity_of(database, number), with_new)
            store = VersionStore(connection)
            for version in store.versions():
                with suppress(DigestError):  # one that is damaged stays as it is
                    signature = read_proof(store.unverified(version, "proof")).signature
                    with guarded(settings):
                        client = connection.client
                        client.set_model_version_tag(pipeline, version.number, _TAG, signature)

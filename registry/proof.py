"""What proves that a stored state is the one that was registered: a keyed hash over all of it."""

import hashlib
import hmac

import msgspec

from headwater.spec.errors import DigestError

__all__ = ["Proof", "prove", "verify"]


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names a state, and signs it.

    Parameters
    ----------
    pipeline
        What it is the state of.
    recipe_id
        Hash of the recipe's text, which holds code that a rebuild runs.
    digest
        Hash of the state's canonical form: what a rebuild must reach.
    state_sha256
        Hash of the stored bytes: what is checked before anything is parsed.
    signature
        HMAC-SHA256 (RFC 2104) of the other fields under the signing key.
    """

    pipeline: str
    recipe_id: str
    digest: str
    state_sha256: str
    signature: str = ""


def prove(key: bytes, pipeline: str, digest: str, state: bytes, recipe: bytes) -> Proof:
    """Sign a state with its recipe.

    Parameters
    ----------
    key
        The signing key.
    pipeline
        Name of the pipeline.
    digest
        Of the state's canonical form.
    state, recipe
        The bytes that are stored.
    """
    proof = Proof(
        pipeline=pipeline,
        recipe_id=hashlib.sha256(recipe).hexdigest(),
        digest=digest,
        state_sha256=hashlib.sha256(state).hexdigest(),
    )
    return msgspec.structs.replace(proof, signature=_sign(key, proof))


def verify(key: bytes, proof: Proof, pipeline: str, state: bytes | None, recipe: bytes) -> None:
    """Refuse a state that is not what was registered. Nothing of it is parsed.

    Parameters
    ----------
    key, proof, pipeline
        The signing key, what the version claims, and whose version it must be.
    state, recipe
        The stored bytes; a state of None verifies the recipe alone.

    Raises
    ------
    DigestError
        If the signature or a hash does not hold.
    """
    unsigned = msgspec.structs.replace(proof, signature="")
    what = None
    if not hmac.compare_digest(_sign(key, unsigned), proof.signature):
        what = "its signature does not hold under this signing key"
    elif proof.pipeline != pipeline:
        what = f"it was made for pipeline {proof.pipeline!r}"
    elif state is not None and hashlib.sha256(state).hexdigest() != proof.state_sha256:
        what = "its bytes are not those that were registered"
    elif hashlib.sha256(recipe).hexdigest() != proof.recipe_id:
        what = "its recipe is not the one that was registered"
    if what is not None:
        raise DigestError(
            f"the state of pipeline {pipeline!r} is refused: {what}",
            hint="rebuild it from the log with headwater rebuild, or roll back; if the key was "
            "changed, set HEADWATER_SIGNING_KEY to the one that signed it",
        )


def _sign(key: bytes, proof: Proof) -> str:
    return hmac.new(key, msgspec.json.encode(proof, order="deterministic"), hashlib.sha256).hexdigest()

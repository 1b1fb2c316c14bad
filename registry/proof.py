"""The proof that a stored state is the registered one: a keyed hash over all of it."""

import hashlib
import hmac

import msgspec

from headwater.spec.errors import DigestError

__all__ = ["Proof", "is_signed_by", "prove", "read_proof", "signed", "verify"]


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names a state, and signs it.

    Parameters
    ----------
    pipeline
        The pipeline of the state.
    recipe_id
        Hash of the recipe's text, which holds code that a rebuild runs.
    digest
        Hash of the state's canonical form, which a rebuild must reach.
    state_sha256
        Hash of the stored bytes, checked before anything is parsed.
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
    return signed(key, proof)


def signed(key: bytes, proof: Proof) -> Proof:
    """Return a proof with the signature of a key."""
    return msgspec.structs.replace(proof, signature=_sign(key, _unsigned(proof)))


def read_proof(text: bytes) -> Proof:
    """Read a stored proof, whose signature is not checked yet.

    Raises
    ------
    DigestError
        If it cannot be read.
    """
    try:
        return msgspec.json.decode(text, type=Proof)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DigestError(
            "a version's proof cannot be read", hint="rebuild it from the log with headwater rebuild"
        ) from error


def is_signed_by(key: bytes, proof: Proof) -> bool:
    """Return whether a key signed a proof; whether it is of the state beside it is not checked."""
    return hmac.compare_digest(_sign(key, _unsigned(proof)), proof.signature)


def verify(key: bytes, proof: Proof, pipeline: str, state: bytes | None, recipe: bytes) -> None:
    """Refuse a state that is not the registered one, without parsing it.

    Parameters
    ----------
    key, proof, pipeline
        The signing key, the version's proof, and the pipeline that it must belong to.
    state, recipe
        The stored bytes; a state of None verifies the recipe alone.

    Raises
    ------
    DigestError
        If the signature or a hash does not hold.
    """
    reason = None
    if not is_signed_by(key, proof):
        reason = "its signature does not hold under this signing key"
    elif proof.pipeline != pipeline:
        reason = f"it was made for pipeline {proof.pipeline!r}"
    elif state is not None and hashlib.sha256(state).hexdigest() != proof.state_sha256:
        reason = "its bytes are not those that were registered"
    elif hashlib.sha256(recipe).hexdigest() != proof.recipe_id:
        reason = "its recipe is not the one that was registered"
    if reason is not None:
        raise DigestError(
            f"the state of pipeline {pipeline!r} is refused: {reason}",
            hint="rebuild it from the log with headwater rebuild, or roll back; if the key was "
            "changed, set HEADWATER_SIGNING_KEY to the key that signed it (headwater signing-key rotate "
            "goes on if it was interrupted; headwater signing-key renew is for a key that is lost)",
        )


def _unsigned(proof: Proof) -> Proof:
    return msgspec.structs.replace(proof, signature="")


def _sign(key: bytes, proof: Proof) -> str:
    return hmac.new(key, msgspec.json.encode(proof, order="deterministic"), hashlib.sha256).hexdigest()

"""The signed states of a folder: whether a key signed them."""

from pathlib import Path

from headwater.registry.proof import is_signed_by, read_proof
from headwater.spec.errors import DigestError

__all__ = ["check_key"]

_PROOF = "proof.json"


def check_key(key: bytes, folder: Path) -> None:
    """Refuse a key that signed none of the states below a folder; one that holds no state passes.

    Raises
    ------
    DigestError
        If no proof's signature holds.
    """
    proofs = 0
    for path in folder.rglob(_PROOF):
        proofs += 1
        try:
            if is_signed_by(key, read_proof(path.read_bytes())):
                return
        except DigestError:
            continue
    if proofs:
        raise DigestError(
            f"this signing key signed none of the {proofs} states that are there",
            hint="set HEADWATER_SIGNING_KEY to the key that signed them; if it is lost, see "
            '"The signing key is lost" in docs/stores.md',
        )

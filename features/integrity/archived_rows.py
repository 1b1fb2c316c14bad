"""Records of the archive as rows of the database, with their payloads written again."""

from collections.abc import Mapping
from typing import Any

import msgspec

from headwater.features.sequence.join_records import NewLabel, NewPrediction
from headwater.infra.clock import from_us
from headwater.spec.data.checksum import payload_crc
from headwater.spec.data.feature import Dtype
from headwater.spec.data.label import class_digest
from headwater.spec.declaration import Declaration

__all__ = ["label_of", "prediction_of"]

_ENCODER = msgspec.json.Encoder()


def prediction_of(
    row: Mapping[str, Any],
    declarations: Mapping[int, Declaration],
    columns: Mapping[tuple[str, Dtype], str],
) -> NewPrediction:
    """Return a prediction's row with its payload: the features of its declaration, without defaults.

    Parameters
    ----------
    row
        Of the archive.
    declarations, columns
        What records were recorded under, by number, and the columns that their features are stored in.
    """
    number = row["recorded_by"]
    declaration = declarations[min(declarations) if number is None else number]
    features = {f.name: row["features"][columns[f.name, f.dtype]] for f in declaration.features}
    output = row["output"]
    payload = {
        "id": row["prediction_id"],
        "features": features,
        "output": msgspec.Raw(output.encode()) if isinstance(output, str) else output,
        "served_at": from_us(row["served_at"]),
    }
    told = {
        "version": row["version"] or None,
        "role": None if row["role"] == "champion" else row["role"],
        "propensity": None if row["propensity"] == 1.0 else row["propensity"],
        "entity": None if row["entity"] in {None, "{}"} else msgspec.Raw(row["entity"].encode()),
        "ages_s": None if row["ages_s"] is None else msgspec.Raw(row["ages_s"].encode()),
        "due_at": None if row["due_at"] is None else from_us(row["due_at"]),
    }
    text = _ENCODER.encode(payload | {k: v for k, v in told.items() if v is not None})
    crc = payload_crc(text)
    return NewPrediction(row["position"], row["prediction_id"], row["recorded_at"], text, crc, number)


def label_of(row: Mapping[str, Any], prediction: int | None) -> NewLabel:
    """Return a label's row; a prediction at a later position was not known to it."""
    known = prediction is not None and prediction < row["position"]
    payload = {
        "prediction_id": row["prediction_id"],
        "value": row["label"],
        "known_at": from_us(row["known_at"]),
    }
    told = {
        "source": None if row["source"] == "natural" else row["source"],
        "key": row["key"],
        "by": row["by"] or ("" if row["source"] == "timeout" else None),  # as the timeout writes it
        "on_receipt": row["on_receipt"] or None,
        "instead_of": row["instead_of"],
    }
    text = _ENCODER.encode(payload | {k: v for k, v in told.items() if v is not None})
    return NewLabel(
        row["position"],
        prediction if known else None,
        None if known else row["prediction_id"],
        row["revision"],
        row["received_at"],
        row["late"],
        text,
        class_digest(str(row["label"])) if row["held"] else None,
        payload_crc(text),
    )

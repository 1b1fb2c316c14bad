"""Opening of the storages that the settings name."""

from headwater.infra.settings import Settings
from headwater.infra.store.local_storage import LocalStorage
from headwater.infra.store.s3_storage import S3Storage
from headwater.infra.store.storage import Storage

__all__ = ["open_storage", "states_of"]


def open_storage(settings: Settings) -> Storage:
    """Return the storage of the settings: a bucket if its address begins with ``s3://``, or a folder."""
    kind = S3Storage if settings.storage_uri.startswith("s3://") else LocalStorage
    return kind(settings.storage_uri, settings.s3_endpoint)


def states_of(settings: Settings) -> Storage | None:
    """Return the storage of the versions' states; None if it is neither a folder nor on S3."""
    place = settings.artifact_uri.removeprefix("file://").rstrip("/")
    if place.startswith("s3://"):
        return S3Storage(place, settings.s3_endpoint)
    return LocalStorage(place, None) if place.startswith("/") else None

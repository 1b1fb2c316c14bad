"""The settings as environment variables, for processes that work on the same stores."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from headwater.infra.settings import Settings
from headwater.infra.settings import settings as read_settings

__all__ = ["environment", "within"]


def environment(settings: Settings, *, secrets: bool) -> dict[str, str]:
    """Return the ``HEADWATER_*`` variables that lead another process to the same stores.

    Parameters
    ----------
    settings
        Where the stores are; folders become absolute paths.
    secrets
        Whether to return the signing key, and addresses that hold a password. Otherwise a process must
        have them in its own environment.

    Examples
    --------
    >>> away = Settings(home="/tmp", mlflow_uri="https://me:secret@models.example", signing_key="k")
    >>> environment(away, secrets=False)
    {'HEADWATER_HOME': '/tmp'}
    """
    values = {
        "home": str(settings.root),
        "storage": settings.storage and settings.storage_uri,
        "database_url": settings.database_url,
        "mlflow_uri": settings.mlflow_uri,
        "artifacts": settings.artifacts,
        "s3_endpoint": settings.s3_endpoint,
    }
    if secrets and settings.signing_key is not None:
        values["signing_key"] = settings.signing_key.get_secret_value()
    return {
        f"HEADWATER_{name.upper()}": value
        for name, value in values.items()
        if value and (secrets or not _has_password(value))
    }


@contextmanager
def within(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, read the settings again, and restore all at the end."""
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    read_settings.cache_clear()
    try:
        yield
    finally:
        for name, value in previous.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        read_settings.cache_clear()


def _has_password(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.password) or "password" in parts.query.lower()

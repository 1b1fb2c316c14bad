"""The settings, read once from the environment, prefix ``HEADWATER_``."""

import grp
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from headwater.infra.same_origin import Host, parse_hosts
from headwater.spec.errors import DeclarationError, IntegrityError, StorageError

__all__ = ["RESTORING", "Settings", "settings"]

RESTORING = "restoring"
"""The file that marks a home as not restored as a whole yet."""


_OF_GROUP = 0o2770  # what is made in it is of its group, too
_NOT_IN_A_PATH = frozenset("%#?\\[]^|")
"""SQLite's addresses, MLflow or Delta take these as something else: another file would be opened."""


def _check_path(path: Path) -> None:
    name = str(path.expanduser().resolve())
    taken = sorted({char for char in name if char in _NOT_IN_A_PATH or not char.isprintable()})
    if taken:
        raise ValueError(
            f"the path {name!a} holds {' '.join(map(ascii, taken))}, which its stores cannot have "
            "in their address: take a folder without % # ? \\ [ ] ^ | and control characters"
        )


def _number_of_group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ValueError(f"there is no group {name!r} on this machine") from error


class Settings(BaseSettings):
    """The settings; the variable of each is its name in capitals after ``HEADWATER_``.

    Parameters
    ----------
    home
        Folder of all that is local: inbox, databases, keys, logs.
    storage
        Where the tables go: a folder or ``s3://bucket/prefix``; below `home` if not given.
    database_url
        SQLAlchemy address of the operational database; SQLite below `home` if not given.
    mlflow_uri
        MLflow's tracking address; SQLite below `home` if not given.
    artifacts
        Where MLflow keeps states; below `storage` if not given.
    s3_endpoint
        Address of an S3 service other than Amazon's.
    signing_key
        Secret that signs states; made once below `home` if not given.
    now
        A present that stands still, with a zone, to work on what was replayed; the machine's clock
        if not given.
    log
        How the service writes its log: ``text``, or ``json``, one line a record.
    otel
        Whether traces are sent, as OpenTelemetry's own ``OTEL_*`` variables say.
    hosts
        Hosts, besides loopback, by which the service, Prefect and MLflow are asked where they need no
        key: ``shop.example,10.0.0.7:8000``.
    api_key
        The key that clients send to the service; not given, the operator's of the home where it is
        needed, and none elsewhere.
    group
        A group of the machine that may read and write a new home, too; its owner alone if not given.
    """

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_", frozen=True, extra="forbid", validate_default=True
    )

    home: Path = Path(".headwater")
    storage: str | None = None
    database_url: str | None = None
    mlflow_uri: str | None = None
    artifacts: str | None = None
    s3_endpoint: str | None = None
    signing_key: SecretStr | None = None
    now: AwareDatetime | None = None
    log: Literal["text", "json"] = "text"
    otel: bool = False
    hosts: str = ""
    api_key: SecretStr | None = None
    group: str = ""

    @field_validator("home")
    @classmethod
    def _check_home(cls, home: Path) -> Path:
        _check_path(home)
        return home

    @field_validator("storage", "artifacts")
    @classmethod
    def _check_folder(cls, address: str | None) -> str | None:
        if address is not None and "://" not in address:
            _check_path(Path(address))
        return address

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, hosts: str) -> str:
        parse_hosts(hosts)
        return hosts

    @field_validator("group")
    @classmethod
    def _check_group(cls, group: str) -> str:
        if group:
            _number_of_group(group)
        return group

    @property
    def root(self) -> Path:
        """The home folder as an absolute path; made if it is missing, for its owner or group alone.

        Raises
        ------
        IntegrityError
            If a backup is being restored into it, or that was interrupted.
        StorageError
            If it cannot be made.
        """
        root = self.place
        if (root / RESTORING).exists():
            raise IntegrityError(
                f"the home {root} is not whole: a backup is being restored, or that was interrupted",
                hint="wait for it to end; if it was killed, remove the folder, and restore again",
            )
        if not root.is_dir():
            try:
                self._make(root)
            except OSError as error:
                raise StorageError(
                    f"cannot make the home {root}: {error.strerror or error}",
                    hint="set HEADWATER_HOME to a folder that can be written",
                ) from error
        return root

    def _make(self, root: Path) -> None:
        root.parent.mkdir(parents=True, exist_ok=True)
        try:
            root.mkdir(mode=0o700)
        except FileExistsError:
            if not root.is_dir():  # else another process made it just now
                raise
            return
        if self.group:
            os.chown(root, -1, _number_of_group(self.group))
            root.chmod(_OF_GROUP)

    @property
    def place(self) -> Path:
        """The home folder as an absolute path, which need not be there."""
        return self.home.expanduser().resolve()

    @property
    def withheld(self) -> int:
        """The rights that new files do not give, as ``os.umask`` takes them."""
        return 0o007 if self.group else 0o077

    @property
    def storage_uri(self) -> str:
        """The place of the tables: an absolute path or ``s3://bucket/prefix``, without a last slash."""
        if self.storage is None:
            return str(self.root / "storage")
        if self.storage.startswith("s3://"):
            return self.storage.rstrip("/")
        return str(Path(self.storage).expanduser().resolve())

    @property
    def operational_url(self) -> str:
        """SQLAlchemy address of the operational database."""
        return self.database_url or f"sqlite:///{self.root / 'headwater.sqlite'}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking address."""
        return self.mlflow_uri or f"sqlite:///{self.root / 'mlflow.sqlite'}"

    @property
    def artifact_uri(self) -> str:
        """The place where MLflow keeps states and recipes."""
        if self.artifacts is not None:
            return self.artifacts
        uri = self.storage_uri
        return f"{uri}/mlflow" if uri.startswith("s3://") else f"file://{uri}/mlflow"

    @property
    def served_hosts(self) -> frozenset[Host]:
        """The hosts, besides loopback, that servers without keys answer to."""
        return parse_hosts(self.hosts)

    @property
    def has_key(self) -> bool:
        """Whether there is a signing key already."""
        return self.signing_key is not None or (self.place / "signing.key").exists()

    def key(self) -> bytes:
        """Return the secret that signs states; made on first use, readable by its owner alone."""
        if self.signing_key is not None:
            return self.signing_key.get_secret_value().encode()
        path = self.root / "signing.key"
        if not path.exists():
            made = path.with_name(f"signing.key.{secrets.token_hex(8)}")
            with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_hex(32).encode())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(made, path)  # whole or not at all; the first of several makers wins
            made.unlink()
        key = path.read_bytes()
        if not key:
            raise DeclarationError(
                f"the signing key {path} is empty",
                hint="restore it, or set HEADWATER_SIGNING_KEY to the key that signed the states",
            )
        return key


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Read the settings from the environment, once.

    Raises
    ------
    DeclarationError
        If a variable does not fit.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "HEADWATER_" + "_".join(str(part) for part in first["loc"]).upper()
        raise DeclarationError(
            f"{name}: {first['msg'].removeprefix('Value error, ')}", hint=f"correct or unset {name}"
        ) from error

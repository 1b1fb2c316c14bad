"""The key that a client's requests bear: the caller's, the environment's, or the one of the home."""

import httpx

from headwater.infra.operator_key import read_operator_key
from headwater.infra.same_origin import Host
from headwater.infra.settings import settings
from headwater.serving.api.operation import Operation
from headwater.spec.errors import SchemaError

__all__ = ["Credentials"]

_DIRECT = {"http://": None, "https://": None}


class Credentials:
    """The key of a client's requests.

    Without a key of the caller or the environment, what operates bears the key of the home, which
    ``headwater up`` made, if the service is on this machine. No other request does, so labels have no
    other name than they had; and no proxy is asked, so the key does not leave the machine.

    Parameters
    ----------
    address
        Address of the service.
    key
        The caller's key; if not given, ``HEADWATER_API_KEY``.

    Attributes
    ----------
    mounts
        Transports that httpx takes instead of the proxies of the environment.

    Raises
    ------
    SchemaError
        If the key is none.
    """

    def __init__(self, address: str, key: str | None) -> None:
        given = settings().api_key
        self._key = key if key is not None or given is None else given.get_secret_value() or None
        if self._key is not None and not _is_key(self._key):
            raise SchemaError(
                "key: it is not a key that the service made", hint="headwater keys add makes one"
            )
        self._is_local = self._key is None and _is_this_machine(httpx.URL(address).host)
        self.mounts: dict[str, None] = _DIRECT if self._is_local else {}

    def headers(self, operation: Operation[object, object]) -> dict[str, str]:
        """Return the header that bears the key; none if the request goes without."""
        key = self._key
        if self._is_local and "operate" in operation.scopes:
            key = read_operator_key(settings())  # each time: it may be another by now
        return {} if key is None else {"authorization": f"Bearer {key}"}


def _is_key(text: str) -> bool:
    return text.isascii() and text.isprintable() and text == text.strip()


def _is_this_machine(name: str) -> bool:
    """Return whether a name is a loopback address; names below localhost are up to the name server."""
    host = Host.parse(f"[{name}]" if ":" in name else name)
    return host is not None and host.is_loopback and not host.name.endswith(".localhost")

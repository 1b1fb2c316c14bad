"""The same-origin rule of servers without keys: requests for this machine, from their own pages alone.

A browser sends what any page asks of it, to loopback, too. Two lines of a request tell:

- **Host.** A page's owner can point the page's own name at 127.0.0.1 (DNS rebinding). For the browser,
  the request then goes to where the page came from; only its Host still bears the foreign name.
- **Origin and Sec-Fetch-Site.** A browser says there which page a request comes from. An image or a link
  bears no Origin; browsers from before 2023 send no Sec-Fetch-Site.

Other programs send neither of the two, and name their Host as they were told to: curl, clients and
scrapers on this machine are let in. The rule ignores the content type: they send any, or none.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from headwater.spec.errors import ForeignRequestError

__all__ = ["Host", "SameOrigin", "parse_hosts"]

_AUTHORITY = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::(?P<port>[0-9]{0,5}))?")
_USUAL_PORTS = {"http": "80", "https": "443"}
_FROM_BROWSERS = (b"origin", b"sec-fetch-site")
_OWN_SITES = (b"none", b"same-origin")  # typed, or from a page of the same scheme, host and port
_MOST_KNOWN = 100
_SHOWN = 100


class Host(NamedTuple):
    """A host as a request or a setting names it.

    Parameters
    ----------
    name
        In lower case, without a last dot.
    port
        Its digits; empty if none is named.
    """

    name: str
    port: str

    @classmethod
    def parse(cls, authority: str) -> "Host | None":
        """Read a name, or an address, with or without a port; None if it is neither.

        >>> Host.parse("LOCALHOST.:8000")
        Host(name='localhost', port='8000')
        >>> Host.parse("me@localhost"), Host.parse("")
        (None, None)
        """
        match = _AUTHORITY.fullmatch(authority.lower())
        return None if match is None else cls(match["name"], match["port"] or "")

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, whatever a name server says.

        >>> [Host(name, "").is_loopback for name in ("localhost", "app.localhost", "127.1.2.3", "[::1]")]
        [True, True, True, True]
        >>> [Host(name, "").is_loopback for name in ("127.0.0.1.evil.example", "0.0.0.0", "[::2]")]
        [False, False, False]
        """
        if self.name == "localhost" or self.name.endswith(".localhost"):
            return True
        try:
            address = ipaddress.ip_address(self.name.strip("[]"))
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback


def parse_hosts(names: str) -> frozenset[Host]:
    """Read the hosts of a setting, as in ``shop.example,10.0.0.7:8000``; one without a port is for any.

    Raises
    ------
    ValueError
        If one is not a host.

    >>> sorted(parse_hosts("Shop.example, 10.0.0.7:8000"))
    [Host(name='10.0.0.7', port='8000'), Host(name='shop.example', port='')]
    """
    hosts = {name: Host.parse(name) for name in map(str.strip, names.split(",")) if name}
    for name, host in hosts.items():
        if host is None:
            raise ValueError(
                f"{name[:_SHOWN]!r} is not a host: write NAME or NAME:PORT, with commas between"
            )
    return frozenset(host for host in hosts.values() if host is not None)


class _Page(NamedTuple):
    """The origin of a page; its port is always named."""

    scheme: str
    host: Host

    @classmethod
    def parse(cls, origin: bytes) -> "_Page | None":
        scheme, _, authority = origin.decode("latin-1").lower().partition("://")
        host, usual = Host.parse(authority), _USUAL_PORTS.get(scheme)
        if host is None or usual is None:
            return None
        return cls(scheme, host._replace(port=host.port or usual))


class SameOrigin:
    """The rule that refuses requests for other hosts than this machine, or from pages of other servers.

    Parameters
    ----------
    hosts
        Hosts, besides loopback, that the server is reached by, and whose pages may ask it.

    Examples
    --------
    >>> rule = SameOrigin()
    >>> rule.check([(b"host", b"localhost:8000"), (b"user-agent", b"curl")])
    >>> rule.check([(b"host", b"localhost:8000"), (b"origin", b"http://localhost:8000")])
    >>> rule.check([(b"host", b"rebound.example:8000")])
    Traceback (most recent call last):
    headwater.spec.errors.ForeignRequestError: the request is for 'rebound.example:8000', ...
    >>> rule.check([(b"host", b"localhost:8000"), (b"origin", b"null")])
    Traceback (most recent call last):
    headwater.spec.errors.ForeignRequestError: the request comes from a page of 'null'. ...
    >>> rule.check([(b"host", b"localhost:8000"), (b"sec-fetch-site", b"cross-site")])
    Traceback (most recent call last):
    headwater.spec.errors.ForeignRequestError: the request comes from a page elsewhere ...
    """

    def __init__(self, hosts: Iterable[Host] = ()) -> None:
        self._listed = frozenset(hosts)
        self._known: set[bytes] = set()

    def check(self, headers: Sequence[tuple[bytes, bytes]], *, link: bool = False) -> None:
        """Accept a request, or raise.

        A request without Host is let in: no browser sends one.

        Parameters
        ----------
        headers
            Of the request; names in lower case.
        link
            Whether it asks for a page without an effect, to which a link on any page may lead.

        Raises
        ------
        ForeignRequestError
            If it is for another host, or from another's page.
        """
        host = None
        for name, value in headers:  # of every prediction
            if name == b"host":
                if host is not None:
                    raise _several("host")
                host = value
            elif name in _FROM_BROWSERS:
                self._check_page(headers, link)
                return
        if host is not None and host not in self._known:
            self._check_host(host)

    def lists_page(self, origin: bytes) -> bool:
        """Return whether an origin is a page of a listed host.

        >>> rule = SameOrigin(parse_hosts("shop.example, localhost:3000"))
        >>> [rule.lists_page(b"http://" + host) for host in (b"shop.example:8080", b"localhost:3000")]
        [True, True]
        >>> [rule.lists_page(origin) for origin in (b"null", b"http://localhost", b"shop.example")]
        [False, False, False]
        """
        page = _Page.parse(origin)
        return page is not None and self._lists(page.host)

    def _check_host(self, value: bytes) -> None:
        host = Host.parse(value.decode("latin-1"))
        if host is None or not (host.is_loopback or self._lists(host)):
            name = "NAME" if host is None else host.name[:_SHOWN]
            raise ForeignRequestError(
                f"the request is for {_shown(value)}, which is not this machine",
                hint=f"ask localhost; to be reached by that name: HEADWATER_HOSTS={name}",
            )
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(value)

    def _check_page(self, headers: Sequence[tuple[bytes, bytes]], link: bool) -> None:
        values = dict(headers)
        if len(values) < len(headers):
            _check_single(headers)
        if b"host" in values:
            self._check_host(values[b"host"])
        if b"origin" in values:
            page = _Page.parse(values[b"origin"])
            if self.lists_page(values[b"origin"]):
                return
            if page is None or page != _Page.parse(b"http://" + values.get(b"host", b"")):
                raise ForeignRequestError(
                    f"the request comes from a page of {_shown(values[b'origin'])}",
                    hint="no other page may ask without a key; if it is your own: HEADWATER_HOSTS",
                )
        site = values.get(b"sec-fetch-site", b"none").lower()
        if site in _OWN_SITES or (link and _follows_link(values)):
            return
        raise ForeignRequestError(
            f"the request comes from a page elsewhere (Sec-Fetch-Site: {_shown(site)})",
            hint="type the address into the browser; no other page may ask without a key",
        )

    def _lists(self, host: Host) -> bool:
        return host in self._listed or host._replace(port="") in self._listed


def _check_single(headers: Sequence[tuple[bytes, bytes]]) -> None:
    for single in (b"host", *_FROM_BROWSERS):
        if sum(name == single for name, _ in headers) > 1:
            raise _several(single.decode())


def _several(name: str) -> ForeignRequestError:
    return ForeignRequestError(f"the request has several lines {name}", hint=f"send one {name}")


def _follows_link(values: Mapping[bytes, bytes]) -> bool:
    """Return whether a browser opens a page in a tab of its own, which no other page can read."""
    mode, aim = values.get(b"sec-fetch-mode"), values.get(b"sec-fetch-dest")
    return b"origin" not in values and (mode, aim) == (b"navigate", b"document")


def _shown(value: bytes) -> str:
    return repr(value[:_SHOWN].decode("latin-1"))

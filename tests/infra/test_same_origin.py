"""The same-origin rule of servers without keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.infra.same_origin import Host, SameOrigin, parse_hosts
from headwater.spec.errors import ForeignRequestError

Headers = list[tuple[bytes, bytes]]
HERE = (
    "localhost",
    "localhost:8000",
    "LocalHost:8000",
    "localhost.",
    "localhost.:8000",
    "localhost:",
    "app.localhost:8000",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.255.3.4:65535",
    "[::1]",
    "[::1]:8000",
    "[0:0:0:0:0:0:0:1]:8000",
    "[::ffff:127.0.0.1]:8000",
)
ELSEWHERE = (
    "",
    " ",
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1.evil.example:8000",
    "10.evil.example",
    "notlocalhost",
    "localhost..",
    "0.0.0.0:8000",
    "10.0.0.7:8000",
    "128.0.0.1",
    "[::]:8000",
    "[::2]",
    "::1",
    "[localhost]",
    "me@localhost:8000",
    "evil.example@localhost",
    "localhost@evil.example",
    "localhost:8000@evil.example",
    "localhost:port",
    "localhost:8000:8000",
    "localhost,evil.example",
    "localhost evil.example",
    "http://localhost:8000",
    "localhost/",
    "localhost\x00",
    "localhost\n",
    "loc\xe4lhost",
    "\u0661".encode().decode("latin-1"),
)


def headers_of(host: str | None = "localhost:8000", **lines: str) -> Headers:
    found = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in lines.items()]
    return found if host is None else [(b"host", host.encode("latin-1")), *found]


def refusal(rule: SameOrigin, headers: Headers, *, link: bool) -> ForeignRequestError | None:
    try:
        rule.check(headers, link=link)
    except ForeignRequestError as error:
        return error
    return None


def let_in(headers: Headers, hosts: str = "", *, link: bool = False) -> bool:
    """Return whether a rule lets a request in; twice, since it knows hosts again that it has seen."""
    rule = SameOrigin(parse_hosts(hosts))
    first, second = (refusal(rule, headers, link=link) for _ in range(2))
    assert str(first) == str(second)
    assert first is None or (first.hint and len(str(first)) < 500)
    return first is None


@pytest.mark.parametrize("host", HERE)
def test_requests_for_this_machine_and_from_its_own_pages_are_accepted(host: str) -> None:
    assert let_in(headers_of(host))
    assert let_in(headers_of(host, sec_fetch_site="none"))
    assert let_in(headers_of(host, sec_fetch_site="same-origin", origin=f"http://{host}"))


@pytest.mark.parametrize("host", ELSEWHERE)
def test_another_host_is_refused_even_from_its_own_page(host: str) -> None:
    assert not let_in(headers_of(host))
    assert not let_in(headers_of(host, sec_fetch_site="same-origin", origin=f"http://{host}"))
    assert not let_in(headers_of(host), "shop.example,10.0.0.8")


def test_a_request_without_host_is_accepted_and_one_with_two_is_refused() -> None:
    assert let_in(headers_of(None))
    assert let_in(headers_of(None, accept="*/*"))
    assert not let_in([*headers_of(), *headers_of()])
    assert not let_in([*headers_of(), *headers_of("evil.example")])
    assert not let_in([*headers_of(origin="http://localhost:8000"), *headers_of("evil.example")])
    assert not let_in(headers_of(None, origin="http://localhost:8000"))


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "https://evil.example:8000",
        "http://localhost",
        "http://localhost:8001",
        "https://localhost:8000",
        "http://127.0.0.1:8000",
        "http://localhost.evil.example:8000",
        "http://app.localhost:8000",
        "http://localhost:8000@evil.example",
        "http://localhost:8000/",
        "http://localhost:8000, http://evil.example",
        "localhost:8000",
        "file://",
        "chrome-extension://localhost:8000",
        "ws://localhost:8000",
    ],
)
def test_a_foreign_origin_is_refused_whatever_the_other_headers(origin: str) -> None:
    for site in ({}, {"sec_fetch_site": "none"}, {"sec_fetch_site": "same-origin"}):
        lines = headers_of(origin=origin, **site)
        assert not let_in(lines)
        assert not let_in(lines[::-1])
        assert not let_in(lines, link=True)
    assert not let_in([*headers_of(origin="http://localhost:8000"), (b"origin", origin.encode())])


@pytest.mark.parametrize("site", ["cross-site", "CROSS-SITE", "same-site", "", "unheard-of"])
def test_a_page_elsewhere_is_refused_by_sec_fetch_site_without_origin(site: str) -> None:
    assert not let_in(headers_of(sec_fetch_site=site))
    assert not let_in(headers_of(sec_fetch_site=site, origin="http://localhost:8000"))
    assert not let_in([*headers_of(sec_fetch_site="none"), (b"sec-fetch-site", site.encode())])


def test_only_a_link_is_followed_from_a_page_elsewhere_and_only_to_a_page() -> None:
    follows = {"sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    for site in ("cross-site", "same-site"):
        lines = headers_of(sec_fetch_site=site, **follows)
        assert let_in(lines, link=True)
        assert not let_in(lines)
        for changed in ({"sec_fetch_dest": "iframe"}, {"sec_fetch_mode": "no-cors"}):
            assert not let_in(headers_of(sec_fetch_site=site, **(follows | changed)), link=True)
        assert not let_in(headers_of("evil.example", sec_fetch_site=site, **follows), link=True)


def test_a_listed_host_and_its_pages_are_accepted() -> None:
    hosts = "Shop.example, 10.0.0.7:8000,[fd00::7],localhost:3000"
    for host in ("shop.example", "SHOP.example:8000", "10.0.0.7:8000", "[fd00::7]:1"):
        assert let_in(headers_of(host), hosts)
        for scheme in ("http", "https") if host.startswith("shop") else ("http",):
            page = f"{scheme}://{host}"
            assert let_in(headers_of(host, origin=page, sec_fetch_site="same-origin"), hosts)
            assert let_in(headers_of(origin=page, sec_fetch_site="cross-site"), hosts)
    assert let_in(headers_of(origin="http://localhost:3000", sec_fetch_site="same-site"), hosts)
    for host in ("10.0.0.7", "10.0.0.7:8001", "a.shop.example", "shop.example.evil.example"):
        assert not let_in(headers_of(host), hosts)
        assert not let_in(headers_of(origin=f"http://{host}"), hosts)
    assert not let_in(headers_of("shop.example", sec_fetch_site="cross-site"), hosts)


@pytest.mark.parametrize(
    "hosts", ["*", "https://shop.example", "shop.example/x", "a b", "*.shop.example"]
)
def test_a_list_that_names_no_hosts_is_refused(hosts: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        parse_hosts(f"good.example,{hosts}")


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_are_accepted_or_refused_without_another_error(host: bytes, origin: bytes) -> None:
    lines = [(b"host", host), (b"origin", origin)]
    assert not let_in(lines) or Host.parse(host.decode("latin-1")) is not None


def test_many_known_hosts_let_no_other_in() -> None:
    rule = SameOrigin()
    for number in range(1_000):
        rule.check(headers_of(f"h{number}.localhost"))
    with pytest.raises(ForeignRequestError):
        rule.check(headers_of("h1.localhost.evil.example"))

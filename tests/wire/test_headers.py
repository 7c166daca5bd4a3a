"""gateway.wire.headers: what of a message is for the other side."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Denial, Headers, Reason
from gateway.wire import headers as subject
from gateway.wire.headers import CREDENTIALS, HOP_BY_HOP, RESERVED, WRITTEN, Hygiene

OWN = ("X-Auth-User", "X-Roles")
HYGIENE = Hygiene(own=OWN)

# What stands where a reserved name has a `*`.
TAILS = ("", "user", "id-token")


def names(pattern: str) -> list[str]:
    if not pattern.endswith("*"):
        return [pattern]
    return [pattern[:-1] + tail for tail in TAILS if pattern[:-1] + tail]


NEVER = sorted(
    {
        name
        for pattern in [
            *RESERVED,
            "x-gateway-*",
            "proxy-*",
            "sec-websocket-*",
            *(name.lower() for name in OWN),
            *(name.decode() for name in HOP_BY_HOP | WRITTEN),
        ]
        for name in names(pattern)
    }
)


def spellings(name: str) -> list[bytes]:
    """Return *name* with each `-` as itself or as `_`: all 2^n."""
    parts = name.split("-")
    return [
        "".join(itertools.chain(*zip(parts, [*joints, ""], strict=True))).encode()
        for joints in itertools.product("-_", repeat=len(parts) - 1)
    ]


def passed(*fields: tuple[bytes, bytes], hygiene: Hygiene = HYGIENE, **how: Any) -> Any:
    return hygiene.to_upstream(fields, **({"drop": frozenset()} | how))


def passes(name: bytes, hygiene: Hygiene = HYGIENE, **how: Any) -> bool:
    return bool(passed((name, b"v"), hygiene=hygiene, **how) == [(name, b"v")])


@pytest.mark.parametrize("name", NEVER)
def test_a_reserved_name_passes_in_no_spelling(name: str) -> None:
    """To a WSGI backend `X_Remote_User` is `X-Remote-User` (R15)."""
    lax = Hygiene(own=OWN, underscores="pass")
    for spelling in spellings(name):
        for folded in {
            spelling,
            spelling.replace(b"_", b"."),
            spelling.replace(b"_", b"+"),
            spelling.upper(),
            spelling.title(),
        }:
            assert not passes(folded), folded
            assert not passes(folded, lax, keep_credentials=True), folded
        assert not passes(spelling + b" ")
        assert passed((spelling, b"a"), (spelling, b"b")) == []


@pytest.mark.parametrize("name", NEVER)
def test_naming_a_reserved_name_in_connection_changes_nothing(name: str) -> None:
    """It is gone already, and ours is written afterwards (R16)."""
    fields = [(b"connection", f"close, {name}".encode()), (name.encode(), b"v")]

    assert passed(*fields) == []
    assert passed(*reversed(fields)) == []


@pytest.mark.parametrize(
    "name",
    [
        b"accept",
        b"cookie",
        b"content-type",
        b"origin",
        b"user-agent",
        b"x-client-version",
        b"x-user-agent",
        b"x-auth-token",
        b"x-goog-api-key",
        b"x-forwarded",
        b"x-gateway",
        b"x.y",
        b"http2",
    ],
)
def test_an_ordinary_name_passes(name: bytes) -> None:
    """Also those that only resemble a reserved one."""
    assert passes(name)


@pytest.mark.parametrize("name", sorted(CREDENTIALS))
def test_the_credential_stays_here_unless_the_route_says_otherwise(name: bytes) -> None:
    """It is for the gateway, and whoever holds it is its owner (R19)."""
    assert not passes(name)
    assert passes(name, keep_credentials=True)


def test_a_lookalike_of_a_credential_never_passes() -> None:
    """Two names for one credential are one too many."""
    lax = Hygiene(underscores="pass")

    assert not passes(b"x_api_key", lax, keep_credentials=True)
    assert not passes(b"x.api.key", lax, keep_credentials=True)


def test_the_header_of_api_keys_is_a_credential_by_any_name() -> None:
    """Whether or not the route takes keys: it is the gateway's to know."""
    hygiene = Hygiene(underscores="pass", credential="x-shop-key")
    for name in (b"x-shop-key", b"x-api-key", b"authorization"):
        assert not passes(name, hygiene)
        assert passes(name, hygiene, keep_credentials=True)
    assert not passes(b"x_shop_key", hygiene, keep_credentials=True)
    assert hygiene.to_client((), vary=True) == [(b"vary", b"Authorization, x-shop-key")]


def test_fields_keep_their_order_and_their_number() -> None:
    """Also several of one name."""
    fields = [(b"b", b"1"), (b"a", b"2"), (b"b", b"3"), (b"b", b"1")]

    assert passed((b"host", b"h"), *fields, (b"te", b"trailers")) == fields


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([b"close"], [b"a", b"b", b"c"]),
        ([b"keep-alive"], [b"a", b"b", b"c"]),
        ([b"a"], [b"b", b"c"]),
        ([b"close, A ,\tb"], [b"c"]),
        ([b"a", b"close", b"B"], [b"c"]),
        ([b""], [b"a", b"b", b"c"]),
        ([b",,,"], [b"a", b"b", b"c"]),
    ],
)
def test_what_connection_names_is_for_this_hop(
    options: list[bytes], left: list[bytes]
) -> None:
    """In any case, in any of its fields, before or after the named (R16)."""
    fields = [(name, b"v") for name in (b"a", b"b", b"c")]
    connection = [(b"connection", option) for option in options]
    expected = [(name, b"v") for name in left]

    assert passed(*connection, *fields) == expected
    assert passed(*fields, *connection) == expected
    assert HYGIENE.to_client((*fields, *connection)) == expected


def test_the_caller_may_drop_further_names() -> None:
    """Those that it writes itself."""
    assert passed((b"a", b"1"), (b"b", b"2"), drop=frozenset({b"a"})) == [(b"b", b"2")]


def test_other_names_with_an_underscore_are_dropped_and_counted() -> None:
    """As nginx does; the count is what tells the operator once."""
    hygiene = Hygiene()

    assert passed((b"x_tenant", b"1"), (b"a", b"2"), hygiene=hygiene) == [(b"a", b"2")]
    assert not passes(b"x_tenant", hygiene)
    assert hygiene.underscored == 2
    assert not passes(b"remote_user", hygiene)
    assert hygiene.underscored == 2


def test_other_names_with_an_underscore_may_be_refused() -> None:
    """Look-alikes of reserved names go all the same, without a word."""
    hygiene = Hygiene(underscores="reject")

    assert passed((b"x_tenant", b"1"), hygiene=hygiene) == Denial(
        Reason.REQUEST_MALFORMED, "underscore in a name"
    )
    assert passed((b"x_gateway_assertion", b"1"), hygiene=hygiene) == []


def test_other_names_with_an_underscore_may_pass() -> None:
    """Look-alikes of reserved names don't."""
    hygiene = Hygiene(underscores="pass")

    assert passes(b"x_tenant", hygiene)
    assert not passes(b"x_gateway_assertion", hygiene)


def test_strip_adds_to_the_reserved_names() -> None:
    """Names or prefixes, in any case and any spelling."""
    hygiene = Hygiene(strip=["X-Tenant", "X-Internal-*"])

    for name in (b"x-tenant", b"x_tenant", b"x-internal-a", b"x.internal_b"):
        assert not passes(name, hygiene)
    assert passes(b"x-tenants", hygiene)


def test_keep_takes_out_of_the_reserved_names_in_that_spelling_only() -> None:
    """The look-alike of a kept name is still one."""
    hygiene = Hygiene(keep=["X-Real-IP", "x-envoy-*"], underscores="pass")

    assert passes(b"x-real-ip", hygiene)
    assert passes(b"x-envoy-attempt-count", hygiene)
    assert not passes(b"x_real_ip", hygiene)
    assert not passes(b"x-forwarded-user", hygiene)


@pytest.mark.parametrize(
    "name", sorted({b"x-gateway-assertion", b"x-auth-user", b"connection", *WRITTEN})
)
def test_keep_never_covers_what_we_write_ourselves(name: bytes) -> None:
    """There would be two of it, one of them the client's."""
    hygiene = Hygiene(keep=[name.decode(), "*", "x-*"], own=OWN)

    assert not passes(name, hygiene)


@pytest.mark.parametrize(
    "name", [b"", b" ", b"a b", b"a\r\nb", b"a:", b"a\x00", b"caf\xe9", b"a\n"]
)
def test_a_name_that_is_none_never_passes(name: bytes) -> None:
    """No parser of ours lets one through; this is the last place to see it."""
    assert not passes(name, Hygiene(underscores="pass"))
    assert HYGIENE.to_client(((name, b"v"),)) == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"content-type", True),
        (b"set-cookie", True),
        (b"x-forwarded-for", True),
        (b"x_y", True),
        (b"signature", True),
        (b"server", False),
        (b"x-request-id", False),
        (b"x-gateway-assertion", False),
        (b"x_gateway_assertion", False),
        (b"x-auth-user", False),
        (b"connection", False),
        (b"keep-alive", False),
        (b"proxy-authenticate", False),
        (b"trailer", False),
        (b"upgrade", False),
        (b"content-length", False),
        (b"transfer-encoding", False),
    ],
)
def test_an_answer_holds_nothing_that_is_ours_to_say(name: bytes, shown: bool) -> None:
    """An upstream can't speak in our name, nor about this connection (R20)."""
    for _ in range(2):
        assert HYGIENE.to_client(((name, b"v"),)) == ([(name, b"v")] if shown else [])


def test_an_answer_that_depended_on_a_credential_says_so() -> None:
    """Or a shared cache could give it to somebody without one."""
    assert HYGIENE.to_client(((b"vary", b"Accept"),), vary=True) == [
        (b"vary", b"Accept"),
        (b"vary", b"Authorization"),
    ]


def test_a_flood_of_names_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts are remembered for so many names, and for none that is long."""
    monkeypatch.setattr(subject, "_MAX_KNOWN", 10)
    hygiene = Hygiene()

    for number in range(100):
        assert passes(b"x-%d" % number, hygiene)
    assert passes(b"x" * 100, hygiene)
    assert len(hygiene._requests) <= 10
    assert b"x" * 100 not in hygiene._requests
    assert not passes(b"x-gateway-assertion", hygiene)


NAMES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(NEVER).flatmap(lambda name: st.sampled_from(spellings(name))),
    st.sampled_from([b"a", b"b", b"cookie", b"x_a", *CREDENTIALS]),
)


@given(
    headers=st.lists(
        st.tuples(
            NAMES.map(bytes.lower),
            st.sampled_from([b"close", b"a, cookie", b"x-gateway-assertion"])
            | st.binary(max_size=6),
        ),
        max_size=8,
    ).map(tuple),
    underscores=st.sampled_from(["drop", "reject", "pass"]),
    keep_credentials=st.booleans(),
)
@settings(deadline=None, max_examples=500)
def test_no_hop_by_hop_or_reserved_name_ever_comes_out(
    headers: Headers, underscores: Any, keep_credentials: bool
) -> None:
    """Whatever else is in the message, and in whatever order."""
    hygiene = Hygiene(own=OWN, underscores=underscores)
    fields = hygiene.to_upstream(
        headers, drop=frozenset(), keep_credentials=keep_credentials
    )
    if isinstance(fields, Denial):
        assert underscores == "reject"
        return

    never = {name.encode() for name in NEVER}
    for field in fields:
        folded = field[0].replace(b"_", b"-").replace(b".", b"-")
        assert field in headers
        assert folded not in never
        assert not folded.startswith((b"x-gateway-", b"proxy-", b"x-forwarded-"))
        assert keep_credentials or folded not in CREDENTIALS
        assert underscores == "pass" or b"_" not in field[0]
    assert hygiene.to_upstream(
        tuple(fields), drop=frozenset(), keep_credentials=keep_credentials
    ) == list(fields)

"""gateway.wire.credential: the one credential that counts, or why none does."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import (
    Credential,
    CredentialKind,
    Denial,
    Headers,
    HeaderSection,
    Reason,
)
from gateway.tokens.api_key import SECRET_BYTES, key_of
from gateway.wire.credential import KeyPlace, extract, without_ticket
from tests import vectors
from tests.fakes import head_of

BEARER = frozenset({"bearer"})


def auth(value: bytes) -> tuple[bytes, bytes]:
    return (b"authorization", value)


def find(
    *headers: tuple[bytes, bytes],
    query: bytes | None = None,
    kinds: frozenset[str] = BEARER,
    max_token: int = 100,
    websocket: bool = False,
    keys: KeyPlace | None = None,
) -> Credential | Denial:
    return extract(
        HeaderSection(headers, "api", b"api"),
        query,
        kinds=kinds,
        max_token=max_token,
        websocket=websocket,
        keys=keys,
    )


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", "abc"),
        (b"bearer abc", "abc"),
        (b"BEARER abc", "abc"),
        (b"Bearer   abc", "abc"),
        (b"Bearer aA0-._~+/==", "aA0-._~+/=="),
        (b"Bearer " + b"a" * 100, "a" * 100),
    ],
)
def test_a_bearer_token_is_found(value: bytes, token: str) -> None:
    """The scheme in any case, blanks, and a b64token (RFC 6750 section 2.1)."""
    assert find((b"accept", b"*/*"), auth(value)) == Credential("bearer", token)


@pytest.mark.parametrize("scheme", [b"DPoP", b"dpop", b"DPOP"])
def test_a_token_of_the_scheme_dpop_has_its_proof_beside_it(scheme: bytes) -> None:
    """RFC 9449 section 7.1; whether it holds is for others to say."""
    proof = (b"dpop", b"a.b.c")

    found = find(proof, auth(scheme + b" abc"))

    assert found == Credential("bearer", "abc", b"a.b.c")
    assert find(auth(scheme + b" abc")) == Credential("bearer", "abc", b"")
    assert find(auth(b"Bearer abc"), proof) == Credential("bearer", "abc")
    assert "a.b.c" not in repr(found)


@pytest.mark.parametrize(
    ("headers", "kinds", "refused"),
    [
        ([], BEARER, "credential.missing"),
        ([auth(b"Bearer a")], frozenset(), "credential.missing"),
        ([auth(b"Basic YTpi")], BEARER, "credential.missing:another scheme"),
        ([auth(b"Bearertoken")], BEARER, "credential.missing:another scheme"),
        ([auth(b"Bearer\tabc")], BEARER, "credential.missing:another scheme"),
        ([(b"cookie", b"access_token=a")], BEARER, "credential.missing"),
        ([auth(b"")], BEARER, "credential.malformed:no scheme"),
        ([auth(b" abc")], BEARER, "credential.malformed:no scheme"),
        ([auth(b"Bearer")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer ")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer ==")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer a=b")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer =a=")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"DPoP")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"DPoP a b")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"DPoP abc")], frozenset(), "credential.missing"),
        ([auth(b"Bearer a b")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer a,b")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer a, Bearer b")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer a\x00")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer \xc3\xa9")], BEARER, "credential.malformed:not a b64token"),
        ([auth(b'Bearer "a"')], BEARER, "credential.malformed:not a b64token"),
        ([auth(b"Bearer " + b"a" * 101)], BEARER, "credential.malformed:too long"),
        ([auth(b"Bearer " + b"." * 100_000)], BEARER, "credential.malformed:too long"),
        ([auth(b"Bearer a")] * 2, BEARER, "credential.ambiguous:one field twice"),
        (
            [auth(b"Basic a"), auth(b"Bearer a")],
            BEARER,
            "credential.ambiguous:one field twice",
        ),
        (
            [auth(b"Bearer a"), (b"dpop", b"x"), (b"dpop", b"y")],
            BEARER,
            "credential.ambiguous:one field twice",
        ),
        (
            [(b"x-api-key", b"x"), (b"x-api-key", b"x"), auth(b"Bearer a")],
            BEARER,
            "credential.ambiguous:one field twice",
        ),
    ],
)
def test_what_is_no_credential_says_why(
    headers: list[tuple[bytes, bytes]], kinds: frozenset[str], refused: str
) -> None:
    """Absent or of another kind is missing; present and unreadable is malformed."""
    assert str(find(*headers, kinds=kinds)) == refused


def test_a_field_of_a_kind_that_the_route_does_not_accept_does_not_count() -> None:
    """A bearer token beside somebody's API key is the bearer token (R8)."""
    found = find((b"x-api-key", b"k"), (b"dpop", b"p"), auth(b"Bearer a"))

    assert found == Credential("bearer", "a")


@pytest.mark.parametrize(
    "query",
    [
        b"access_token=a",
        b"access_token",
        b"a=b&access_token=a",
        b"a=b;access_token=a",
        b"&access_token=",
        b"ACCESS_TOKEN=a",
        b"Access_Token=a",
        b"%61ccess_token=a",
        b"%41%43%43ess%5ftoken=a",
        b"access%5Ftoken=a",
        b"access.token=a",
        b"access+token=a",
        b"access%20token=a",
        b"access%2Etoken=a",
        b"+%20access_token=a",
        b"access_token[]=a",
        b"access_token%5B0%5D=a",
        b"access_token%00=a",
    ],
)
def test_a_token_in_the_query_is_refused_in_any_spelling(query: bytes) -> None:
    """It stands in the logs of all who carried it; beside a header one, too."""
    refused = Denial(Reason.CREDENTIAL_IN_QUERY)

    assert find(query=query) == refused
    assert find(auth(b"Bearer a"), query=query) == refused


@pytest.mark.parametrize(
    "query",
    [
        None,
        b"",
        b"q=access_token",
        b"q=a%26access_token",
        b"my_access_token=a",
        b"access_token_id=a",
        b"access_tokens=a",
        b"accesstoken=a",
        b"token=a",
        b"access_token%3Da",
    ],
)
def test_other_names_in_the_query_are_the_backends_own_affair(
    query: bytes | None,
) -> None:
    """Also `token` and `api_key`, and a value that mentions the name."""
    assert isinstance(find(auth(b"Bearer a"), query=query), Credential)


@given(
    query=st.lists(
        st.sampled_from(
            [
                b"access_token",
                b"access",
                b"%5F",
                b"_",
                b"token",
                b"=",
                b"&",
                b"%61",
                b"+",
                b"%",
                b"a",
            ]
        ),
        max_size=8,
    ).map(b"".join)
)
@settings(deadline=None, max_examples=400)
def test_no_parser_finds_a_token_that_we_did_not(query: bytes) -> None:
    """The standard library's parser is one such reader."""
    found = find(auth(b"Bearer a"), query=query)

    names = [name for name, _ in parse_qsl(query.decode(), keep_blank_values=True)]
    if "access_token" in names:
        assert found == Denial(Reason.CREDENTIAL_IN_QUERY)


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"dpop", b"x-api-key", b"x"]),
            st.binary(max_size=20)
            | st.binary(max_size=20).map(lambda tail: b"Bearer " + tail),
        ),
        max_size=4,
    ).map(tuple),
    query=st.none() | st.binary(max_size=20),
)
@settings(deadline=None, max_examples=400)
def test_any_bytes_are_a_credential_or_a_reason(
    headers: Headers, query: bytes | None
) -> None:
    """Of the `credential` family, and never a status of our own fault (I5)."""
    found = extract(
        HeaderSection(headers, "api", b"api"), query, kinds=BEARER, max_token=100
    )

    if isinstance(found, Denial):
        assert found.reason.startswith("credential.")
    else:
        assert found.token.isascii()
        assert " " not in found.token


def test_naughty_strings_are_a_credential_or_a_reason() -> None:
    """Whatever stands in the field, as a scheme and as a token."""
    for line in vectors.load("naughty-strings/blns.json"):
        octets = line.encode("utf-8", "surrogatepass")
        for value in (octets, b"Bearer " + octets):
            found = find(auth(value), query=octets)
            assert isinstance(found, Credential) or found.reason.startswith(
                "credential."
            )


TICKETS = frozenset({"bearer", "ticket"})
TICKET = b"A-_9" * 10 + b"abc"


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        (b"ticket=" + TICKET, None),
        (b"a=1&ticket=" + TICKET, b"a=1"),
        (b"ticket=" + TICKET + b"&b=%26", b"b=%26"),
        (b"a&ticket=" + TICKET + b"&&b;c=1", b"a&&b;c=1"),
        (b"&ticket=" + TICKET, None),
        (b"tickets=1&myticket=2&ticket=" + TICKET, b"tickets=1&myticket=2"),
    ],
)
def test_a_ticket_is_found_and_goes_no_further(
    query: bytes, rest: bytes | None
) -> None:
    """Byte for byte, what is left is what was sent."""
    head = head_of(b"/a%20b?" + query)

    found = find(query=query, kinds=TICKETS)
    assert found == Credential("ticket", TICKET.decode())
    assert TICKET.decode() not in repr(found)

    left = without_ticket(head)
    assert left.query == rest
    assert left.target == b"/a%20b" + (b"" if rest is None else b"?" + rest)
    assert left.section is head.section


@pytest.mark.parametrize(
    "query",
    [
        b"ticket=%b&ticket=%b" % (TICKET, TICKET),
        b"ticket=%b;ticket=%b" % (TICKET, TICKET),
        b"a=1;ticket=" + TICKET,
        b"ticket=%b&TICKET=x" % TICKET,
        b"ticket=%b&ticket[]=x" % TICKET,
        b"ticket=%b&%%74icket=x" % TICKET,
        b"ticket=%b&ticket" % TICKET,
        b"ticket=%b&+ticket=x" % TICKET,
        b"Ticket=" + TICKET,
        b"tic%6Bet=" + TICKET,
        b"ticket[]=" + TICKET,
        b"ticket[0]=" + TICKET,
        b"ticket%00=" + TICKET,
        b"ticket",
    ],
)
def test_a_ticket_is_there_once_and_spelt_in_one_way(query: bytes) -> None:
    """Anything that another reader could take for one, too, is refused (R13)."""
    found = find(query=query, kinds=TICKETS)

    assert str(found) == "credential.ambiguous:ticket"


@pytest.mark.parametrize(
    "value",
    [b"", b"x", TICKET + b"A", TICKET[1:], TICKET[1:] + b"+", TICKET[1:] + b"=="],
)
def test_what_is_no_ticket_is_refused_without_asking(value: bytes) -> None:
    """By its shape alone."""
    found = find(query=b"ticket=" + value, kinds=TICKETS)

    assert str(found) == "ticket.invalid"


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([auth(b"Bearer a")], "credential.ambiguous:two kinds"),
        (
            [auth(b"Bearer a"), auth(b"Bearer a")],
            "credential.ambiguous:one field twice",
        ),
        ([auth(b"Bearer")], "credential.malformed:not a b64token"),
    ],
)
def test_a_ticket_beside_another_credential_is_one_too_many(
    headers: list[tuple[bytes, bytes]], refused: str
) -> None:
    """None of them is preferred (R8)."""
    assert str(find(*headers, query=b"ticket=" + TICKET, kinds=TICKETS)) == refused


def test_where_tickets_do_not_count_the_parameter_is_the_backends_own() -> None:
    """It is neither looked at nor taken out."""
    found = find(auth(b"Bearer a"), query=b"ticket=1&ticket=2")

    assert found == Credential("bearer", "a")


def test_a_ticket_in_one_request_is_none_in_the_next() -> None:
    """What the fields said is remembered, what the query said is not."""
    section = HeaderSection((), "api", b"api")
    said = [
        extract(section, query, kinds=TICKETS, max_token=9)
        for query in (None, b"ticket=" + TICKET, None, b"a=1")
    ]

    assert [str(each) for each in said[::2]] == ["credential.missing"] * 2
    assert isinstance(said[1], Credential)
    assert str(said[3]) == "credential.missing"


def offered(*protocols: bytes) -> tuple[bytes, bytes]:
    return (b"sec-websocket-protocol", b", ".join(protocols))


K8S = b"base64url.bearer.authorization.k8s.io."


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([offered(b"bearer.abc")], "abc"),
        ([offered(b"chat", b"bearer.a.b-c")], "a.b-c"),
        ([offered(b"chat"), offered(b"bearer.abc")], "abc"),
        ([offered(K8S + b"YWIvYz0")], "ab/c="),
        ([auth(b"Bearer abc"), offered(b"chat")], "abc"),
        ([auth(b"Basic YTpi"), offered(b"bearer.abc")], "abc"),
        ([offered(b"chat")], "credential.missing"),
        ([], "credential.missing"),
        (
            [auth(b"Bearer a"), offered(b"bearer.a")],
            "credential.ambiguous:two credentials",
        ),
        (
            [auth(b"Bearer"), offered(b"bearer.a")],
            "credential.ambiguous:two credentials",
        ),
        (
            [offered(b"bearer.a", K8S + b"YQ")],
            "credential.ambiguous:two credentials",
        ),
        ([offered(b"bearer.a", b"bearer.b")], "credential.ambiguous:two credentials"),
        ([auth(b"Bearer a")] * 2, "credential.ambiguous:one field twice"),
        ([offered(b"bearer.")], "credential.malformed:not a b64token"),
        ([offered(K8S)], "credential.malformed:not a b64token"),
        ([offered(K8S + b"YQ=")], "credential.malformed:not base64url"),
        ([offered(K8S + b"w6k")], "credential.malformed:not a b64token"),
        ([offered(b"bearer." + b"a" * 101)], "credential.malformed:too long"),
    ],
)
def test_a_websocket_may_offer_its_token(
    headers: list[tuple[bytes, bytes]], found: str
) -> None:
    """Because a browser can't send it otherwise; once, in one place (R8, R93)."""
    outcome = find(*headers, websocket=True)
    if isinstance(outcome, Credential):
        assert outcome == Credential("bearer", found)
    else:
        assert str(outcome) == found


def test_a_token_is_offered_by_websockets_alone() -> None:
    """And where the route takes none of its kind, it does not count."""
    assert find(offered(b"bearer.abc")) == Denial(Reason.CREDENTIAL_MISSING)
    none = find(offered(b"bearer.abc"), kinds=frozenset(), websocket=True)
    assert none == Denial(Reason.CREDENTIAL_MISSING)
    query = find(offered(b"bearer.abc"), query=b"access_token=a", websocket=True)
    assert query == Denial(Reason.CREDENTIAL_IN_QUERY)


def test_a_ticket_beside_an_offered_token_is_one_too_many() -> None:
    """A WebSocket has one credential too, wherever it stands."""
    query = b"ticket=" + TICKET
    for offer, outcome in (
        (b"bearer.abc", "credential.ambiguous:two kinds"),
        (b"bearer.", "credential.malformed:not a b64token"),
    ):
        found = find(offered(offer), query=query, kinds=TICKETS, websocket=True)
        assert str(found) == outcome
    alone = find(offered(b"chat"), query=query, kinds=TICKETS, websocket=True)
    assert alone == Credential("ticket", TICKET.decode())


KEYS = KeyPlace.of("X-Shop-Key", "shop")
KEY = key_of("shop", "0123456789ab", bytes(SECRET_BYTES))
JWT = "a.b.c"
ALONE, BOTH = frozenset({"api_key"}), frozenset({"bearer", "api_key"})


def own(value: str) -> tuple[bytes, bytes]:
    return (b"x-shop-key", value.encode())


@pytest.mark.parametrize(
    ("headers", "kinds", "found"),
    [
        ([auth(b"Bearer " + KEY.encode())], BOTH, ("api_key", KEY)),
        ([auth(b"bEaReR  " + KEY.encode())], ALONE, ("api_key", KEY)),
        ([own(KEY)], BOTH, ("api_key", KEY)),
        ([own(KEY)], ALONE, ("api_key", KEY)),
        ([own(JWT)], ALONE, ("api_key", JWT)),
        ([auth(b"Bearer " + JWT.encode())], BOTH, ("bearer", JWT)),
        # What doesn't count is as if it were not there.
        ([auth(b"Bearer " + JWT.encode()), own(KEY)], ALONE, ("api_key", KEY)),
        ([auth(b"Bearer " + JWT.encode()), own(KEY)], BEARER, ("bearer", JWT)),
        ([auth(b"Basic YTpi"), own(KEY)], BOTH, ("api_key", KEY)),
        ([(b"x-api-key", KEY.encode())], BOTH, "credential.missing"),
        ([own(KEY)], BEARER, "credential.missing"),
        (
            [auth(b"Bearer " + KEY.encode())],
            BEARER,
            "credential.missing:another kind",
        ),
        ([auth(b"Bearer " + JWT.encode())], ALONE, "credential.missing:another kind"),
        (
            [auth(b"Bearer " + JWT.encode()), own(KEY)],
            BOTH,
            "credential.ambiguous:two credentials",
        ),
        (
            [auth(b"Bearer " + KEY.encode()), own(KEY)],
            ALONE,
            "credential.ambiguous:two credentials",
        ),
        ([auth(b"Bearer "), own(KEY)], BOTH, "credential.ambiguous:two credentials"),
        ([own(KEY), own(KEY)], BOTH, "credential.ambiguous:one field twice"),
        ([own(KEY), own(KEY)], BEARER, "credential.ambiguous:one field twice"),
        ([own("")], BOTH, "credential.malformed:not a b64token"),
        ([own(f"{KEY}, a")], BOTH, "credential.malformed:not a b64token"),
        ([own("a" * 101)], BOTH, "credential.malformed:too long"),
        ([auth(b"Bearer " + b"a" * 101)], ALONE, "credential.malformed:too long"),
    ],
)
def test_an_api_key_is_found_where_it_stands(
    headers: list[tuple[bytes, bytes]],
    kinds: frozenset[str],
    found: str | tuple[CredentialKind, str],
) -> None:
    """In a field of its own, or as a bearer token that begins as keys do (R8)."""
    for order in (headers, headers[::-1]):
        said = find(*order, kinds=kinds, keys=KEYS)
        if isinstance(found, str):
            assert str(said) == found
        else:
            assert said == Credential(*found)


def test_without_api_keys_nothing_is_one() -> None:
    """What begins like one is a bearer token like any other."""
    assert find(auth(b"Bearer " + KEY.encode())) == Credential("bearer", KEY)
    assert str(find(own(KEY))) == "credential.missing"


@pytest.mark.parametrize(
    "query",
    [
        f"api_key={KEY}",
        f"a=1&{KEY}=",
        KEY.replace("_", "%5F"),
        KEY.replace("_", "%5f", 1),
        f"a=x{KEY}x",
    ],
)
def test_a_key_in_the_query_is_refused_by_its_shape(query: str) -> None:
    """Under any name, where keys count; elsewhere it is the backend's (R52)."""
    raw = query.encode()
    for kinds in (ALONE, BOTH):
        said = find(own(KEY), query=raw, kinds=kinds, keys=KEYS)
        assert str(said) == "credential.in_query:api_key"
    assert find(auth(b"Bearer a"), query=raw, keys=KEYS) == Credential("bearer", "a")
    said = find(own(KEY), query=b"api_key=1&shop_1=2", kinds=BOTH, keys=KEYS)
    assert said == Credential("api_key", KEY)


def test_a_websocket_may_bring_a_key_among_its_subprotocols() -> None:
    """As it may a token; beside another credential it is one too many."""
    asked = offered(b"bearer." + KEY.encode())
    found = find(asked, kinds=BOTH, websocket=True, keys=KEYS)
    assert found == Credential("api_key", KEY)
    for kinds, said in (
        (BEARER, "credential.missing:another kind"),
        (ALONE, "credential.ambiguous:two credentials"),
        (BOTH, "credential.ambiguous:two credentials"),
    ):
        headers = [asked, own(KEY)]
        assert str(find(*headers, kinds=kinds, websocket=True, keys=KEYS)) == said

"""I1, I2, I3, I5 and I7 of the threat model, for any bytes at all.

A whole gateway, an issuer's real signatures, and a backend that records what it reads:
the proof is what stood on the wire, never what somebody believes to have sent. What
holds for every arrival, whatever the test is about, is asserted in `House.received`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import random
import re
import string
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.asgi.revocations import RevocationOrder
from gateway.model import Principal
from tests import vectors
from tests.backends import Connection, answer
from tests.e2e.house import HOST, House, Person, closing, request
from tests.site import AUDIENCE
from tests.tokens import make


def examples(count: int) -> settings:
    """Return how a property of this file is tried."""
    return settings(
        deadline=None,
        max_examples=count,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    with house.open():
        yield house


@dataclass(frozen=True)
class Badge:
    """Header fields that claim to be alice, and whose they are in fact."""

    fields: bytes
    person: Person | None = None
    is_blank: bool = False  # nothing in it is a credential, not even a wrong one


@pytest.fixture(scope="module")
def badges(house: House) -> dict[str, Badge]:
    return _badges(house)


CUTS = st.lists(st.integers(1, 80), max_size=8)


# I1: no unauthenticated pass

BADGES = (
    *("alice", "bob", "lower case", "many spaces", "with a cookie"),
    *("in Connection", "twin signature", "none", "forged", "tampered"),
    *("flipped bits", "padded", "no signature", "expired", "not yet"),
    *("other audience", "other issuer", "no subject", "no end", "revoked"),
    *("other type", "alg none", "public key as secret", "key in the header"),
    *("two fields", "comma", "two tokens", "basic", "api key", "cookie"),
    *("proxy's", "underscore", "assertion"),
)


def _badges(house: House) -> dict[str, Badge]:
    site, alice, bob = house.site, house.alice, house.bob
    now = int(time.time())
    good = alice.token
    head, payload, signature = good.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    # ES256: (r, n - s) verifies as well as (r, s). It is the same token, then.
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    # The last of 86 characters has four bits that say nothing.
    flipped = f"{signature[:-1]}{chr(ord(signature[-1]) + 1)}"
    other = {**json.loads(base64.urlsafe_b64decode(payload + "==")), "sub": "root"}
    mallory = make.key("ES256", "mallory")
    forged = make.token(mallory, other, {"kid": site.key.key_id})
    kid = site.key.key_id
    part = make.b64(json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": kid}).encode())
    mac = hmac.new(site.key.pem, f"{part}.{payload}".encode(), hashlib.sha256)
    unsigned = make.b64(b'{"alg":"none","typ":"at+jwt"}')
    inside = {"alg": "ES256", "jwk": mallory.jwk, "kid": None}
    house.run(house.gateway.engine.revoke(RevocationOrder("corp", "token", "t-gone")))

    def said(token: str, person: Person | None = None) -> Badge:
        return Badge(f"authorization: Bearer {token}\r\n".encode(), person)

    def signed(**claims: Any) -> Badge:
        return said(site.token("alice", **claims))

    whole = alice.fields
    found = {
        "alice": Badge(whole, alice),
        "bob": Badge(bob.fields, bob),
        "lower case": Badge(whole.replace(b"Bearer", b"bEARER"), alice),
        "many spaces": Badge(whole.replace(b"Bearer", b"Bearer   "), alice),
        "with a cookie": Badge(b"cookie: t=%b\r\n" % bob.token.encode() + whole, alice),
        "in Connection": Badge(whole + b"connection: authorization\r\n", alice),
        "twin signature": said(f"{head}.{payload}.{make.b64(twin)}", alice),
        "none": Badge(b"", is_blank=True),
        "forged": said(forged),
        "tampered": said(f"{head}.{forged.split('.')[1]}.{signature}"),
        "flipped bits": said(f"{head}.{payload}.{flipped}"),
        "padded": said(good + "=="),
        "no signature": said(f"{head}.{payload}."),
        "expired": signed(iat=now - 900, exp=now - 100),
        "not yet": signed(nbf=now + 300),
        "other audience": signed(aud=AUDIENCE + "/x"),
        "other issuer": signed(iss="https://login.test.example/"),
        "no subject": signed(sub=None),
        "no end": signed(exp=None),
        "revoked": signed(jti="t-gone"),
        "other type": said(make.token(site.key, other, {"typ": "dpop+jwt"})),
        "alg none": said(f"{unsigned}.{payload}."),
        "public key as secret": said(f"{part}.{payload}.{make.b64(mac.digest())}"),
        "key in the header": said(make.token(mallory, other, inside)),
        "two fields": Badge(whole + bob.fields),
        "comma": said(f"{good}, Bearer {good}"),
        "two tokens": said(f"{good} {good}"),
        "basic": Badge(whole.replace(b"Bearer", b"Basic"), is_blank=True),
        "api key": Badge(b"x-api-key: %b\r\n" % good.encode(), is_blank=True),
        "cookie": Badge(b"cookie: access_token=%b\r\n" % good.encode(), is_blank=True),
        "proxy's": Badge(b"proxy-" + whole, is_blank=True),
        "underscore": Badge(b"http_" + whole, is_blank=True),
        "assertion": Badge(
            b"x-gateway-assertion: %b\r\n" % good.encode(), is_blank=True
        ),
    }
    assert set(found) == set(BADGES)
    return found


PUBLIC, MAYBE = b"/public/", b"/maybe/"
SOMEBODY = (b"/files/", b"/me/", b"/encoded/a%2Fb/", b"/bound/")  # one has to be
LAST = b"/public/last"  # ends a stream
PLACES = st.sampled_from([*SOMEBODY, PUBLIC, MAYBE])
METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD"])
FRAMINGS = st.sampled_from(["none", "length", "chunked", "trailer"])
CALLS = st.tuples(METHODS, PLACES, st.sampled_from(BADGES), FRAMINGS)


def _call(
    method: bytes, target: bytes, fields: bytes, framing: str, late: bytes = b""
) -> bytes:
    """Return a request; *late* are fields that come as trailers."""
    head = request(target, fields, method=method)[:-2]
    if framing == "none":
        return head + b"\r\n"
    if framing == "length":
        return head + b"content-length: 5\r\n\r\nhello"
    end = late if framing == "trailer" else b""
    return (
        head + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + end + b"\r\n"
    )


@pytest.mark.parametrize("name", BADGES)
def test_each_badge_opens_what_its_holder_may(
    house: House, badges: dict[str, Badge], name: str
) -> None:
    """I1: at every kind of route, and twice, since a good one is remembered."""
    badge = badges[name]
    for place in (*SOMEBODY, PUBLIC, MAYBE) * 2:
        status = _asked(house, request(place + b"x", badge.fields))
        arrived = [each for each in house.received() if each.request.target != LAST]
        if place == PUBLIC or (place == MAYBE and badge.is_blank):
            assert status == 200
            assert [each.token_id for each in arrived] == [None]
        elif badge.person is not None:
            assert status == 200
            assert [each.token_id for each in arrived] == [badge.person.token_id]
        else:
            assert status in {400, 401}
            assert arrived == []


def _asked(house: House, raw: bytes) -> int:
    """Return the status of the first answer to *raw*, whatever it is."""
    said = house.say(raw + closing(LAST))
    first = re.match(rb"HTTP/1\.1 (\d{3}) ", said)
    assert first is not None, (raw, said)
    return int(first[1])


@examples(150)
@given(calls=st.lists(CALLS, min_size=1, max_size=6), cuts=CUTS)
def test_only_who_shows_a_valid_credential_is_let_through(
    house: House,
    badges: dict[str, Badge],
    calls: list[tuple[bytes, bytes, str, str]],
    cuts: list[int],
) -> None:
    """I1: each arrives as itself, in whatever stream, or not at all."""
    stream = b""
    wanted: list[tuple[bytes, str | None]] = []
    is_cut_short = False  # a refused request's body may end its connection
    for number, (method, place, name, framing) in enumerate(calls):
        badge = badges[name]
        target = b"%b%d" % (place, number)
        # Bob's credential, where a late field might become a field.
        stream += _call(method, target, badge.fields, framing, house.bob.fields)
        if place == PUBLIC or (place == MAYBE and badge.is_blank):
            wanted.append((target, None))
        elif badge.person is not None:
            wanted.append((target, badge.person.token_id))
        elif framing != "none":
            is_cut_short = True
    house.say(stream + closing(LAST), cuts)

    arrived = house.received()

    found = [(each.request.target, each.token_id) for each in arrived]
    wanted.append((LAST, None))
    assert found == wanted[: len(found)] if is_cut_short else found == wanted
    assert all(each.request.body in {b"", b"hello"} for each in arrived)


# What a stream is spoilt with: what parsers disagree about.
PIECES = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\xff", b":"),
        *(b"Content-Length: 0\r\n", b"Content-Length: 35\r\n", b"Content-Length: +5"),
        *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n", b"0\r\n\r\n"),
        *(b"5\r\n", b"23\r\n", b"connection: close\r\n", b"connection: keep-alive\r\n"),
        *(b"upgrade: h2c\r\nconnection: upgrade\r\n", b"expect: 100-continue\r\n"),
        *(b" HTTP/1.0\r\n", b" HTTP/1.1\r\n", b"GET /files/in HTTP/1.1\r\n", b"/../"),
        *(b"host: b\r\n", b"authorization: Bearer x\r\n", b"authorization", b"%2e"),
        b"GET /me/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /files/smuggled HTTP/1.1\r\nhost: a\r\ncontent-length: 35\r\n\r\n",
    ]
)
PLACE_IN_STREAM = st.floats(0, 1)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), PLACE_IN_STREAM, PIECES),
        st.tuples(st.just("cut"), PLACE_IN_STREAM, st.integers(1, 60)),
        st.tuples(st.just("again"), PLACE_IN_STREAM, st.integers(1, 200)),
        st.tuples(st.just("byte"), PLACE_IN_STREAM, st.integers(0, 255)),
    ),
    min_size=1,
    max_size=5,
)
# Whatever is being read, this ends it, and the connection.
END = b"\r\n" * 40 + closing(LAST)


def _changed(stream: bytes, changes: Sequence[tuple[str, float, Any]]) -> bytes:
    for how, where, what in changes:
        at = int(where * len(stream))
        before, after = stream[:at], stream[at:]
        if how == "put":
            stream = before + what + after
        elif how == "cut":
            stream = before + after[what:]
        elif how == "again":
            stream = before + after[:what] + after
        else:
            stream = before + bytes([what]) + after[1:]
    return stream


@examples(200)
@given(
    calls=st.lists(CALLS, min_size=1, max_size=4),
    changes=CHANGES,
    cuts=CUTS,
)
def test_no_bytes_make_a_request_that_nobody_vouches_for(
    house: House,
    badges: dict[str, Badge],
    calls: list[tuple[bytes, bytes, str, str]],
    changes: list[tuple[str, float, Any]],
    cuts: list[int],
) -> None:
    """I1, I5: whatever a spoilt stream still says, its tokens are whose it is from."""
    stream = b""
    for number, (method, place, name, framing) in enumerate(calls):
        target = b"%b%d" % (place, number)
        stream += _call(method, target, badges[name].fields, framing)
    stream = _changed(stream, changes)
    said = house.say(stream + END, cuts)
    arrived = house.received()

    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]
    assert all(status < 500 for status in statuses), said
    people = {one.token_id: one for one in (house.alice, house.bob)}
    for each in arrived:
        if each.claims is None:
            assert each.request.target.startswith((PUBLIC, MAYBE))
        else:
            person = people[each.token_id or ""]
            assert each.claims["sub"] == person.subject
            assert person.token.rpartition(".")[0].encode() in stream


# I2: what is judged is what is sent

ODD_SEGMENTS = (
    *("..", ".", "", "...", "..;", "..;x=1", ";", ";x=1", ".;", " ..", ".. "),
    *("%2e%2e", "%2E.", ".%2e", "%2e", "%252e%252e", "%25%32%65.", "%2e%2e;a"),
    *("%2f", "%2F..", "%5c", "..%5c", "..%2f", "\\", "..\\", "%5C..%5C", "%255c"),
    *("%00", "%0a", "%0d%0a", "%09", "%7f", "%c2%85", "%23", "%3f", "#", "%3b.."),
    *("%c0%ae%c0%ae", "%e0%80%ae", "%ff", "%", "%2", "%zz", "%u002e", "\xe9"),
    *("%ef%bc%8e%ef%bc%8e", "%e2%80%a4", "%ef%bc%8f", "%e2%80%a5", "%ef%bd%a1"),
    *("public", "files", "me", "a", "PUBLIC", "%70ublic", "a:b", "a@b", "~", "*"),
    *("http:", "@evil", "a%20b", "a+b", "a,b", "a=b", "a&b", "a'b", "a!b", "a$b"),
)
REDIRECT_LISTS = "oauth2-proxy/openredirects.json"
REDIRECTS = [b"//evil.example/%2f..", b"/%5cevil.example", b"/.evil.example"]
if (vectors.ROOT / REDIRECT_LISTS).exists():
    REDIRECTS = [line.encode() for line in vectors.load(REDIRECT_LISTS)]
STARTS = st.sampled_from(
    [b"/public/", b"/public", b"/files/", b"/encoded/", b"/bound/", b"/", b""]
)
TAILS = st.one_of(
    st.lists(st.sampled_from(ODD_SEGMENTS), max_size=5).map(
        lambda all_: "/".join(all_).encode("latin-1")
    ),
    st.binary(max_size=30),
    st.text(alphabet="/.%2eEfF5cC;ab?#\\ ", max_size=30).map(str.encode),
    st.sampled_from(REDIRECTS),
    st.sampled_from(REDIRECTS).map(lambda line: quote(line, safe="/").encode()),
)
QUERIES = st.one_of(
    st.just(b""),
    st.binary(max_size=20).map(b"?".__add__),
    st.text(alphabet="a=&;%2f/?#+\\.", max_size=20).map(lambda t: b"?" + t.encode()),
    st.sampled_from([b"?", b"??", b"?/../..", b"?path=/public/", b"?a=%00", b"?%zz"]),
)
TARGETS = st.tuples(STARTS, TAILS, QUERIES).map(b"".join)
ALL_METHODS = st.sampled_from(
    [
        *(b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"),
        *(b"get", b"Post", b"PURGE", b"MKCOL", b"M-SEARCH", b"TRACE", b"CONNECT"),
        *(b"PRI", b"SOURCE", b"PROPFIND", b"FOO", b"G-T"),
    ]
)
HOSTS = st.one_of(
    st.just(HOST),
    st.sampled_from(
        [
            *(b"SHOP.example", b"shop.example:8080", b"[::1]:80", b"127.0.0.1", b"a_b"),
            *(b"shop.example.", b"u@shop.example", b"a b", b"a/b", b"a?c", b"[::1"),
            *(
                b"",
                b"a:0",
                b"a:99999",
                b"a,b",
                b"127.1",
                b"a" * 300,
                b"\xc3\xa9",
                b"a#b",
            ),
        ]
    ),
    st.text(alphabet="aA.-_:@/1[]%", max_size=12).map(str.encode),
)


@examples(400)
@given(
    method=ALL_METHODS, target=TARGETS, host=HOSTS, badge=st.sampled_from(["alice", ""])
)
def test_what_is_judged_is_what_is_sent(
    house: House, method: bytes, target: bytes, host: bytes, badge: str
) -> None:
    """I2: method, path, query and Host arrive byte for byte, or it is a 4xx."""
    # Blanks before the version would be no part of it.
    target = re.sub(rb"[\r\n]", b"", target).rstrip(b" ")
    fields = house.alice.fields if badge else b""
    status = _asked(house, request(target, fields, method=method, host=host))

    arrived = house.received()
    if arrived and arrived[-1].request.target == LAST:
        arrived.pop()
    if status == 200:
        (each,) = arrived
        assert each.request.method == method
        assert each.request.target == target
        assert each.request.value(b"host") == host
        assert each.request.value(b"x-forwarded-host") == host
        _stays_in_the_open(each.request.target, each.claims)
    else:
        assert 400 <= status < 500
        assert arrived == []


def _stays_in_the_open(target: bytes, claims: dict[str, Any] | None) -> None:
    """What nobody vouched for is below /public/ or /maybe/ to every reader."""
    if claims is not None:
        return
    path = target.partition(b"?")[0].partition(b"#")[0]
    for form in _normal_forms(path):
        assert form.startswith((PUBLIC, MAYBE)), (target, form)


def _normal_forms(path: bytes) -> Iterator[bytes]:
    """Yield what readers after us may take *path* for.

    RFC 3986 section 6.2.2: decoded where that changes nothing, dot segments removed.
    And the same for who decodes once more, takes a backslash for a slash, or drops
    path parameters and empty segments.
    """
    for _ in range(3):
        for text in (path, path.replace(b"\\", b"/")):
            for plain in (text, re.sub(rb";[^/]*", b"", text)):
                yield _without_dots(plain)
                yield _without_dots(re.sub(rb"/+", b"/", plain))
        path = unquote_to_bytes(path)


def _without_dots(path: bytes) -> bytes:
    """Remove dot segments (RFC 3986 section 5.2.4); an encoded dot is a dot."""
    kept: list[bytes] = []
    segments = re.sub(rb"%2e", b".", path, flags=re.IGNORECASE).split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments and segments[-1] in {b".", b".."}:
        kept.append(b"")
    return b"/" + b"/".join(kept)


def test_the_normal_forms_are_what_the_rfc_says() -> None:
    """The judge of the test above is judged by the examples of RFC 3986 5.4."""
    for given_, wanted in {
        b"/a/b/c/./../../g": b"/a/g",
        b"/b/c/..": b"/b/",
        b"/b/c/../../../g": b"/g",
        b"/b/%2E%2e/g": b"/g",
        b"/b/c/g;x=1/../y": b"/b/c/y",
    }.items():
        assert _without_dots(given_) == wanted
    assert b"/me" in set(_normal_forms(b"/public/%252e%252e/me"))
    assert b"/me" in set(_normal_forms(b"/public/..;x/me"))


@pytest.mark.parametrize(
    "form", ["/public/{}", "/public/{}/me/x", "/public/a/{0}/{0}/me/x", "/public{}/me"]
)
def test_no_odd_segment_leads_out_of_the_open_part(house: House, form: str) -> None:
    """I2, R10: each way out of a directory that some reader knows, by nobody."""
    for segment in ODD_SEGMENTS:
        target = form.format(segment).encode("latin-1")
        status = _asked(house, request(target))
        assert status == 200 or 400 <= status < 500, target
        for each in house.received():
            if each.request.target != LAST:
                assert each.request.target == target.rstrip(b" ")
                _stays_in_the_open(each.request.target, each.claims)


def test_no_redirect_trick_leads_out_of_the_open_part(house: House) -> None:
    """Every line of oauth2-proxy's lists, as a path and below one (R10)."""
    passed = 0
    vectors.path(REDIRECT_LISTS)
    for line in REDIRECTS:
        for target in (
            line,
            b"/public" + line,
            b"/public/" + line,
            b"/public/" + quote(line, safe="/%").encode(),
            b"/public/" + quote(line, safe="").encode(),
            b"/public/%2e%2e" + line,
        ):
            status = _asked(house, request(target))
            arrived = house.received()[:-1] if status == 200 else house.received()
            for each in arrived:
                if each.request.target == LAST:
                    continue
                assert each.request.target == target
                _stays_in_the_open(target, None)
                passed += 1
            assert status == 200 or 400 <= status < 500, target
    assert passed > 50  # harmless ones do pass


# I3: identity is ours alone

# Written down once more: a name that leaves the list of the code fails here.
RESERVED = (
    *("x-gateway-assertion", "x-gateway-anything", "x-auth-request-user", "x-team"),
    *(
        "x-teams",
        "x-roles",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
    ),
    *("x-forwarded-proto", "x-forwarded-port", "x-forwarded-client-cert"),
    *("x-forwarded-user", "x-forwarded-email", "x-forwarded-groups"),
    *("x-forwarded-access-token", "x-forwarded-uri", "x-forwarded-prefix"),
    *("x-original-url", "x-original-uri", "x-original-method", "x-rewrite-url"),
    *("x-http-method", "x-http-method-override", "x-envoy-original-path"),
    *("x-envoy-external-address", "x-envoy-internal", "x-middleware-subrequest"),
    *("x-remote-user", "x-remote-group", "x-remote-addr", "remote-user"),
    *("x-auth-request-email", "x-auth-request-groups", "x-auth-request-access-token"),
    *("x-goog-iap-jwt-assertion", "x-goog-authenticated-user-email"),
    *("x-goog-authenticated-user-id", "x-ms-client-principal"),
    *("x-ms-client-principal-id", "x-ms-client-principal-name"),
    *("x-amzn-oidc-data", "x-amzn-oidc-identity", "x-amzn-oidc-accesstoken"),
    *("cf-access-jwt-assertion", "cf-access-authenticated-user-email"),
    *("x-pomerium-jwt-assertion", "x-pomerium-claim-email", "client-cert"),
    *("client-cert-chain", "x-ssl-client-cert", "x-ssl-client-verify", "signature"),
    *("signature-input", "x-request-id", "traceparent", "tracestate", "proxy"),
    *("proxy-authorization", "proxy-connection", "x-api-key", "dpop"),
    *("keep-alive", "te", "http2-settings"),
)
CASES = (bytes.lower, bytes.upper, bytes.title)
HARMLESS = (
    *("x-client-version", "x-user-agent", "x-auth-token", "x-goog-api-key", "accept"),
    *("user-agent", "accept-language", "x-gatewayx", "x-forward", "referer", "cookie"),
)
OURS = {
    *("host", "x-gateway-assertion", "x-auth-request-user", "x-forwarded-for"),
    "x-roles",
    *("x-forwarded-proto", "x-forwarded-host", "x-request-id", "traceparent"),
    *("content-length", "transfer-encoding"),
}
# Credentials of which two are a 400, which is another matter.
PASSED_ONCE = {spelling(name) for name in (b"dpop", b"x-api-key") for spelling in CASES}
# What HTTP allows in a name, and somebody's CGI takes for a hyphen.
SEPARATORS = "-_.~!|+*'^`#$%&"


@st.composite
def spellings(draw: st.DrawFn) -> bytes:
    """A reserved name as it might slip through."""
    name = draw(st.sampled_from(RESERVED))
    letters = [
        draw(st.sampled_from(SEPARATORS))
        if each == "-" and draw(st.booleans())
        else each
        for each in name
    ]
    text = "".join(letters)
    return draw(st.sampled_from([text, text.upper(), text.title()])).encode()


def _all_spellings(name: str) -> set[bytes]:
    """Return *name* with each hyphen as `_` or `.`, and in three cases (R15)."""
    parts = name.split("-")
    found = set()
    for choice in itertools.product("-_.", repeat=len(parts) - 1):
        text = "".join(map(str.__add__, parts, (*choice, "")))
        found |= {text.encode(), text.upper().encode(), text.title().encode()}
    return found


def test_no_spelling_of_a_reserved_name_arrives(house: House) -> None:
    """I3, R15: all of them, as fields and as trailers, in batches of eighty."""
    names = sorted(set().union(*map(_all_spellings, RESERVED)) - PASSED_ONCE)
    assert len(names) > 1500
    for at in range(0, len(names), 80):
        lines = b"".join(b"%b: mallory\r\n" % name for name in names[at : at + 80])
        raw = _call(b"POST", b"/me/x", lines + house.alice.fields, "trailer", lines)
        said = house.say(raw + closing(LAST))
        wire, arrived = house.backend.raw, house.received()
        assert said.startswith(b"HTTP/1.1 200 "), said
        assert b"mallory" not in wire
        each, _last = arrived
        assert {name.decode() for name, _ in each.request.headers} <= OURS


SMUGGLES = st.lists(
    st.tuples(spellings(), st.sampled_from(["plain", "named", "trailer", "twice"])),
    min_size=1,
    max_size=12,
)


@examples(250)
@given(
    smuggles=SMUGGLES,
    harmless=st.lists(st.sampled_from(HARMLESS), max_size=4, unique=True),
    place=st.sampled_from([b"/files/", b"/bound/", PUBLIC, MAYBE]),
    names_ours=st.booleans(),
    cuts=CUTS,
)
def test_who_the_caller_is_is_for_us_to_say(
    house: House,
    smuggles: list[tuple[bytes, str]],
    harmless: list[str],
    place: bytes,
    names_ours: bool,
    cuts: list[int],
) -> None:
    """I3: no byte of such a field arrives, under any spelling, and ours do."""
    fields, late, named = b"", b"", [b"close"]
    for name, how in smuggles:
        line = name + b": mallory\r\n"
        if how == "trailer":
            late += line
        else:
            fields += line * (2 if how == "twice" else 1)
        if how == "named":
            named.append(name)
    if names_ours:
        named += [name.encode() for name in OURS]
    for number, plain in enumerate(harmless):
        fields += b"%b: harmless-%d\r\n" % (plain.encode(), number)
    fields += b"connection: %b\r\n" % b", ".join(named)
    fields += b"" if place == PUBLIC else house.alice.fields
    assert len(fields) < 12_000
    credentials = {b"dpop", b"x-api-key"}
    if place in {PUBLIC, MAYBE} or any(n.lower() in credentials for n, _ in smuggles):
        # A public route passes what its backend may look at itself; two DPoP fields
        # are a 400. Both are not the subject here.
        fields = re.sub(rb"(?im)^(dpop|x-api-key): mallory\r\n", b"", fields)
    said = house.say(
        _call(b"POST", place + b"x", fields, "trailer", late + house.bob.fields), cuts
    )

    wire, arrived = house.backend.raw, house.received()
    assert said.startswith(b"HTTP/1.1 200 "), said
    assert b"mallory" not in wire
    (each,) = arrived
    assert each.request.body == b"hello"
    names = [name.decode() for name, _ in each.request.headers]
    ours = [name for name in names if name in OURS]
    assert len(ours) == len(set(ours))
    assert set(names) <= OURS | set(harmless)
    assert set(harmless) <= set(names)
    assert each.request.value(b"x-forwarded-for") == b"127.0.0.1"
    assert each.request.value(b"x-forwarded-host") == HOST
    assert each.request.value(b"x-forwarded-proto") == b"http"
    if place == PUBLIC:
        assert each.claims is None
    else:
        assert each.claims is not None
        assert each.claims["sub"] == "alice"
        assert each.request.value(b"x-auth-request-user") == b"alice"


# I5: never a 5xx on what a client sends

B64TOKENS = st.text(
    alphabet=string.ascii_letters + string.digits + "-._~+/=", max_size=60
).map(str.encode)
SECURITY_FIELDS = st.sampled_from(
    [
        *(b"authorization", b"Authorization", b"cookie", b"dpop", b"x-api-key"),
        *(b"traceparent", b"tracestate", b"x-request-id", b"x-forwarded-for"),
        *(b"content-type", b"origin", b"forwarded", b"expect", b"te", b"connection"),
        *(b"upgrade", b"content-length", b"transfer-encoding", b"proxy-authorization"),
        *(
            b"accept",
            b"range",
            b"if-none-match",
            b"user-agent",
            b"x_y",
            b"x y",
            b"\xff",
        ),
    ]
)
SCHEMES = st.sampled_from(
    [b"Bearer ", b"bearer", b"Bearer", b"Basic ", b"DPoP ", b"Bearer\t", b"", b"B\xe9 "]
)
VALUES = st.one_of(
    st.binary(max_size=60),
    st.tuples(SCHEMES, B64TOKENS).map(b"".join),
    st.tuples(SCHEMES, st.binary(max_size=40)).map(b"".join),
    st.sampled_from([b"", b" ", b"a" * 9000, b"chunked", b"100-continue", b"-1", b"5"]),
)
PROBLEM = {"type", "title", "status", "detail", "code", "instance"}


def _assert_well_answered(said: bytes) -> None:
    """Every answer is the backend's, or a problem document below 500."""
    heads = [*re.finditer(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n", said)]
    assert heads, said
    for at, found in enumerate(heads):
        status = int(found[1])
        assert status < 500, said
        if status >= 400:
            end = heads[at + 1].start() if at + 1 < len(heads) else None
            head, _, body = said[found.start() : end].partition(b"\r\n\r\n")
            assert b"content-type: application/problem+json" in head
            assert b"cache-control: no-store" in head
            assert set(json.loads(body)) == PROBLEM
            assert json.loads(body)["status"] == status


@examples(350)
@given(
    fields=st.lists(st.tuples(SECURITY_FIELDS, VALUES), min_size=1, max_size=5),
    with_token=st.booleans(),
    cuts=CUTS,
)
@example(
    fields=[(b"authorization", b"Bearer " + b"." * 8000)], with_token=False, cuts=[]
)
@example(fields=[(b"authorization", b"Bearer e30.e30.e30")], with_token=True, cuts=[])
def test_no_header_bytes_are_our_fault(
    house: House, fields: list[tuple[bytes, bytes]], with_token: bool, cuts: list[int]
) -> None:
    """I5: 4xx in one shape, or an answer; and the backend learns of no 4xx."""
    raw = b"".join(b"%b: %b\r\n" % each for each in fields)
    if with_token:
        raw += house.alice.fields
    said = house.say(request(b"/me/x", raw) + END, cuts)
    arrived = house.received()

    _assert_well_answered(said)
    for each in arrived:
        if each.request.target.startswith(b"/me/"):
            assert each.token_id == house.alice.token_id


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
CLAIMS = st.dictionaries(
    st.sampled_from(
        [
            *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "azp"),
            *("roles", "scope", "team", "teams", "typ", "sid", "amr", "acr", "nonce"),
            *("auth_time", "cnf", "src", "events", "", "é"),
        ]
    ),
    JSON,
    max_size=4,
)
HEADER = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "cty", "crit", "b64", "jwk", "x5u", "zip"]),
    JSON,
    max_size=2,
)


@examples(250)
@given(claims=CLAIMS, header=HEADER, place=st.sampled_from([b"/me/x", b"/bound/x"]))
def test_no_signed_content_is_our_fault(
    house: House, claims: dict[str, Any], header: dict[str, Any], place: bytes
) -> None:
    """I5: nor is what a trusted issuer signs, however odd; and it is said as it is."""
    now = int(time.time())
    whole = {
        "iss": "https://login.test.example",
        "aud": AUDIENCE,
        "sub": "carol",
        "iat": now,
        "exp": now + 60,
        "jti": "t-carol",
        **claims,
    }
    token = make.token(house.site.key, whole, header)
    said = house.say(closing(place, b"authorization: Bearer %b\r\n" % token.encode()))
    arrived = house.received()

    _assert_well_answered(said)
    for each in arrived:
        assert each.claims is not None
        assert each.claims["sub"] == whole["sub"]
        assert unquote_to_bytes(each.request.value(b"x-auth-request-user")) == (
            whole["sub"].encode()
        )


# I7: nobody gets what is somebody else's


class Crowd:
    """A backend in several moods, and a store that sometimes has to be asked."""

    def __init__(self) -> None:
        self.chance = random.Random(0)

    async def backend(self, connection: Connection) -> None:
        chance = self.chance
        while True:
            received = await connection.request()
            assertion = received.value(b"x-gateway-assertion").split(b".")[1]
            subject = json.loads(base64.urlsafe_b64decode(assertion + b"=="))["sub"]
            copy = received.value(b"x-auth-request-user")
            body = b"%b %b %b" % (received.target, subject.encode(), copy)
            mood = chance.randrange(6)
            said = answer(body, fields=b"set-cookie: who=%b\r\n" % copy)
            if mood == 0:
                await asyncio.sleep(chance.random() * 0.004)
            if mood in {1, 2}:
                cut = chance.randrange(1, len(said))
                await connection.send(said[:cut])
                await asyncio.sleep(chance.random() * 0.003)
                if mood == 2 and chance.random() < 0.3:
                    connection.reset()
                    return
                await connection.send(said[cut:])
            elif mood == 3:
                await connection.send(said + answer(b"for nobody"))
            elif mood == 4 and chance.random() < 0.3:
                return
            else:
                await connection.send(said)

    async def check(self, principal: Principal) -> bool:
        await asyncio.sleep(self.chance.random() * 0.003)
        return principal.subject.endswith("gone")

    def check_now(self, principal: Principal) -> bool | None:
        if self.chance.random() < 0.5:
            return None
        return principal.subject.endswith("gone")


@pytest.fixture(scope="module")
def crowd(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[House, Crowd, list[Person]]]:
    crowd = Crowd()
    house = House(tmp_path_factory.mktemp("crowd"), crowd.backend)
    with house.open():
        store = house.gateway.engine.stores.revocations
        with (
            patch.object(store, "check", crowd.check),
            patch.object(store, "check_now", crowd.check_now),
        ):
            people = [house.person(f"u-{number}") for number in range(8)]
            people += [house.person(f"u-{number}-gone") for number in range(2)]
            yield house, crowd, people


@examples(6)
@given(seed=st.integers(0, 2**32))
def test_each_answer_is_its_own_askers(
    crowd: tuple[House, Crowd, list[Person]], seed: int
) -> None:
    """I7: whoever breaks off, and whatever breaks, each reads of himself alone."""
    house, moods, people = crowd
    chance = moods.chance = random.Random(seed)
    served: list[Person] = []

    async def ask(number: int) -> None:
        person = people[number % len(people)]
        caller = await house.caller()
        for turn in range(8):
            place = chance.choice([b"/me/", b"/files/", b"/bound/"])
            target = b"%b%d.%d.%d" % (place, seed, number, turn)
            await caller.send(request(target, person.fields))
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.005)
                caller.close()
                caller = await house.caller()
                continue
            try:
                got = await caller.answer()
            except ConnectionError:
                caller = await house.caller()
                continue
            if person.subject.endswith("gone"):
                assert got.status == 401
            elif got.status == 200 and got.whole:
                who = person.subject.encode()
                assert got.body == b"%b %b %b" % (target, who, who)
                assert got.values(b"set-cookie") == [b"who=" + who]
                served.append(person)
            else:
                assert got.status in {200, 502}
            if b"close" in got.values(b"connection") or not got.whole:
                caller.close()
                caller = await house.caller()
        caller.close()

    async def everybody() -> None:
        await asyncio.gather(*[ask(number) for number in range(20)])

    house.run(everybody())

    assert len(served) > 30
    assert len(set(served)) == 8
    for each in house.received():
        (_, number, _) = each.request.target.rsplit(b"/")[-1].split(b".")
        assert each.claims is not None
        assert each.claims["sub"] == people[int(number) % len(people)].subject

"""Text into the readers of tokens: the compact form, strict JSON, whole tokens.

The first byte says which: the rest is a token; or JSON; or, between line feeds, a
header and a payload that are signed with the right key; or changes to a good token; or
a token that is sealed; or a header and a payload that are sealed with the right keys.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from gateway.decision import Authenticator
from gateway.model import Denial, Principal, Reason
from gateway.tokens.accept import accept
from gateway.tokens.claims import IssuerRules
from gateway.tokens.compact import split
from gateway.tokens.fernet import FernetAuthenticator, FernetKeys
from gateway.tokens.jwe import JweAuthenticator, SealingKeys, sealing_key
from gateway.tokens.jwks import MAX_KEY_ID
from gateway.tokens.jwt import JwtAuthenticator
from gateway.tokens.strict_json import MAX_DEPTH, MAX_INTEGER, loads
from tests.tokens import make

NOW = 1_790_000_000.0
ISSUER = "https://login.test.example"
AUDIENCE = "https://api.test.example"
KEY = make.key("HS256")
LIFETIME = 3600.0
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "alice",
    "client_id": "app",
    "jti": "t-1",
    "iat": int(NOW) - 10,
    "exp": int(NOW) + 600,
    "roles": ["customer", "other"],
    "scope": "orders:read orders:write",
}
HEADER = {"alg": "HS256", "typ": "at+jwt", "kid": KEY.key_id}
GOOD = make.token(KEY, CLAIMS)


class _Keys:
    def find(self, issuer: str, key_id: str | None, algorithm: str) -> Any:
        known = key_id in {KEY.key_id, None} and algorithm == KEY.algorithm
        return KEY.verifying if known else None

    def used(self, issuer: str, key: Any) -> None:
        """Nobody asks."""


RULES = IssuerRules(
    name="corp",
    issuer=ISSUER,
    audience=frozenset({AUDIENCE}),
    algorithms=frozenset({"HS256"}),
    token_types=frozenset({"at+jwt"}),
    leeway=30.0,
    max_lifetime=LIFETIME,
    role_claim=("roles",),
    role_allow=frozenset({"customer", "support"}),
)
AUTHENTICATOR = JwtAuthenticator([RULES], _Keys())
OCTETS = bytes(range(32))
SEALS = sealing_key("dir", "A256GCM", None, make.b64(OCTETS).encode())
FERNET = FernetKeys([make.b64(OCTETS) + "="])
SEALED = (
    JweAuthenticator(SealingKeys([SEALS]), RULES, AUTHENTICATOR),
    FernetAuthenticator(RULES, FERNET),
)


def fuzz(data: bytes) -> None:
    """Read *data* as a token, and assert what holds for any bytes."""
    kind, rest = (data[0] if data else 0) % 6, data[1:]
    if kind == 0:
        token = rest.decode("latin-1")
        _compact(token)
        assert isinstance(_judge(token), Denial) or token == GOOD
    elif kind == 1:
        _json(rest)
    elif kind == 2:
        header, _, payload = rest.partition(b"\n")
        token = make.sign(KEY, header, payload)
        _compact(token)
        found = _judge(token)
        if isinstance(found, Principal):
            _is_vouched_for(found, header, payload)
    elif kind == 3:
        _changed(rest)
    elif kind == 4:
        for each in SEALED:
            assert isinstance(_judge(rest.decode("latin-1"), each), Denial)
    else:
        _sealed(rest)


def _sealed(rest: bytes) -> None:
    """R43, R44: what is sealed is read no less strictly than what is signed."""
    head, _, payload = rest.partition(b"\n")
    found = _judge(make.encrypted(OCTETS, head, payload), SEALED[0])
    if isinstance(found, Principal):
        said = loads(head)
        assert said is not None
        assert (said["alg"], said["enc"]) == ("dir", "A256GCM")
        assert not {"crit", "b64", "zip"} & set(said)
        if "cty" in said:
            plain = _judge(payload.decode("ascii"))
            assert isinstance(plain, Principal)
            assert plain.fingerprints == found.fingerprints
        else:
            assert dict(found.claims) == loads(payload)
    found = _judge(FERNET.seal(payload, NOW), SEALED[1])
    if isinstance(found, Principal):
        claims = loads(payload)
        assert claims is not None
        assert found.subject == claims["sub"]
        assert found.expires_at == min(claims["exp"], NOW + LIFETIME)
        assert found.issued_at == NOW


def _judge(token: str, by: Authenticator = AUTHENTICATOR) -> Principal | Denial:
    steps = by.authenticate(token, NOW)
    try:
        next(steps)
        steps.send(None)  # nobody knows that key
    except StopIteration as end:
        outcome: Principal | Denial = end.value
        return outcome
    raise AssertionError("a second question")


def _compact(token: str) -> None:
    """R42: a token has one spelling."""
    found = split(token)
    if found is None:
        return
    header, payload, signature = token.split(".")
    assert make.b64(found.payload) == payload
    assert make.b64(found.signature) == signature
    assert found.signing_input == f"{header}.{payload}".encode()
    raw = base64.urlsafe_b64decode(header + "==")
    assert make.b64(raw) == header
    assert loads(raw) == found.header


def _json(raw: bytes) -> dict[str, Any] | None:
    """R43: what two readers could read in two ways is not read."""
    found = loads(raw)
    if found is None:
        return None
    text = raw.decode("utf-8")
    assert not text.startswith("\ufeff")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    assert json.loads(text, object_pairs_hook=once) == found
    assert _depth(found) <= MAX_DEPTH
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    return found


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, int):
        assert abs(value) <= MAX_INTEGER
    elif isinstance(value, float):
        assert math.isfinite(value)
    return 0


def _is_vouched_for(found: Principal, header: bytes, payload: bytes) -> None:
    """R40, R44: typed claims, within the rules of their issuer."""
    said, claims = _json(header), _json(payload)
    assert said is not None
    assert claims is not None
    assert said["alg"] == "HS256"
    assert str(said["typ"]).lower().removeprefix("application/") == "at+jwt"
    assert not {"crit", "b64"} & set(said)
    assert isinstance(said.get("kid", ""), str)
    assert len(said.get("kid", "")) <= MAX_KEY_ID
    assert claims["iss"] == ISSUER
    assert found.issuer == "corp"
    assert found.subject == claims["sub"]
    assert 0 < len(found.subject) <= 255
    assert found.subject.isprintable()
    end = claims["exp"]
    assert type(end) in {int, float}
    assert end + RULES.leeway > NOW
    assert end <= NOW + LIFETIME + RULES.leeway
    assert found.expires_at == end
    assert found.roles <= RULES.role_allow
    assert len(found.token_id) <= 128
    late = accept(
        found,
        audience=RULES.audience,
        issuers=frozenset({"corp"}),
        now=end + RULES.leeway + 1,
    )
    assert isinstance(late, Denial)
    heard = accept(found, audience=RULES.audience, issuers=frozenset({"corp"}), now=NOW)
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    assert isinstance(heard, Denial) or AUDIENCE in named


def _changed(rest: bytes) -> None:
    """R42: every other spelling of a good token is refused."""
    token = GOOD
    for at in range(0, len(rest) - 2, 3):
        place = int.from_bytes(rest[at : at + 2], "big") % (len(token) + 1)
        token = token[:place] + chr(rest[at + 2]) + token[place + at % 2 :]
    _compact(token)
    found = _judge(token)
    assert isinstance(found, Denial) or token == GOOD
    assert (
        not isinstance(found, Denial) or found.reason is not Reason.METHOD_UNSUPPORTED
    )


def seeds() -> list[bytes]:
    """Return tokens that are worth mixing."""
    header, payload = json.dumps(HEADER).encode(), json.dumps(CLAIMS).encode()
    odd = [
        b'{"exp": 1e400}',
        b'{"a": {"a": [1, -1.5e3, null, true, "\\ud800"]}}',
        b'{"a": 1, "a": 2}',
        b"\xef\xbb\xbf{}",
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"a": NaN, "b": 9007199254740993}',
        '{"sub": "\u00e9\u202e"}'.encode(),
    ]
    changes: list[dict[str, Any]] = [
        {"sub": "bob\n"},
        {"exp": "1790000600"},
        {"exp": 10**30},
        {"aud": [AUDIENCE, "x"]},
        {"aud": []},
        {"jti": None},
        {"nbf": int(NOW) + 300},
        {"roles": "customer"},
    ]
    signed = [json.dumps({**CLAIMS, **each}).encode() for each in changes]
    sealing = b'{"alg": "dir", "enc": "A256GCM"}'
    return [
        b"\0" + GOOD.encode(),
        b"\0" + GOOD.encode() + b"=",
        b"\0a.b.c",
        b"\0" + b"." * 500,
        *(b"\1" + each for each in (header, payload, *odd)),
        *(b"\2" + header + b"\n" + each for each in (payload, *odd, *signed)),
        b"\2" + header.replace(b"HS256", b"none") + b"\n" + payload,
        b"\2" + header.replace(b'"kid"', b'"crit": ["exp"], "kid"') + b"\n" + payload,
        b"\3",
        b"\3\x00\x10A",
        b"\3\x01\x40A\x00\x10=",
        b"\4gAAAAABhAAAA",
        b"\4" + SEALS.seal(payload, {})[:-2].encode(),
        b"\4" + FERNET.seal(payload, NOW)[:-4].encode(),
        *(b"\5" + sealing + b"\n" + each for each in (payload, *odd, *signed)),
        *(
            b"\5" + sealing[:-1] + each + b"}\n" + GOOD.encode()
            for each in (b', "cty": "JWT"', b', "zip": "DEF"', b', "crit": []')
        ),
    ]


WORDS = (
    *(b'"iss"', b'"aud"', b'"sub"', b'"exp"', b'"iat"', b'"nbf"', b'"jti"', b'"roles"'),
    *(b'"alg"', b'"typ"', b'"kid"', b'"crit"', b'"b64"', b'"cty"', b'"HS256"', b"none"),
    *(b'"client_id"', b'"scope"', b'"azp"', b'"act"', b'"cnf"', b"null", b"true"),
    *(b"1790000600", b"1e999", b"-1", b"\\ud800", b"\\u0000", b"[", b"]", b"{", b"}"),
    *(b'"enc"', b'"zip"', b'"epk"', b"gAAAA", b'"JWT"', b'"DEF"'),
    *(b".", b"=", b"==", b",", b":", ISSUER.encode(), AUDIENCE.encode(), b'"at+jwt"'),
)

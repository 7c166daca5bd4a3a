"""The attack mix of R100: what each sends, and how it is to be refused."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.fernet import Fernet

from gateway.tokens.api_key import SECRET_BYTES, key_of
from gateway.tokens.jwe import sealing_key
from tests.site import AUDIENCE
from tests.soak.running import KEYS, OPAQUE, PUBLIC_URL, RSA, RSA_ISSUER
from tests.tokens import make
from tests.tokens.proofs import jkt_of, jwk_of, proof_of

SESSIONS = "https://api.test.example/sessions"  # the `iss` of [fernet]
PATH = b"/api/orders/files/a"
HOLDER = make.key("ES256", "holder")  # of the token that is bound to it
THIEF = make.key("ES256", "thief")


@dataclass(frozen=True)
class Attack:
    """One kind of hostile request."""

    name: str
    requests: Callable[[], Iterator[bytes]]
    statuses: frozenset[int]  # of the refusals
    reconnects: bool = False  # a refusal ends its connection


def _bearer(tokens: Iterator[str]) -> Iterator[bytes]:
    for token in tokens:
        yield (
            b"GET %b HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer %b\r\n\r\n"
        ) % (PATH, token.encode())


def _claims(**more: object) -> dict[str, object]:
    now = int(time.time())
    said: dict[str, object] = {"iss": RSA_ISSUER, "aud": AUDIENCE, "sub": "mallory"}
    return {**said, "client_id": "x", "iat": now, "exp": now + 600, **more}


def _parts(header: object, payload: object) -> str:
    return ".".join(make.b64(json.dumps(part).encode()) for part in (header, payload))


def bad_signatures() -> Iterator[bytes]:
    """RS256, well-formed to the last byte, and signed by nobody; each is new."""
    signed = _parts({"alg": "RS256", "typ": "at+jwt", "kid": RSA.key_id}, _claims())
    return _bearer(f"{signed}.{make.b64(os.urandom(256))}" for _ in itertools.count())


def unknown_keys() -> Iterator[bytes]:
    """A key id that nobody has published, each time another one."""
    payload = _claims()

    def token(number: int) -> str:
        header = {"alg": "RS256", "typ": "at+jwt", "kid": f"k-{number}"}
        return f"{_parts(header, payload)}.{make.b64(bytes(256))}"

    return _bearer(token(number) for number in itertools.count())


def deep_json() -> Iterator[bytes]:
    """A payload of 2,900 brackets, as many as a token may have."""
    payload = make.b64(b'{"a":' + b"[" * 2900 + b"]" * 2900 + b"}")[:7700]
    header = make.b64(json.dumps({"alg": "RS256", "typ": "at+jwt"}).encode())
    return _bearer(
        itertools.repeat(f"{header}.{payload[: len(payload) // 4 * 4]}.AAAA")
    )


def header_flood() -> Iterator[bytes]:
    """90 fields nobody has seen before, each time others."""
    for number in itertools.count():
        lines = b"".join(b"x-%d-%d: y\r\n" % (number, at) for at in range(90))
        yield b"GET %b HTTP/1.1\r\nHost: shop.example\r\n%b\r\n" % (PATH, lines)


def too_many_headers() -> Iterator[bytes]:
    """2,000 fields."""
    lines = b"a:b\r\n" * 2000
    return itertools.repeat(b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (PATH, lines))


def dots() -> Iterator[bytes]:
    """A token of 100,000 dots."""
    return _bearer(itertools.repeat("." * 100_000))


def some_dots() -> Iterator[bytes]:
    """As many dots as a token may have bytes."""
    return _bearer(itertools.repeat("." * 8000))


def huge_base64() -> Iterator[bytes]:
    """8 KB of claims with an honest form, signed by nobody; each is new."""
    header = {"alg": "RS256", "typ": "at+jwt", "kid": RSA.key_id}
    signed = _parts(header, _claims(junk="a" * 5000))
    return _bearer(f"{signed}.{make.b64(os.urandom(256))}" for _ in itertools.count())


def forged_fernet() -> Iterator[bytes]:
    """A Fernet token of another key; each is new."""
    sealer = Fernet(Fernet.generate_key())
    content = json.dumps(_claims()).encode()
    return _bearer(sealer.encrypt(content).decode() for _ in itertools.count())


def forged_jwe() -> Iterator[bytes]:
    """An encrypted token of another key, right to the last bit of its form."""
    key = sealing_key("dir", "A256GCM", None, make.b64(os.urandom(32)).encode())
    content = json.dumps(_claims()).encode()
    return _bearer(key.seal(content, {}) for _ in itertools.count())


def _sealed_to(algorithm: str, material: str) -> Iterator[bytes]:
    """Yield tokens encrypted to a public key, and signed inside by nobody."""
    key = sealing_key(algorithm, "A256GCM", None, KEYS[material].encode())
    signed = _parts({"alg": "RS256", "typ": "at+jwt", "kid": RSA.key_id}, _claims())
    inner = f"{signed}.{make.b64(os.urandom(256))}".encode()
    return _bearer(key.seal(inner, {"cty": "JWT"}) for _ in itertools.count())


def strangers_rsa_oaep() -> Iterator[bytes]:
    """What anybody can make who has the public key, of 2048 bits."""
    return _sealed_to("RSA-OAEP-256", "JWE_RSA")


def strangers_ecdh_es() -> Iterator[bytes]:
    """What anybody can make who has the public key, on P-256."""
    return _sealed_to("ECDH-ES", "JWE_EC")


def _altered(requests: Iterator[bytes]) -> Iterator[bytes]:
    """Yield one of *requests* over and over, each time with another tag."""
    head, _, end = next(requests).rpartition(b".")
    _, _, rest = end.partition(b"\r\n")
    for _ in itertools.count():
        yield b"%b.%b\r\n%b" % (head, make.b64(os.urandom(16)).encode(), rest)


def forged_rsa_oaep() -> Iterator[bytes]:
    """A token for our key of 2048 bits, altered; each is new."""
    return _altered(strangers_rsa_oaep())


def forged_ecdh_es() -> Iterator[bytes]:
    """A token for our key on P-256, altered; each is new."""
    return _altered(strangers_ecdh_es())


def unknown_opaque_tokens() -> Iterator[bytes]:
    """A token that its issuer is asked about, and has never heard of; each is new."""
    return _bearer(OPAQUE + make.b64(os.urandom(24)) for _ in itertools.count())


def _proven(prove: Callable[[str, int], str]) -> Iterator[bytes]:
    """Yield requests with one bound token, and the proof that *prove* makes for it."""
    sealer = Fernet(KEYS["FERNET"])
    content = json.dumps(_claims(iss=SESSIONS, cnf={"jkt": jkt_of(HOLDER)}))
    token = sealer.encrypt(content.encode()).decode()
    for number in itertools.count():
        yield (
            b"GET %b HTTP/1.1\r\nHost: shop.example\r\n"
            b"Authorization: DPoP %b\r\nDPoP: %b\r\n\r\n"
        ) % (PATH, token.encode(), prove(token, number).encode())


def _proof(key: make.Key, token: str, **header: object) -> str:
    uri = PUBLIC_URL + PATH.decode()
    return proof_of(key, token, "GET", uri, time.time(), header=header)


def forged_proofs() -> Iterator[bytes]:
    """A proof that names the token's key, right but for its signature; each is new."""
    return _proven(lambda token, _: _proof(THIEF, token, jwk=jwk_of(HOLDER)))


def proofs_by_another_key() -> Iterator[bytes]:
    """A proof that holds, by a key that the token is not bound to; each is new."""
    return _proven(lambda token, _: _proof(THIEF, token))


def replayed_proofs() -> Iterator[bytes]:
    """A proof that was used; another one from time to time, since they age."""
    proofs: dict[int, str] = {}

    def prove(token: str, number: int) -> str:
        age = number // 500
        if age not in proofs:
            proofs[age] = _proof(HOLDER, token)
        return proofs[age]

    return _proven(prove)


def unknown_api_keys() -> Iterator[bytes]:
    """A key that was never made, its checksum right; each is new."""
    return _bearer(
        key_of("gw", "0123456789ab", os.urandom(SECRET_BYTES))
        for _ in itertools.count()
    )


def mistyped_api_keys() -> Iterator[bytes]:
    """A key whose checksum is wrong."""
    return _bearer(f"gw_{'a' * 12}_{number:049}" for number in itertools.count())


def malformed() -> Iterator[bytes]:
    """What no reader should guess about."""
    chance = random.Random(1)
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    host = b"Host: a\r\n"
    kinds = (
        b"GET / HTTP/1.1\r\n" + host + b"Content-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
        b"GET / HTTP/1.1\r\n" + host + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X : y\r\n\r\n",
        b"GET /../x HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n" + smuggled,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"CONNECT evil:80 HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n",
    )
    while True:
        yield chance.choice(kinds)


REFUSED = frozenset({401})
DEAR = frozenset({401, 503})  # refused, or too many of them
ATTACKS = (
    Attack("bad RS256 signature", bad_signatures, REFUSED),
    Attack("unknown key id", unknown_keys, REFUSED),
    Attack("deep JSON", deep_json, REFUSED),
    Attack("90 new header names", header_flood, REFUSED),
    Attack("8,000 dots", some_dots, REFUSED),
    Attack("huge base64", huge_base64, REFUSED),
    Attack("forged Fernet", forged_fernet, REFUSED),
    Attack("forged JWE", forged_jwe, REFUSED),
    Attack("forged RSA-OAEP JWE", forged_rsa_oaep, DEAR),
    Attack("stranger's RSA-OAEP JWE", strangers_rsa_oaep, DEAR),
    Attack("forged ECDH-ES JWE", forged_ecdh_es, DEAR),
    Attack("stranger's ECDH-ES JWE", strangers_ecdh_es, DEAR),
    Attack("unknown opaque token", unknown_opaque_tokens, DEAR),
    Attack("forged DPoP proof", forged_proofs, REFUSED),
    Attack("DPoP proof by another key", proofs_by_another_key, REFUSED),
    # The first use is none: its subject has no role.
    Attack("replayed DPoP proof", replayed_proofs, frozenset({401, 403})),
    Attack("unknown API key", unknown_api_keys, REFUSED),
    Attack("mistyped API key", mistyped_api_keys, REFUSED),
    Attack("2,000 headers", too_many_headers, frozenset({431}), reconnects=True),
    Attack("100,000 dots", dots, frozenset({431}), reconnects=True),
    Attack("malformed", malformed, frozenset({400, 405}), reconnects=True),
)


def mixed() -> Iterator[bytes]:
    """All of them in turn."""
    each = [attack.requests() for attack in ATTACKS]
    for requests in itertools.cycle(each):
        yield next(requests)

"""gateway.tokens.jwe: what it takes for an encrypted token to be believed."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe as other
from joserfc.jwk import ECKey, OctKey, import_key

from gateway.model import (
    Denial,
    KeyNeeded,
    OpeningNeeded,
    Principal,
    Unavailable,
    VerificationKey,
)
from gateway.tokens.claims import IssuerRules
from gateway.tokens.jwe import (
    ALGORITHMS,
    ENCODINGS,
    SECRET,
    JweAuthenticator,
    SealingKey,
    SealingKeys,
    ephemeral_key,
    sealing_key,
)
from gateway.tokens.jwks import KeySet
from gateway.tokens.jwt import JwtAuthenticator
from tests import vectors
from tests.tokens import make

NOW = 1_000_000.0
CLAIMS: dict[str, Any] = {
    "iss": "https://api.example",
    "aud": "shop",
    "sub": "alice",
    "exp": NOW + 600,
}
RULES = IssuerRules("jwe", "https://api.example", frozenset())
CORP = IssuerRules("corp", "https://corp.example", frozenset({"ES256"}))
INNER = {**CLAIMS, "iss": "https://corp.example"}
SIGNING = make.key("ES256")
OCTETS = bytes(range(64))
SIZES = {"A256GCM": 32, "A128CBC-HS256": 32, "A256CBC-HS512": 64}


def pem(private: Any, password: bytes | None = None) -> bytes:
    how = NoEncryption() if password is None else BestAvailableEncryption(password)
    raw: bytes = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    return raw


RSA = pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
EC = pem(ec.generate_private_key(ec.SECP256R1()))


def key(algorithm: str = "dir", encoding: str = "A256GCM", kid: str = "k1") -> Any:
    """Return the key for this pair."""
    if algorithm in SECRET:
        size = SIZES[encoding] if algorithm == "dir" else 32
        material = base64.urlsafe_b64encode(OCTETS[:size])
    else:
        material = RSA if algorithm.startswith("RSA") else EC
    return sealing_key(algorithm, encoding, kid, material)


class Store:
    """Holds the key of corp."""

    def find(self, issuer: str, key_id: str | None, alg: str) -> VerificationKey | None:
        return KeySet((SIGNING.verifying,)).find(key_id, alg)

    def used(self, issuer: str, key: VerificationKey) -> None:
        """Nobody here asks which key was used when."""


NESTED = JwtAuthenticator([CORP], Store())


def door(*keys: SealingKey, direct: bool = True) -> JweAuthenticator:
    return JweAuthenticator(SealingKeys(keys), RULES if direct else None, NESTED)


def judged(
    token: str,
    at: JweAuthenticator | None = None,
    now: float = NOW,
    client: str = "",
) -> Principal | Denial:
    steps = (at or door(key())).authenticate(token, now, client)
    try:
        need = next(steps)
        if isinstance(need, OpeningNeeded):
            need = steps.send(need.key.open(need.token))
        assert isinstance(need, KeyNeeded)
        steps.send(None)
    except StopIteration as end:
        outcome: Principal | Denial = end.value
        return outcome
    raise AssertionError("two needs")


def why(token: str, at: JweAuthenticator | None = None, now: float = NOW) -> str:
    outcome = judged(token, at, now)
    assert isinstance(outcome, Denial), outcome
    return str(outcome)


def sealed(
    claims: dict[str, Any] | bytes | None = None,
    *,
    by: SealingKey | None = None,
    **header: Any,
) -> str:
    """Return a token as we seal it."""
    if not isinstance(claims, bytes):
        claims = json.dumps(CLAIMS if claims is None else claims).encode()
    return (by or key()).seal(claims, header)


def inner(**header: Any) -> bytes:
    return make.token(SIGNING, INNER, header).encode()


def by_hand(
    header: dict[str, Any],
    plaintext: bytes,
    *,
    tag: int = 16,
    iv: bytes = bytes(12),
    first: bytes = b"",
) -> str:
    """Return a token of `dir` and A256GCM that nobody but ourselves has made."""
    whole = json.dumps({"alg": "dir", "enc": "A256GCM", **header}).encode()
    token = make.encrypted(OCTETS[:32], first or whole, plaintext, iv=iv)
    rest, _, last = token.rpartition(".")
    return f"{rest}.{make.b64(base64.urlsafe_b64decode(last + '==')[:tag])}"


# --- what passes ------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_pair_opens_what_it_sealed(algorithm: str, encoding: str) -> None:
    """Claims under a secret key, and a signed token under every one (S10)."""
    own = key(algorithm, encoding)
    at = door(own)
    who = judged(sealed(inner(), by=own, cty="JWT"), at)
    assert isinstance(who, Principal)
    assert (who.issuer, who.subject) == ("corp", "alice")

    direct = sealed(by=own)
    assert at.recognises(direct)
    if algorithm in SECRET:
        who = judged(direct, at)
        assert isinstance(who, Principal)
        assert (who.issuer, who.subject) == ("jwe", "alice")
    else:
        # To a public key anybody can encrypt any claims.
        assert why(direct, at) == "token.type:cty"


def test_a_token_made_by_hand_opens() -> None:
    """By nothing but AES-GCM: what we open is what the RFC says."""
    plaintext = json.dumps(CLAIMS).encode()
    who = judged(by_hand({"typ": "JWT", "x-unknown": 1, "jku": "https://x"}, plaintext))
    assert isinstance(who, Principal)
    assert who.subject == "alice"
    assert who.fingerprints is not None


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1(), None])
def test_a_key_is_agreed_upon_on_each_curve(curve: ec.EllipticCurve | None) -> None:
    """P-256 above; P-384, P-521 and X25519."""
    private = x25519.X25519PrivateKey.generate() if curve is None else None
    raw = pem(private or ec.generate_private_key(curve or ec.SECP384R1()))
    own = sealing_key("ECDH-ES", "A256GCM", None, raw)
    assert isinstance(judged(sealed(inner(), by=own, cty="JWT"), door(own)), Principal)


def test_the_rules_of_an_issuer_count() -> None:
    """Those of [jwe] for claims, those of [issuer.x] for a token inside."""
    assert why(sealed({**CLAIMS, "iss": "https://corp.example"})) == "token.issuer"
    assert why(sealed({**CLAIMS, "sub": 1})) == "token.claim:sub"
    assert why(sealed({**CLAIMS, "exp": NOW + 10**6})) == "token.lifetime:exp"
    assert why(sealed({**CLAIMS, "aud": []})) == "token.claim:aud"
    assert why(sealed({**CLAIMS, "nonce": "n"})) == "token.type:nonce"
    assert isinstance(judged(sealed({**CLAIMS, "nonce": "n"}, typ="at+jwt")), Principal)
    assert why(sealed(), now=NOW + 630) == "token.expired"
    nested = sealed(inner(), cty="JWT")
    assert why(nested, now=NOW + 630) == "token.expired"
    forged = make.token(make.key("ES256", "mallory"), INNER, {"kid": "k1"}).encode()
    assert why(sealed(forged, cty="JWT")) == "token.signature"
    assert why(sealed(inner(typ="dpop+jwt"), cty="JWT")) == "token.type:typ"
    none = b".".join(make.b64(each).encode() for each in (b'{"alg":"none"}', b"{}"))
    assert why(sealed(none + b".", cty="JWT")) == "token.malformed:form"


def test_only_what_is_configured_stands_inside() -> None:
    """R45: claims, or a signed token; never a JWE in a JWE."""
    nested = sealed(inner(), cty="application/jwt")
    assert isinstance(judged(nested), Principal)
    assert why(nested, JweAuthenticator(SealingKeys([key()]), RULES, None)) == (
        "token.type:cty"
    )
    assert why(sealed(), door(key(), direct=False)) == "token.type:cty"
    assert why(sealed(sealed().encode(), cty="JWT")) == "token.malformed:form"
    assert why(sealed("é".encode(), cty="JWT")) == "token.malformed:form"
    assert why(sealed(inner())) == "token.malformed:payload"


# --- what does not ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"zip": "DEF"}, "token.malformed:zip"),
        ({"crit": ["exp"]}, "token.malformed:crit"),
        ({"crit": []}, "token.malformed:crit"),
        ({"b64": False}, "token.malformed:b64"),
        ({"kid": ""}, "token.malformed:kid"),
        ({"kid": "k" * 257}, "token.malformed:kid"),
        ({"kid": 1}, "token.malformed:kid"),
        ({"kid": "../k1"}, "token.key"),
        ({"typ": 1}, "token.malformed:typ"),
        ({"typ": "dpop+jwt"}, "token.type:typ"),
        ({"cty": "text/plain"}, "token.type:cty"),
        ({"cty": None}, "token.malformed:cty"),
        ({"alg": None}, "token.malformed:alg"),
        ({"alg": ["dir"]}, "token.malformed:alg"),
        ({"enc": 1}, "token.malformed:enc"),
        ({"alg": "RSA1_5"}, "token.algorithm"),
        ({"alg": "none"}, "token.algorithm"),
        ({"alg": "A256KW"}, "token.algorithm"),
        ({"alg": "DIR"}, "token.algorithm"),
        ({"enc": "A128GCM"}, "token.algorithm"),
        ({"enc": "A128CBC-HS256"}, "token.algorithm"),
        (
            {"alg": "PBES2-HS256+A128KW", "p2c": 50_000_000, "p2s": "AAAA"},
            "token.algorithm",
        ),
    ],
)
def test_a_header_that_is_not_the_keys_is_refused(
    header: dict[str, Any], reason: str
) -> None:
    """R40, R49: before any key is used, and before a password is hashed."""
    named = SealingKeys([key()])
    token = by_hand(header, json.dumps(CLAIMS).encode())
    assert why(token, JweAuthenticator(named, RULES, NESTED)) == reason


def test_nothing_is_inflated() -> None:
    """R49: 2,704 bytes that would be 2 MB, encrypted with the right key."""
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(bytes(2_000_000)) + packer.flush()
    token = by_hand({"zip": "DEF"}, bomb)
    assert len(token) < 2_800
    assert why(token) == "token.malformed:zip"


@pytest.mark.parametrize("tag", [1, 4, 8, 12, 15])
def test_a_tag_has_its_full_length(tag: int) -> None:
    """R49: half a tag is a forgery in 2**32 tries."""
    assert why(by_hand({}, json.dumps(CLAIMS).encode(), tag=tag)) == (
        "token.malformed:tag"
    )


def test_the_other_parts_have_their_lengths_too() -> None:
    """An IV of 16 bytes for GCM; an encrypted key where there is none to be."""
    token = by_hand({}, json.dumps(CLAIMS).encode(), iv=bytes(16))
    assert why(token) == "token.malformed:iv"
    head, _, rest = sealed().partition("..")
    assert why(f"{head}.AAAA.{rest}") == "token.malformed:key"
    wrapped = key("A256KW")
    head, _, *more = sealed(by=wrapped).split(".")
    assert why(".".join([head, "", *more]), door(wrapped)) == "token.malformed:key"
    cut = ".".join([head, "AAAAAAAAAAAAAAAAAAAAAAAA", *more])
    assert why(cut, door(wrapped)) == "token.signature"
    long = key("RSA-OAEP-256")
    head, _, *more = sealed(inner(), by=long, cty="JWT").split(".")
    for size in (0, 255, 257):
        other_size = ".".join([head, make.b64(bytes(size)), *more])
        assert why(other_size, door(long)) == "token.malformed:key"


POINT = json.loads(json.dumps(ECKey.generate_key("P-256").as_dict(private=False)))


@pytest.mark.parametrize(
    "ephemeral",
    [
        None,
        "x",
        {},
        {**POINT, "d": "AAAA"},
        {**POINT, "crv": "P-384"},
        {**POINT, "kty": "OKP"},
        {**POINT, "x": 1},
        {**POINT, "x": ""},
        {**POINT, "y": POINT["y"] + "="},
        {key: value for key, value in POINT.items() if key != "y"},
    ],
)
def test_an_ephemeral_key_is_a_public_one_on_our_curve(ephemeral: Any) -> None:
    """CVE-2016-9121: before it is used."""
    own = key("ECDH-ES")
    _, *rest = sealed(inner(), by=own, cty="JWT").split(".")
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "kid": "k1", "epk": ephemeral}
    head = make.b64(json.dumps({**header, "cty": "JWT"}).encode())
    assert why(".".join([head, *rest]), door(own)) == "token.malformed:epk"


@pytest.mark.parametrize("more", [{"y": POINT["x"]}, {"x": "AQ", "y": "AQ"}])
def test_a_point_beside_the_curve_is_refused(more: dict[str, str]) -> None:
    """Each answer about one would tell some bits of our key."""
    own = key("ECDH-ES")
    _, *rest = sealed(inner(), by=own, cty="JWT").split(".")
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "epk": {**POINT, **more}}
    head = make.b64(json.dumps({**header, "cty": "JWT"}).encode())
    assert why(".".join([head, *rest]), door(own)) == "token.signature"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_mutation_of_one_character_is_refused(algorithm: str) -> None:
    """R42: nothing that differs is the token."""
    own = key(algorithm)
    token = sealed(inner(), by=own, cty="JWT")
    step = 1 if algorithm == "dir" else 7  # a private key takes its time
    for place in range(0, len(token), step):
        for to in "AQ_.=":
            if to != token[place]:
                changed = token[:place] + to + token[place + 1 :]
                assert isinstance(judged(changed, door(own)), Denial), place
        assert isinstance(judged(token[:place] + token[place + 1 :], door(own)), Denial)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6, 100_000])
def test_other_numbers_of_parts_are_not_ours(parts: int) -> None:
    """And cost nothing: 100,000 dots are counted, no more."""
    text = ".".join(["e30"] * parts)
    assert not door(key()).recognises(text)
    assert why(text) == "token.malformed:form"


@given(
    st.text()
    | st.lists(st.binary(), min_size=5, max_size=5).map(
        lambda parts: ".".join(map(make.b64, parts))
    )
)
def test_any_text_gets_an_answer(text: str) -> None:
    """I5: a denial, whatever comes."""
    assert isinstance(judged(text), Denial)


@given(
    st.dictionaries(
        st.sampled_from(["epk", "apu", "apv", "iv", "tag", "kid", "x5c", "jwk", "typ"]),
        st.none() | st.integers() | st.text() | st.just({"kty": "EC"}),
    )
)
def test_any_header_gets_an_answer(header: dict[str, Any]) -> None:
    """I5: what the library raises is a denial like any other."""
    own = key("ECDH-ES")
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "cty": "JWT", "epk": POINT, **header}
    token = ".".join(
        map(make.b64, (json.dumps(header).encode(), b"", bytes(12), b"x", bytes(16)))
    )
    assert isinstance(judged(token, door(own)), Denial)


def test_what_the_library_says_is_never_repeated() -> None:
    """R96: its exceptions may hold the token; ours is a word."""
    token = sealed()
    assert why(token[:-3] + "AAA") == "token.signature"
    assert OCTETS[:32] not in repr(key()).encode()
    assert "material" not in repr(key())


# --- what it costs ----------------------------------------------------------------


def altered(token: str) -> str:
    """Return *token* with another tag."""
    return token[: token.rindex(".")] + "." + make.b64(bytes(16))


def in_vain(
    at: JweAuthenticator, token: str, now: float = NOW, client: str = ""
) -> int:
    """Count how often *token* is refused until it is an outage instead."""
    for count in range(1000):
        try:
            assert isinstance(judged(token, at, now, client), Denial)
        except Unavailable:
            return count
    return 1000


def strangers(own: SealingKey) -> str:
    """Return what anybody can make who has the public key."""
    forged = make.token(make.key("ES256", "mallory"), INNER, {"kid": "k1"})
    return own.seal(forged.encode(), {"cty": "JWT"})


def test_so_many_are_opened_in_vain() -> None:
    """R100: whether the seal was forged or what is in it; then it is an outage."""
    own = key("RSA-OAEP-256")
    for token in (altered(strangers(own)), strangers(own)):
        at = door(own)
        assert in_vain(at, token) == 128
        assert in_vain(at, token, NOW + 0.5) == 12
        # What is refused for its form was not opened.
        assert why(token[:-1], at) == "token.malformed:form"


def test_who_has_opened_in_vain_keeps_nobody_else_from_it() -> None:
    """R100: a client has half of what there is, and a quarter of what comes back."""
    own = key("RSA-OAEP-256")
    at = door(own)
    good, bad = sealed(inner(), by=own, cty="JWT"), strangers(own)
    assert in_vain(at, bad, client="192.0.2.1") == 64
    for _ in range(200):
        assert isinstance(judged(good, at, client="192.0.2.2"), Principal)
    with pytest.raises(Unavailable):
        judged(good, at, client="192.0.2.1")
    assert in_vain(at, bad, NOW + 1, client="192.0.2.1") == 6


def test_good_tokens_are_opened_without_end() -> None:
    """All at once, between others that are not; and while too many are, none is."""
    own = key("RSA-OAEP-256")
    at = door(own)
    good, bad = sealed(inner(), by=own, cty="JWT"), strangers(own)
    for _ in range(100):
        assert isinstance(judged(good, at), Principal)
        assert isinstance(judged(good, at), Principal)
        assert isinstance(judged(bad, at), Denial)
    assert in_vain(at, bad) == 28
    with pytest.raises(Unavailable) as outage:
        judged(good, at)
    assert outage.value.dependency == "opening of tokens"
    assert isinstance(judged(good, at, NOW + 1), Principal)


def test_an_outage_of_a_key_is_paid_by_who_asks() -> None:
    """Whether the token is good, nobody knows; a flood of them must not be free."""
    own = key("RSA-OAEP-256")
    at = door(own)
    token = own.seal(inner(kid="new"), {"cty": "JWT"})
    for _ in range(128):
        steps = at.authenticate(token, NOW)
        need = next(steps)
        assert isinstance(need, OpeningNeeded)
        assert isinstance(steps.send(need.key.open(need.token)), KeyNeeded)
        with pytest.raises(Unavailable, match="issuer"):
            steps.throw(Unavailable("issuer corp"))
    assert in_vain(at, strangers(own)) == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_what_takes_long_is_opened_elsewhere(algorithm: str) -> None:
    """The rest in the protocol's callback; and a secret key however often."""
    own = key(algorithm)
    at = door(own)
    steps = at.authenticate(sealed(inner(), by=own, cty="JWT"), NOW)
    if algorithm.startswith("RSA"):
        assert isinstance(next(steps), OpeningNeeded)
        return
    with pytest.raises(StopIteration):
        next(steps)
    bound = 1000 if own.is_secret else 256
    assert in_vain(at, altered(strangers(own))) == bound


@pytest.mark.parametrize(
    ("algorithm", "private", "effort"),
    [
        ("RSA-OAEP-256", rsa.generate_private_key(65537, key_size=3072), 3),
        ("RSA-OAEP-256", rsa.generate_private_key(65537, key_size=4096), 6),
        ("ECDH-ES", ec.generate_private_key(ec.SECP384R1()), 1),
        ("ECDH-ES", ec.generate_private_key(ec.SECP521R1()), 1),
    ],
)
def test_a_longer_key_is_used_in_vain_less_often(
    algorithm: str, private: Any, effort: int
) -> None:
    """Measured in RSA keys of 2048 bits."""
    own = sealing_key(algorithm, "A256GCM", None, pem(private))
    assert own.effort == effort
    assert in_vain(door(own), altered(strangers(own))) == 128 // effort


# --- names ------------------------------------------------------------------------


def test_a_token_is_named_by_what_is_in_it() -> None:
    """R50: encrypted anew, with another key too, it is the same token."""

    def name(token: str, at: JweAuthenticator | None = None) -> str:
        who = judged(token, at)
        assert isinstance(who, Principal)
        return who.token_id

    wrapping = key("A256KW", kid="k2")
    both = door(key(), wrapping)
    one, two, three = sealed(), sealed(), sealed(by=wrapping)
    assert len({one, two, three}) == 3
    assert name(one) == name(two) == name(three, both)
    assert name(one).startswith("sha256:")
    assert name(sealed({**CLAIMS, "x": 1})) != name(one)
    assert name(sealed({**CLAIMS, "jti": "t-1"})) == "t-1"
    elsewhere = IssuerRules("jwe", "https://api.example", frozenset(), token_id="tid")
    assert name(one, JweAuthenticator(SealingKeys([key()]), elsewhere, None)) == (
        name(one)
    )


def test_a_nested_token_is_named_as_it_is_without_the_seal() -> None:
    """R50: revoked as a plain token, it is revoked inside one as well."""
    signed = inner()
    steps = NESTED.authenticate(signed.decode(), NOW)
    with pytest.raises(StopIteration) as end:
        next(steps)
    plain = end.value.value
    for token in (sealed(signed, cty="JWT"), sealed(signed, cty="JWT")):
        who = judged(token)
        assert isinstance(who, Principal)
        assert who.token_id == plain.token_id
        assert who.fingerprints == plain.fingerprints


# --- keys -------------------------------------------------------------------------


def test_a_key_is_found_by_its_name_or_because_it_is_the_only_one() -> None:
    """Several by `kid`; a token without one only where exactly one key fits."""
    one, two = (
        key(kid="a"),
        sealing_key("dir", "A256GCM", "b", base64.urlsafe_b64encode(OCTETS[32:])),
    )
    both = door(one, two)
    assert isinstance(judged(sealed(by=two), both), Principal)
    nameless = sealing_key("dir", "A256GCM", None, base64.b64encode(OCTETS[:32]))
    assert why(sealed(by=nameless), both) == "token.key"
    assert isinstance(judged(sealed(by=nameless), door(one)), Principal)
    assert isinstance(judged(sealed(by=one), door(nameless)), Principal)
    assert why(sealed(by=one), door(key("A256KW", kid="a"))) == "token.algorithm"
    assert why(sealed(by=one), door(nameless, two)) == "token.key"
    with pytest.raises(ValueError, match="one kid"):
        SealingKeys([one, one])


def test_the_keys_of_a_process_come_from_its_secret() -> None:
    """S10: `ephemeral` is the same in all workers, and gone with them."""
    for encoding in ENCODINGS:
        own = ephemeral_key(encoding, "e", b"s" * 32)
        again = ephemeral_key(encoding, "e", b"s" * 32)
        token = sealed(by=own)
        assert isinstance(judged(token, door(again)), Principal)
        for secret, name in ((b"t" * 32, "e"), (b"s" * 32, None)):
            stranger = ephemeral_key(encoding, name, secret)
            at = JweAuthenticator(SealingKeys([stranger]), RULES, None)
            assert why(token, at) in {"token.signature", "token.key"}


RSA_1024 = pem(rsa.generate_private_key(65537, key_size=1024))  # noqa: S505


@pytest.mark.parametrize(
    ("algorithm", "material", "said"),
    [
        ("dir", b"", "32 bytes"),
        ("dir", base64.b64encode(OCTETS[:31]), "32 bytes"),
        ("dir", base64.b64encode(OCTETS[:64]), "32 bytes"),
        ("dir", "é".encode() * 20, "32 bytes"),
        ("dir", base64.b64encode(bytes(32)), "guess"),
        ("A256KW", base64.b64encode(OCTETS[:16]), "32 bytes"),
        ("A256KW", EC, "32 bytes"),
        ("RSA-OAEP-256", b"secret", "no private key"),
        ("RSA-OAEP-256", EC, "needs a key of RSA"),
        ("RSA-OAEP-256", RSA_1024, "2048"),
        ("ECDH-ES", RSA, "EC or X25519"),
        ("ECDH-ES", pem(ed25519.Ed25519PrivateKey.generate()), "EC or X25519"),
        ("ECDH-ES", pem(ec.generate_private_key(ec.SECP256K1())), "curve"),
        (
            "ECDH-ES",
            pem(ec.generate_private_key(ec.SECP256R1()), b"password"),
            "encrypted PEM",
        ),
    ],
)
def test_a_key_fits_its_algorithms_or_does_not_load(
    algorithm: str, material: bytes, said: str
) -> None:
    """R46: length, curve and size; never what was read."""
    with pytest.raises(ValueError, match=said) as refused:
        sealing_key(algorithm, "A256GCM", None, material)
    assert not material or material.decode("latin-1") not in str(refused.value)


# --- vectors ----------------------------------------------------------------------


def test_agrees_with_wycheproof() -> None:
    """What is valid opens if its algorithms are ours; nothing invalid does.

    Waived by their names: RSA1_5, RSA-OAEP with SHA-1, A128KW, A192KW, A*GCMKW, and
    the encodings A128GCM, A192GCM and A192CBC-HS384, which we don't speak.
    """
    tried = opened = 0
    groups = vectors.load("wycheproof/json_web_encryption_given.json")["testGroups"]
    for group in groups:
        private = import_key(group["private"])
        for test in group["tests"]:
            parts = test["jwe"].split(".") if isinstance(test["jwe"], str) else []
            algorithm, encoding = group["private"]["alg"], test.get("enc", "")
            tried += 1
            if len(parts) != 5:
                continue
            ours = algorithm in ALGORITHMS and encoding in ENCODINGS
            # What we can't be given a key for is opened by none of ours.
            own = SealingKey(algorithm, encoding, None, private) if ours else key()
            outcome = str(judged(test["jwe"], door(own)))
            # Its plaintexts are no claims: that they are read is how far one gets.
            passed = outcome == "token.malformed:payload"
            opened += passed
            assert passed == (test["result"] == "valid" and ours), (test, outcome)
    assert (tried, opened) == (65, 4)


def test_the_library_would_open_more_than_we_do() -> None:
    """What our own look is for: if this fails, joserfc has grown stricter."""
    plaintext = json.dumps(CLAIMS).encode()
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(plaintext) + packer.flush()
    for token in (
        by_hand({"zip": "DEF"}, packed),
        by_hand({}, plaintext, first=b'{"alg":"x","alg":"dir","enc":"A256GCM"}'),
    ):
        found = other.decrypt_compact(token, OctKey.import_key(OCTETS[:32]))
        assert found.plaintext == plaintext
        assert why(token).startswith("token.malformed:")

"""An issuer's verification keys: JWK Sets (RFC 7517), PEM files and shared secrets.

A key is bound to the algorithms it may be used with when it is read, never when it is
used (R40); what a token's header says about keys counts for nothing here (R41). A key
that can't be used is left out with a reason, and the others of its set still serve. A
set that is ambiguous as a whole is refused as a whole.

Imports: gateway.model, gateway.tokens.compact, gateway.tokens.strict_json,
cryptography.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from gateway.model import VerificationKey
from gateway.tokens.compact import base64url
from gateway.tokens.strict_json import loads

MAX_SET = 1024 * 1024  # bytes of a JWK Set (R48)
MAX_KEYS = 100  # of one set (R48)
MAX_KEY_ID = 256  # characters of a `kid` (R41)
MIN_RSA, MAX_RSA = 2048, 8192  # bits; RFC 7518 section 3.3, and verifying costs time
MAX_RSA_EXPONENT = 2**32  # larger ones only make verifying slow

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}  # RFC 7518 section 3.2
# Of one key, by its old name and by that of RFC 9864: who trusts one names it.
EDWARDS_ALGORITHMS = ("EdDSA", "Ed25519")
ALGORITHMS = frozenset(
    {*RSA_ALGORITHMS, "ES256", "ES384", "ES512", *EDWARDS_ALGORITHMS, *HMAC_BYTES}
)
"""Everything we can verify. `none` is not an algorithm."""

_CURVES: dict[str, tuple[ec.EllipticCurve, int, str]] = {
    "P-256": (ec.SECP256R1(), 32, "ES256"),  # bytes of a coordinate
    "P-384": (ec.SECP384R1(), 48, "ES384"),
    "P-521": (ec.SECP521R1(), 66, "ES512"),
}
_CURVE_ALGORITHM = {curve.name: alg for curve, _, alg in _CURVES.values()}

PublicKey = RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey


class KeyRefused(ValueError):  # noqa: N818  (the key is, not the program in error)
    """A key, a secret or a set that nothing may be verified with.

    The text says why, in our words; it holds no part of the key.
    """


class KeyStore(Protocol):
    """Whoever holds the keys of the issuers."""

    def find(
        self, issuer: str, key_id: str | None, algorithm: str
    ) -> VerificationKey | None:
        """Return the key at once, or None when it would have to be asked for."""
        ...

    def used(self, issuer: str, key: VerificationKey) -> None:
        """Note that *key* has verified a token."""
        ...


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one issuer, one entry for each algorithm a key may be used with."""

    keys: tuple[VerificationKey, ...] = ()
    skipped: tuple[str, ...] = ()  # "key 3: why it is not here", counted from 1
    _named: Mapping[tuple[str, str], VerificationKey] = field(
        init=False, repr=False, compare=False
    )
    _only: Mapping[str, VerificationKey] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named = {(k.key_id, k.algorithm): k for k in self.keys if k.key_id is not None}
        times: dict[str, int] = {}
        for key in self.keys:
            times[key.algorithm] = times.get(key.algorithm, 0) + 1
        only = {k.algorithm: k for k in self.keys if times[k.algorithm] == 1}
        object.__setattr__(self, "_named", MappingProxyType(named))
        object.__setattr__(self, "_only", MappingProxyType(only))

    def find(self, key_id: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key to verify with, or None when there is not exactly one.

        A token that names no key gets the only one with its algorithm. So does every
        token of an issuer whose keys have no names: a PEM file, a secret.
        """
        if key_id is None or not self._named:
            return self._only.get(algorithm)
        return self._named.get((key_id, algorithm))

    def lacks_any_of(self, other: KeySet) -> bool:
        """Tell whether a key of *other* is not in this set: it has been withdrawn."""
        return any(key not in self.keys for key in other.keys)


def parse_key_set(raw: bytes, algorithms: frozenset[str]) -> KeySet:
    """Read a JWK Set (RFC 7517 section 5) of public keys.

    Args:
        raw: The document.
        algorithms: What the issuer may sign with.

    Raises:
        KeyRefused: It is no JWK Set, or two of its keys have one name.
    """
    if len(raw) > MAX_SET:
        raise KeyRefused(f"a key set of more than {MAX_SET} bytes")
    document = loads(raw)
    if document is None:
        raise KeyRefused("a key set that is not one strict JSON object")
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise KeyRefused('a key set without a list of "keys"')
    if len(entries) > MAX_KEYS:
        raise KeyRefused(f"a key set of more than {MAX_KEYS} keys")

    # Two keys of one name would leave it to the order of a list which of them a token
    # meant, and keys that we can't use count too: the issuer's mistake is the same.
    names = [
        entry["kid"]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("kid"), str)
    ]
    if len(names) != len(set(names)):
        raise KeyRefused("a key set in which two keys have the same name")

    keys: list[VerificationKey] = []
    skipped: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            keys += _keys_of_jwk(entry, algorithms)
        except KeyRefused as why:
            skipped.append(f"key {number}: {why}")
    return KeySet(tuple(keys), tuple(skipped))


def key_from_pem(pem: bytes, algorithms: frozenset[str]) -> KeySet:
    """Read one public key or certificate in PEM (RFC 7468); its dates don't matter.

    Raises:
        KeyRefused: It is none, or none that the issuer may sign with.
    """
    if b"PRIVATE KEY" in pem:
        raise KeyRefused("a private key; only its issuer may have that")
    if pem.count(b"-----BEGIN ") != 1:
        raise KeyRefused("not exactly one PEM block")
    public: object
    try:
        if b"-----BEGIN CERTIFICATE-----" in pem:
            public = x509.load_pem_x509_certificate(pem).public_key()
        else:
            public = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        # Not "from": the library's text could quote the file.
        raise KeyRefused("neither a public key nor a certificate in PEM") from None
    return KeySet(tuple(_bound(_checked(public), None, algorithms)))


def key_from_secret(secret: bytes, algorithm: str) -> VerificationKey:
    """Make a key of a secret shared with the issuer (R46).

    Raises:
        KeyRefused: It is too short, publicly known, or no secret at all.
    """
    if algorithm not in HMAC_BYTES:
        raise KeyRefused("a secret is of use with HS256, HS384 and HS512 only")
    if _is_public(secret):
        raise KeyRefused("a key document or a certificate, not a secret")
    if is_guessable(secret):
        raise KeyRefused("a secret that anybody could guess")
    if len(secret) < HMAC_BYTES[algorithm]:
        raise KeyRefused(
            f"a secret of less than the {HMAC_BYTES[algorithm]} bytes of {algorithm}"
        )
    return VerificationKey(algorithm, None, bytes(secret))


# RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1.
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def key_of_proof(entry: Mapping[str, Any], algorithm: str) -> VerificationKey:
    """Read the public JWK that a client has put into its proof (RFC 9449).

    Raises:
        KeyRefused: It is none, shows what is private, or is none for *algorithm*.
    """
    if not _PRIVATE.isdisjoint(entry):
        raise KeyRefused("a private or secret key")
    (key,) = _keys_of_jwk(entry, frozenset((algorithm,)))
    return key


def _keys_of_jwk(entry: Any, algorithms: frozenset[str]) -> Iterable[VerificationKey]:
    """Return *entry* once for each algorithm it may be used with.

    `x5c`, `x5u` and the like are not looked at: the set was fetched from the issuer,
    and nobody vouches for it twice.
    """
    if not isinstance(entry, dict):
        raise KeyRefused("not an object")
    key_id = entry.get("kid")
    if key_id is not None and not (
        isinstance(key_id, str) and 0 < len(key_id) <= MAX_KEY_ID
    ):
        raise KeyRefused(f'"kid" is not a string of 1 to {MAX_KEY_ID} characters')
    if entry.get("use", "sig") != "sig":
        raise KeyRefused('"use" is not "sig"')
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeyRefused('"key_ops" is without "verify"')
    if "d" in entry or "k" in entry or entry.get("kty") == "oct":
        # Whatever is published is known to everybody.
        raise KeyRefused("a private or secret key")

    readers = {"RSA": _rsa, "EC": _elliptic, "OKP": _edwards}
    reader = readers.get(str(entry.get("kty")))
    if reader is None:
        raise KeyRefused('"kty" is none of RSA, EC, OKP')
    public = _checked(reader(entry))

    if "alg" in entry:
        if not isinstance(entry["alg"], str):
            raise KeyRefused('"alg" is not a string')
        algorithms &= {entry["alg"]}
    return _bound(public, key_id, algorithms)


def _bound(
    public: PublicKey, key_id: str | None, algorithms: frozenset[str]
) -> list[VerificationKey]:
    usable = algorithms.intersection(_algorithms_of(public))
    if not usable:
        raise KeyRefused("a key for none of the issuer's algorithms")
    return [VerificationKey(each, key_id, public) for each in sorted(usable)]


def _algorithms_of(public: PublicKey) -> tuple[str, ...]:
    if isinstance(public, RSAPublicKey):
        return RSA_ALGORITHMS
    if isinstance(public, ec.EllipticCurvePublicKey):
        return (_CURVE_ALGORITHM[public.curve.name],)
    return EDWARDS_ALGORITHMS


def _rsa(entry: Mapping[str, Any]) -> object:
    modulus, exponent = (int.from_bytes(_bytes(entry, name)) for name in ("n", "e"))
    # Looked at before the library does: a modulus may be as long as the document.
    if not MIN_RSA <= modulus.bit_length() <= MAX_RSA:
        raise KeyRefused(f"RSA of less than {MIN_RSA} or more than {MAX_RSA} bits")
    return _made(RSAPublicNumbers(exponent, modulus).public_key)


def _elliptic(entry: Mapping[str, Any]) -> object:
    known = _CURVES.get(str(entry.get("crv")))
    if known is None:
        raise KeyRefused('"crv" is none of P-256, P-384, P-521')
    curve, size, _ = known
    x, y = _bytes(entry, "x"), _bytes(entry, "y")
    if len(x) != size or len(y) != size:  # RFC 7518 section 6.2.1.2: all of them
        raise KeyRefused("coordinates that are not of the curve's size")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), curve)
    return _made(numbers.public_key)


def _edwards(entry: Mapping[str, Any]) -> object:
    if entry.get("crv") != "Ed25519":
        raise KeyRefused('"crv" is not Ed25519')
    x = _bytes(entry, "x")
    return _made(lambda: Ed25519PublicKey.from_public_bytes(x))


def _made(make: Any) -> object:
    try:
        return make()
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused("numbers that are no public key") from None


def _bytes(entry: Mapping[str, Any], name: str) -> bytes:
    text = entry.get(name)
    found = base64url(text) if isinstance(text, str) else None
    if not found:
        raise KeyRefused(f'"{name}" is not base64url')
    return found


def _checked(public: object) -> PublicKey:
    """Return *public* if it is of a kind, a size and a quality that we believe in."""
    if isinstance(public, RSAPublicKey):
        numbers = public.public_numbers()
        if not MIN_RSA <= public.key_size <= MAX_RSA:
            raise KeyRefused(f"RSA of less than {MIN_RSA} or more than {MAX_RSA} bits")
        if not (1 < numbers.e <= MAX_RSA_EXPONENT and numbers.e % 2):
            raise KeyRefused("an RSA exponent out of bounds")
        if _is_roca(numbers.n):
            raise KeyRefused("an RSA key that is weak by its generation (ROCA)")
        return public
    if isinstance(public, ec.EllipticCurvePublicKey):
        if public.curve.name not in _CURVE_ALGORITHM:
            raise KeyRefused("a curve that is none of P-256, P-384, P-521")
        return public
    if isinstance(public, Ed25519PublicKey):
        raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        y = int.from_bytes(raw, "little") & _ED25519_SIGN - 1
        if y >= _ED25519_PRIME or y in _ED25519_LOW_ORDER:
            raise KeyRefused("a point that anybody could sign for")
        return public
    raise KeyRefused("neither RSA nor EC nor Ed25519")


# Points of order 1, 2, 4 and 8: under such a key one signature fits every message
# (R47). By their y; the sign of x is no matter. Encodings of y at or above the prime
# are second spellings of the same few points.
_ED25519_SIGN = 2**255
_ED25519_PRIME = 2**255 - 19
_ED25519_ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    "little",
)
_ED25519_LOW_ORDER = frozenset(
    {
        0,
        1,
        _ED25519_PRIME - 1,
        _ED25519_ORDER_8,
        _ED25519_PRIME - _ED25519_ORDER_8,
    }
)

# CVE-2017-15361: primes made as k * M + 65537**a mod M leave a modulus that is a power
# of 65537 modulo every small prime. Chance does that once in 2**27 keys.
_ROCA_PRIMES = (
    *(3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73),
    *(79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157),
    *(163, 167),
)
_ROCA_POWERS = tuple(
    (prime, frozenset(pow(65537, n, prime) for n in range(prime)))
    for prime in _ROCA_PRIMES
)


def _is_roca(modulus: int) -> bool:
    return all(modulus % prime in powers for prime, powers in _ROCA_POWERS)


MIN_DIFFERENT = 8  # bytes; 32 random ones hold about 30 different, 64 hex digits 16

# Secrets out of manuals: whoever looks for a forgery tries them first. Lower-case.
_EXAMPLES = frozenset(
    {
        b"your-256-bit-secret",
        b"your-384-bit-secret",
        b"your-512-bit-secret",
        b"a-string-secret-at-least-256-bits-long",
        b"a-valid-string-secret-that-is-at-least-384-bits-long",
        b"a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
        b"secret",
        b"changeme",
        b"change-me",
        b"password",
        b"super-secret-jwt-token-with-at-least-32-characters-long",
        b"your-super-secret-jwt-token-with-at-least-32-characters-long",
        b"thisisasecretkeythatisatleast32byteslong",
        b"my-32-character-ultra-secure-and-ultra-long-secret",
        b"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        b"404e635266556a586e3272357538782f413f4428472b4b6250645367566b5970",
        # The key of RFC 7515 appendix A.1, spelt as it stands there.
        (
            b"ayam1synpbyhdftlrjvrzgvrjzhzt1ysa7yhghzalnj"
            b"pkjhmplfj1bsizr-zzbdnqjbqzzjkjjjvqoamw"
        ),
    }
)


def is_guessable(secret: bytes) -> bool:
    """Tell whether *secret* is out of a manual, or has next to nothing in it."""
    text = secret.strip().lower()
    return text in _EXAMPLES or _repeats(text) or len(set(text)) < MIN_DIFFERENT


def _repeats(text: bytes) -> bool:
    """Tell whether *text* is some shorter text over and over: "secretsecret"."""
    return text in (text + text)[1:-1]


def _is_public(secret: bytes) -> bool:
    """Tell whether *secret* is some encoding of a public key or certificate.

    An issuer's public key as an HMAC secret lets everybody sign (CVE-2022-29217).
    """
    text = secret.removeprefix(b"\xef\xbb\xbf").strip()
    if b"-----BEGIN" in text or b"---- BEGIN" in text:
        return True
    if text.startswith((b"ssh-", b"ecdsa-sha2-", b"sk-ssh-", b"sk-ecdsa-")):
        return True
    document = loads(text)
    if document is not None and not document.keys().isdisjoint({"kty", "keys"}):
        return True
    try:
        bare = binascii.a2b_base64(b"".join(text.split()), strict_mode=True)
    except ValueError:
        bare = b""
    return any(map(_is_der, (secret, bare)))


def _is_der(raw: bytes) -> bool:
    for load in (load_der_public_key, x509.load_der_x509_certificate):
        try:
            load(raw)
        except (ValueError, UnsupportedAlgorithm):
            continue
        return True
    return False

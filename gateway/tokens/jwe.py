"""Encrypted tokens: a JWT (RFC 7519) in a JWE (RFC 7516), in compact form.

A key has exactly one pair of `alg` and `enc`, and a token that names another one is
refused before any cryptography (R40, R49). joserfc does that; what it leaves to its
callers is asked here first: the strict form, no compression, no `crit`, a tag of full
length, an ephemeral key on the right curve. Whatever it raises is one and the same
denial: its texts may quote the token (R96).

What a token says is in it directly, or is another, signed token (`cty: JWT`). Directly
only under a key that is secret. To RSA-OAEP and ECDH-ES anybody who has the public key
can encrypt anything: who said it, only a signature inside can tell.

A private key takes its time, and a forgery takes as much of it as a good token. So
what turns out to be nothing is opened only so often (R100), and what takes long
elsewhere (OpeningNeeded).

Imports: gateway.model, gateway.tokens.allowance, gateway.tokens.claims,
gateway.tokens.compact, gateway.tokens.fingerprints, gateway.tokens.jwks,
gateway.tokens.jwt, gateway.tokens.strict_json, cryptography, joserfc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from joserfc import jwe
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from gateway.model import (
    Denial,
    OpeningNeeded,
    Principal,
    Reason,
    Steps,
    Unavailable,
)
from gateway.tokens.allowance import Shares
from gateway.tokens.claims import IssuerRules, principal_from, unless_expired
from gateway.tokens.compact import Encrypted, base64url, split_encrypted
from gateway.tokens.fingerprints import name_of_content
from gateway.tokens.jwks import MAX_KEY_ID, MIN_RSA, KeyRefused, is_guessable
from gateway.tokens.jwt import JwtAuthenticator, other_use, type_of
from gateway.tokens.strict_json import loads

_PARTS = 5  # header.key.iv.ciphertext.tag (RFC 7516 section 7.1)

# RFC 7518 section 5: bytes of the content's key, of the IV and of the tag.
_ENCODINGS: Mapping[str, tuple[int, int, int]] = {
    "A256GCM": (32, 12, 16),
    "A128CBC-HS256": (32, 16, 16),
    "A256CBC-HS512": (64, 16, 32),
}
ENCODINGS = tuple(_ENCODINGS)
SECRET = ("dir", "A256KW")
"""Algorithms whose key only those have who may say something with it."""
AGREED = ("ECDH-ES", "ECDH-ES+A256KW")
ALGORITHMS = (*SECRET, "RSA-OAEP-256", *AGREED)
"""All that we can open. RSA1_5 and PBES2 are not among them."""

# What may be opened in vain, by `effort`: a twentieth of a processor, since between
# other work an opening takes twice its time. And so much can wait, which takes an
# eighth of a second.
_IN_VAIN = 25.0  # a second
_AT_ONCE = 128.0
_QUICK = 0.5  # where the thread that serves has opened it before another one has begun

_WRAPPING_KEY = 32  # bytes, of A256KW
_MAX_RSA = 4096  # bits; opening one token with them was measured at 5 ms
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_TYPES = frozenset({"jwt", "at+jwt"})


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A key, and the one pair of algorithms it may be used with."""

    algorithm: str
    encoding: str
    key_id: str | None
    material: Key = field(repr=False)

    @property
    def is_secret(self) -> bool:
        """Whether what it opens was said by somebody who has it too."""
        return self.algorithm in SECRET

    @property
    def effort(self) -> float:
        """What opening a token costs, in milliseconds of a processor, or nearly so.

        Measured: RSA 1.1, 3.2 and 6.9 with 2048, 3072 and 4096 bits; P-384 and P-521
        1.1; P-256 and X25519 0.3, to which a signature inside adds as much. A secret
        key costs 0.1, as does any other token, and counts for nothing.
        """
        if isinstance(self.material, RSAKey):
            return float(round((8 * _octets(self.material) / MIN_RSA) ** 2.5))
        if isinstance(self.material, ECKey):
            return _QUICK if self.material.curve_name == "P-256" else 1.0
        return 0.0 if self.is_secret else _QUICK

    def open(self, token: str) -> bytes | None:
        """Return what is in *token*, which has been found to fit; None if it can't be.

        Its time may show whether the content's key was had. So much is known to who
        encrypted it, and nobody else's ciphertext gets that far changed: RSA-OAEP and
        AES-KW tell a change apart by themselves (RFC 7516 section 11.5 is for RSA1_5).
        """
        try:
            found = jwe.decrypt_compact(
                token, self.material, registry=_registry(self.algorithm, self.encoding)
            )
        except Exception:  # noqa: BLE001  (of five kinds; R49: one answer to all)
            return None
        return found.plaintext

    def seal(self, plaintext: bytes, header: Mapping[str, str]) -> str:
        """Return a token that says *plaintext*; *header* goes beside our own fields."""
        whole = {"alg": self.algorithm, "enc": self.encoding, **header}
        if self.key_id is not None:
            whole["kid"] = self.key_id
        registry = _registry(self.algorithm, self.encoding)
        return jwe.encrypt_compact(whole, plaintext, self.material, registry=registry)


class SealingKeys:
    """The keys of [jwe], the first of which seals.

    Raises:
        KeyRefused: Two of them can't be told apart.
    """

    def __init__(self, keys: Sequence[SealingKey]) -> None:
        self.keys = tuple(keys)
        names = [key.key_id for key in keys if key.key_id is not None]
        if len(set(names)) < len(names):
            raise KeyRefused("two keys of one kid")
        self._named = {key.key_id: key for key in keys if key.key_id is not None}

    def find(
        self, key_id: str | None, algorithm: str, encoding: str
    ) -> SealingKey | Denial:
        """Return the key that a header asks for.

        A token that names no key gets the only one that fits; so does every token
        where our keys have no names.
        """
        if key_id is None or not self._named:
            fitting = [
                key
                for key in self.keys
                if (key.algorithm, key.encoding) == (algorithm, encoding)
            ]
            if len(fitting) == 1:
                return fitting[0]
            why = Reason.KEY_UNKNOWN if fitting else Reason.ALGORITHM_FORBIDDEN
            return Denial(why)
        key = self._named.get(key_id)
        if key is None:
            return Denial(Reason.KEY_UNKNOWN)
        if (key.algorithm, key.encoding) != (algorithm, encoding):
            return Denial(Reason.ALGORITHM_FORBIDDEN)
        return key


class JweAuthenticator:
    """Verifies encrypted tokens.

    Args:
        keys: Which open a token.
        rules: Of the issuer "jwe", whose claims stand in a token directly; None: no
            claims may.
        nested: Verifies a token that was signed before it was encrypted; None: there
            is none.
    """

    def __init__(
        self,
        keys: SealingKeys,
        rules: IssuerRules | None,
        nested: JwtAuthenticator | None,
    ) -> None:
        self._keys = keys
        self._rules = rules
        self._nested = nested
        self._allowance = Shares(_IN_VAIN, _AT_ONCE)

    def recognises(self, token: str) -> bool:
        """Tell by the number of parts."""
        return token.count(".") == _PARTS - 1

    def authenticate(
        self, token: str, now: float, client: str = ""
    ) -> Steps[Principal | Denial]:
        """Verify *token* as of *now* (Unix seconds).

        Raises:
            Unavailable: Too many were opened in vain just now.
        """
        parts = split_encrypted(token)
        if parts is None:
            return Denial(Reason.TOKEN_MALFORMED, "form")
        header = parts.header
        odd = _odd_header(header)
        if odd is not None:
            return odd
        key = self._keys.find(header.get("kid"), header["alg"], header["enc"])
        if isinstance(key, Denial):
            return key
        wrong = _misfit(parts, key)
        if wrong is not None:
            return Denial(Reason.TOKEN_MALFORMED, wrong)
        content = header.get("cty")
        nested = self._nested if content is not None else None
        rules = self._rules if content is None and key.is_secret else None
        if nested is None and rules is None:
            return Denial(Reason.TYPE_FORBIDDEN, "cty")

        effort = key.effort
        if not self._allowance.take(client, now, effort):
            raise Unavailable("opening of tokens")
        if effort > _QUICK:
            plaintext = yield OpeningNeeded(key, token)
        else:
            plaintext = key.open(token)
        if plaintext is None:
            return Denial(Reason.SIGNATURE_INVALID)
        if rules is not None:
            return _principal(plaintext, header, rules, now)
        assert nested is not None, "one of the two"
        # The inner token's issuer counts, by its rules and its name for the token.
        inner = plaintext.decode("ascii", "replace")
        found = yield from nested.authenticate(inner, now)
        # Not because it opened: to a public key anybody can encrypt anything.
        if isinstance(found, Principal):
            self._allowance.give_back(client, effort)
        return found


def sealing_key(
    algorithm: str, encoding: str, key_id: str | None, material: bytes
) -> SealingKey:
    """Make a key of *material*: octets in base64url, or a private key in PEM.

    Raises:
        KeyRefused: It is none for this pair of algorithms, or anybody could guess it.
    """
    if algorithm in SECRET:
        text = material.decode("ascii", "replace").rstrip("=")
        octets = base64url(text)
        size = _ENCODINGS[encoding][0] if algorithm == "dir" else _WRAPPING_KEY
        if not octets or len(octets) != size:
            raise KeyRefused(f"{algorithm} with {encoding} has {size} bytes, base64url")
        if is_guessable(octets):
            raise KeyRefused("a key that anybody could guess")
        return SealingKey(algorithm, encoding, key_id, OctKey.import_key(octets))
    return SealingKey(algorithm, encoding, key_id, _private(algorithm, material))


def ephemeral_key(encoding: str, key_id: str | None, secret: bytes) -> SealingKey:
    """Return the key for `dir` of a process that was given *secret* at its start.

    Derived, so that the workers of one gateway have the same, over every reload.
    """
    size = _ENCODINGS[encoding][0]
    info = f"jwe ephemeral {encoding} {key_id}".encode()
    octets = HKDF(SHA256(), size, None, info).derive(secret)
    return SealingKey("dir", encoding, key_id, OctKey.import_key(octets))


def _private(algorithm: str, pem: bytes) -> Key:
    try:
        private = load_pem_private_key(pem, None)
    except TypeError:
        raise KeyRefused("an encrypted PEM: nobody is there to decrypt it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRefused("no private key in PEM") from None
    raw = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if algorithm in AGREED:
        if isinstance(private, X25519PrivateKey):
            return OKPKey.import_key(raw)
        if isinstance(private, EllipticCurvePrivateKey):
            if private.curve.name not in _CURVES:
                raise KeyRefused("a curve that is none of P-256, P-384, P-521, X25519")
            return ECKey.import_key(raw)
        raise KeyRefused(f"{algorithm} needs a key of EC or X25519")
    if not isinstance(private, RSAPrivateKey):
        raise KeyRefused(f"{algorithm} needs a key of RSA")
    if not MIN_RSA <= private.key_size <= _MAX_RSA:
        raise KeyRefused(f"RSA of less than {MIN_RSA} or more than {_MAX_RSA} bits")
    return RSAKey.import_key(raw)


def _octets(key: RSAKey) -> int:
    """Return the length of the modulus of *key*."""
    return (key.public_key.key_size + 7) // 8


def _registry(algorithm: str, encoding: str) -> jwe.JWERegistry:
    # What we don't know in a header is to be ignored (RFC 7516 section 4); what has to
    # be understood is refused by us.
    return jwe.JWERegistry(algorithms=[algorithm, encoding], strict_check_header=False)


def _odd_header(header: Mapping[str, Any]) -> Denial | None:
    """Refuse a header that is not plainly that of an encrypted JWT."""
    for name in ("alg", "enc"):
        if not isinstance(header.get(name), str):
            return Denial(Reason.TOKEN_MALFORMED, name)
    for name in ("typ", "cty"):
        if not isinstance(header.get(name, ""), str):
            return Denial(Reason.TOKEN_MALFORMED, name)
    if "kid" in header:
        key_id = header["kid"]
        if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
            return Denial(Reason.TOKEN_MALFORMED, "kid")
    # Nothing is ever inflated: 2,704 bytes would be 2 MB (R49). We know no extension,
    # so none may be critical.
    for name in ("zip", "crit", "b64"):
        if name in header:
            return Denial(Reason.TOKEN_MALFORMED, name)
    if type_of(header) not in _TYPES:
        return Denial(Reason.TYPE_FORBIDDEN, "typ")
    content = header.get("cty")
    if content is not None and content.lower().removeprefix("application/") != "jwt":
        return Denial(Reason.TYPE_FORBIDDEN, "cty")
    return None


def _misfit(parts: Encrypted, key: SealingKey) -> str | None:
    """Return what in *parts* can't be right for *key*, before it is used."""
    _, iv, tag = _ENCODINGS[key.encoding]
    if parts.iv != iv:
        return "iv"
    # A shortened GCM tag is easier to forge, and a library may take it (R49).
    if parts.tag != tag:
        return "tag"
    if (key.algorithm in {"dir", "ECDH-ES"}) != (parts.encrypted_key == 0):
        return "key"
    if isinstance(key.material, RSAKey) and parts.encrypted_key != _octets(
        key.material
    ):
        return "key"
    if key.algorithm in AGREED and not _is_public(parts.header.get("epk"), key):
        return "epk"
    return None


def _is_public(ephemeral: Any, key: SealingKey) -> bool:
    """Tell whether *ephemeral* may be a public JWK on the curve of *key*.

    That it is a point of that curve is asked by whoever makes a key of it
    (CVE-2016-9121).
    """
    if not isinstance(ephemeral, dict) or "d" in ephemeral:
        return False
    ours = key.material.as_dict(private=False)
    if any(ephemeral.get(name) != ours[name] for name in ("kty", "crv")):
        return False
    for name in ("x", "y") if "y" in ours else ("x",):
        value = ephemeral.get(name)
        if not isinstance(value, str) or not base64url(value):
            return False
    return True


def _principal(
    plaintext: bytes, header: Mapping[str, Any], rules: IssuerRules, now: float
) -> Principal | Denial:
    """Return the principal whose claims stand in a token directly."""
    claims = loads(plaintext)
    if claims is None:
        return Denial(Reason.TOKEN_MALFORMED, "payload")
    if type_of(header) == "jwt":
        wrong = other_use(claims)
        if wrong is not None:
            return Denial(Reason.TYPE_FORBIDDEN, wrong)
    # Not of its text: encrypted anew, it is the same token (R50).
    content = b"%d:%b%b" % (len(plaintext), plaintext, rules.issuer.encode())
    principal = principal_from(claims, rules, now, name_of_content(content))
    return unless_expired(principal, now)

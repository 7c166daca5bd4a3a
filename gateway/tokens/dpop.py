"""Proofs that a client holds the key its token is bound to: DPoP (RFC 9449).

Of the twelve checks of section 4.3 the first is made where fields are counted, and the
second half of the last, whose key it is, before any cryptography: a thief who has the
token and not the key costs no signature. For the same reason the signature (the sixth)
is looked at last. A proof fails by itself, and each of the checks alone is enough.

Whether it was used before is not known here: it is answered with a Need, of which
`Proof.name` is the subject.

Imports: gateway.model, gateway.tokens.compact, gateway.tokens.jwks, gateway.tokens.jwt,
gateway.tokens.strict_json, gateway.tokens.thumbprints.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeGuard

from gateway.model import Denial, Reason, VerificationKey
from gateway.tokens.compact import split
from gateway.tokens.jwks import KeyRefused, key_of_proof
from gateway.tokens.jwt import verify
from gateway.tokens.strict_json import loads
from gateway.tokens.thumbprints import b64url, thumbprint

ALGORITHMS: Final = ("ES256", "EdDSA", "PS256", "RS256")
"""What proofs may be signed with, unless [dpop] says otherwise: those that are cheap
to verify. P-384 and P-521 take ten times as long (R100)."""

WINDOW: Final = 60.0
"""Seconds that a proof may be old."""
AHEAD: Final = 10.0
"""Seconds that it may come from the future, by a client whose clock is ahead."""
SLOT: Final = 300
"""Seconds in which we give one nonce; it is good in the next ones too."""
MAX_PROOF: Final = 8 * 1024  # bytes; an RSA key and signature of 8192 bits take half
MAX_ID: Final = 128  # characters of `jti`
MAX_KNOWN: Final = 1024
"""Headers of proofs that are kept. OpenSSL takes as long to get used to a key as to
verify with it."""
MAX_KNOWN_HEADER: Final = 1024  # bytes; one with an RSA key of 4096 bits has 1,000
_TYPE: Final = "dpop+jwt"
_SLOT_BYTES: Final = 8
_TAG: Final = 16  # bytes of a nonce's HMAC

# Scheme, host with port, path; what a query or a fragment says does not count
# (section 4.3, item 9). No user, no white space, no other characters than a URI's.
_HTU: Final = re.compile(
    r"(https?)://([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?"
    r"(/[!$%&'()*+,\-./0-9:;=@A-Z_a-z~]*)?(?:[?#][!-~]*)?",
    re.IGNORECASE,
)
_PORTS: Final = {"http": "80", "https": "443"}
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(
    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


class Proof(NamedTuple):
    """A proof that has stood every check but whether it was used before."""

    name: bytes  # of whose key and `jti`: what is kept is no credential (R53)
    issued_at: float  # Unix seconds


class Holder(NamedTuple):
    """Whoever has the private half of a key."""

    key: VerificationKey
    thumbprint: str  # its `jkt`


class Nonces:
    """Nonces that nobody has to keep: a stretch of time, and an HMAC of it.

    Args:
        key: Secret; whoever has it takes these nonces too.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def at(self, now: float) -> str:
        """Return the nonce that is given out at *now* (Unix seconds)."""
        return self._of(int(now) // SLOT)

    def is_good(self, nonce: object, now: float) -> bool:
        """Tell whether *nonce* was given out in this stretch of time or the last."""
        if not isinstance(nonce, str):
            return False
        slot = int(now) // SLOT
        said = nonce.encode(errors="surrogatepass")
        return any(
            hmac.compare_digest(said, self._of(each).encode())
            for each in (slot, slot - 1)
        )

    def _of(self, slot: int) -> str:
        said = slot.to_bytes(_SLOT_BYTES)
        return b64url(said + hmac.digest(self._key, said, "sha256")[:_TAG])


@dataclass(frozen=True, slots=True)
class Proofs:
    """Judges proofs.

    Raises:
        ValueError: `public_url` is no origin.
    """

    public_url: str  # under which clients reach us; Host counts for nothing (R4)
    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    nonces: Nonces | None = None  # None: proofs need none
    names: tuple[str, ...] = field(init=False)  # of the algorithms, for challenges
    _origin: str = field(init=False)
    # By the first part of a proof, as received.
    _known: dict[bytes, Holder] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        origin = canonical_uri(self.public_url)
        if origin is None or not origin.endswith("/"):
            raise ValueError("[server] public_url is no origin")
        object.__setattr__(self, "_origin", origin[:-1])
        object.__setattr__(self, "names", tuple(sorted(self.algorithms)))

    def read(
        self,
        proof: bytes,
        *,
        token: str,
        key: str,
        method: str,
        path: bytes,
        now: float,
    ) -> Proof | Denial:
        """Return *proof* if it holds.

        Args:
            proof: The value of the DPoP field.
            token: The access token beside it.
            key: `jkt`: the thumbprint of the key that the token is bound to.
            method: Of the request.
            path: Of the request, as received.
            now: Unix seconds.
        """
        parts = split(proof.decode("latin-1")) if len(proof) <= MAX_PROOF else None
        if parts is None:
            return self._wrong("form")
        header = proof.partition(b".")[0]
        holder = self._known.get(header) or self._holder(parts.header)
        if isinstance(holder, Denial):
            return holder
        if holder.thumbprint != key:
            return Denial(Reason.DPOP_KEY, "jkt", self.names)

        claims = loads(parts.payload)
        if claims is None:
            return self._wrong("payload")
        identifier = claims.get("jti")
        if not isinstance(identifier, str) or not 0 < len(identifier) <= MAX_ID:
            return self._wrong("jti")
        if claims.get("htm") != method:
            return self._wrong("htm")
        target = self._origin + _normal(path.decode("latin-1"))
        uri = claims.get("htu")
        if not isinstance(uri, str) or canonical_uri(uri) != target:
            return self._wrong("htu")
        if claims.get("ath") != b64url(sha256(token.encode("ascii")).digest()):
            return self._wrong("ath")
        issued_at = claims.get("iat")
        if not _is_recent(issued_at, now):
            return self._wrong("iat")
        if self.nonces is not None and not self.nonces.is_good(
            claims.get("nonce"), now
        ):
            return Denial(Reason.DPOP_NONCE, "nonce", (self.nonces.at(now),))
        if not verify(parts, holder.key):
            return self._wrong("signature")
        self._keep(header, holder)
        # Lengths need not be told apart: a thumbprint's is always the same.
        used = sha256(holder.thumbprint.encode() + identifier.encode()).digest()
        return Proof(used, float(issued_at))

    def _holder(self, header: Mapping[str, Any]) -> Holder | Denial:
        """Return who is said to have made a proof with this *header*."""
        if header.get("typ") != _TYPE:
            return self._wrong("typ")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self.algorithms:
            return self._wrong("alg")
        jwk = header.get("jwk")
        if not isinstance(jwk, dict):
            return self._wrong("jwk")
        try:
            return Holder(key_of_proof(jwk, algorithm), thumbprint(jwk))
        except KeyRefused:
            return self._wrong("jwk")

    def _keep(self, header: bytes, holder: Holder) -> None:
        """Keep what *header* was read as: a client sends the same with each proof.

        Only once it holds, and for the key that a token is bound to: whoever invents
        headers displaces nobody's.
        """
        if len(header) <= MAX_KNOWN_HEADER and header not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[header] = holder

    def _wrong(self, at: str) -> Denial:
        return Denial(Reason.DPOP_INVALID, at, self.names)


def canonical_uri(uri: str) -> str | None:
    """Return the http(s) URI *uri* without query and fragment, in its one spelling.

    RFC 3986 sections 6.2.2.1 to 6.2.2.2 and 6.2.3. Dot segments stay: no request that
    comes as far as this has any.
    """
    match = _HTU.fullmatch(uri)
    if match is None:
        return None
    scheme, host, port, path = match.groups()
    scheme = scheme.lower()
    authority = host.lower()
    if port and port != _PORTS[scheme]:
        authority += f":{port}"
    return f"{scheme}://{authority}{_normal(path or '/')}"


def _normal(path: str) -> str:
    return _ESCAPE.sub(_escape, path) if "%" in path else path


def _escape(match: re.Match[str]) -> str:
    character = chr(int(match.group(1), 16))
    return character if character in _UNRESERVED else match.group().upper()


def _is_recent(issued_at: object, now: float) -> TypeGuard[float]:
    # A bool is an int, and no time. The strict reader has bounded all numbers.
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
        return False
    return -AHEAD <= now - issued_at <= WINDOW

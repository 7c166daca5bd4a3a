"""Where a run of the bench takes place: its directory, ports, keys and tokens.

The names in the peers' configs, such as @PORT@, are filled in from here.

Imports: cryptography, jwt.
"""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import RSAAlgorithm

HERE = Path(__file__).parent
TEMPLATES = HERE / "peers"
ISSUER = "https://login.bench.example"
AUDIENCE = "https://api.bench.example"
BODY = '{"order":"o-17","item":"a blue kettle","price":4200,"n":42}'  # 59 bytes

CALL = "/api/orders/customers/c-1/orders"
SEEN = "/api/orders/seen"
STATUS = "/api/orders/status"

# What Firefox sends beside Host: 15 fields, 1.1 KB.
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 "
    "Firefox/145.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,"
    "image/webp,image/png,image/svg+xml,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.8,de-DE;q=0.6,de;q=0.4,fr;q=0.2",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://shop.bench.example/account/orders?page=2&sort=newest&"
    "filter=open&from=2026-01-01&to=2026-12-31",
    "Origin": "https://shop.bench.example",
    "DNT": "1",
    "Sec-GPC": "1",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-site",
    "Priority": "u=1, i",
    "Pragma": "no-cache",
    "Cache-Control": "no-cache",
    "Cookie": "theme=dark; locale=en-GB; consent=necessary.statistics; "
    "cart=5f1c0e7e-77a6-4a0f-9f0a-3a5c9a2f3c11; ab=checkout-b.search-a.header-c; "
    "seen=" + "-".join(f"p{number}" for number in range(1000, 1060)),
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """One good token, and one for each thing that can be wrong with it."""

    good: str
    bad: dict[str, str]  # what is wrong -> the token


@dataclass(frozen=True, slots=True)
class Site:
    """What all peers of one run share."""

    run: Path  # scratch: configs as filled in, keys, sockets, logs
    backend: int  # its port
    tokens: Tokens

    def fill(self, template: str, **values: object) -> Path:
        """Write *template* into the run's directory, each @NAME@ filled in."""
        names = {
            "RUN": self.run,
            "BACKEND": self.backend,
            "ISSUER": ISSUER,
            "AUDIENCE": AUDIENCE,
            "BODY": BODY,
            **values,
        }
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        text = re.sub(r"@([A-Z]+)@", lambda found: str(names[found[1]]), text)
        written = self.run / template
        written.write_text(text, encoding="utf-8")
        return written


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def prepare(run: Path) -> Site:
    """Make keys and tokens in *run*, an empty directory."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (run / "issuer.pem").write_bytes(pem)
    jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    jwk |= {"kid": "bench-1", "alg": "RS256", "use": "sig"}
    (run / "issuer.jwks.json").write_text(json.dumps({"keys": [jwk]}))

    (run / "identity").mkdir()
    signing = run / "identity" / "1.pem"
    signing.touch(mode=0o600)
    signing.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    return Site(run, free_port(), _tokens(key))


def _tokens(key: rsa.RSAPrivateKey) -> Tokens:
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "sub": "c-1",
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
        "jti": "b-1",
        "roles": ["customer"],
    }

    def token(signer: rsa.RSAPrivateKey = key, **changed: object) -> str:
        return jwt.encode(
            claims | changed, signer, algorithm="RS256", headers={"kid": "bench-1"}
        )

    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return Tokens(
        good=token(),
        bad={
            "forged": token(stranger),
            "unsigned": jwt.encode(claims, "", algorithm="none"),
            "expired": token(iat=now - 7200, exp=now - 3600),
            "issuer": token(iss="https://elsewhere.example"),
            "audience": token(aud="https://other.bench.example"),
            "role": token(roles=["stranger"]),
        },
    )

"""Where a run of the bench takes place: its directory, ports, keys and tokens.

The names in the peers' configs, such as @PORT@, are filled in from here.

Imports: cryptography, jwt.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import RSAAlgorithm

from bench.ports import free_port

HERE = Path(__file__).parent
TEMPLATES = HERE / "peers"
ISSUER = "https://login.bench.example"
# One issuer for each algorithm: a key is bound to one.
ISSUERS = {"RS256": ISSUER, "ES256": f"{ISSUER}/es256", "HS256": f"{ISSUER}/hs256"}
AUDIENCE = "https://api.bench.example"
BODY = '{"order":"o-17","item":"a blue kettle","price":4200,"n":42}'  # 59 bytes

CALL = "/api/orders/customers/c-1/orders"
SEEN = "/api/orders/seen"
STATUS = "/api/orders/status"
STREAM = "/api/streams/one"
SOCKET = "/api/sockets/one"
STREAM_BYTES = 1 << 30
FEW = 1000  # tokens that are not worth another process

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
    streams: int  # the port of what sends and takes 1 GiB
    sockets: int  # the port of what echoes WebSocket messages
    tokens: Mapping[str, Tokens]  # algorithm -> what is tried
    issued_at: int  # Unix seconds; of every token
    keys: Mapping[str, str] = field(repr=False)  # algorithm -> PEM, or the secret

    def fill(self, template: str, to: str = "", **values: object) -> Path:
        """Write *template* into the run's directory, each @NAME@ filled in.

        Args:
            template: A file of bench/peers.
            to: What to call it there; as it is called here, if left out.
            values: Beside what is the same for all.
        """
        names = {
            "RUN": self.run,
            "BACKEND": self.backend,
            "STREAMS": self.streams,
            "SOCKETS": self.sockets,
            "ISSUER": ISSUER,
            "AUDIENCE": AUDIENCE,
            "BODY": BODY,
            **values,
        }
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        text = re.sub(r"@([A-Z]+)@", lambda found: str(names[found[1]]), text)
        written = self.run / (to or template)
        written.write_text(text, encoding="utf-8")
        return written

    def mint(self, name: str, algorithm: str, count: int) -> Path:
        """Return a file of *count* good tokens, one on each line, no two the same."""
        file = self.run / f"{name}.tokens"
        if file.exists():
            return file
        claims = good_claims(algorithm, self.issued_at)
        mint = partial(
            _mint, name=name, algorithm=algorithm, keys=self.keys, claims=claims
        )
        if count < FEW:
            lines = mint(range(count))
        else:
            cores = os.cpu_count() or 1
            size = -(-count // cores)  # an RS256 signature is most of a millisecond
            spans = [range(at, min(at + size, count)) for at in range(0, count, size)]
            with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
                lines = "".join(pool.map(mint, spans))
        file.write_text(lines, encoding="ascii")
        return file


def _mint(
    numbers: range,
    name: str,
    algorithm: str,
    keys: Mapping[str, str],
    claims: dict[str, Any],
) -> str:
    key = _loaded(algorithm, keys[algorithm])
    return "".join(
        _signed(
            algorithm, key, claims | {"sub": f"c-{number}", "jti": f"{name}-{number}"}
        )
        + "\n"
        for number in numbers
    )


def prepare(run: Path) -> Site:
    """Make keys and tokens in *run*, an empty directory."""
    keys = {algorithm: new_key(algorithm) for algorithm in ISSUERS}
    jwk: dict[str, Any] = {}
    for algorithm in ("RS256", "ES256"):
        public = _loaded(algorithm, keys[algorithm]).public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (run / f"issuer-{algorithm}.pem").write_bytes(pem)
        if algorithm == "RS256":
            jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
            jwk |= {"kid": "bench-1", "alg": "RS256", "use": "sig"}
    (run / "issuer.jwks.json").write_text(json.dumps({"keys": [jwk]}))
    secret = run / "issuer-HS256.secret"
    secret.touch(mode=0o600)
    secret.write_text(keys["HS256"], encoding="ascii")

    (run / "identity").mkdir()
    signing = run / "identity" / "1.pem"
    signing.touch(mode=0o600)
    signing.write_text(new_key("ES256"), encoding="ascii")

    now = int(time.time())
    return Site(
        run,
        backend=free_port(),
        streams=free_port(),
        sockets=free_port(),
        tokens={each: _tokens(each, keys, now) for each in ISSUERS},
        issued_at=now,
        keys=keys,
    )


def new_key(algorithm: str) -> str:
    """Return a private key as PEM; for HS256 a secret."""
    if algorithm == "HS256":
        return secrets.token_hex(32)
    key = (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if algorithm == "RS256"
        else ec.generate_private_key(ec.SECP256R1())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem.decode("ascii")


def good_claims(algorithm: str, now: int) -> dict[str, Any]:
    """Return what a token that passes says."""
    return {
        "iss": ISSUERS[algorithm],
        "sub": "c-1",
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
        "jti": "b-1",
        "roles": ["customer"],
    }


def _loaded(algorithm: str, key: str) -> Any:
    if algorithm == "HS256":
        return key
    return load_pem_private_key(key.encode("ascii"), password=None)


def _signed(algorithm: str, key: Any, claims: dict[str, Any]) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": "bench-1"})


def _tokens(algorithm: str, keys: Mapping[str, str], now: int) -> Tokens:
    claims = good_claims(algorithm, now)
    own = _loaded(algorithm, keys[algorithm])
    stranger = _loaded(algorithm, new_key(algorithm))

    def token(key: Any = own, **changed: object) -> str:
        return _signed(algorithm, key, claims | changed)

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

"""A site that accepts sealed tokens of every kind, and its keys.

site = SealedSite(tmp_path, upstream=backend.url)
async with site.running() as gateway:
    ...  # ask with sealed.bearer(site.fernet("alice"))
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from gateway.tokens.fernet import FernetKeys
from gateway.tokens.jwe import SealingKey, sealing_key
from tests.site import AUDIENCE, POLICY, Site
from tests.tokens import make

SEALED = "https://api.test.example/sealed"
OCTETS = make.b64(bytes(range(32)))
EC = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    .decode()
)
RSA = make.key("RS256", "opens").private_pem.decode()  # configured where it is wanted
SEALED_POLICY = POLICY.replace(
    "[permissions]", 'issuers = ["corp", "fernet", "jwe"]\n\n[permissions]', 1
).replace('"customer_id"\n', '{ param = "customer_id", issuer = "corp" }\n')
SECTIONS = """\
[fernet]
issuer   = "https://api.test.example/sessions"
audience = ["https://api.test.example"]
keys     = ["file:new.key", "file:old.key"]
ttl      = "15m"
roles    = { claim = "roles", allow = ["customer", "support"] }
scope    = { user = "ignore", service = "grant" }

[jwe]
issuer   = "https://api.test.example/sealed"
audience = ["https://api.test.example"]
nested   = ["corp"]
roles    = { claim = "roles", allow = ["customer", "support"] }
scope    = { user = "ignore", service = "grant" }
[[jwe.keys]]
kid = "dir"
alg = "dir"
enc = "A256GCM"
key = "file:dir.key"
[[jwe.keys]]
kid = "ec"
alg = "ECDH-ES"
enc = "A256GCM"
key = "file:ec.pem"
"""


@dataclass
class SealedSite(Site):
    """A site with [fernet] and [jwe]; their keys are files beside gateway.toml."""

    more: str = SECTIONS
    policy: str = SEALED_POLICY

    def write(self) -> Path:
        keys = {
            "new.key": Fernet.generate_key().decode(),
            "old.key": Fernet.generate_key().decode(),
            "dir.key": OCTETS,
            "ec.pem": EC,
        }
        for name, text in keys.items():
            file = self.directory / name
            if not file.exists():
                file.write_text(text + "\n", encoding="ascii")
                file.chmod(0o600)
        return super().write()

    def fernet_key(self, name: str) -> str:
        return (self.directory / name).read_text(encoding="ascii").strip()

    def fernet(self, subject: str = "c-1", by: str = "new.key", **claims: Any) -> str:
        """Return a token that the key in the file *by* sealed just now."""
        now = int(time.time())
        said = {"sub": subject, "exp": now + 600, "roles": ["customer"], **claims}
        return FernetKeys([self.fernet_key(by)]).seal(json.dumps(said).encode(), now)

    def jwe(
        self, subject: str = "c-1", by: SealingKey | None = None, **claims: Any
    ) -> str:
        """Return a token that holds claims of the issuer "jwe"."""
        now = int(time.time())
        said = {
            "iss": SEALED,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + 600,
            "roles": ["customer"],
            **claims,
        }
        content = json.dumps(said)
        return wrapped(content, "dir") if by is None else by.seal(content.encode(), {})

    def nested(self, subject: str = "c-1", by: str = "ec", **claims: Any) -> str:
        """Return a token that corp has signed, encrypted to the key *by*."""
        return wrapped(self.token(subject, **claims), by, cty="JWT")


def wrapped(content: str, by: str, **header: str) -> str:
    """Return *content*, encrypted to the key *by* of a site."""
    how = {"dir": ("dir", OCTETS), "ec": ("ECDH-ES", EC), "rsa": ("RSA-OAEP-256", RSA)}
    algorithm, material = how[by]
    key = sealing_key(algorithm, "A256GCM", by, material.encode())
    return key.seal(content.encode(), header)


def bearer(token: str) -> dict[str, str]:
    """Return the field that presents *token*."""
    return {"authorization": f"Bearer {token}"}

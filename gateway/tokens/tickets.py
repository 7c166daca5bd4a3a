"""A ticket: a credential for one request, which fits into a URL.

It is 256 random bits. A store keeps, under one digest of it, the credential that it was
given for, encrypted with another digest of it (AES-256-GCM) and bound to the request it
is good for. So nothing in the store can be used without the ticket, what was tampered
with opens nothing (R53), and every worker of every instance opens what another one has
sealed, without a key that they would have to share.

Imports: gateway.model, cryptography.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final, get_args

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.model import Credential, CredentialKind, RequestHead

TICKET_BYTES: Final = 32
LIFE: Final = 30.0  # seconds: a page asks for it when it needs it
_VERSION: Final = b"1"
# Each key encrypts once, so that no nonce can come twice with it.
_NONCE: Final = bytes(12)
_TAG_BYTES: Final = 16
_KINDS: Final = frozenset(get_args(CredentialKind)) - {"ticket", "certificate"}


def ticket_of(random: bytes) -> str:
    """Return the ticket made of TICKET_BYTES *random* ones."""
    return urlsafe_b64encode(random).rstrip(b"=").decode("ascii")


def request_of(head: RequestHead) -> bytes:
    """Return what tells the request of *head*, without its ticket, from any other."""
    # Neither a method nor a host holds a NUL.
    return b"%b\0%b\0%b" % (head.method.encode(), head.host.encode(), head.target)


def name_of(ticket: str) -> bytes:
    """Return the name under which a store keeps what *ticket* opens."""
    return sha256(b"gateway ticket name\0" + ticket.encode()).digest()


def seal(ticket: str, credential: Credential, request: bytes) -> bytes:
    """Return what a store keeps: *credential*, for the holder of *ticket* alone.

    Args:
        ticket: Used for nothing else.
        credential: For which it is given.
        request: Of `request_of`: the one that it is good for.
    """
    text = f"{credential.kind}\0{credential.token}".encode()
    return _VERSION + _cipher(ticket).encrypt(_NONCE, text, _VERSION + request)


def unseal(ticket: str, value: bytes, request: bytes) -> Credential | None:
    """Return the credential in *value*, if *ticket* is good for *request*."""
    if not value.startswith(_VERSION) or len(value) < len(_VERSION) + _TAG_BYTES:
        return None
    try:
        text = _cipher(ticket).decrypt(
            _NONCE, value[len(_VERSION) :], _VERSION + request
        )
    except InvalidTag:
        return None
    kind, _, token = text.decode().partition("\0")
    for known in _KINDS:
        if kind == known:
            return Credential(known, token)
    return None


def _cipher(ticket: str) -> AESGCM:
    return AESGCM(sha256(b"gateway ticket key\0" + ticket.encode()).digest())

"""For the services behind the gateway: verify who calls, ask what he may.

Stands alone: nothing of the gateway is needed but this room, PyJWT and cryptography.
"""

from __future__ import annotations

from gateway.backend.asgi import IdentityMiddleware
from gateway.backend.guard import Refused, identity, require
from gateway.backend.keys import KeysUnavailable
from gateway.backend.verify import Fault, Identity, IdentityError, Verifier
from gateway.backend.wsgi import WsgiIdentityMiddleware

__all__ = [
    "Fault",
    "Identity",
    "IdentityError",
    "IdentityMiddleware",
    "KeysUnavailable",
    "Refused",
    "Verifier",
    "WsgiIdentityMiddleware",
    "identity",
    "require",
]

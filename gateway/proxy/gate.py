"""One generation of everything the data port decides by.

A port has one for its life: a reload makes another port, so that no request is decided
by one generation and forwarded by another.

Imports: gateway.config.settings, gateway.decision, gateway.identity, gateway.model,
gateway.observe, gateway.wire.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from gateway.config.settings import Server, Upstream
from gateway.decision import Pending
from gateway.identity.signer import Signed
from gateway.model import Denial, Permit, Principal, RequestHead
from gateway.observe.access import Entry
from gateway.wire.headers import Hygiene


@dataclass(frozen=True, slots=True)
class Gate:
    """What decides, what is written for whom, and where requests go."""

    server: Server
    decide_now: Callable[[RequestHead, float], Permit | Denial | Pending]
    finish: Callable[[Pending], Awaitable[Permit | Denial]]  # raises Unavailable
    hygiene: Hygiene
    # The signed fields for a Permit of the request with that id, none where there is
    # nobody to speak of; a Denial where a claim can't be said in a header (R95).
    identity: Callable[[Permit, RequestHead, bytes, float], Signed | Denial]
    upstreams: Mapping[str, Upstream]  # "self" too
    log: Callable[[Entry], None]  # never waits
    generation: str = ""
    log_query: frozenset[str] = frozenset()  # query names that the log may show
    # Whether a principal has been revoked, as far as it is known here.
    is_revoked: Callable[[Principal], bool] = lambda _: False
    # The keyed hash of a request's token, for the log; "" where it holds none.
    token_hash: Callable[[RequestHead], str] = lambda _: ""

"""The main path: may this request pass?

    head -> host -> own path -> route (-> origin) -> credential -> principal
         -> accepted here and now -> bound to the client -> not revoked -> authorized
         -> Permit

Each step either hands the next one what it needs or ends the matter, and every
`return` of a denial below is a place where a request can stop. There are no others.
What is known is read; what is not is yielded as a Need, and whoever drives the steps
answers it. The same steps therefore serve the protocol's callback, which can't wait,
and the doors that can.

Imports: gateway.model, gateway.policy, gateway.tokens, gateway.wire.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gateway.model import (
    ANONYMOUS,
    API_KEYS,
    CERTIFICATES,
    NOTHING,
    SELF,
    Case,
    Credential,
    CredentialKind,
    Denial,
    Need,
    Permit,
    Principal,
    Reason,
    ReplayNeeded,
    RequestHead,
    RevocationNeeded,
    Route,
    StaleRevocation,
    Steps,
    TicketNeeded,
    Unavailable,
)
from gateway.policy.policy import Policy
from gateway.tokens.accept import accept
from gateway.tokens.binding import Bindings
from gateway.tokens.tickets import request_of
from gateway.wire.credential import KeyPlace, extract, without_ticket
from gateway.wire.websocket import check_origin

OWN = Route(
    id="self", service="", upstream=SELF, access="public", pass_credentials=True
)
"""The route of our own endpoints: they look at credentials themselves."""

WELL_KNOWN = (".well-known",)  # RFC 8615 section 3

_KINDS: Mapping[str, CredentialKind] = {
    API_KEYS: "api_key",
    CERTIFICATES: "certificate",
}
"""By issuer, with what somebody was let in; all others have sent a token."""


class Verifier(Protocol):
    """Turns one kind of credential into a Principal."""

    def authenticate(self, token: str, now: float) -> Steps[Principal | Denial]:
        """Verify *token* as of *now* (Unix seconds)."""
        ...


class Authenticator(Verifier, Protocol):
    """Does so with a kind of token that is told by its shape."""

    def recognises(self, token: str) -> bool:
        """Tell from its shape alone whether *token* is of this kind."""
        ...

    def authenticate(
        self, token: str, now: float, client: str = ""
    ) -> Steps[Principal | Denial]:
        """Verify *token* as of *now* (Unix seconds).

        The address of its client says on whose account a costly attempt is made, and
        nothing about the token; "" where it is not known.
        """
        ...


class VerifiedTokens(Protocol):
    """Remembers which bytes were verified, and as whom."""

    def get(self, kind: CredentialKind, token: str) -> Principal | None: ...

    def put(self, kind: CredentialKind, token: str, principal: Principal) -> None: ...


class Mirror(Protocol):
    """What this process knows of revocations."""

    def check_now(self, principal: Principal) -> bool | None:
        """Return None when it can't tell, because it is not live."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """A decision that has to wait for *need* before *steps* can go on."""

    need: Need
    steps: Steps[Permit | Denial]


class Decider:
    """Decides requests against one policy. Holds no state of its own.

    Args:
        policy: Routes, permissions, roles.
        authenticators: Asked in this order; the first that recognises a token has
            the last word.
        verified: The verified-token cache.
        mirror: The local view of the revocation list.
        audiences: For each issuer, what its tokens may be for where a route says
            nothing.
        hosts: The Host values served, lower-case; empty for any valid one (R4).
        own_prefix: The segments of [server].own_prefix.
        max_token: bytes.
        api_keys: Where API keys stand, and who knows them; None: there are none.
        bindings: What proves that a token is presented by whom it is bound to; None:
            our own TLS, and the client's address.
    """

    def __init__(
        self,
        policy: Policy,
        authenticators: Sequence[Authenticator],
        verified: VerifiedTokens,
        mirror: Mirror,
        *,
        audiences: Mapping[str, frozenset[str]],
        hosts: frozenset[str] = frozenset(),
        own_prefix: tuple[str, ...] = ("auth",),
        max_token: int = 8 * 1024,
        api_keys: tuple[KeyPlace, Verifier] | None = None,
        bindings: Bindings | None = None,
    ) -> None:
        self.policy = policy
        self._authenticators = tuple(authenticators)
        self._verified = verified
        self._mirror = mirror
        self._audiences = audiences
        self._hosts = hosts | policy.hosts if hosts or policy.hosts else None
        self._own = (own_prefix, WELL_KNOWN)
        self._own_first = frozenset(prefix[0] for prefix in self._own)
        self._max_token = max_token
        self.key_place: KeyPlace | None = None
        self._api_keys: Verifier | None = None
        if api_keys is not None:
            self.key_place, self._api_keys = api_keys
        self._bindings = bindings or Bindings()

    def steps(
        self, head: RequestHead, now: float, held: Principal | None = None
    ) -> Steps[Permit | Denial]:
        """Decide *head* as of *now* (Unix seconds).

        Args:
            head: What is asked for.
            now: Unix seconds.
            held: Who was let in with it before. What was presented then is not looked
                at again: a ticket and a proof are used up. All that depends on the
                policy and on the list of revocations is.

        Raises:
            Unavailable: What a Need asked for could not be had.
        """
        if self._hosts is not None and head.host not in self._hosts:
            return Denial(Reason.HOST_UNKNOWN)

        if head.segments[0] in self._own_first and self._is_own(head.segments):
            if head.escapes:
                return Denial(Reason.TARGET_AMBIGUOUS, "escape", route=OWN)
            return Permit(OWN, NOTHING, ANONYMOUS, 0, SELF, head.target, reserved=True)

        match = self.policy.match(head)
        if isinstance(match, Denial):
            return match
        route, params = match
        sockets = route.websocket if head.kind == "websocket" else None
        if sockets is not None and not check_origin(head.headers, sockets.origins):
            return Denial(Reason.ORIGIN_FORBIDDEN, route=route)
        if route.access == "public":
            return Permit(
                route, params, ANONYMOUS, 0, route.upstream, _sent(head, route)
            )

        credential: Credential | Denial
        if held is None:
            credential = extract(
                head.section,
                head.query,
                route.credentials,
                self._max_token,
                sockets is not None,
                self.key_place,
            )
            if (
                isinstance(credential, Denial)
                and credential.reason is Reason.CREDENTIAL_MISSING
                and "certificate" in route.credentials
            ):
                # What the client shows to the connection counts where it says nothing
                # else.
                credential = self._bindings.credential(head) or credential
        else:
            credential = _credential_of(held, route)
        if isinstance(credential, Denial):
            missing = credential.reason is Reason.CREDENTIAL_MISSING
            # Who was let in by name does not go on as nobody.
            may_be_nobody = held is None or held.kind == "anonymous"
            if missing and route.access == "optional" and may_be_nobody:
                return Permit(
                    route, params, ANONYMOUS, 0, route.upstream, _sent(head, route)
                )
            if missing and route.binding is not None:
                needed = self._bindings.algorithms(route)
                credential = replace(credential, needed=needed)
            return _on(credential, route)

        principal = held
        try:
            if credential.kind == "ticket":
                # It stands for the credential that it was given for, and that one goes
                # the way of every other: a token that has expired or was revoked since
                # is refused as if it had come itself.
                head = without_ticket(head)
                stood_for: Credential | None = yield TicketNeeded(
                    credential.token, request_of(head)
                )
                if stood_for is None or stood_for.kind not in route.credentials:
                    return _on(Denial(Reason.TICKET_INVALID), route)
                credential = stood_for

            # A key's record may change at any time, unlike what a token says: who knows
            # keys knows too for how long.
            is_key = credential.kind == "api_key"
            if held is None and not is_key:
                principal = self._verified.get(credential.kind, credential.token)
            if principal is None:
                verdict = yield from self._authenticate(credential, now, head.client)
                if isinstance(verdict, Denial):
                    return _on(verdict, route)
                principal = verdict
                if not is_key:
                    self._verified.put(credential.kind, credential.token, principal)

            # On every request, whether the token was known or not: what depends on
            # this route and this moment is never cached.
            audience = route.audience
            # A key, or a certificate, is for all routes that take such.
            if audience is None or is_key or credential.kind == "certificate":
                audience = self._audiences[principal.issuer]
            refused = accept(principal, audience, route.issuers, now)
            if refused is not None:
                return _on(refused, route, principal)

            proof = None
            if held is not None:
                unbound = self._bindings.missing(principal, route)
                if unbound is not None:
                    return _on(unbound, route, principal)
            elif (
                principal.binding is not None
                or route.binding is not None
                or credential.proof is not None
            ):
                proven = self._bindings.check(principal, route, credential, head, now)
                if isinstance(proven, Denial):
                    return _on(proven, route, principal)
                proof = proven

            age = None
            revoked = self._mirror.check_now(principal)
            if revoked is None or (route.strict and revoked is False):
                known = yield RevocationNeeded(principal, route.stale)
                revoked, age = _dated(known, route.stale)
            if revoked is not False:
                return _on(Denial(Reason.TOKEN_REVOKED), route, principal, age)

            if proof is not None:
                # After all that can be seen without writing anything down.
                is_first = yield ReplayNeeded(proof.name, proof.issued_at)
                if is_first is not True:
                    return _on(Denial(Reason.DPOP_REPLAYED), route, principal, age)

            granted = self.policy.granted(principal)
            if route.rule is not None or granted & route.needed != route.needed:
                case = Case(head, route, params, principal, granted)
                refused = yield from self.policy.authorize(case)
                if refused is not None:
                    return _on(refused, route, principal, age)
        except Unavailable as outage:
            outage.route, outage.principal = route, principal
            raise

        return Permit(
            route,
            params,
            principal,
            granted,
            route.upstream,
            _sent(head, route),
            age,
        )

    def by(self, policy: Policy) -> Decider:
        """Return one that decides by *policy*, and is else the same."""
        other = copy.copy(self)
        other.policy = policy
        return other

    def decide_now(
        self, head: RequestHead, now: float, held: Principal | None = None
    ) -> Permit | Denial | Pending:
        """Decide *head* without waiting, or say what has to be waited for.

        See `steps`.
        """
        steps = self.steps(head, now, held)
        try:
            return Pending(next(steps), steps)
        except StopIteration as end:
            outcome: Permit | Denial = end.value
            return outcome

    async def decide(
        self,
        head: RequestHead,
        now: float,
        answer: Callable[[Need], Awaitable[Any]],
        held: Principal | None = None,
    ) -> Permit | Denial:
        """Decide *head*, waiting for what has to be waited for; see `steps`.

        Raises:
            Unavailable: Something needed did not answer. Never consent.
        """
        outcome = self.decide_now(head, now, held)
        if isinstance(outcome, Pending):
            return await finish(outcome, answer)
        return outcome

    def _authenticate(
        self, credential: Credential, now: float, client: str
    ) -> Steps[Principal | Denial]:
        if credential.kind == "api_key" and self._api_keys is not None:
            return (yield from self._api_keys.authenticate(credential.token, now))
        # The first authenticator that knows the shape has the last word. To try the
        # next one after a refusal would let a token be read two ways.
        for authenticator in self._authenticators:
            if authenticator.recognises(credential.token):
                token = credential.token
                return (yield from authenticator.authenticate(token, now, client))
        return Denial(Reason.CREDENTIAL_UNRECOGNISED)

    def _is_own(self, segments: tuple[str, ...]) -> bool:
        return any(segments[: len(prefix)] == prefix for prefix in self._own)


async def finish(
    pending: Pending, answer: Callable[[Need], Awaitable[Any]]
) -> Permit | Denial:
    """Drive a pending decision to its end.

    Raises:
        Unavailable: The outside did not answer. The caller answers 503; it never
            reads this as consent.
    """
    need, steps = pending.need, pending.steps
    try:
        while True:
            try:
                known = await answer(need)
            except Unavailable as outage:
                # Into the steps, not past them: another branch of an `any` may
                # still decide without the one who is away.
                need = steps.throw(outage)
            else:
                need = steps.send(known)
    except StopIteration as end:
        outcome: Permit | Denial = end.value
        return outcome
    finally:
        steps.close()


def _credential_of(held: Principal, route: Route) -> Credential | Denial:
    """Return what *held* was let in with, without its text, if *route* takes such."""
    kind = _KINDS.get(held.issuer, "bearer")
    if held.kind == "anonymous" or kind not in route.credentials:
        return Denial(Reason.CREDENTIAL_MISSING)
    return Credential(kind, "")


def _dated(known: Any, most: float) -> tuple[Any, float | None]:
    """Return what is *known* of a revocation, and how many seconds ago it was so.

    Raises:
        Unavailable: It is older than *most*: whoever answers is not believed there.
    """
    if not isinstance(known, StaleRevocation):
        return known, None
    if not most or not known.age <= most:
        raise Unavailable("revocation store")
    return known.is_revoked, known.age


def _on(
    denial: Denial,
    route: Route,
    principal: Principal | None = None,
    age: float | None = None,
) -> Denial:
    who = principal or denial.principal
    return Denial(denial.reason, denial.at, denial.needed, route, who, age)


def _sent(head: RequestHead, route: Route) -> bytes:
    """Return the target to send: what was received, or less its leading segments.

    Counted in segments of the raw path, since the client may have spelt the prefix
    with percent-encodings, and a count of bytes would cut somewhere else.
    """
    if not route.strip:
        return head.target
    path = head.path
    at = 0
    for _ in range(route.strip):
        at = path.find(b"/", at + 1)
        if at < 0:
            at = len(path)
            break
    rest = path[at:] or b"/"
    return rest if head.query is None else rest + b"?" + head.query

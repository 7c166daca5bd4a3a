"""The desk for logouts: what an issuer says has ended is revoked.

First it is revoked, then the token is noted as used: a logout that failed half way can
be sent again, and one that is replayed revokes nothing more than it did, since its
cut-off is its own `iat`.

Imports: gateway.clock, gateway.config.settings, gateway.credentials, gateway.model,
gateway.revocation.entries, gateway.stores, gateway.tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.credentials import rules_of
from gateway.model import Denial, Need, Unavailable
from gateway.revocation.entries import Revocation, entry_for
from gateway.stores import Stores
from gateway.tokens.jwks import KeyStore
from gateway.tokens.logout import Logout, LogoutTokens

_LOG = logging.getLogger("gateway")


class LogoutDesk:
    """Carries logout tokens out.

    Args:
        settings: Which issuers send them.
        keys: Of these.
        stores: Where it is written.
        clock: Says when.
        answer: Answers a Need. Raises Unavailable.
    """

    def __init__(
        self,
        settings: Settings,
        keys: KeyStore,
        stores: Stores,
        clock: Clock,
        answer: Callable[[Need], Awaitable[Any]],
    ) -> None:
        self._issuers = settings.issuers
        self._max_token = settings.server.max_token
        self._stores = stores
        self._clock = clock
        self._answer = answer
        self._tokens = LogoutTokens(
            [
                replace(rules_of(each, settings), audience=each.logout_audience)
                for each in settings.issuers.values()
                if each.logout_audience
            ],
            keys,
        )

    async def carry_out(self, token: str) -> bool:
        """Revoke what *token* says has ended; False: it is a bad one.

        Raises:
            Unavailable: The store has not acknowledged it, or nobody has the key.
        """
        if len(token) > self._max_token:
            return _refused("it is too long")
        now = self._clock.wall()
        found = await self._read(token, now)
        if isinstance(found, Denial):
            return _refused(str(found))
        entry = self._entry(found, now)
        await self._stores.revocations.revoke(entry)
        note = ""
        try:
            if not await self._stores.replays.use(found.name, found.issued_at):
                return _refused("it was used before")
        except Unavailable:
            # It has been carried out, and would change nothing again: it counts as of
            # when it was issued.
            note = " (not known whether it was used before)"
        _LOG.warning("logged out: issuer=%s kind=%s%s", found.issuer, entry.kind, note)
        return True

    async def _read(self, token: str, now: float) -> Logout | Denial:
        steps = self._tokens.read(token, now)
        try:
            need = next(steps)
            while True:
                need = steps.send(await self._answer(need))
        except StopIteration as end:
            found: Logout | Denial = end.value
            return found
        finally:
            steps.close()

    def _entry(self, logout: Logout, now: float) -> Revocation:
        issuer = self._issuers[logout.issuer]
        session_id, subject = logout.session_id, logout.subject
        assert session_id is not None or subject is not None, "or it says nothing"
        return entry_for(
            "subject" if session_id is None else "session",
            issuer.issuer,
            session_id or subject or "",
            # Then, and not now: whoever has logged in again since then stays so, and a
            # token that comes again changes nothing.
            now=min(logout.issued_at, now),
            max_lifetime=issuer.max_lifetime,
            leeway=issuer.leeway,
        )


def _refused(why: str) -> bool:
    _LOG.warning("a logout token was refused: %s", why)
    return False

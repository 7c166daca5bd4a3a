"""Where everything is kept that must outlive a generation: in memory, or in Redis.

Imports: gateway.adapters, gateway.clock, gateway.config.settings, gateway.revocation.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.adapters.api_keys import ApiKeys, MemoryApiKeys, RedisApiKeys
from gateway.adapters.memory_store import MemoryRevocations
from gateway.adapters.replays import MemoryReplays, RedisReplays, Replays
from gateway.adapters.tickets import MemoryTickets, RedisTickets, Tickets
from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.revocation.lists import RevocationList


@dataclass(frozen=True, slots=True)
class Stores:
    """What one generation keeps things in."""

    revocations: RevocationList
    tickets: Tickets
    replays: Replays
    api_keys: ApiKeys | None  # None: there is no [api_keys]

    async def aclose(self) -> None:
        """Close what they hold open."""
        await self.revocations.aclose()
        await self.tickets.aclose()
        if self.api_keys is not None:
            await self.api_keys.aclose()
        await self.replays.aclose()


def stores_of(
    settings: Settings,
    clock: Clock,
    before: Stores | None = None,
    *,
    stale: float = 0.0,
) -> Stores:
    """Return the stores of *settings*.

    Args:
        settings: What [store] says, and whether there are API keys.
        clock: For whatever ends.
        before: In memory, of the generation that this one goes on with.
        stale: Seconds; the longest that any route is decided by an old mirror.
    """
    url, keys = settings.store.url, settings.api_keys
    api_keys: ApiKeys | None = None
    if settings.store.is_memory:
        if keys is not None:
            held = None if before is None else before.api_keys
            api_keys = held or MemoryApiKeys(clock)
        if before is not None:
            return Stores(before.revocations, before.tickets, before.replays, api_keys)
        return Stores(
            MemoryRevocations(clock),
            MemoryTickets(clock),
            MemoryReplays(clock),
            api_keys,
        )
    # redis takes 90 ms to import: who keeps everything in memory doesn't wait for it.
    from gateway.adapters.redis_mirror import MirroredRevocations  # noqa: PLC0415

    if keys is not None:
        api_keys = RedisApiKeys(url, clock, keys.pepper)
    return Stores(
        MirroredRevocations(url, clock, stale=stale, replicas=settings.store.replicas),
        RedisTickets(url),
        RedisReplays(url, clock),
        api_keys,
    )

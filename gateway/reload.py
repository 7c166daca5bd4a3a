"""When the configuration is read again: whether it may take the old one's place (R103).

Three things can be against it. It has mistakes. It changes what was opened for life.
Or whoever serves by it could do less than is done now: an issuer whose keys can't be
had at the moment would be an outage that nobody had without the reload.

Imports: gateway.asgi, gateway.config, gateway.observe.metrics.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from gateway.asgi.probes import Check
from gateway.config.load import ConfigError, Loaded
from gateway.config.settings import Settings
from gateway.observe.metrics import RELOADS, Sample

logger = logging.getLogger("gateway")


async def read_again(
    reread: Callable[[], Loaded], settings: Settings
) -> tuple[Loaded | None, str]:
    """Return what *reread* loads, or why it is not to be used.

    It is read by a thread that ends with it, so that requests go on meanwhile and the
    supervisor may fork afterwards.

    Args:
        reread: Loads the configuration. Raises ConfigError.
        settings: What is in force.
    """
    try:
        with ThreadPoolExecutor(1, "config") as thread:
            loop = asyncio.get_running_loop()
            loaded = await loop.run_in_executor(thread, reread)
    except ConfigError as error:
        logger.error("the configuration was read again:\n%s", error)  # noqa: TRY400
        first, *others = str(error).splitlines()
        return None, f"{first} (...)" if others else first
    trouble = unchangeable(settings, loaded.settings)
    return (None, trouble) if trouble else (loaded, "")


def unchangeable(old: Settings, new: Settings) -> str:
    """Name what differs and was opened for life; "" when nothing does."""
    pairs = {
        "[server] listen": (old.server.listen, new.server.listen),
        "[server] workers": (old.server.workers, new.server.workers),
        "[probes]": (old.probes, new.probes),
        "[admin]": (old.admin, new.admin),
    }
    changed = [name for name, (before, after) in pairs.items() if before != after]
    if not changed:
        return ""
    return f"a restart is needed to change {', '.join(changed)}"


def worse(before: Sequence[Check], after: Sequence[Check]) -> str:
    """Name what is in trouble *after* and was not *before*; "" when nothing is."""
    troubled = {check.name for check in before if check.trouble}
    return "; ".join(
        f"{check.name}: {check.trouble}"
        for check in after
        if check.trouble and check.name not in troubled
    )


class Reloads:
    """How reloads ended, for the log and the metrics."""

    def __init__(self) -> None:
        self._applied = self._refused = 0

    def tell(self, refused: str, generation: str) -> None:
        """Note how one ended; *refused* says why it is not in force, or is ""."""
        if refused:
            self._refused += 1
            logger.error("the old configuration stays: %s", refused)
        else:
            self._applied += 1
            logger.info("the new configuration is in force: generation %s", generation)

    def measure(self) -> Iterator[Sample]:
        """Yield how often they ended in which way."""
        yield RELOADS, ("applied",), self._applied
        yield RELOADS, ("refused",), self._refused


def checks_of_life(refused: str, *, is_draining: bool) -> list[Check]:
    """Say whether we are about to go, and whether the last reload was refused."""
    return [
        Check("not draining", "draining" if is_draining else "", fatal=True),
        Check("configuration", f"the old one stays: {refused}" if refused else ""),
    ]

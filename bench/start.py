"""Start a gateway as `gateway serve` does, in a state that takes long to get into.

    python -m bench.start --revoked 1000000 --keep 128 -c gateway.toml

For the bench alone: no option and no port of the product leads here. What is changed is
named below, and nothing else is: the number of verified tokens and of signed identities
that are kept, and what the revocation list in memory holds when the gateway starts. The
entries go in one by one through `revoke`, as those of the admin port do.

Imports: gateway.
"""

from __future__ import annotations

import argparse
import contextlib
from functools import partial
from pathlib import Path

import gateway.app
import gateway.signers
import gateway.stores
from gateway.adapters.memory_store import MemoryRevocations
from gateway.cli.common import loaded_or_exit, reading
from gateway.cli.serve import run
from gateway.clock import Clock
from gateway.identity.signer import Signer
from gateway.observe.access import to_json
from gateway.revocation.entries import entry_for
from gateway.tokens.cache import VerifiedTokens

LIFETIME = 3600.0  # seconds: no entry ends while the bench runs


def filled(clock: Clock, *, count: int, issuer: str) -> MemoryRevocations:
    """Return a list that holds *count* tokens which nobody presents."""
    revocations, now = MemoryRevocations(clock), clock.wall()
    for number in range(count):
        entry = entry_for(
            "token",
            issuer,
            f"revoked-{number}",
            now=now,
            max_lifetime=LIFETIME,
            leeway=30.0,
        )
        # In memory nothing is waited for, so the first step is the last.
        with contextlib.suppress(StopIteration):
            revocations.revoke(entry).send(None)
    return revocations


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", action="append", type=Path, dest="files", required=True)
    parser.add_argument("--revoked", type=int, default=0)
    parser.add_argument("--keep", type=int, default=0)
    asked = parser.parse_args()
    loaded = loaded_or_exit(asked.files)
    if asked.keep:
        known = partial(VerifiedTokens, max_entries=asked.keep)
        vars(gateway.app)["VerifiedTokens"] = known
        vars(gateway.signers)["Signer"] = partial(Signer, max_entries=asked.keep)
    if asked.revoked:
        issuer = loaded.settings.issuers["corp"].issuer
        vars(gateway.stores)["MemoryRevocations"] = partial(
            filled, count=asked.revoked, issuer=issuer
        )
    run(loaded, reading(asked.files), to_json)


if __name__ == "__main__":
    main()

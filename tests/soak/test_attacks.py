"""R100 on the running gateway: refusing costs little, and honest callers notice less.

GATEWAY_SOAK=full attacks at 1,000 requests a second for ten minutes; GATEWAY_SOAK_TIME
changes how long (seconds).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.introspection import Bounds
from tests.soak.attacks import ATTACKS, Attack, mixed
from tests.soak.load import Tally, connect, elsewhere, load
from tests.soak.running import FULL, Running, needs_proc, report, running

pytestmark = [needs_proc, pytest.mark.alone]

MIB = 1 << 20
HONEST = 200  # requests a second
HOSTILE = 1000 if FULL else 150
PHASES = 10 if FULL else 1
PHASE = float(os.environ.get("GATEWAY_SOAK_TIME") or (600 if FULL else 3)) / PHASES
COMING = 3.0 if FULL else 1.0  # seconds until the attacker's process is at it
ALONE = min(PHASE, 12.0 if FULL else 1.5)  # seconds
EACH = 2000 if FULL else 100  # requests for the cost of one kind
GROWTH = 20 * MIB
GOAL_COST = 5.0  # times an accepted request (R100)


async def test_the_attack_mix_disturbs_nobody(tmp_path: Path) -> None:
    """R100: no honest failure, flat memory, no file left open, no issuer flooded."""
    async with running(tmp_path) as run:
        honest = itertools.repeat(run.request())
        hostile = mixed()
        await load(run.port, honest, rate=HONEST, seconds=1)
        await load(run.port, hostile, rate=HOSTILE, seconds=ALONE)  # warm
        await run.backend.hang_up()
        files, rss = run.files, run.rss
        key_sets, questions = run.backend.key_sets, run.backend.questions
        alone: list[Tally] = []
        beside: list[Tally] = []
        statuses: Counter[int] = Counter()
        memory, unheard, begun = [rss], 0, time.monotonic()
        for _ in range(PHASES):
            honest = itertools.repeat(run.request())  # a token lives ten minutes
            alone.append(await load(run.port, honest, rate=HONEST, seconds=ALONE))
            words = ["attack", str(run.port), str(HOSTILE), str(COMING + PHASE)]
            attack = asyncio.get_running_loop().create_task(elsewhere(words))
            await asyncio.sleep(COMING)
            beside.append(await load(run.port, honest, rate=HONEST, seconds=PHASE))
            other = await attack
            statuses.update({int(at): n for at, n in other["statuses"].items()})
            unheard += len(other["failures"])
            memory.append(run.rss)
        await run.backend.hang_up()
        left = run.files
        p99s = [
            [each.quantile(0.99) for each in tallies] for tallies in (alone, beside)
        ]
        before, after = map(statistics.median, p99s)
        report(
            "attack-mix",
            {
                "seconds under attack": (COMING + PHASE) * PHASES,
                "hostile requests": statuses.total(),
                "refused with": dict(sorted(statuses.items())),
                "refused, and lost in a reset": unheard,
                "honest requests": sum(each.count for each in beside),
                "honest p50 alone, ms": alone[0].quantile(0.5),
                "honest p50 beside them, ms": beside[0].quantile(0.5),
                "honest p99 alone, ms": before,
                "honest p99 beside them, ms": after,
                "ratio (goal: at most 2)": after / before,
                "RSS growth in MiB": (max(memory) - rss) / MIB,
                "files left open": left - files,
                "key sets fetched meanwhile": run.backend.key_sets - key_sets,
                "questions to an issuer meanwhile": run.backend.questions - questions,
            },
        )
        for tally in (*alone, *beside):
            assert not tally.failures
            assert set(tally.statuses) == {200}
        assert_shares(statuses)
        assert max(memory) - rss < GROWTH
        assert left <= files
        # R48: at most one forced refresh in 30 s, and the background's.
        took = time.monotonic() - begun
        assert run.backend.key_sets - key_sets <= 2 + took / 30
        at_once, a_second = Bounds().in_vain_at_once, Bounds().in_vain
        assert run.backend.questions - questions <= at_once + took * a_second


def assert_shares(statuses: Counter[int]) -> None:
    """Hold each status to the kinds of attack that may be refused with it."""
    cut_short = PHASES * len(ATTACKS)  # rounds of the mix that were not whole
    for status, count in statuses.items():
        kinds = sum(status in attack.statuses for attack in ATTACKS)
        most = statuses.total() * kinds / len(ATTACKS) + cut_short * bool(kinds)
        assert count <= most, f"{count} are {status}, of {statuses}"


def test_a_status_of_the_wrong_kind_is_noticed() -> None:
    """One that no attack may have, and one that more have than may."""
    per = 100
    right = Counter(min(a.statuses) for a in ATTACKS for _ in range(per))
    assert_shares(right)
    for wrong in (Counter({500: 1}), Counter({503: per * len(ATTACKS) // 2})):
        with pytest.raises(AssertionError):
            assert_shares(right + wrong)


async def test_what_a_refusal_costs(tmp_path: Path) -> None:
    """R100: each kind is refused as it should be; its cost beside an accepted one's."""
    async with running(tmp_path) as run:
        honest = run.request()
        await _spent(run, itertools.repeat(honest), EACH, anew=False)  # warm
        rows = []
        for attack in ATTACKS:
            # Each beside accepted ones of the same moment: a shared machine is now
            # slower and now faster.
            accepted, _ = await _spent(
                run, itertools.repeat(honest), EACH, anew=attack.reconnects
            )
            cost, statuses = await _spent(
                run, attack.requests(), EACH, anew=attack.reconnects
            )
            rows.append(_row(attack.name, cost, accepted))
            assert statuses <= attack.statuses, attack.name
        report("cost", {"CPU for each request": rows, "goal, times": GOAL_COST})


def _row(name: str, cost: float, accepted: float) -> dict[str, Any]:
    return {
        "request": name,
        "us": cost * 1e6,
        "an accepted, us": accepted * 1e6,
        "times": cost / accepted,
    }


async def _spent(
    run: Running, requests: Iterator[bytes], count: int, *, anew: bool
) -> tuple[float, set[int]]:
    """Return the CPU seconds of one of *requests*, and how they were answered."""
    statuses = set()
    caller = await connect(run.port)
    begun = run.cpu
    for request in itertools.islice(requests, count):
        if anew or not caller.is_open:
            caller.close()
            caller = await connect(run.port)
        statuses.add(await caller.call(request))
    spent = run.cpu - begun
    caller.close()
    return spent / count, statuses


def test_each_attack_is_an_attack() -> None:
    """None repeats itself where a cache could help, or is empty."""
    for attack in ATTACKS:
        assert isinstance(attack, Attack)
        first, second = itertools.islice(attack.requests(), 2)
        assert first
        is_new = attack.name in {
            "bad RS256 signature",
            "unknown key id",
            "huge base64",
            "90 new header names",
            "forged Fernet",
            "forged JWE",
            "forged RSA-OAEP JWE",
            "stranger's RSA-OAEP JWE",
            "forged ECDH-ES JWE",
            "stranger's ECDH-ES JWE",
            "unknown opaque token",
            "forged DPoP proof",
            "DPoP proof by another key",
            "unknown API key",
            "mistyped API key",
        }
        assert not is_new or first != second

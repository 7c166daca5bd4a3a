"""Before a contestant is measured it has to show that it does what it says.

Imports: bench.lineup, bench.site.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping

from bench.lineup import Contestant
from bench.site import BODY, SEEN, Tokens

REFUSALS = {401, 403}


class UnfitError(Exception):
    """It does not do what its row says; its figure would mean nothing."""


def call(port: int, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Return status and body of one GET on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", errors="replace")
    finally:
        connection.close()


def examine(contestant: Contestant, port: int, tokens: Tokens) -> None:
    """Raise UnfitError unless *contestant* lets pass and refuses as it claims."""
    good = {"Authorization": f"Bearer {tokens.good}"}
    said = call(port, contestant.path, good)
    if said != (200, BODY):
        raise UnfitError(f"a good token: {said[0]} {said[1][:200]}")
    for what in sorted(contestant.refuses):
        status, _ = call(port, contestant.path, _spoilt(what, tokens))
        if status not in REFUSALS:
            raise UnfitError(f"{what}: {status}, not refused")
    if contestant.refuses:
        if call(port, contestant.path, good) != (200, BODY):
            raise UnfitError("a good token after refusals")
        _, seen = call(port, SEEN, good)
        if tokens.good in seen:
            raise UnfitError("the caller's token reached the backend")
        if contestant.signs and json.loads(seen)["assertion"].count(".") != 2:
            raise UnfitError("no signed identity reached the backend")


def _spoilt(what: str, tokens: Tokens) -> dict[str, str]:
    if what == "none":
        return {}
    if what == "garbage":
        return {"Authorization": "Bearer not.a.token"}
    return {"Authorization": f"Bearer {tokens.bad[what]}"}

"""gateway.tokens.accept: what is asked of a known token each time."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway.model import Principal, Reason
from gateway.tokens.accept import accept

NOW = 1_000.0
ALICE = Principal(
    "user",
    "corp",
    "alice",
    issued_at=900.0,
    not_before=900.0,
    expires_at=2_000.0,
    leeway=30.0,
    audience=frozenset({"shop", "else"}),
)


def judge(now: float = NOW, **changes: Any) -> tuple[Reason, str] | None:
    denial = accept(
        dataclasses.replace(ALICE, **changes),
        audience=frozenset({"shop", "orders"}),
        issuers=frozenset({"corp"}),
        now=now,
    )
    return None if denial is None else (denial.reason, denial.at)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"now": 2_029.9},
        {"not_before": 1_030.0},
        {"issued_at": 1_030.0},
        {"not_before": None, "issued_at": None},
        {"audience": frozenset({"orders"})},
        {"expires_at": float("inf")},
    ],
)
def test_accepts(changes: dict[str, Any]) -> None:
    """Within the leeway, for one audience of several, from an issuer that counts."""
    assert judge(**changes) is None


@pytest.mark.parametrize(
    ("changes", "reason", "at"),
    [
        ({"now": 2_030.0}, Reason.TOKEN_EXPIRED, ""),
        ({"expires_at": 970.0}, Reason.TOKEN_EXPIRED, ""),
        ({"expires_at": float("nan")}, Reason.TOKEN_EXPIRED, ""),
        ({"not_before": 1_030.1}, Reason.TOKEN_NOT_YET_VALID, "nbf"),
        ({"issued_at": 1_030.1}, Reason.TOKEN_NOT_YET_VALID, "iat"),
        ({"audience": frozenset({"Shop"})}, Reason.AUDIENCE_WRONG, ""),
        ({"audience": frozenset({"sho"})}, Reason.AUDIENCE_WRONG, ""),
        ({"audience": frozenset()}, Reason.AUDIENCE_WRONG, ""),
        ({"issuer": "partner"}, Reason.ISSUER_NOT_ACCEPTED, ""),
    ],
)
def test_refuses(changes: dict[str, Any], reason: Reason, at: str) -> None:
    """Each row breaks one thing."""
    assert judge(**changes) == (reason, at)


def test_no_issuer_named_is_none_accepted() -> None:
    """An absent list never means everybody."""
    denial = accept(ALICE, audience=ALICE.audience, issuers=frozenset(), now=NOW)

    assert denial is not None
    assert denial.reason is Reason.ISSUER_NOT_ACCEPTED

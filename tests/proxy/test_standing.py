"""gateway.proxy.standing: what is judged elsewhere arrives as it was."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import Literal

import pytest

from gateway.channel import MAX_FRAME
from gateway.model import (
    ANONYMOUS,
    Binding,
    Denial,
    Peer,
    Principal,
    Reason,
    RequestHead,
    Unavailable,
)
from gateway.proxy import standing as module
from gateway.proxy.standing import (
    FRAME,
    Standing,
    Verdict,
    dump,
    dump_verdicts,
    load,
    load_verdicts,
)
from gateway.tokens.fingerprints import fingerprints
from gateway.wire.request import read_head
from tests.tokens import make

PROXIES = (ip_network("10.0.0.0/8"),)
WHOLE = Principal(
    "service",
    "corp",
    "c-\u00fc",
    client_id="app",
    token_id="t-1",
    session_id="s-1",
    family="f-1",
    issued_at=1.5,
    not_before=1.0,
    expires_at=9e9,
    leeway=30.0,
    auth_time=0.5,
    acr="high",
    amr=("pwd", "otp"),
    audience=frozenset({"a", "b"}),
    roles=frozenset({"customer", "support"}),
    scope=frozenset({"x", "y"}),
    claims=MappingProxyType({"sub": "c-1", "n": [1, {"deep": None}], "t": "\ud800"}),
    fingerprints=replace(
        fingerprints(
            "https://login.example",
            token_id="t-1",
            session_id="s-1",
            subject="c-1",
            client_id=None,
        ),
        family=b"f" * 16,
    ),
    known_for=3.0,
    binding=Binding("cert", "key", (ip_network("192.0.2.0/24"), ip_network("::1"))),
)


def head_of(
    peer: Peer,
    *more: tuple[bytes, bytes],
    kind: Literal["http", "websocket"] = "websocket",
) -> RequestHead:
    found = read_head(
        kind=kind,
        method="GET",
        scheme="https",
        target=b"/a/b%20c?q=%C3%BC",
        headers=(
            (b"host", b"Shop.example:8443"),
            (b"origin", b"https://shop.example"),
            (b"x-forwarded-for", b"198.51.100.9"),
            *more,
        ),
        peer=peer,
        proxies=PROXIES,
    )
    assert isinstance(found, RequestHead)
    return found


def there(*standings: Standing) -> list[Standing | Denial]:
    """Return what arrives of *standings*."""
    found: list[Standing | Denial] = []
    for count, said in dump(standings):
        some = load(said, PROXIES)
        assert len(some) == count
        found += some
    return found


@pytest.mark.parametrize("who", [WHOLE, ANONYMOUS, Principal("user", "corp", "x")])
@pytest.mark.parametrize("address", ["10.1.2.3", "192.0.2.1", "", "2001:db8::1"])
def test_it_arrives_as_it_was(who: Principal, address: str) -> None:
    """Every field of a principal, and of a head all that a decision reads."""
    trusted = address.startswith("10.")
    head = head_of(Peer(address, trusted, "thumbprint"))
    (found,) = there(Standing(who, head, 12.5, is_socket=True))
    assert isinstance(found, Standing)
    for each in fields(Principal):
        got, sent = getattr(found.principal, each.name), getattr(who, each.name)
        assert (got, type(got)) == (sent, type(sent)), each.name
    assert found.head._replace(section=head.section) == head
    assert (found.since, found.is_socket) == (12.5, True)


def test_no_field_of_a_principal_is_forgotten() -> None:
    """All of them differ from what they are unless said, but for the key."""
    same = [
        each.name
        for each in fields(Principal)
        if getattr(WHOLE, each.name) == getattr(ANONYMOUS, each.name)
    ]
    assert same == ["key"]
    key = make.key("ES256").verifying
    (found,) = there(Standing(replace(WHOLE, key=key), head_of(Peer("")), 0.0))
    assert isinstance(found, Standing)
    assert found.principal.key is None
    assert replace(found.principal, expires_at=math.inf).expires_at == math.inf


def test_no_credential_travels() -> None:
    """It is in the memory of one process, and need not be in another's."""
    head = head_of(
        Peer("192.0.2.1"),
        (b"authorization", b"Bearer secret"),
        (b"cookie", b"secret"),
        (b"dpop", b"secret"),
        (b"x-api-key", b"secret"),
        (b"sec-websocket-protocol", b"bearer.secret"),
    )
    for _, said in dump([Standing(WHOLE, head, 0.0)]):
        assert b"secret" not in said


def test_a_head_is_read_by_the_rules_of_the_other_side() -> None:
    """Whom it trusts decides whose address counts; what it can't read is refused."""
    head = head_of(Peer("10.1.2.3", trusted=True))
    assert head.client == "198.51.100.9"
    ((_, said),) = dump([Standing(WHOLE, head, 0.0)])
    (found,) = load(said, ())
    assert isinstance(found, Standing)
    assert (found.head.client, found.head.peer.trusted) == ("10.1.2.3", False)
    (refused,) = load(said.replace(b"Shop.example:8443", b"-"), ())
    assert isinstance(refused, Denial)
    assert refused.reason is Reason.HOST_MALFORMED


def test_as_many_travel_together_as_a_frame_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And one always does: a head, and the claims of a token, have their bounds."""
    assert 3 * FRAME < MAX_FRAME
    assert list(dump([])) == []
    one = Standing(WHOLE, head_of(Peer("")), 0.0)
    ((_, alone),) = dump([one])
    for room, counts in ((1, [1, 1, 1]), (2 * len(alone) + 1, [2, 1])):
        monkeypatch.setattr(module, "FRAME", room)
        assert [count for count, _ in dump([one] * 3)] == counts
        assert len(there(one, one, one)) == 3


def test_verdicts_come_back_as_they_were() -> None:
    """Their reason, what exactly, what would help; and who is away."""
    verdicts: list[Verdict] = [
        None,
        Denial(Reason.PERMISSION_MISSING, "a:b", ("a:b", "c:d")),
        Denial(Reason.ROUTE_UNKNOWN),
    ]
    *found, away = load_verdicts(
        dump_verdicts([*verdicts, Unavailable("policy engine")])
    )
    assert found == verdicts
    assert isinstance(away, Unavailable)
    assert away.dependency == "policy engine"

"""gateway.proxy.streams: what is open is found by whatever its token is called."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from gateway.model import Principal, Reason
from gateway.proxy.streams import Streams
from gateway.revocation.entries import Revocation, is_meant
from gateway.tokens.fingerprints import fingerprint, fingerprints

URL = "https://login.example"
NEVER = float("inf")


def holder(
    token_id: str, subject: str, session: str | None = "s", client: str | None = "app"
) -> Principal:
    return Principal(
        "user",
        "corp",
        subject,
        issued_at=100.0,
        fingerprints=fingerprints(
            URL,
            token_id=token_id,
            session_id=session,
            subject=subject,
            client_id=client,
        ),
    )


class Open:
    """A stream that leaves the list when it is ended, as all of them do."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.ended: list[Reason] = []

    def end(self, reason: Reason) -> None:
        self.ended.append(reason)
        self.streams.remove(self)


def opened(streams: Streams, principal: Principal, ends: float = NEVER) -> Open:
    stream = Open(streams)
    streams.add(stream, principal, ends)
    return stream


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        (fingerprint("token", URL, "t-1"), [True, False, False]),
        (fingerprint("session", URL, "s"), [True, True, False]),
        (fingerprint("subject", URL, "alice"), [True, False, True]),
        (fingerprint("client", URL, "app"), [True, True, False]),
        (fingerprint("subject", URL, "t-1"), [False, False, False]),
        (fingerprint("token", "https://other.example", "t-1"), [False, False, False]),
    ],
)
def test_each_name_finds_what_it_names(name: bytes, ends: list[bool]) -> None:
    """Token, session, subject, client; of that issuer, and of nobody else."""
    streams = Streams()
    open_ = [
        opened(streams, holder("t-1", "alice")),
        opened(streams, holder("t-2", "bob")),
        opened(streams, holder("t-3", "alice", None, None)),
    ]
    assert streams.close_where(name) == sum(ends)
    assert [bool(each.ended) for each in open_] == ends
    assert len(streams) == 3 - sum(ends)
    assert streams.close_where(name) == 0
    for each in open_:
        assert set(each.ended) <= {Reason.TOKEN_REVOKED}


def test_a_cut_off_is_the_revocation_lists_affair() -> None:
    """What was issued after it stays."""
    streams = Streams()
    name = fingerprint("subject", URL, "alice")
    old = opened(streams, holder("t-1", "alice"))
    new = opened(streams, replace(holder("t-2", "alice"), issued_at=300.0))
    entry = Revocation("subject", name, 200.0, 900.0)

    assert streams.close_where(name, partial(is_meant, entry)) == 1
    assert (bool(old.ended), bool(new.ended)) == (True, False)


def test_what_outlives_its_token_is_known() -> None:
    """To the second; what never ends is never among it."""
    streams = Streams()
    first = opened(streams, holder("t-1", "alice"), 100.0)
    opened(streams, holder("t-2", "bob"), 100.5)
    opened(streams, holder("t-3", "carol"))
    assert streams.expired(99.9) == []
    assert streams.expired(100.0) == [first]


def test_nothing_is_left_behind() -> None:
    """As many leave as came, in any order, and to leave twice is harmless."""
    streams = Streams()
    open_ = [opened(streams, holder(f"t-{n}", f"s-{n % 3}")) for n in range(9)]
    nameless = opened(streams, Principal("user", "corp", "x"))
    assert len(streams) == 10
    for each in [nameless, *open_[::2], *open_[1::2], *open_]:
        streams.remove(each)
    assert len(streams) == 0
    assert streams._by_name == {}


def test_seats_are_counted_and_given_back() -> None:
    """By route and caller."""
    streams = Streams()
    seat = ("live", "corp", "alice")
    assert streams.take_seat(seat, 2)
    assert streams.take_seat(seat, 2)
    assert not streams.take_seat(seat, 2)
    assert streams.take_seat(("live", "other", "alice"), 2)
    assert streams.take_seat(("more", "corp", "alice"), 2)
    streams.leave_seat(seat)
    assert streams.take_seat(seat, 2)
    for _ in range(2):
        streams.leave_seat(seat)
    assert seat not in streams._seats

"""What is kept of requests, and for whom it counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.model import ANONYMOUS, HeaderSection, Peer, Permit, RequestHead
from gateway.proxy import asked
from gateway.proxy.asked import Asked, KnownHeads, Seen, Way, plain
from gateway.wire.request import read_head
from tests.proxy.harness import ALICE, PUBLIC, ROUTE

SECTION = HeaderSection(((b"host", b"shop"),), "shop", b"shop")
FIELDS = b"\r\nhost: shop\r\n\r\n"


def head(peer: Peer) -> RequestHead:
    read = read_head(
        kind="http",
        method="GET",
        scheme="http",
        target=b"/a",
        headers=SECTION,
        peer=peer,
    )
    assert isinstance(read, RequestHead)
    return read


HEAD = head(Peer("192.0.2.1"))
PERMIT = Permit(ROUTE, {}, ALICE, 5, "backend", b"/a")


def way(permit: Permit = PERMIT) -> Way:
    pool: Any = object()
    return Way(permit, HEAD, pool, b"GET /a HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("permit", "of", "fits"),
    [
        (PERMIT, HEAD, True),
        (PERMIT._replace(params={"a": "b"}), HEAD, True),
        (PERMIT._replace(principal=replace(ALICE)), HEAD, False),
        (PERMIT._replace(route=PUBLIC), HEAD, False),
        (PERMIT._replace(granted=4), HEAD, False),
        (PERMIT, head(Peer("192.0.2.1")), False),
    ],
)
def test_a_way_is_for_one_route_principal_and_peer(
    permit: Permit, of: RequestHead, *, fits: bool
) -> None:
    """Anybody else's is made anew."""
    assert way().fits(permit, of) is fits


def test_a_way_knows_whether_the_answer_depended_on_a_credential() -> None:
    """R20: only then does the answer vary by it."""
    assert way().vary
    assert not way(PERMIT._replace(route=PUBLIC, principal=ANONYMOUS)).vary


def test_forms_are_kept_by_status_and_bounded() -> None:
    """A backend that answers every status there is fills no memory."""
    one = way()
    for status in range(200, 600):
        one.keep_alike(status, (status,))

    assert one.alike(200) == (200,)
    assert one.alike(599) is None


def test_heads_are_kept_by_their_fields_and_their_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bounded for each section and for all; full, it starts afresh."""
    monkeypatch.setattr(asked, "MAX_ASKED", 3)
    monkeypatch.setattr(asked, "MAX_ASKED_BY_ALL", 4)
    monkeypatch.setattr(asked, "MAX_KNOWN_BYTES", 60)
    known = KnownHeads()
    known.learn(b"GET / HTTP/1.1" + FIELDS, 14, SECTION)
    fields = known.by_fields[FIELDS]
    for number in range(3):
        known.keep(b"%d" % number + FIELDS, plain(b"GET", b"/", SECTION))
    assert len(fields.asked) == 3

    last = plain(b"GET", b"/", SECTION)
    known.keep(b"3" + FIELDS, last)
    assert fields.asked == {b"3": last}
    assert last.data == b"3" + FIELDS

    for number in range(3):
        other = b"\r\nx: %d" % number + FIELDS
        known.learn(b"GET / HTTP/1.1" + other, 14, SECTION)
        known.keep(b"line" + other, plain(b"GET", b"/", SECTION))
    assert len(known) == 4
    known.keep(b"one too many" + other, plain(b"GET", b"/", SECTION))
    assert len(known) == 0


def test_what_is_kept_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has long targets displaces others sooner."""
    monkeypatch.setattr(asked, "MAX_ASKED_BYTES", 200)
    known = KnownHeads()
    known.learn(b"GET / HTTP/1.1" + FIELDS, 14, SECTION)
    for number in range(3):
        line = b"%d" % number + b"a" * 60 + FIELDS
        known.keep(line, plain(b"GET", b"/", SECTION))
    assert len(known) == 1

    known.keep(b"one more" + FIELDS, plain(b"GET", b"/", SECTION))
    assert len(known) == 0


def test_fields_that_are_known_stay_with_what_was_asked() -> None:
    """They may be read a second time: behind an empty line that came first."""
    known, last = KnownHeads(), plain(b"GET", b"/", SECTION)
    for _ in range(2):
        known.learn(b"GET / HTTP/1.1" + FIELDS, 14, SECTION)
        known.keep(b"line" + FIELDS, last)

    assert known.by_fields[FIELDS].asked == {b"line": last}


def test_fields_that_were_forgotten_are_not_kept_half() -> None:
    """Between two requests everything may have been forgotten."""
    known, last = KnownHeads(), plain(b"GET", b"/", SECTION)

    known.keep(b"GET / HTTP/1.1" + FIELDS, last)

    assert (len(known), last.data) == (0, b"")


def test_what_is_plain_has_no_body_and_goes_on() -> None:
    """The rest is said by whoever read it."""
    short, long = plain(b"GET", b"/", SECTION), Asked(b"POST", b"/", (), None)

    assert (short.is_plain, short.modern, short.keep_alive) == (True, True, True)
    assert short.body is not None
    assert short.body.length == 0
    assert not long.is_plain


def test_what_comes_again_is_told_of_the_last_ones_alone() -> None:
    """Of any number that come once, no more is held than that."""
    seen = Seen(2)

    assert [seen(data) for data in (b"a", b"b", b"a", b"b")] == [
        False,
        False,
        True,
        True,
    ]
    assert [seen(data) for data in (b"c", b"a", b"c")] == [False, False, True]
    for number in range(1_000):
        assert not seen(b"%d" % number)
        assert len(seen._hashes) <= 2

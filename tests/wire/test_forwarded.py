"""gateway.wire.forwarded: where a request came from, and its two names."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Headers, Peer, RequestHead
from gateway.wire.forwarded import (
    TRACE_BYTES,
    forwarding_fields,
    new_traceparent,
    request_id_from,
    trace_id_of,
    traceparent_of,
)
from gateway.wire.request import read_head

AWAY = Peer("203.0.113.9")
PROXY = Peer("10.0.0.1", trusted=True)
SOCKET = Peer("", trusted=True)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01".encode()
FRESH = new_traceparent(bytes(range(TRACE_BYTES)))


def head(*headers: tuple[bytes, bytes], peer: Peer = AWAY) -> RequestHead:
    read = read_head(
        kind="http",
        method="GET",
        scheme="http",
        target=b"/",
        headers=((b"host", b"Api.Example:80"), *headers),
        peer=peer,
        proxies=(ip_network("10.0.0.0/8"),),
    )
    assert isinstance(read, RequestHead)
    return read


@pytest.mark.parametrize(
    ("peer", "received", "sent"),
    [
        (
            AWAY,
            [
                (b"x-forwarded-for", b"6.6.6.6"),
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-host", b"evil"),
            ],
            {"for": b"203.0.113.9", "proto": b"http", "host": b"Api.Example:80"},
        ),
        (
            PROXY,
            [],
            {"for": b"10.0.0.1", "proto": b"http", "host": b"Api.Example:80"},
        ),
        (
            PROXY,
            [
                (b"x-forwarded-for", b"6.6.6.6, 198.51.100.1"),
                (b"x-forwarded-for", b"10.0.0.2"),
                (b"x-forwarded-proto", b"https"),
                (b"x-forwarded-host", b"shop.example"),
            ],
            {
                "for": b"6.6.6.6, 198.51.100.1, 10.0.0.2, 10.0.0.1",
                "proto": b"https",
                "host": b"shop.example",
            },
        ),
        (
            PROXY,
            [(b"x-forwarded-for", b""), (b"x-forwarded-host", b"a/b")],
            {"for": b"10.0.0.1", "proto": b"http", "host": b"Api.Example:80"},
        ),
        (
            PROXY,
            [(b"x-forwarded-host", b"a"), (b"x-forwarded-host", b"b")],
            {"for": b"10.0.0.1", "proto": b"http", "host": b"Api.Example:80"},
        ),
        (
            SOCKET,
            [(b"x-forwarded-for", b"198.51.100.1")],
            {"for": b"198.51.100.1", "proto": b"http", "host": b"Api.Example:80"},
        ),
        (SOCKET, [], {"proto": b"http", "host": b"Api.Example:80"}),
        (Peer(""), [], {"proto": b"http", "host": b"Api.Example:80"}),
    ],
)
def test_forwarding_fields_are_set_or_behind_a_proxy_appended_to(
    peer: Peer, received: list[tuple[bytes, bytes]], sent: dict[str, bytes]
) -> None:
    """What somebody who is no proxy of ours says of itself is not passed on (R17)."""
    fields = dict(forwarding_fields(head(*received, peer=peer), "r-1", FRESH))

    assert fields == {
        f"x-forwarded-{name}".encode(): value for name, value in sent.items()
    } | {b"x-request-id": b"r-1", b"traceparent": FRESH}


def test_trace_state_travels_with_the_trace_it_came_with() -> None:
    """It means nothing to another one."""
    state = ((b"tracestate", b"a=1"), (b"tracestate", b"b=2"))
    kept = forwarding_fields(head((b"traceparent", PARENT), *state), "r-1", PARENT)

    assert [field for field in kept if field[0] == b"tracestate"] == [*state]
    for request in (head(*state), head((b"traceparent", b"junk"), *state)):
        fields = forwarding_fields(request, "r-1", FRESH)
        assert b"tracestate" not in dict(fields)
        assert fields.count((b"traceparent", FRESH)) == 1


@pytest.mark.parametrize(
    "value",
    [
        PARENT,
        PARENT[:-2] + b"00",
        b"01" + PARENT[2:],
        b"cc" + PARENT[2:] + b"-what-comes-later",
    ],
)
def test_a_valid_traceparent_is_kept(value: bytes) -> None:
    """Of this version, or of a later one, which may append to it."""
    headers = ((b"traceparent", value),)

    assert traceparent_of(headers) == value
    assert trace_id_of(headers) == TRACE


@pytest.mark.parametrize(
    "values",
    [
        [],
        [PARENT, PARENT],
        [b""],
        [b"ff" + PARENT[2:]],
        [PARENT + b"-more"],
        [PARENT.upper()],
        [b"00-" + b"0" * 32 + PARENT[35:]],
        [PARENT[:36] + b"0" * 16 + b"-01"],
        [PARENT[:-1]],
        [PARENT + b"0"],
        [PARENT.replace(b"-", b"_")],
        [b"01" + PARENT[2:] + b"-" + b"a" * 300],
        [b"01" + PARENT[2:] + b"-\x00"],
    ],
)
def test_an_invalid_traceparent_is_none(values: list[bytes]) -> None:
    """W3C Trace Context section 4.3: restart the trace."""
    headers = tuple((b"traceparent", value) for value in values)

    assert traceparent_of(headers) is None
    assert trace_id_of(headers) is None


@given(random=st.binary(min_size=TRACE_BYTES, max_size=TRACE_BYTES))
@settings(deadline=None)
def test_a_new_traceparent_is_valid(random: bytes) -> None:
    """And sampled, so that a backend which follows its parent goes on recording."""
    made = new_traceparent(random)

    assert traceparent_of(((b"traceparent", made),)) == made
    assert made.endswith(b"-01")


def test_even_chance_can_make_no_invalid_traceparent() -> None:
    """All zeros would be one."""
    made = new_traceparent(bytes(TRACE_BYTES))

    assert traceparent_of(((b"traceparent", made),)) == made


@pytest.mark.parametrize(
    ("peer", "said", "name"),
    [
        (PROXY, [], "00ff"),
        (PROXY, [b"edge-1.A_b"], "edge-1.A_b"),
        (PROXY, [b"a" * 64], "a" * 64),
        (AWAY, [b"edge-1"], "00ff"),
        (PROXY, [b"a" * 65], "00ff"),
        (PROXY, [b""], "00ff"),
        (PROXY, [b"a b"], "00ff"),
        (PROXY, [b'a"b'], "00ff"),
        (PROXY, [b"a\n"], "00ff"),
        (PROXY, [b"a", b"a"], "00ff"),
    ],
)
def test_a_request_is_named_by_a_proxy_of_ours_or_by_chance(
    peer: Peer, said: list[bytes], name: str
) -> None:
    """Whoever else could name it could write into somebody's log."""
    headers: Headers = tuple((b"x-request-id", value) for value in said)

    assert request_id_from(headers, peer, b"00ff") == name.encode()

"""What is known by its bytes: the same fields, and the same heads of answers, again.

A short cut must lead where the long way leads. So each of these is done on both, and
all that anybody can see is compared.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import replace
from ipaddress import ip_network

import pytest

from gateway.config.settings import Server
from gateway.proxy import asked, upstream
from tests.backends import Connection, answer, echoing, running, saying
from tests.proxy.harness import ALICE, Answer, Bench, Caller, gate_to

FIELDS = b"Host: shop.example\r\nX-A: 1\r\nAuthorization: Bearer t\r\n\r\n"
OURS = re.compile(rb"(x-request-id|traceparent): [0-9a-f-]+")
REQUESTS = [
    (b"GET /a HTTP/1.1\r\n", FIELDS),
    (b"GET /b?c=%20d HTTP/1.1\r\n", FIELDS),
    (b"HEAD /a HTTP/1.1\r\n", FIELDS),
    (b"DELETE /a HTTP/1.1\r\n", FIELDS),
    (b"OPTIONS /a HTTP/1.1\r\n", FIELDS),
    (b"POST /a HTTP/1.1\r\n", FIELDS),
    (b"PUT /a HTTP/1.1\r\n", FIELDS),
    (b"QUERY /a HTTP/1.1\r\n", FIELDS),
    (b"GET /a HTTP/1.0\r\n", FIELDS),
    (b"GET /a HTTP/1.2\r\n", FIELDS),
    (b"GET /a HTTP/2.0\r\n", FIELDS),
    (b"GET  /a HTTP/1.1\r\n", FIELDS),
    (b"GET /a  HTTP/1.1\r\n", FIELDS),
    (b"GET /a\tHTTP/1.1\r\n", FIELDS),
    (b" GET /a HTTP/1.1\r\n", FIELDS),
    (b"\r\nGET /a HTTP/1.1\r\n", FIELDS),
    (b"get /a HTTP/1.1\r\n", FIELDS),
    (b"GET /a HTTP/1.1\n", FIELDS),
    (b"GET /a#b HTTP/1.1\r\n", FIELDS),
    (b"GET /a\\b HTTP/1.1\r\n", FIELDS),
    (b"GET /a/../b HTTP/1.1\r\n", FIELDS),
    (b"GET /a/%2e%2e/b HTTP/1.1\r\n", FIELDS),
    (b"GET //a HTTP/1.1\r\n", FIELDS),
    (b"GET /%zz HTTP/1.1\r\n", FIELDS),
    (b"GET /\xc3\xa9 HTTP/1.1\r\n", FIELDS),
    (b"GET * HTTP/1.1\r\n", FIELDS),
    (b"GET http://shop.example/a HTTP/1.1\r\n", FIELDS),
    (b"GET @evil/x HTTP/1.1\r\n", FIELDS),
    (b"CONNECT shop.example:80 HTTP/1.1\r\n", FIELDS),
    (b"TRACE /a HTTP/1.1\r\n", FIELDS),
    (b"GET /denied HTTP/1.1\r\n", FIELDS),
    (b"GET /away HTTP/1.1\r\n", FIELDS),
    (b"GET /bug HTTP/1.1\r\n", FIELDS),
    (b"GET /wait/a HTTP/1.1\r\n", FIELDS),
    (b"GET /wait/denied HTTP/1.1\r\n", FIELDS),
    (b"GET /public/a HTTP/1.1\r\n", FIELDS),
    (b"GET /unspeakable HTTP/1.1\r\n", FIELDS),
    (b"GET /nowhere HTTP/1.1\r\n", FIELDS),
    (b"GET /a HTTP/1.1\r\n", b"X: 1\r\n" + FIELDS),
    (b"GET /a HTTP/1.1\r\n", b"Host: other\r\n" + FIELDS),
    (b"GET /a HTTP/1.1\r\n", b"Connection: close\r\n" + FIELDS),
    (b"GET /a HTTP/1.1\r\n", b"Connection: x-a\r\n" + FIELDS),
    (b"GET /a HTTP/1.1\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n" + FIELDS),
    (b"GET /a HTTP/1.1\r\n", b"Expect: 100-continue\r\n" + FIELDS),
    (b"GET /a HTTP/1.1\r\n", b"Content-Length: 0\r\n" + FIELDS),
    (b"POST /a HTTP/1.1\r\n", b"Content-Length: 2\r\n" + FIELDS + b"ab"),
    (b"POST /a HTTP/1.1\r\n", b"Content-Length: 0\r\n" + FIELDS),
    (b"GET /a HTTP/1.1\r\n", b"Transfer-Encoding: chunked\r\n" + FIELDS + b"0\r\n\r\n"),
    (b"GET /a HTTP/1.0\r\n", b"Connection: keep-alive\r\n" + FIELDS),
    (b"GET /a HTTP/1.1\r\n", FIELDS + b"GET /b HTTP/1.1\r\n" + FIELDS),
]


async def outcome(bench: Bench, data: bytes) -> object:
    """Return all that a client can see of its request, but for what is random.

    Of an answer that is cut off, how much has come before the end is a matter of luck.
    """
    caller = await bench.caller()
    try:
        found = await caller.call(data)
    except ConnectionError as error:
        return type(error)
    finally:
        caller.close()
    return replace(
        found,
        headers=[field for field in found.headers if field[0] != b"x-request-id"],
        raw_head=b"",
        body=re.sub(rb"urn:request:[0-9a-f]+", b"", found.body) if found.whole else b"",
    )


@pytest.mark.parametrize(("line", "fields"), REQUESTS)
async def test_a_known_head_is_taken_as_an_unknown_one_is(
    line: bytes, fields: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the request line: answer, forwarded bytes and log are the same."""
    seen = []
    for limit in (asked.MAX_KNOWN_BYTES, 0):
        monkeypatch.setattr(asked, "MAX_KNOWN_BYTES", limit)
        async with running(echoing) as backend, gate_to(backend) as bench:
            warm = b"GET /first HTTP/1.1\r\n" + FIELDS
            found = [await outcome(bench, data) for data in (warm, line + fields) * 3]
            assert bool(bench.port.known_heads) is bool(limit)
            forwarded = OURS.sub(b"", backend.raw)
            logged = [
                (each.status, each.decision, each.reason, each.path, each.host)
                for each in bench.entries
            ]
            seen.append((found, forwarded, sorted(map(str, logged))))

    assert seen[0] == seen[1]


PRESENTED = [
    b"Authorization: Bearer other",
    b"Authorization: Bearer abcXYZ019-._~+/==",
    b"authorization: Bearer other",
    b"AUTHORIZATION: Bearer other",
    b"Authorization: bearer other",
    b"Authorization: Bearer  other",
    b"Authorization: Bearer other ",
    b"Authorization:Bearer other",
    b"Authorization : Bearer other",
    b"Authorization: Bearer",
    b"Authorization: Bearer ",
    b"Authorization: Bearer =",
    b"Authorization: Bearer a=b",
    b"Authorization: Bearer a, Bearer b",
    b"Authorization: Bearer a\xe9",
    b"Authorization: Bearer a\tb",
    b"Authorization: Bearer a\r\n b",
    b"Authorization: Bearer a\nX-B: b",
    b"Authorization: Bearer a\r\nX-B: b",
    b"Authorization: Bearer a\r\nAuthorization: Bearer b",
    b"X-B: b\r\nAuthorization: Bearer a",
    b"Authorization: Bearer a\r\nContent-Length: 0",
    b"Authorization: Bearer a\r\nConnection: close",
    b"Authorization: Basic YTpi",
    b"Authorization: DPoP a",
    b"Proxy-Authorization: Bearer a",
    b"X-Authorization: Bearer a",
    b"X-A: Authorization: Bearer a",
    b"Authorization: Bearer a\r\n\r\nGET /b HTTP/1.1",
]


@pytest.mark.parametrize(
    "line", [b"GET /a?b=c", b"GET /public/a", b"GET /other", b"POST /a"]
)
@pytest.mark.parametrize("presented", PRESENTED)
async def test_a_head_of_a_known_shape_is_taken_as_an_unknown_one_is(
    presented: bytes, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands where a token has stood, and in whatever line."""

    def request(line: bytes, presented: bytes) -> bytes:
        fields = b"Host: shop.example\r\n%b\r\nX-A: 1\r\n\r\n"
        return b"%b HTTP/1.1\r\n" % line + fields % presented

    seen = []
    for limit in (asked.MAX_KNOWN_BYTES, 0):
        monkeypatch.setattr(asked, "MAX_KNOWN_BYTES", limit)
        async with running(echoing) as backend, gate_to(backend) as bench:
            for number in range(4):
                token = b"Authorization: Bearer t%d" % number
                for before in (b"GET /public/a", b"GET /a?b=c"):
                    await bench.call(request(before, token))
            data = request(line, presented)
            found = [await outcome(bench, data) for _ in range(3)]
            assert bool(bench.port.known_heads.by_shape) is bool(limit)
            asked_for = [
                (head.method, head.target, head.headers, head.host, head.client)
                for head in bench.decision.heads
            ]
            forwarded = OURS.sub(b"", backend.raw)
            logged = [
                (each.status, each.decision, each.reason, each.path, each.host)
                for each in bench.entries
            ]
            seen.append((found, asked_for, forwarded, logged))

    assert seen[0] == seen[1]


ANSWERS = [
    answer(b"ok"),
    answer(b""),
    answer(b"ok", status=b"404 Not Here"),
    answer(b"ok", fields=b"connection: close\r\n"),
    answer(b"ok", fields=b"x-gateway-assertion: y\r\nset-cookie: a=b\r\n"),
    answer(b"ok", fields=b"connection: x-a\r\nx-a: 1\r\n"),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"ok"),
    b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + answer(b"ok"),
    answer(b"ok") + answer(b"EVIL"),
    answer(b"ok") + b"x",
    answer(b"\r\n\r\n"),
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
@pytest.mark.parametrize("said", ANSWERS)
async def test_a_known_answer_is_taken_as_an_unknown_one_is(
    said: bytes, method: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interim heads, surplus, other framing and HEAD: all as the parser has it."""
    seen = []
    for limit in (upstream.MAX_KNOWN_BYTES, 0):
        monkeypatch.setattr(upstream, "MAX_KNOWN_BYTES", limit)
        async with (
            running(saying(said, close=True)) as backend,
            gate_to(backend) as bench,
        ):
            found = [
                await outcome(bench, method + b" /%d HTTP/1.1\r\n" % number + FIELDS)
                for number in range(4)
            ]
            seen.append((found, OURS.sub(b"", backend.raw), len(bench.entries)))

    assert seen[0] == seen[1]


async def test_the_second_of_the_same_is_known() -> None:
    """The tests above compare two ways; this one sees that there are two."""
    async with running(saying(answer(b"ok"))) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        for number in range(3):
            found = await caller.call(b"GET /%d HTTP/1.1\r\n" % number + FIELDS)
            assert (found.status, found.body) == (200, b"ok")
        (fields,) = bench.port.known_heads.by_fields.values()
        (known,) = bench.port.pools["backend"].known_answers.values()
        heads = bench.decision.heads

    assert [head.section is fields.section for head in heads] == [True, True, True]
    assert [head.path for head in heads] == [b"/0", b"/1", b"/2"]
    assert known.length == 2
    assert known.lines[1] is not None


async def test_another_token_needs_no_parser() -> None:
    """As above: there are two ways here too. What comes once is not kept."""

    def fields(token: bytes) -> bytes:
        return FIELDS.replace(b"Bearer t", b"Bearer " + token)

    async with running(echoing) as backend, gate_to(backend) as bench:
        caller, known = await bench.caller(), bench.port.known_heads
        await caller.call(b"GET /a HTTP/1.1\r\n" + fields(b"t"))
        (shape,) = known.by_shape.values()
        shape.passed = b"x-shape: 1\r\n"  # for an upstream, in place of what came
        for number in range(3):
            await caller.call(b"GET /a HTTP/1.1\r\n" + fields(b"t-%d" % number))
        assert list(known.by_fields) == [b"\r\n" + fields(b"t")]
        assert list(shape.asked) == [b"GET /a HTTP/1.1"]

        await caller.call(b"GET /a HTTP/1.1\r\n" + fields(b"t-0"))
        assert list(known.by_fields) == [
            b"\r\n" + fields(token) for token in (b"t", b"t-0")
        ]
        heads = bench.decision.heads

    assert [head.headers[2] for head in heads] == [
        (b"authorization", b"Bearer " + token)
        for token in (b"t", b"t-0", b"t-1", b"t-2", b"t-0")
    ]
    made = [bool(each.values(b"x-shape")) for each in backend.requests]
    assert made == [False, True, True, True, True]


async def test_of_a_shape_no_token_and_no_caller_is_kept() -> None:
    """Nor are two callers confused, or is anything said of another address."""
    who = [replace(ALICE, subject=f"c-{number}") for number in range(3)]
    async with running(echoing) as backend, gate_to(backend) as bench:
        for number in range(9):
            bench.decision.principal = who[number % 3]
            address = f"127.0.0.{1 + number % 2}"
            reader, writer = await asyncio.open_connection(
                bench.address.host, bench.address.port, local_addr=(address, 0)
            )
            caller = Caller(reader, writer)
            token = b"Bearer secret-%d" % number
            fields = FIELDS.replace(b"Bearer t", token)
            await caller.call(b"GET /a HTTP/1.1\r\n" + fields)
            caller.close()
        (shape,) = bench.port.known_heads.by_shape.values()
        assert b"secret" not in repr(vars_of(shape)).encode()
        sent = [each.value(b"x-forwarded-for") for each in backend.requests]
        logged = [(each.client, each.principal) for each in bench.entries]

    assert b"secret" not in backend.raw
    assert sent == [b"127.0.0.%d" % (1 + number % 2) for number in range(9)]
    assert logged == [
        (f"127.0.0.{1 + number % 2}", who[number % 3]) for number in range(9)
    ]


def vars_of(shape: asked.Shape) -> dict[str, object]:
    """Return all that *shape* holds."""
    heads = [like.head for like in shape.asked.values()]
    return {
        **{name: getattr(shape, name) for name in asked.Shape.__slots__},
        "heads": [(tuple(head), head.section.headers) for head in heads],
    }


async def test_shapes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number, in bytes, and in what was asked with each."""
    sizes = []
    monkeypatch.setattr(asked, "MAX_SHAPES", 3)
    monkeypatch.setattr(asked, "MAX_ASKED", 2)
    async with running(echoing) as backend, gate_to(backend) as bench:
        known = bench.port.known_heads
        for number in range(7):
            fields = b"X-B: %d\r\n" % number + FIELDS
            await bench.call(b"GET /a HTTP/1.1\r\n" + fields)
            assert len(known.by_shape) == 1 + number % 3

        monkeypatch.setattr(asked, "MAX_SHAPES", 64)
        monkeypatch.setattr(asked, "MAX_SHAPES_BYTES", 1_000)
        for number in range(100):
            fields = b"X-C: %d\r\n" % (number // 4) + FIELDS
            fields = fields.replace(b"Bearer t", b"Bearer t%d" % number)
            for path in (b"a", b"b", b"c"):
                await bench.call(b"GET /%b HTTP/1.1\r\n" % path + fields)
                sizes.append([len(each.asked) for each in known.by_shape.values()])

    assert max(len(each) for each in sizes) in range(2, 20)
    assert max(itertools.chain(*sizes)) == 2


async def test_a_body_of_another_length_is_another_answer() -> None:
    """The head may be the same to the byte, and the body cut off or too long."""
    bodies = [b"ok", b"ok", b"o", b"okEVIL", b"ok"]

    async def behave(connection: Connection) -> None:
        while bodies:
            await connection.request()
            head = answer(b"ok").partition(b"\r\n\r\n")[0]
            body = bodies.pop(0)
            await connection.send(head + b"\r\n\r\n" + body)
            if body == b"o":
                return  # it ends before it said it would

    found: list[Answer] = []
    async with running(behave) as backend, gate_to(backend) as bench:
        for number in range(5):
            caller = await bench.caller()
            await caller.send(b"GET /%d HTTP/1.1\r\n" % number + FIELDS)
            try:
                found.append(await caller.answer())
            except ConnectionError:
                found.append(Answer(0, []))

    assert b"EVIL" not in b"".join(each.body for each in found)
    assert (found[0].body, found[4].status) == (b"ok", 200)


async def test_what_was_refused_at_once_is_not_kept() -> None:
    """A flood of requests without a token displaces nobody's fields."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        for number in range(3):
            fields = b"X-B: %d\r\n" % number + FIELDS
            await bench.call(b"GET /denied HTTP/1.1\r\n" + fields)

        assert not bench.port.known_heads


async def test_what_waits_for_its_decision_is_not_kept_either() -> None:
    """Nor may a flood of tokens whose key has to be asked for."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        for number in range(3):
            fields = b"X-B: %d\r\n" % number + FIELDS
            await bench.call(b"GET /wait/denied HTTP/1.1\r\n" + fields)

        assert not bench.port.known_heads


async def test_long_targets_are_not_kept() -> None:
    """A client with short fields could fill the memory with them (I9)."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        caller = await bench.caller()
        for number in range(4):
            line = b"GET /%d%b HTTP/1.1\r\n" % (number, b"a" * asked.MAX_KNOWN_BYTES)
            assert (await caller.call(line + FIELDS)).status == 200
            await caller.call(b"GET /%d HTTP/1.1\r\n" % number + FIELDS)
        (fields,) = bench.port.known_heads.by_fields.values()

    assert {len(line) for line in fields.asked} == {len(b"GET /1 HTTP/1.1")}


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in size."""
    monkeypatch.setattr(asked, "MAX_KNOWN", 2)
    monkeypatch.setattr(upstream, "MAX_KNOWN", 2)
    async with running(echoing) as backend, gate_to(backend) as bench:
        for number in range(5):
            fields = b"X-B: %d\r\n" % 10**number + FIELDS
            await bench.call(b"GET /" + b"a" * number + b" HTTP/1.1\r\n" + fields)
        long = b"X-B: " + b"a" * asked.MAX_KNOWN_BYTES + b"\r\n" + FIELDS
        assert (await bench.call(b"GET / HTTP/1.1\r\n" + long)).status == 200

        assert 0 < len(bench.port.known_heads) <= 2
        assert 0 < len(bench.port.pools["backend"].known_answers) <= 2


async def test_each_of_the_same_requests_has_names_of_its_own() -> None:
    """Its id, and a span; its trace too, unless the client brought one."""
    theirs = b"4bf92f3577b34da6a3ce929d0e0e4736"
    traced = b"traceparent: 00-%b-00f067aa0ba902b7-01\r\n" % theirs
    async with running(echoing) as backend, gate_to(backend) as bench:
        for fields in (FIELDS, traced + FIELDS):
            caller = await bench.caller()
            for _ in range(4):
                await caller.call(b"GET /a HTTP/1.1\r\n" + fields)
        ids = [each.value(b"x-request-id") for each in backend.requests]
        traces = [each.value(b"traceparent") for each in backend.requests]
        logged = [(each.request_id, each.trace_id) for each in bench.entries]

    assert len(set(ids)) == 8
    assert [each[3:35] for each in traces] == [*ids[:4], *[theirs] * 4]
    assert len({each[36:52] for each in traces[:4]}) == 4
    assert logged == [
        (name.decode(), trace[3:35].decode())
        for name, trace in zip(ids, traces, strict=True)
    ]


async def test_callers_from_other_addresses_are_told_apart() -> None:
    """The same bytes from two peers: each one's address is sent and logged."""
    async with running(echoing) as backend, gate_to(backend) as bench:
        for address in ("127.0.0.1", "127.0.0.2") * 3:
            reader, writer = await asyncio.open_connection(
                bench.address.host, bench.address.port, local_addr=(address, 0)
            )
            caller = Caller(reader, writer)
            await caller.call(b"GET /a HTTP/1.1\r\n" + FIELDS)
            caller.close()
        sent = [each.value(b"x-forwarded-for") for each in backend.requests]
        logged = [each.client.encode() for each in bench.entries]

    assert sent == logged == [b"127.0.0.1", b"127.0.0.2"] * 3


async def test_a_trusted_peer_names_its_request_and_not_its_trace() -> None:
    """Though somebody else has sent the same bytes before."""
    named = b"X-Request-Id: theirs\r\n" + FIELDS
    server = Server(trusted_proxies=(ip_network("127.0.0.2/32"),))
    async with running(echoing) as backend, gate_to(backend, server=server) as bench:
        for address in ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"):
            reader, writer = await asyncio.open_connection(
                bench.address.host, bench.address.port, local_addr=(address, 0)
            )
            caller = Caller(reader, writer)
            await caller.call(b"GET /a HTTP/1.1\r\n" + named)
            caller.close()
        traces = [each.value(b"traceparent")[3:35] for each in backend.requests]
        logged = [(each.request_id, each.trace_id) for each in bench.entries]

    ids, found = zip(*logged, strict=True)
    assert ids[2:] == ("theirs", "theirs")
    assert [each.encode() for each in found] == traces

"""gateway.adapters.redis_line: scripts over one connection, and whose reply it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.exceptions import ConnectionError as ConnectionBroken
from redis.exceptions import ResponseError

from bench.ports import free_port
from gateway.adapters.redis_line import Call, Garbled, Line
from gateway.adapters.script import Script
from tests.adapters.resp import Command, peer, says
from tests.redis_server import RedisServer, start_redis

ECHO = Script(b"return {ARGV[1], ARGV[2] or '', KEYS[1] or ''}")
BAD = Script(b"return redis.call('GET')")


@asynccontextmanager
async def line_to(url: str) -> AsyncIterator[Line]:
    made = Line(url, connect_timeout=5.0)
    try:
        yield made
    finally:
        await made.aclose()


def echo(text: bytes) -> Call:
    return Call(ECHO, (b"k",), (text,))


async def test_each_call_has_its_own_reply(redis_server: RedisServer) -> None:
    """In the order of the calls; what a script got wrong is its own reply."""
    async with line_to(redis_server.url) as line:
        for _ in range(3):
            one, bad, two = await line.run([echo(b"1"), Call(BAD, ()), echo(b"2")])

            assert one == [b"1", b"k"]
            assert isinstance(bad, ResponseError)
            assert two == [b"2", b"k"]
        assert await line.run([]) == []


async def test_no_calls_are_no_round_trip() -> None:
    """Nothing is sent, and the line can be used and closed as if nobody had asked."""

    async def answer(command: Command, writer: asyncio.StreamWriter) -> None:
        writer.write(b"*1\r\n$%d\r\n%b\r\n" % (len(command[4]), command[4]))

    async with peer(answer) as store, line_to(store.url) as line:
        assert await line.run([]) == []
        assert store.connections == 0
        await line.run([echo(b"1")])
        assert await line.run([]) == []
        async with asyncio.timeout(2.5):  # half of what it waits for a broken one
            await line.aclose()
        assert len(store.commands) == 1


async def test_a_script_is_sent_once_and_then_by_its_digest(
    redis_server: RedisServer,
) -> None:
    """Also after a store has forgotten it."""
    async with line_to(redis_server.url) as line:
        await line.run([echo(b"1")])
        redis_server.command("CONFIG", "RESETSTAT")
        await line.run([echo(b"1"), echo(b"2")])
        statistics = redis_server.command("INFO", "commandstats").decode()
        assert "cmdstat_eval:" not in statistics
        redis_server.command("SCRIPT", "FLUSH")
        assert await line.run([echo(b"1"), echo(b"2")]) == [[b"1", b"k"], [b"2", b"k"]]


async def test_a_connection_that_was_cut_while_idle_is_made_anew(
    redis_server: RedisServer,
) -> None:
    """Once; a store that is not there is not waited for."""
    async with line_to(redis_server.url) as line:
        await line.run([echo(b"1")])
        redis_server.restart()
        assert await line.run([echo(b"2")]) == [[b"2", b"k"]]
        redis_server.kill()
        with pytest.raises(ConnectionBroken):
            await line.run([echo(b"3")])
        redis_server.start()
        assert await line.run([echo(b"4")]) == [[b"4", b"k"]]


@pytest.mark.parametrize(
    "reply", [b"*1\r\n$1\r\n0\r\n", b"*0\r\n", b"$1\r\n1\r\n", b":1\r\n", b"$-1\r\n"]
)
async def test_a_reply_without_the_calls_number_is_none(reply: bytes) -> None:
    """Another's, an earlier one's, or no list at all."""
    async with peer(says(reply)) as store, line_to(store.url) as line:
        with pytest.raises(Garbled):
            await line.run([echo(b"1")])


async def test_what_was_left_on_a_connection_is_not_the_next_reply() -> None:
    """Somebody went away before the reply came; the next call is told from it."""

    async def answer(command: Command, writer: asyncio.StreamWriter) -> None:
        number, text = command[4], command[5]
        reply = b"*2\r\n$%d\r\n%b\r\n" % (len(number), number)
        writer.write(reply + b"$%d\r\n%b\r\n" % (len(text), text))
        if len(store.commands) == 1:
            # And one more, for a question that nobody remembers.
            writer.write(b"*2\r\n$1\r\n0\r\n$5\r\nother\r\n")

    async with peer(answer) as store, line_to(store.url) as line:
        assert await line.run([echo(b"1")]) == [[b"1"]]
        assert await line.run([echo(b"2")]) == [[b"2"]]
        assert store.connections == 2


async def test_the_store_sees_who_is_connected(redis_server: RedisServer) -> None:
    """By name, once, and not at all after the end."""
    async with line_to(redis_server.url) as line:
        await line.run([echo(b"1")])
        assert redis_server.command("CLIENT", "LIST").count(b"name=auth-gateway") == 1
        await line.drop()
        await line.drop()
        await line.run([echo(b"1")])
    await line.aclose()
    while b"name=auth-gateway" in redis_server.command("CLIENT", "LIST"):
        await asyncio.sleep(0.01)


async def test_a_store_can_be_reached_through_a_unix_socket(
    redis_server: RedisServer,
) -> None:
    """As with unix:///run/redis.sock."""
    async with line_to(redis_server.unix_url) as line:
        assert await line.run([echo(b"1")]) == [[b"1", b"k"]]


async def test_the_database_in_the_url_is_used(redis_server: RedisServer) -> None:
    """As with redis://host:6379/3."""
    async with line_to(redis_server.url.replace("/0", "/3")) as line:
        await line.run([echo(b"1")])
        assert b" db=3 " in redis_server.command("CLIENT", "LIST")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "memory",
        "",
        "redis://:hunter2hunter2/x@127.0.0.1",  # a password that is no port
        "redis://:hunter2hunter2@127.0.0.1/?decode_responses=true",
        "redis://:hunter2hunter2@127.0.0.1/?socket_timeout=60",
        "redis://:hunter2hunter2@127.0.0.1/?ssl_nonsense=1",
        "redis://:hunter2hunter2@[::1",
    ],
)
def test_a_url_that_says_something_else_is_refused(url: str) -> None:
    """At start, in words that do not quote it: there is a password in it."""
    with pytest.raises(ValueError, match=r"\[store\] url") as caught:
        Line(url, connect_timeout=1.0)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that is its own CA, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    public, private = directory / "redis.crt", directory / "redis.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return public, private


async def test_a_store_behind_tls_is_verified(tmp_path: Path) -> None:
    """With its CA in the URL it answers; without, it is nobody we know."""
    public, private = certificate(tmp_path)
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    options += ["--tls-cert-file", str(public), "--tls-key-file", str(private)]
    options += ["--tls-ca-cert-file", str(public)]
    with start_redis(*options) as _server:
        url = f"rediss://127.0.0.1:{port}/0"
        async with line_to(f"{url}?ssl_ca_certs={public}") as line:
            assert await line.run([echo(b"1")]) == [[b"1", b"k"]]
        async with line_to(url) as line:
            with pytest.raises(ConnectionBroken):
                await line.run([echo(b"1")])

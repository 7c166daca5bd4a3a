"""Targets and fields into the pure readers of a request: heads, framing, hygiene.

The first line of the input is the method, the second the target, the others are
fields, `name:value`; the first byte of all says which version and which peer.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from urllib.parse import unquote_to_bytes

from gateway.model import CredentialKind, Denial, Headers, Peer, RequestHead
from gateway.wire.credential import extract
from gateway.wire.forwarded import forwarding_fields, new_traceparent
from gateway.wire.framing import Body, check_request, check_response
from gateway.wire.headers import Hygiene
from gateway.wire.request import read_head
from tests.fuzz import strict
from tests.fuzz.front import is_foreign

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
PEERS = (Peer("192.0.2.7", False), Peer("10.0.0.1", True), Peer("", False))
KINDS: frozenset[CredentialKind] = frozenset({"bearer"})
MAX_TOKEN = 200
HYGIENE = Hygiene()
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def fuzz(data: bytes) -> None:
    """Read *data* as a head, and assert what holds for any bytes."""
    how = data[0] if data else 0
    method, _, rest = data[1:].partition(b"\n")
    target, _, rest = rest.partition(b"\n")
    headers: Headers = tuple(
        (name.lower(), value.strip(b" \t"))
        for name, _, value in (line.partition(b":") for line in rest.split(b"\n"))
    )
    version = "1.0" if how & 1 else "1.1"
    _framing(method, version, headers, upgrade=bool(how & 2))
    _answer_framing(method, version, headers, 100 + how * 2)
    if not _is_spelt(headers):
        return  # refused before anybody reads it
    peer = PEERS[how % 3]
    head = read_head(
        kind="http",
        method=method.decode("latin-1"),
        scheme="http",
        target=target,
        headers=headers,
        peer=peer,
        proxies=PROXIES,
    )
    if isinstance(head, Denial):
        return
    _target(head, target)
    _origin(head, headers)
    _fields(head)
    _credential(head)


def _reference(version: str, headers: Headers) -> int | strict.Unreadable | None:
    found = strict.Message(version=version.encode(), fields=[*headers])
    try:
        return strict.framing(found)
    except strict.Unreadable as error:
        return error


def _is_spelt(headers: Headers) -> bool:
    """Tell whether each field could stand in a head."""
    return all(strict.is_field(name + b":" + value) for name, value in headers)


def _framing(method: bytes, version: str, headers: Headers, *, upgrade: bool) -> None:
    body = check_request(method, version, headers, upgrade)
    meant = _reference(version, headers)
    if isinstance(body, Body):
        assert _is_spelt(headers)
        assert body.length == meant
        assert not (upgrade and body.length != 0)
    elif _is_spelt(headers) and method == b"GET" and not upgrade:
        assert isinstance(meant, strict.Unreadable), headers


def _answer_framing(method: bytes, version: str, headers: Headers, status: int) -> None:
    body = check_response(method, status, version, headers)
    meant = _reference(version, headers)
    if body is None:
        return
    assert 100 <= status <= 599
    assert not isinstance(meant, strict.Unreadable)
    if method == b"HEAD" or status < 200 or status in {204, 304}:
        assert body.length == 0
        assert not body.until_close
    elif not body.until_close:
        assert body.length == meant


def _target(head: RequestHead, target: bytes) -> None:
    """I2: one reading, of which the bytes are those that were sent."""
    assert head.target == target
    path, mark, query = target.partition(b"?")
    assert head.path == path
    assert (head.query or b"") == query
    assert (head.query is not None) == bool(mark)
    if target == b"*":
        assert head.method == "OPTIONS"
        return
    assert path.startswith(b"/")
    assert all(0x20 < byte < 0x7F for byte in target)
    assert b"#" not in target
    for raw in path.split(b"/")[1:]:
        # No reader, after one more decoding or without parameters, goes elsewhere.
        for name in (raw, unquote_to_bytes(raw)):
            assert name.partition(b";")[0] not in {b".", b".."}, target
        assert not any(byte < 0x20 or byte == 0x7F for byte in unquote_to_bytes(raw))
    assert b"//" not in path
    assert b"\\" not in path


def _origin(head: RequestHead, headers: Headers) -> None:
    hosts = [value for name, value in headers if name == b"host"]
    assert [head.authority] == hosts
    assert head.host == head.host.lower()
    assert head.authority.decode("ascii").lower().startswith(head.host)
    assert not set(head.authority) & set(b"/?#@\\ %")
    if not head.peer.trusted:
        assert head.client == head.peer.address
    elif head.client:
        assert str(ip_address(head.client)) == head.client


def _fields(head: RequestHead) -> None:
    """I3: nothing that says who somebody is comes from the client."""
    passed = HYGIENE.to_upstream(head.headers)
    assert not isinstance(passed, Denial)
    for field in passed:
        assert field in head.headers
        assert not is_foreign(field[0], is_public=False), field
    written = forwarding_fields(head, "0" * 32, new_traceparent(bytes(24)))
    for name, value in written:
        assert strict.is_field(name + b": " + value), (name, value)
        assert not any(name == other for other, _ in passed)


def _credential(head: RequestHead) -> None:
    found = extract(head.section, head.query, kinds=KINDS, max_token=MAX_TOKEN)
    if isinstance(found, Denial):
        return
    assert 0 < len(found.token) <= MAX_TOKEN
    said = [value for name, value in head.headers if name == b"authorization"]
    assert len(said) == 1
    assert said[0].endswith(found.token.encode("ascii"))
    assert not set(found.token) & set(" ,\t\r\n")


def seeds() -> list[bytes]:
    """Return heads that are worth mixing."""
    heads = [
        b"GET\n/a/b?c=d\nhost:shop.example",
        b"GET\n/%2e%2e/a;x=1/..;/b\nhost:shop.example:80",
        b"OPTIONS\n*\nhost:[::1]:8080",
        b"POST\n/a%20b/%c3%a9\nhost:a\ncontent-length:5",
        b"POST\n/a\nhost:a\ntransfer-encoding:chunked\nexpect:100-continue",
        b"POST\n/a\nhost:a\ntransfer-encoding:chunked\ncontent-length:5",
        b"GET\n/\nhost:a\nauthorization:Bearer abc.def.ghi",
        b"GET\n/\nhost:a\nauthorization:Basic abc\nauthorization:Bearer x",
        b"GET\n/\nhost:a\nx-forwarded-for:1.2.3.4, 10.0.0.2\nx-forwarded-proto:https",
        b"GET\n/\nhost:a\nx-forwarded-for:[fd00::1]:80, ::ffff:10.0.0.1",
        b"GET\n/\nhost:a\nx-forwarded-host:b\nx-request-id:abc",
        b"GET\n/\nhost:a\nconnection:close, x-a\nx-a:b\nx_gateway_assertion:c",
        b"GET\n/\nhost:a\nx_team:d\nX.Real.Ip:d\nte:trailers\nx-auth-request-user:e",
        b"GET\n/\nhost:a\ntracestate:a=b\ntraceparent:" + TRACE,
    ]
    return [bytes([how]) + head for head in heads for how in range(6)]


WORDS = (
    *(b"/", b"..", b"%2e", b"%2f", b"%5c", b"%00", b"%25", b";", b"?", b"#", b"%c3%a9"),
    *(b"host:", b"content-length:", b"transfer-encoding:chunked", b"connection:"),
    *(b"authorization:Bearer ", b"x-forwarded-for:", b"x-forwarded-host:", b"10.0.0.1"),
    *(b"::ffff:10.0.0.1", b"x-gateway-assertion:", b"x_gateway_", b"traceparent:"),
    *(b"127.0.0.1", b"[::1]:80", b"0x7f", b"close, ", b"\n", b"GET\n/", b"_", b"."),
)

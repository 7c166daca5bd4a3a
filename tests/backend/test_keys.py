"""gateway.backend.keys: the gateway's public keys, held by a service."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.backend import keys as module
from gateway.backend.keys import KeySet, KeysUnavailable, parse
from tests.backend.assertions import BOTH, KEYS, NEXT, OURS

GOOD: dict[str, Any] = json.loads(KEYS)["keys"][0]
P384 = ECAlgorithm.to_jwk(
    ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True
)
ED448 = OKPAlgorithm.to_jwk(Ed448PrivateKey.generate().public_key(), as_dict=True)
WEAK = RSAAlgorithm.to_jwk(
    rsa.generate_private_key(65_537, 1_024).public_key(),  # noqa: S505
    as_dict=True,
)
PRIVATE = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
MORE = {"use": "sig", "kid": "other"}


class Source:
    """A key source that answers as told, and counts."""

    def __init__(self) -> None:
        self.answer: bytes | Exception = KEYS
        self.asked = 0
        self.now = 1_000.0

    def __call__(self) -> bytes:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def look(self, keys: KeySet, key_id: str) -> object:
        """Do what a verifier does."""
        if keys.wants(key_id):
            keys.refresh(key_id)
        return keys.find(key_id)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def held(source: Source) -> KeySet:
    return KeySet(source, monotonic=lambda: source.now)


@pytest.mark.parametrize(
    "document", [KEYS, KEYS.decode(), " " + KEYS.decode(), json.loads(KEYS)]
)
def test_keys_may_be_given(document: Any) -> None:
    """As text, bytes or an object; then nothing is ever fetched."""
    found = KeySet(document)

    assert found.find(OURS.key_id) is not None
    assert found.find("other") is None
    assert not found.wants("other")
    found.refresh("other")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"not json",
        b"[" * 5_000,
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        json.dumps({"keys": [GOOD, GOOD]}).encode(),
        "file:///etc/passwd",
        "jwks.json",
    ],
)
def test_refuses_what_is_no_key_set(document: Any) -> None:
    """In words, when the service starts."""
    with pytest.raises(ValueError, match=r"key"):
        KeySet(document)


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        [],
        {},
        {**GOOD, "kid": 7},
        {**GOOD, **MORE, "alg": "ES384"},
        {**GOOD, **MORE, "alg": None},
        {**GOOD, **MORE, "alg": []},
        {**GOOD, **MORE, "alg": "RS256"},
        {**GOOD, **MORE, "use": "enc"},
        {**GOOD, **MORE, "x": "AA"},
        {**GOOD, **MORE, "x": 7},
        {**P384, **MORE, "alg": "ES256"},
        {**ED448, **MORE, "alg": "EdDSA"},
        {**WEAK, **MORE, "alg": "RS256"},
        {**PRIVATE, **MORE, "alg": "ES256"},
        {"kty": "oct", "k": "c2VjcmV0", **MORE, "alg": "HS256"},
    ],
)
def test_one_bad_key_does_not_drop_the_others(jwk: object) -> None:
    """It is not used either: a key has one algorithm, and is strong enough for it."""
    assert list(parse({"keys": [jwk, GOOD]})) == [OURS.key_id]


def test_keys_are_fetched_when_first_needed(held: KeySet, source: Source) -> None:
    """Not before, and once."""
    assert source.asked == 0

    assert source.look(held, OURS.key_id) is not None
    assert source.look(held, OURS.key_id) is not None
    assert source.asked == 1


def test_an_unknown_key_is_asked_for_once_in_30_seconds(
    held: KeySet, source: Source
) -> None:
    """Made-up key ids cost nothing; a rotation is seen at the next question."""
    source.look(held, OURS.key_id)
    for number in range(100):
        assert source.look(held, f"made-up-{number}") is None
    assert source.asked == 1

    source.answer = BOTH
    source.now += 30
    assert source.look(held, NEXT.key_id) is not None
    assert source.asked == 2


def test_a_fetched_set_is_used_for_five_minutes(held: KeySet, source: Source) -> None:
    """Then asked for again, so that a key taken out ends."""
    source.look(held, OURS.key_id)
    source.now += 300
    source.look(held, OURS.key_id)
    assert source.asked == 1

    source.now += 1
    source.answer = BOTH
    version = held.version
    source.look(held, OURS.key_id)
    assert source.asked == 2
    assert held.version == version + 1


@pytest.mark.parametrize("answer", [OSError(), RuntimeError(), b"not json", b"{}"])
def test_the_last_good_set_is_kept_for_a_day(
    held: KeySet, source: Source, answer: bytes | Exception
) -> None:
    """While nobody answers, or answers nonsense, a known key counts."""
    source.look(held, OURS.key_id)
    source.answer = answer
    source.now += 24 * 3_600
    assert source.look(held, OURS.key_id) is not None
    assert source.asked == 2

    source.now += 1
    with pytest.raises(KeysUnavailable):
        source.look(held, OURS.key_id)


def test_a_key_unknown_in_an_outage_is_not_a_wrong_one(
    held: KeySet, source: Source
) -> None:
    """It may be the next: say that nobody knows, until somebody does."""
    source.look(held, OURS.key_id)
    source.answer = OSError()
    source.now += 31
    for _ in range(2):
        with pytest.raises(KeysUnavailable):
            source.look(held, NEXT.key_id)
    assert source.asked == 2

    source.answer = KEYS
    source.now += 31
    assert source.look(held, NEXT.key_id) is None


def test_without_any_key_it_asks_each_second(held: KeySet, source: Source) -> None:
    """A service may start before its gateway, and should not wait 30 seconds then."""
    source.answer = OSError()
    for expected in (1, 1, 2):
        with pytest.raises(KeysUnavailable):
            source.look(held, OURS.key_id)
        assert source.asked == expected
        source.now += 0.5

    source.answer = KEYS
    source.now += 1
    assert source.look(held, OURS.key_id) is not None


def test_threads_share_one_fetch() -> None:
    """Who needs an unknown key waits for whoever fetches; who has his key does not."""
    started, go = threading.Event(), threading.Event()
    answers = iter([KEYS, BOTH])
    asked = []

    def fetch() -> bytes:
        asked.append(1)
        document = next(answers)
        if document == BOTH:
            started.set()
            assert go.wait(10)
        return document

    now = [0.0]
    keys = KeySet(fetch, monotonic=lambda: now[0])
    keys.refresh(OURS.key_id)
    now[0] = 301.0
    found: list[object] = []

    def look() -> None:
        keys.refresh(NEXT.key_id)
        found.append(keys.find(NEXT.key_id))

    threads = [threading.Thread(target=look) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert started.wait(10)

    assert not keys.wants(OURS.key_id)  # old, but it will do
    assert keys.find(OURS.key_id) is not None
    assert keys.wants(NEXT.key_id)
    go.set()
    for thread in threads:
        thread.join(10)

    assert len(asked) == 2
    assert len(found) == 5
    assert None not in found


# -- over HTTP ---------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Answer]]]:
    """A server that answers each path as told."""
    answers: dict[str, Answer] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers[self.path](self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", answers
        running.shutdown()
        thread.join()


def document(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_keys_are_fetched_from_a_url(
    server: tuple[str, dict[str, Answer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directly: a proxy from the environment is not asked (R30)."""
    url, answers = server
    answers["/jwks"] = document(KEYS)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    keys = KeySet(f"{url}/jwks")

    keys.refresh(OURS.key_id)

    assert keys.find(OURS.key_id) is not None


def test_nothing_else_is_taken_for_keys(
    server: tuple[str, dict[str, Answer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect is not followed, an error is no document, and size has a bound."""
    url, answers = server
    answers["/jwks"] = document(KEYS)
    answers["/moved"] = document(b"", 302, Location=f"{url}/jwks")
    answers["/error"] = document(KEYS, 500)
    answers["/large"] = document(KEYS + b" " * module.MAX_BYTES)
    for path in ("/moved", "/error", "/large"):
        keys = KeySet(url + path)
        keys.refresh(OURS.key_id)
        with pytest.raises(KeysUnavailable):
            keys.find(OURS.key_id)


def test_a_document_in_drops_is_given_up(
    server: tuple[str, dict[str, Answer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is for the whole, not for each read."""
    url, answers = server
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not over.wait(0.05):
                handler.wfile.write(b" ")
        except OSError:
            over.set()

    answers["/drip"] = drip
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    keys = KeySet(f"{url}/drip")
    try:
        keys.refresh(OURS.key_id)
    finally:
        over.set()

    with pytest.raises(KeysUnavailable):
        keys.find(OURS.key_id)

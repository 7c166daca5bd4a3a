"""The targets of `make fuzz` over a small corpus, and proof that they would notice."""

from __future__ import annotations

import gc
import json
import random
from collections.abc import Callable

import pytest

from gateway.model import NOTHING, Permit, RequestHead
from gateway.proxy.upstream import UpstreamConnection
from gateway.wire.framing import EMPTY
from gateway.wire.headers import Hygiene
from tests.fuzz import front, head, strict, tokens, world
from tests.fuzz.__main__ import MAX_INPUT
from tests.fuzz.targets import TARGETS, Target

MUTATIONS = 400


@pytest.mark.parametrize("name", TARGETS)
def test_it_holds_for_every_seed(name: str) -> None:
    """Each is worth mixing, and breaks nothing as it stands."""
    for seed in TARGETS[name].seeds():
        assert len(seed) <= MAX_INPUT
        TARGETS[name].fuzz(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_it_holds_for_what_seeds_become(name: str) -> None:
    """What `make fuzz` does for minutes, blindly and for a second."""
    chance = random.Random(7)
    for _ in range(MUTATIONS):
        data = mutated(TARGETS[name], chance)
        try:
            TARGETS[name].fuzz(data)
        except Exception as error:
            error.add_note(f"input: {data!r}")
            raise


def mutated(target: Target, chance: random.Random) -> bytes:
    """Return a seed with some places changed."""
    seeds = target.seeds()
    data = chance.choice(seeds)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data) + 1)
        how = chance.randrange(5)
        if how == 0:
            data = data[:at] + chance.choice(target.words) + data[at:]
        elif how == 1:
            data = data[:at] + data[at + chance.randrange(1, 9) :]
        elif how == 2:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        elif how == 3:
            data = data[:at] + chance.choice(seeds)[chance.randrange(40) :]
        else:
            data = data[:at] + data[max(0, at - chance.randrange(60)) :]
    return data[:MAX_INPUT]


# A fuzz target that cannot fail finds nothing. Each of these breaks one rule.


def _other_target(patch: pytest.MonkeyPatch) -> None:
    def permit(self: world.World, asked: RequestHead) -> Permit:
        made = Permit(world.ROUTE, NOTHING, world.ALICE, 0, "backend", b"/elsewhere")
        self.permits.append((made, asked))
        return made

    patch.setattr(world.World, "_permit", permit)


def _no_identity(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(world, "identity", lambda *_: ())


def _fields_pass(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hygiene, "_judge_request", lambda *_: 0)


def _only_underscores_pass(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(world, "Hygiene", lambda: Hygiene(underscores="pass"))


def _nothing_is_logged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.proxy.exchange.Exchange._log", lambda *_: None)


def _a_bug(patch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("a mistake")

    patch.setattr("gateway.proxy.exchange.read_head", bug)


# A world in which something was found is left as it is, with work that never began.
_LEFT = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")


@_LEFT
@pytest.mark.parametrize(
    "spoil",
    [
        _other_target,
        _no_identity,
        _fields_pass,
        _only_underscores_pass,
        _nothing_is_logged,
        _a_bug,
    ],
)
def test_the_front_is_seen_to_fail(
    spoil: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """I2, I3, I5: a gateway that breaks one of them is found out by the seeds alone."""
    spoil(monkeypatch)
    assert _failures("front")


def _surplus_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(UpstreamConnection, "on_message_begin", lambda _: None)
    whole = UpstreamConnection.on_body

    def on_body(self: UpstreamConnection, content: bytes) -> None:
        if self.sink is not None:
            self._complete = False
            whole(self, content)

    patch.setattr(UpstreamConnection, "on_body", on_body)


def _any_framing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.proxy.upstream.check_response", lambda *_: EMPTY)


@_LEFT
@pytest.mark.parametrize("spoil", [_surplus_is_kept, _any_framing])
def test_the_upstream_is_seen_to_fail(
    spoil: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """I7, R20, R31: so is one that believes a backend."""
    spoil(monkeypatch)
    assert _failures("upstream")


def test_a_lax_reader_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """R10, R43: a reader of targets or of JSON that takes too much."""
    monkeypatch.setattr(tokens, "loads", json.loads)
    assert _failures("tokens")
    monkeypatch.setattr(head, "HYGIENE", Hygiene(underscores="pass"))
    assert _failures("head")


def _failures(name: str) -> int:
    count = 0
    for seed in TARGETS[name].seeds():
        try:
            TARGETS[name].fuzz(seed)
        except Exception:  # noqa: BLE001  (each is one that was noticed)
            count += 1
    gc.collect()  # those worlds, here and in no other test
    return count


def test_the_letter_of_the_rfc() -> None:
    """What the evidence is read with refuses what two readers disagree about."""
    get = b"GET / HTTP/1.1\r\nHost: a\r\n"
    for wrong in (
        get + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        get + b"Content-Length: +1\r\n\r\nx",
        get + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        get + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        get + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        get + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        get + b" folded: x\r\n\r\n",
        get + b"blank : x\r\n\r\n",
        get + b"x: a\rb\r\n\r\n",
        get + b"x: a\nb: c\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
    ):
        assert strict.requests(wrong).wrong, wrong
    two = strict.requests(b"\r\n" + get + b"\r\n" + get + b"x: y")
    assert [each.whole for each in two.messages] == [True]
    assert two.rest == get + b"x: y"


def test_a_script_may_end_early() -> None:
    """The shortest inputs are inputs."""
    for target in TARGETS.values():
        for size in range(front.SCRIPT + 1):
            target.fuzz(bytes(size))

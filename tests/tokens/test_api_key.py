"""gateway.tokens.api_key: what a key looks like, what is kept of it, whom it means."""

from __future__ import annotations

import gc
import json
import math
import random
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import ApiKeyNeeded, Binding, Denial, Principal
from gateway.tokens import api_key
from gateway.tokens.api_key import (
    DIGITS,
    FORM,
    ID_BYTES,
    MAX_SECRETS,
    SECRET_BYTES,
    ApiKey,
    ApiKeyAuthenticator,
    KeyRules,
    Secret,
    digest_in,
    digest_of,
    has_checksum,
    is_key_id,
    is_scope,
    key_id_of,
    key_of,
    principal_of,
    read,
    rotated,
    token_id_of,
    written,
)

NOW = 1_800_000_000.0  # Unix seconds
ID = key_id_of(bytes(range(ID_BYTES)))
KEY = key_of("gw", ID, bytes(range(SECRET_BYTES)))
PLAIN = sha256(KEY.encode()).digest()
PEPPER = b"a pepper of thirty-two bytes, or more"
RULES = KeyRules(allow=frozenset({"customer"}))
RECORD = ApiKey(
    id=ID,
    owner="billing",
    secrets=(Secret(PLAIN, NOW - 100.0),),
    created=NOW - 100.0,
    expires=NOW + 86_400.0,
    roles=frozenset({"customer", "admin"}),
    scope=frozenset({"orders:read"}),
    note="for the night's run",
)


class Known:
    """Knows records, and remembers who was used."""

    def __init__(self, *keys: ApiKey) -> None:
        self.keys = {each.digest: key for key in keys for each in key.secrets}
        self.marked: list[str] = []

    def find(self, digest: bytes) -> ApiKey | None:
        return self.keys.get(digest)

    def mark(self, key_id: str) -> None:
        self.marked.append(key_id)


def authenticate(
    token: str,
    known: Known,
    rules: KeyRules = RULES,
    *,
    now: float = NOW,
    answer: ApiKey | None = None,
) -> Principal | Denial:
    """Return the outcome; who is asked says *answer*."""
    steps = ApiKeyAuthenticator(rules, {}, known).authenticate(token, now)
    try:
        assert isinstance(next(steps), ApiKeyNeeded)
        steps.send(answer)
    except StopIteration as end:
        outcome: Principal | Denial = end.value
        return outcome
    raise AssertionError("it asks twice")


# The form


@given(
    st.from_regex(r"\A[a-z][a-z0-9]{1,15}\Z"),
    st.binary(min_size=ID_BYTES, max_size=ID_BYTES),
    st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
)
def test_a_key_has_the_form_that_scanners_are_told(
    prefix: str, id_: bytes, secret: bytes
) -> None:
    """Whatever the random bytes; and no secret makes the same key as another."""
    key = key_of(prefix, key_id_of(id_), secret)

    assert re.fullmatch(FORM, key)
    assert has_checksum(key)
    digits = key.split("_")[2][:43]
    number = 0
    for digit in digits:
        number = number * 62 + DIGITS.index(digit)
    assert number.to_bytes(SECRET_BYTES) == secret


def test_every_slip_of_the_hand_is_noticed_without_asking() -> None:
    """Each character replaced by each other one, and each two neighbours swapped."""
    known = Known(RECORD)
    slips = {
        KEY[:at] + other + KEY[at + 1 :]
        for at in range(len("gw_"), len(KEY))
        for other in DIGITS
    } | {KEY[:at] + KEY[at + 1] + KEY[at] + KEY[at + 2 :] for at in range(len(KEY) - 1)}
    slips.discard(KEY)

    assert len(slips) > 3_700
    authenticator = ApiKeyAuthenticator(RULES, {}, known)
    for slip in slips:
        with pytest.raises(StopIteration) as end:
            next(authenticator.authenticate(slip, NOW))
        assert str(end.value.value).startswith("token.malformed:")
    assert not known.marked


@pytest.mark.parametrize(
    ("token", "at"),
    [
        ("", "form"),
        ("gw_", "form"),
        (KEY + "\n", "form"),
        ("ab" + KEY, "form"),
        (KEY.replace("gw_", "GW_"), "form"),
        (KEY[:-1], "form"),
        (KEY + "0", "form"),
        (KEY.replace("_", "-"), "form"),
        ("a.b.c", "form"),
        (KEY[:-1] + ("0" if KEY[-1] != "0" else "1"), "checksum"),
        (key_of("other", ID, bytes(32)), "form"),
    ],
)
def test_what_has_not_the_form_is_refused_unasked(token: str, at: str) -> None:
    """A stranger's text costs a regular expression and a checksum."""
    assert str(authenticate(token, Known(RECORD))) == f"token.malformed:{at}"


def test_a_key_of_another_form_counts_only_where_they_are_imported() -> None:
    """And then by its digest alone; what is too short to be any good never does."""
    other = "sk_live_0123456789abcdef"
    short = other[: api_key.LEAST_IMPORTED - 1]
    record = replace(
        RECORD,
        secrets=tuple(
            Secret(sha256(text.encode()).digest(), NOW) for text in (other, short)
        ),
    )
    taking = replace(RULES, imported=True)

    assert str(authenticate(other, Known(record))) == "token.malformed:form"
    assert isinstance(authenticate(other, Known(record), taking), Principal)
    assert str(authenticate(short, Known(record), taking)) == "token.malformed:form"
    wrong = KEY[:-1] + ("0" if KEY[-1] != "0" else "1")
    assert str(authenticate(wrong, Known(), taking)) == "token.malformed:checksum"


# Whom it stands for


def test_a_key_is_its_owner() -> None:
    """As the record says, but for roles that keys may not have."""
    known = Known(RECORD)
    found = authenticate(KEY, known)

    assert isinstance(found, Principal)
    assert found.kind == "api_key"
    assert (found.issuer, found.subject, found.client_id) == ("api_keys", "billing", ID)
    assert found.token_id == token_id_of(PLAIN)
    assert found.roles == {"customer"}
    assert found.scope == {"orders:read"}
    assert (found.issued_at, found.expires_at) == (NOW - 100.0, NOW + 86_400.0)
    assert (found.leeway, found.not_before) == (0.0, None)
    assert found.fingerprints is not None
    assert found.fingerprints.client is not None
    assert known.marked == [ID]


def test_a_key_that_is_not_known_here_is_asked_for_by_its_digest() -> None:
    """Never by its text; with a pepper the digest says nothing without it."""
    for rules in (RULES, replace(RULES, pepper=PEPPER)):
        digest = digest_of(PLAIN, rules.pepper)
        steps = ApiKeyAuthenticator(rules, {}, Known()).authenticate(KEY, NOW)
        need = next(steps)
        assert need == ApiKeyNeeded(digest)
        assert (digest == PLAIN) is (rules.pepper is None)
        assert KEY not in repr(need)
        record = replace(RECORD, secrets=(Secret(digest, NOW),))
        with pytest.raises(StopIteration) as end:
            steps.send(record)
        assert isinstance(end.value.value, Principal)


def test_a_declared_key_is_not_asked_for() -> None:
    """Whatever anybody else would say of its digest."""
    other = replace(RECORD, owner="mallory")
    authenticator = ApiKeyAuthenticator(RULES, {PLAIN: RECORD}, Known(other))
    with pytest.raises(StopIteration) as end:
        next(authenticator.authenticate(KEY, NOW))
    assert end.value.value.subject == "billing"


@pytest.mark.parametrize(
    ("record", "now", "reason"),
    [
        (None, NOW, "token.key"),
        (replace(RECORD, secrets=(Secret(bytes(32), NOW),)), NOW, "token.key:secret"),
        (replace(RECORD, revoked=NOW), NOW, "token.revoked"),
        (RECORD, NOW + 86_400.0, "token.expired"),
        (replace(RECORD, expires=NOW + 400 * 86_400), NOW, "token.lifetime"),
        (replace(RECORD, expires=float("nan")), NOW, "token.lifetime"),
        (
            replace(RECORD, secrets=(Secret(PLAIN, NOW - 9.0, NOW - 1.0),)),
            NOW,
            "token.expired",
        ),
    ],
)
def test_a_record_that_says_no_is_obeyed(
    record: ApiKey | None, now: float, reason: str
) -> None:
    """Also one that was found under a digest that is none of its own."""
    known = Known()
    assert str(authenticate(KEY, known, now=now, answer=record)) == reason
    assert not known.marked


def test_one_record_is_one_principal_until_it_changes() -> None:
    """So that what others keep of it stays good, and no longer."""
    known = Known(RECORD)
    authenticator = ApiKeyAuthenticator(RULES, {}, known)

    def ask() -> Principal:
        with pytest.raises(StopIteration) as end:
            next(authenticator.authenticate(KEY, NOW))
        found: Principal = end.value.value
        return found

    first = ask()
    assert ask() is first
    known.keys[PLAIN] = replace(RECORD, scope=frozenset())
    second = ask()
    assert second is not first
    assert second.scope == frozenset()


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full, it starts afresh; nothing else changes."""
    monkeypatch.setattr(api_key, "_MAX_HELD", 2)
    keys = [key_of("gw", ID, bytes([number] * 32)) for number in range(5)]
    digests = [sha256(key.encode()).digest() for key in keys]
    known = Known(*(replace(RECORD, secrets=(Secret(d, NOW),)) for d in digests))
    authenticator = ApiKeyAuthenticator(RULES, {}, known)
    for key in keys * 2:
        with pytest.raises(StopIteration) as end:
            next(authenticator.authenticate(key, NOW))
        assert isinstance(end.value.value, Principal)
        assert len(authenticator._held) <= 2


def test_a_key_is_bound_to_its_networks() -> None:
    """One that has none is bound to nothing."""
    home = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    for networks, binding in ((home, Binding(networks=home)), ((), None)):
        record = replace(RECORD, networks=networks)
        assert principal_of(record, record.secrets[0], RULES, NOW).binding == binding


# Rotation


def test_the_old_secret_lives_for_the_overlap_and_not_longer() -> None:
    """Under a clock of the test's own; the record's own end comes first."""
    new = key_of("gw", ID, b"n" * 32)
    digest = sha256(new.encode()).digest()
    record = rotated(RECORD, digest, now=NOW, overlap=3_600.0, expires=NOW + 1e6)
    known = Known(record)

    for now, old_is_good in ((NOW, True), (NOW + 3_599.9, True), (NOW + 3_600, False)):
        assert isinstance(authenticate(KEY, known, now=now), Principal) is old_is_good
        assert isinstance(authenticate(new, known, now=now), Principal)
    # To be given another end is nothing for the old secret.
    late = rotated(RECORD, digest, now=NOW, overlap=1e9, expires=NOW + 1e6)
    assert late.secrets[0].until == RECORD.expires


def test_rotated_twice_the_first_secret_ends_when_it_was_said() -> None:
    """A later rotation prolongs nothing, and forgets what is over."""
    one = rotated(RECORD, b"1" * 32, now=NOW, overlap=10.0, expires=NOW + 1e6)
    two = rotated(one, b"2" * 32, now=NOW + 5, overlap=100.0, expires=NOW + 1e6)
    assert [each.until for each in two.secrets] == [NOW + 10, NOW + 105, None]
    three = rotated(two, b"3" * 32, now=NOW + 50, overlap=0.0, expires=NOW + 1e6)
    assert [each.until for each in three.secrets] == [NOW + 50, NOW + 50, None]
    many = RECORD
    for number in range(10):
        digest = bytes([number]) * 32
        many = rotated(many, digest, now=NOW, overlap=9.0, expires=NOW + 1e6)
    assert len(many.secrets) == MAX_SECRETS
    assert many.secrets[-1].digest == digest


# The record

TEXT = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20
)
TIMES = st.floats(0, 2**40)
RECORDS = st.builds(
    ApiKey,
    id=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z"),
    owner=TEXT,
    secrets=st.lists(
        st.builds(
            Secret,
            digest=st.binary(min_size=32, max_size=32),
            created=TIMES,
            until=st.none() | TIMES,
        ),
        min_size=1,
        max_size=MAX_SECRETS,
    ).map(tuple),
    created=TIMES,
    expires=TIMES,
    roles=st.frozensets(TEXT, max_size=5),
    scope=st.frozensets(TEXT, max_size=5),
    networks=st.lists(
        st.sampled_from([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])
    ).map(tuple),
    not_before=st.none() | TIMES,
    revoked=st.none() | TIMES,
    note=st.text(max_size=50),
)


@settings(max_examples=200)
@given(RECORDS, st.none() | st.binary(min_size=32, max_size=64))
def test_what_is_written_is_read_and_written_the_same(
    record: ApiKey, pepper: bytes | None
) -> None:
    """Byte for byte: a change says what was there before."""
    try:
        value = written(record, pepper)
        value.decode()
    except UnicodeError:
        return
    found = read(value, pepper)
    if found is None:  # a note with a lone surrogate is no text
        assert not record.note.isprintable()
        return
    assert found == record
    assert written(found, pepper) == value


def test_a_record_holds_nothing_that_could_be_presented() -> None:
    """Neither the key nor its secret; and repr() not even the digest (R53)."""
    value = written(RECORD, None)
    for part in (KEY, KEY.split("_")[2], KEY.split("_")[2][:20]):
        assert part.encode() not in value
    assert PLAIN.hex() not in repr(RECORD) + repr(RECORD.secrets)


@given(st.integers(0, 600), st.integers(1, 255))
def test_with_a_pepper_no_byte_of_a_record_can_be_changed(at: int, by: int) -> None:
    """Nor can one be made without it, nor one that was made without it be used."""
    value = bytearray(written(RECORD, PEPPER))
    value[at % len(value)] ^= by
    assert read(bytes(value), PEPPER) is None
    assert read(written(RECORD, None), PEPPER) is None
    assert read(written(RECORD, PEPPER), None) is None
    assert read(written(RECORD, PEPPER + b"x"), PEPPER) is None


def _said() -> dict[str, Any]:
    said: dict[str, Any] = json.loads(written(RECORD, None).split(b" ", 2)[2])
    return said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""),
        ("id", 7),
        ("id", "a/b"),
        ("owner", ""),
        ("owner", None),
        ("owner", "a\nb"),
        ("owner", "e\u0301"),
        ("secrets", []),
        ("secrets", [{}] * 9),
        ("secrets", {}),
        ("secrets", ["a"]),
        ("secrets", [{"digest": "ab", "created": 0, "until": None}]),
        ("secrets", [{"digest": PLAIN.hex(), "created": 0}]),
        ("secrets", [{"digest": PLAIN.hex(), "created": True, "until": None}]),
        ("secrets", [{"digest": PLAIN.hex(), "created": 0, "until": "1"}]),
        ("created", None),
        ("created", "1"),
        ("expires", -1),
        ("expires", 2**54),
        ("expires", True),
        ("roles", "customer"),
        ("roles", [1]),
        ("roles", ["a\0"]),
        ("roles", ["a"] * 65),
        ("scope", None),
        ("networks", ["10.0.0.1/8"]),
        ("networks", [167772160]),
        ("networks", "10.0.0.0/8"),
        ("networks", ["10.0.0.0/8"] * 65),
        ("not_before", "soon"),
        ("revoked", False),
        ("note", None),
        ("note", "a" * 256),
        ("more", 1),
    ],
)
def test_a_record_that_this_version_did_not_write_is_none(
    name: str, value: object
) -> None:
    """A refusal, never a crash: who can write to the store can make nobody fail."""
    whole = b"1 - " + json.dumps(_said()).encode()
    assert read(whole, None) == RECORD
    odd = b"1 - " + json.dumps({**_said(), name: value}).encode()
    assert read(odd, None) is None
    less = _said()
    less.pop(name, None)
    if less != _said():
        assert read(b"1 - " + json.dumps(less).encode(), None) is None


@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_reading_fail(value: bytes) -> None:
    """Whatever stands in the store."""
    assert read(value, None) is None
    assert read(b"1 - " + value, PEPPER) is None


def test_names_and_digests_are_what_they_should_be() -> None:
    """As they come from people."""
    assert is_key_id("billing-1.a_b")
    assert not any(map(is_key_id, ("", "-a", "a b", "a" * 65, "a\n", "\u00e9")))
    assert is_scope("orders:read")
    assert not any(map(is_scope, ("", "a b", 'a"', "a" * 256, "\u00e9")))
    assert digest_in(PLAIN.hex().upper()) == PLAIN
    assert not any(map(digest_in, ("", PLAIN.hex()[1:], "g" * 64, None, 7)))


# R52: how long a refusal takes says nothing about the keys there are

SAMPLES = 100_000
Judge = Callable[[str], object]


def _times(judge: Judge, near: list[str], far: list[str]) -> float:
    """Return Welch's t of how long *judge* takes for *near* and *far*.

    Taken in random order, without the slowest tenth: that is the machine's.
    """
    dice = random.Random(52)
    order = [(dice.random() < 0.5, dice.randrange(len(near))) for _ in range(SAMPLES)]
    taken: tuple[list[int], list[int]] = ([], [])
    clock = time.perf_counter_ns
    gc.disable()
    try:
        for is_near, place in order:
            token = near[place] if is_near else far[place]
            began = clock()
            judge(token)
            taken[is_near].append(clock() - began)
    finally:
        gc.enable()
    limit = sorted([*taken[0], *taken[1]])[SAMPLES * 9 // 10]
    a, b = ([each for each in times if each <= limit] for times in taken)
    spread = statistics.variance(a) / len(a) + statistics.variance(b) / len(b)
    return abs(statistics.fmean(a) - statistics.fmean(b)) / math.sqrt(spread)


def _tokens() -> tuple[list[str], list[str]]:
    """Return keys that begin as KEY does, and such that don't; both unknown."""
    dice = random.Random(53)
    near, far = [], []
    for _ in range(2_000):
        # All but the last three bytes are those of the key that there is.
        near.append(key_of("gw", ID, bytes(range(29)) + dice.randbytes(3)))
        far.append(key_of("gw", key_id_of(dice.randbytes(9)), dice.randbytes(32)))
    return near, far


def test_how_long_a_refusal_takes_says_nothing() -> None:
    """A text like a key that there is, and another: no difference in 10^5 (R52).

    A difference in the code shows each time; what the machine does, not three times.
    """
    near, far = _tokens()
    authenticator = ApiKeyAuthenticator(RULES, {PLAIN: RECORD}, Known(RECORD))

    def judge(token: str) -> object:
        return next(authenticator.authenticate(token, NOW))

    assert min(_times(judge, near, far) for _ in range(3)) < 4.5


def test_a_comparison_that_tells_would_be_noticed() -> None:
    """The same measurement of code that compares texts character by character."""

    def judge(token: str) -> object:
        for ours, theirs in zip(KEY, token, strict=True):
            if ours != theirs:
                return None
        return KEY

    assert _times(judge, *_tokens()) > 4.5

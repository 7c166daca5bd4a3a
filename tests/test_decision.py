"""gateway.decision: each place a request can stop, and that it stops there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, Literal
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.decision import OWN, Pending, finish
from gateway.model import (
    ANONYMOUS,
    SELF,
    ApiKeyNeeded,
    Binding,
    Case,
    Credential,
    Denial,
    HeaderSection,
    Need,
    Peer,
    Permit,
    Principal,
    Reason,
    ReplayNeeded,
    RequestHead,
    RevocationNeeded,
    Route,
    Sockets,
    StaleRevocation,
    Steps,
    TicketNeeded,
    Unavailable,
)
from gateway.policy.compile import any_route
from gateway.tokens.api_key import ApiKeyAuthenticator, KeyRules
from gateway.tokens.binding import Bindings
from gateway.tokens.dpop import Proofs
from gateway.wire.credential import KeyPlace
from gateway.wire.problems import problem
from tests.fakes import ALICE, ORDERS, READ, Staff, bearer, head_of
from tests.tokens import make
from tests.tokens.proofs import jkt_of, proof_of

NOW = 1_000.0  # Unix seconds
GOOD = bearer("good")
PUBLIC = Route("status", "orders", "orders", "public")
OPTIONAL = replace(ORDERS, access="optional", needed=0)


def decide(
    staff: Staff, head: RequestHead | None = None, now: float = NOW, **given: Any
) -> Permit | Denial | Pending:
    if head is None:
        head = head_of(b"/orders/7", GOOD)
    return staff.decider(**given).decide_now(head, now)


def test_a_good_request_passes_every_step_once_and_in_order() -> None:
    """The permit carries what the steps found, and exactly what will be sent."""
    staff = Staff()

    permit = decide(staff, head_of(b"/orders/7?a=%20", GOOD))

    assert isinstance(permit, Permit)
    assert permit.route is ORDERS
    assert permit.principal is ALICE
    assert (permit.upstream, permit.target) == ("orders", b"/orders/7?a=%20")
    assert permit.granted == READ
    assert staff.asked == ["match", "authenticate", "mirror", "granted"]


def test_it_decides_by_another_policy_and_is_else_the_same() -> None:
    """As somebody who asks about a token alone."""
    staff = Staff()
    other = staff.decider().by(any_route(["corp"]))

    permit = other.decide_now(head_of(b"/anything", GOOD), NOW)
    assert isinstance(permit, Permit)
    assert permit.principal is ALICE
    assert permit.route.id != ORDERS.id
    assert isinstance(other.decide_now(head_of(b"/anything"), NOW), Denial)
    assert staff.asked == ["authenticate", "mirror"]


def test_a_known_token_is_not_verified_again() -> None:
    """It is accepted, looked up in the revocation list and authorized again."""
    staff = Staff(known={"good": ALICE})

    permit = decide(staff)

    assert isinstance(permit, Permit)
    assert staff.asked == ["match", "mirror", "granted"]


@pytest.mark.parametrize(
    ("known", "now", "reason"),
    [
        (ALICE, 2_001.0, Reason.TOKEN_EXPIRED),
        (
            replace(ALICE, audience=frozenset({"other"})),
            NOW,
            Reason.AUDIENCE_WRONG,
        ),
        (replace(ALICE, not_before=1_001.0), NOW, Reason.TOKEN_NOT_YET_VALID),
        (replace(ALICE, issuer="partner"), NOW, Reason.ISSUER_NOT_ACCEPTED),
    ],
)
def test_a_known_token_is_accepted_anew_on_every_request(
    known: Principal, now: float, reason: Reason
) -> None:
    """What depends on this route and this moment is never cached (R65)."""
    staff = Staff(
        known={"good": known}, route=replace(ORDERS, audience=frozenset({"api"}))
    )

    outcome = decide(staff, now=now)

    assert isinstance(outcome, Denial)
    assert outcome.reason is reason


TWICE = head_of(b"/orders/7", GOOD, GOOD)
IN_QUERY = head_of(b"/orders/7?access_token=x")


@pytest.mark.parametrize(
    ("staff", "head", "reason", "steps"),
    [
        (Staff(route=Denial(Reason.ROUTE_UNKNOWN)), None, Reason.ROUTE_UNKNOWN, 1),
        (Staff(), head_of(), Reason.CREDENTIAL_MISSING, 1),
        (Staff(), TWICE, Reason.CREDENTIAL_AMBIGUOUS, 1),
        (Staff(), IN_QUERY, Reason.CREDENTIAL_IN_QUERY, 1),
        (
            Staff(),
            head_of(b"/orders/7", bearer("odd")),
            Reason.CREDENTIAL_UNRECOGNISED,
            1,
        ),
        (
            Staff(Denial(Reason.SIGNATURE_INVALID)),
            None,
            Reason.SIGNATURE_INVALID,
            2,
        ),
        (
            Staff(replace(ALICE, expires_at=999.0)),
            None,
            Reason.TOKEN_EXPIRED,
            2,
        ),
        (Staff(mirror=True), None, Reason.TOKEN_REVOKED, 3),
        (Staff(granted_bits=0), None, Reason.PERMISSION_MISSING, 5),
        (
            Staff(
                route=replace(ORDERS, needed=3),
                granted_bits=1,
            ),
            None,
            Reason.PERMISSION_MISSING,
            5,
        ),
    ],
)
def test_the_first_denial_is_the_last_word(
    staff: Staff, head: RequestHead | None, reason: Reason, steps: int
) -> None:
    """A denied request reaches no later step, so none can undo the denial."""
    outcome = decide(staff, head)

    assert isinstance(outcome, Denial)
    assert outcome.reason is reason
    assert len(staff.asked) == steps
    if steps > 1:
        assert outcome.route is staff.route


def test_a_rule_is_asked_where_a_route_has_one() -> None:
    """Its denial names route and principal, for the log."""

    class Never:
        def judge(self, _case: Any) -> Steps[Denial | None]:
            raise AssertionError("the policy asks it")
            yield

    staff = Staff(
        route=replace(ORDERS, rule=Never()),
        verdict=Denial(Reason.CONDITION_FAILED, "owner"),
    )

    outcome = decide(staff)

    assert isinstance(outcome, Denial)
    assert str(outcome) == "condition.failed:owner"
    assert outcome.principal is ALICE

    passing = decide(replace(staff, verdict=None, asked=[]))

    assert isinstance(passing, Permit)


@pytest.mark.parametrize(
    ("hosts", "policy_hosts", "is_served"),
    [
        (frozenset(), frozenset(), True),
        (frozenset({"api.example"}), frozenset(), True),
        (frozenset(), frozenset({"api.example"}), True),
        (frozenset({"other.example"}), frozenset({"third.example"}), False),
    ],
)
def test_only_hosts_that_are_served_are_looked_at(
    hosts: frozenset[str], policy_hosts: frozenset[str], is_served: bool
) -> None:
    """The allow-list is [server].hosts with the services' hosts; none: any (R4)."""
    outcome = decide(Staff(hosts=policy_hosts), hosts=hosts)

    if is_served:
        assert isinstance(outcome, Permit)
    else:
        assert outcome == Denial(Reason.HOST_UNKNOWN)


@pytest.mark.parametrize(
    ("target", "is_own"),
    [
        (b"/auth", True),
        (b"/auth/token", True),
        (b"/.well-known/jwks.json", True),
        (b"/authority", False),
        (b"/api/auth", False),
    ],
)
def test_our_own_paths_go_to_ourselves(target: bytes, is_own: bool) -> None:
    """They are looked at before any route, so that none can take them."""
    staff = Staff(route=Denial(Reason.ROUTE_UNKNOWN))

    outcome = decide(staff, head_of(target))

    if is_own:
        assert isinstance(outcome, Permit)
        assert (outcome.upstream, outcome.route) == (SELF, OWN)
        assert outcome.reserved
        assert not staff.asked
    else:
        assert outcome == Denial(Reason.ROUTE_UNKNOWN)


def test_an_own_prefix_of_two_segments_is_compared_whole() -> None:
    """`/gw/auth` is ours, `/gw/other` is not."""
    staff = Staff(route=Denial(Reason.ROUTE_UNKNOWN))

    ours = decide(staff, head_of(b"/gw/auth/x"), own_prefix=("gw", "auth"))
    theirs = decide(staff, head_of(b"/gw/other"), own_prefix=("gw", "auth"))

    assert isinstance(ours, Permit)
    assert isinstance(theirs, Denial)


def test_an_own_path_with_an_encoded_delimiter_is_ambiguous() -> None:
    """No route allows it there, because there is no route (R10)."""
    outcome = decide(Staff(), head_of(b"/auth/a%2Fb"))

    assert isinstance(outcome, Denial)
    assert outcome.reason is Reason.TARGET_AMBIGUOUS


def test_a_public_route_looks_at_no_credential() -> None:
    """Not even at a malformed one: it is the backend's affair (DESIGN section 4)."""
    staff = Staff(route=PUBLIC)

    outcome = decide(staff, TWICE)

    assert isinstance(outcome, Permit)
    assert outcome.principal is ANONYMOUS
    assert staff.asked == ["match"]


def test_optional_means_nobody_or_somebody_but_never_a_bad_token() -> None:
    """No credential is anonymous; one that is not believed is refused."""
    nobody = decide(Staff(route=OPTIONAL), head_of())
    somebody = decide(Staff(route=OPTIONAL))
    bad = decide(Staff(Denial(Reason.SIGNATURE_INVALID), route=OPTIONAL))
    two = decide(Staff(route=OPTIONAL), TWICE)

    assert isinstance(nobody, Permit)
    assert nobody.principal is ANONYMOUS
    assert isinstance(somebody, Permit)
    assert somebody.principal is ALICE
    assert isinstance(bad, Denial)
    assert isinstance(two, Denial)


@pytest.mark.parametrize(
    ("strip", "target", "sent"),
    [
        (0, b"/api/orders/7", b"/api/orders/7"),
        (2, b"/api/orders/7?x=1", b"/7?x=1"),
        (2, b"/%61pi/orders/7", b"/7"),
        (2, b"/api/orders", b"/"),
        (2, b"/api/orders?x", b"/?x"),
        (2, b"/api/orders/", b"/"),
        (2, b"/api/orders?", b"/?"),
    ],
)
def test_a_prefix_is_stripped_by_segments_of_what_was_received(
    strip: int, target: bytes, sent: bytes
) -> None:
    """However the client spelt the prefix; the rest is sent byte for byte."""
    outcome = decide(Staff(route=replace(PUBLIC, strip=strip)), head_of(target))

    assert isinstance(outcome, Permit)
    assert outcome.target == sent


@pytest.mark.parametrize(("store", "permitted"), [(False, True), (True, False)])
async def test_while_the_mirror_is_not_live_the_store_is_asked(
    store: bool, permitted: bool
) -> None:
    """The same steps go on with its answer; there is no second order."""
    staff = Staff(mirror=None, store=store)

    pending = decide(staff)
    outcome = await staff.decider().decide(head_of(b"/", GOOD), NOW, staff.answer)

    assert isinstance(pending, Pending)
    assert pending.need == RevocationNeeded(ALICE)
    assert isinstance(outcome, Permit if permitted else Denial)


async def test_an_outage_is_not_consent() -> None:
    """With mirror and store out of reach no permit is made, and none is refused."""
    staff = Staff(mirror=None, store=Unavailable("revocation store"))
    pending = decide(staff)

    assert isinstance(pending, Pending)
    with pytest.raises(Unavailable) as outage:
        await finish(pending, staff.answer)

    assert outage.value.route is ORDERS
    assert outage.value.principal is ALICE
    assert staff.asked == ["match", "authenticate", "mirror", "store"]


STRICT = replace(ORDERS, strict=True)
PATIENT = replace(ORDERS, stale=5.0)


@pytest.mark.parametrize("mirror", [False, None])
@pytest.mark.parametrize(("store", "permitted"), [(False, True), (True, False)])
async def test_a_strict_route_asks_the_store_whatever_the_mirror_says(
    mirror: bool | None, store: bool, permitted: bool
) -> None:
    """Its word alone is a yes there, and it is asked for no old one."""
    staff = Staff(mirror=mirror, store=store, route=STRICT)

    pending = decide(staff)
    outcome = await staff.decider().decide(head_of(b"/", GOOD), NOW, staff.answer)

    assert isinstance(pending, Pending)
    assert pending.need == RevocationNeeded(ALICE, stale=0.0)
    assert isinstance(outcome, Permit if permitted else Denial)


def test_what_the_mirror_knows_to_be_revoked_needs_no_store() -> None:
    """On a strict route too: it was revoked once."""
    staff = Staff(mirror=True, route=STRICT)

    outcome = decide(staff)

    assert isinstance(outcome, Denial)
    assert outcome.reason is Reason.TOKEN_REVOKED
    assert "store" not in staff.asked


async def decided_by(
    store: bool | StaleRevocation | Unavailable, route: Route, **more: Any
) -> Permit | Denial:
    staff = Staff(mirror=None, store=store, route=route, **more)
    pending = decide(staff)
    assert isinstance(pending, Pending)
    assert pending.need == RevocationNeeded(ALICE, stale=route.stale)
    return await finish(pending, staff.answer)


async def test_an_old_mirror_decides_where_that_is_allowed() -> None:
    """What was decided so says how old it was, whichever way it went."""
    permit = await decided_by(StaleRevocation(is_revoked=False, age=5.0), PATIENT)
    revoked = await decided_by(StaleRevocation(is_revoked=True, age=4.0), PATIENT)
    other = await decided_by(
        StaleRevocation(is_revoked=False, age=3.0), PATIENT, granted_bits=0
    )

    assert isinstance(permit, Permit)
    assert isinstance(revoked, Denial)
    assert isinstance(other, Denial)
    ages = [each.revocation_age for each in (permit, revoked, other)]
    assert ages == [5.0, 4.0, 3.0]
    assert revoked.reason is Reason.TOKEN_REVOKED
    assert other.reason is Reason.PERMISSION_MISSING


async def test_what_the_store_has_said_has_no_age() -> None:
    """Nor what the mirror says while it counts."""
    asked = await decided_by(False, PATIENT)
    known = decide(Staff(route=PATIENT))

    assert isinstance(asked, Permit)
    assert isinstance(known, Permit)
    assert asked.revocation_age is known.revocation_age is None


@pytest.mark.parametrize(
    ("route", "age"),
    [
        (ORDERS, 0.0),
        (ORDERS, 0.1),
        (STRICT, 0.0),
        (STRICT, 0.1),
        (PATIENT, 5.001),
        (PATIENT, float("inf")),
        (PATIENT, float("nan")),
    ],
)
@pytest.mark.parametrize("is_revoked", [False, True])
async def test_a_mirror_that_is_too_old_for_a_route_is_an_outage(
    route: Route, age: float, is_revoked: bool
) -> None:
    """Also if whoever answers would make do with it."""
    with pytest.raises(Unavailable) as outage:
        await decided_by(StaleRevocation(is_revoked, age), route)

    assert outage.value.route is route
    assert outage.value.principal is ALICE


@given(
    mirror=st.sampled_from([True, False, None]),
    store=st.one_of(
        st.booleans(),
        st.builds(StaleRevocation, st.booleans(), st.floats(0, 9)),
        st.builds(lambda: Unavailable("revocation store")),
        st.sampled_from([None, 0, "", "yes"]),
    ),
    strict=st.booleans(),
    stale=st.sampled_from([0.0, 2.0, 5.0]),
)
def test_nobody_passes_without_a_no_that_is_good_enough(
    mirror: bool | None, store: Any, strict: bool, stale: float
) -> None:
    """And an outage is one, neither a yes nor a 401, whatever is said by whom."""
    route = replace(ORDERS, strict=strict, stale=0.0 if strict else stale)
    staff = Staff(mirror=mirror, store=store, route=route)
    work = staff.decider().decide(head_of(b"/", GOOD), NOW, staff.answer)
    try:
        outcome: Permit | Denial | None = asyncio.run(work)
    except Unavailable:
        outcome = None

    old = store if isinstance(store, StaleRevocation) else None
    said = store if old is None else old.is_revoked
    asked = mirror is None or (strict and mirror is False)
    is_away = isinstance(store, Unavailable) or (
        old is not None and (old.age > route.stale or not route.stale)
    )
    if mirror is True:
        assert isinstance(outcome, Denial)
    elif asked and is_away:
        assert outcome is None
    elif asked and said is not False:
        assert isinstance(outcome, Denial)
    else:
        assert isinstance(outcome, Permit)
        age = old.age if asked and old is not None else None
        assert outcome.revocation_age == age


def test_an_outage_without_a_need_is_none_either() -> None:
    """An authenticator that knows at once that its source is away says so."""
    with pytest.raises(Unavailable) as outage:
        decide(Staff(Unavailable("issuer corp")))

    assert outage.value.principal is None


def test_an_attempt_is_made_on_the_account_of_the_client() -> None:
    """R100: who tries in vain uses up nobody else's allowance."""
    staff, head = Staff(), head_of(b"/orders/7", (b"authorization", b"Bearer t"))

    assert isinstance(decide(staff, head), Permit)

    assert staff.clients == [head.client]
    assert head.client


async def test_an_outage_reaches_the_steps_which_may_decide_without_it() -> None:
    """It is thrown in at the Need, so that another branch of an `any` can win."""

    class Sturdy(Staff):
        def authenticate(
            self, _token: str, _now: float, client: str = ""
        ) -> Steps[Principal | Denial]:
            assert client
            try:
                yield RevocationNeeded(ALICE)
            except Unavailable:
                known = yield RevocationNeeded(ALICE)
                assert known is False
            return ALICE

    answers: list[Any] = [Unavailable("issuer corp"), False]

    async def answer(_need: Need) -> Any:
        given = answers.pop(0)
        if isinstance(given, Unavailable):
            raise given
        return given

    pending = decide(Sturdy())
    assert isinstance(pending, Pending)

    outcome = await finish(pending, answer)

    assert isinstance(outcome, Permit)
    assert not answers


async def test_what_needs_nothing_is_decided_without_waiting() -> None:
    """`decide` and `decide_now` are one path."""
    staff = Staff()

    outcome = await staff.decider().decide(head_of(b"/", GOOD), NOW, staff.answer)

    assert isinstance(outcome, Permit)
    assert "store" not in staff.asked


BY_TICKET = replace(ORDERS, credentials=frozenset({"bearer", "ticket"}), strip=1)
WITH_TICKET = b"/orders/7?a=1&ticket=" + b"t" * 43


class Clerk(Staff):
    """A staff that knows what a ticket was given for, or who is away."""

    stood_for: Credential | Unavailable | None = Credential("bearer", "good")

    async def answer(self, need: Need) -> Any:
        if not isinstance(need, TicketNeeded):
            return await super().answer(need)
        self.asked.append("tickets")
        self.need = need
        if isinstance(self.stood_for, Unavailable):
            raise self.stood_for
        return self.stood_for


async def redeem(clerk: Clerk, target: bytes = WITH_TICKET) -> Permit | Denial:
    """Decide a request that presents a ticket."""
    return await clerk.decider().decide(head_of(target), NOW, clerk.answer)


async def test_a_ticket_is_worth_what_it_was_given_for() -> None:
    """All that follows is as if that had come itself, and the ticket has gone."""
    clerk = Clerk(route=BY_TICKET, mirror=None)

    permit = await redeem(clerk)

    assert isinstance(permit, Permit)
    assert permit.principal is ALICE
    assert permit.target == b"/7?a=1"
    assert clerk.need.request == b"GET\0api.example\0/orders/7?a=1"
    assert clerk.need.ticket not in repr(clerk.need)
    assert clerk.asked == [
        *("match", "tickets", "authenticate", "mirror", "store", "granted")
    ]
    # The token is known now, the ticket never is.
    assert list(clerk.known) == ["good"]


async def test_a_rule_does_not_see_the_ticket() -> None:
    """It judges the request as the backend will receive it."""
    clerk = Clerk(route=BY_TICKET, granted_bits=0)
    seen: list[RequestHead] = []

    def authorize(case: Case) -> Steps[Denial | None]:
        seen.append(case.head)
        yield from ()
        return None

    with patch.object(clerk, "authorize", authorize):
        assert isinstance(await redeem(clerk), Permit)

    assert (seen[0].target, seen[0].query) == (b"/orders/7?a=1", b"a=1")


@pytest.mark.parametrize(
    ("clerk", "reason", "last"),
    [
        ({"stood_for": None}, Reason.TICKET_INVALID, "tickets"),
        (
            {"route": replace(BY_TICKET, credentials=frozenset({"ticket"}))},
            Reason.TICKET_INVALID,
            "tickets",
        ),
        (
            {"principal": replace(ALICE, expires_at=999.0)},
            Reason.TOKEN_EXPIRED,
            "authenticate",
        ),
        ({"mirror": True}, Reason.TOKEN_REVOKED, "mirror"),
        ({"granted_bits": 0}, Reason.PERMISSION_MISSING, "authorize"),
    ],
)
async def test_a_ticket_outlives_nothing(
    clerk: dict[str, Any], reason: Reason, last: str
) -> None:
    """Used, of a kind that no longer counts, expired, revoked, not permitted."""
    staff = Clerk(route=BY_TICKET)
    for name, value in clerk.items():
        setattr(staff, name, value)

    outcome = await redeem(staff)

    assert isinstance(outcome, Denial)
    assert outcome.reason is reason
    assert outcome.route is staff.route
    assert staff.asked[-1] == last


async def test_who_keeps_tickets_may_be_away() -> None:
    """An outage, which says nothing about the ticket."""
    clerk = Clerk(route=BY_TICKET)
    clerk.stood_for = Unavailable("ticket store")

    with pytest.raises(Unavailable) as outage:
        await redeem(clerk)

    assert outage.value.route is BY_TICKET


async def test_on_an_optional_route_a_bad_ticket_is_not_nobody() -> None:
    """As with every other credential."""
    clerk = Clerk(route=replace(BY_TICKET, access="optional", needed=0))
    clerk.stood_for = None

    outcome = await redeem(clerk)
    nobody = await redeem(clerk, b"/orders/7")

    assert isinstance(outcome, Denial)
    assert isinstance(nobody, Permit)
    assert nobody.principal is ANONYMOUS


SHOP = (b"origin", b"https://shop.example")
EVIL = (b"origin", b"https://evil.example")
SOCKETS = Sockets(origins=frozenset({"https://shop.example"}))


@pytest.mark.parametrize("route", [ORDERS, OPTIONAL, PUBLIC])
@pytest.mark.parametrize(
    ("sockets", "kind", "origin", "passes"),
    [
        (SOCKETS, "websocket", SHOP, True),
        (SOCKETS, "websocket", EVIL, False),
        (SOCKETS, "websocket", None, False),
        (SOCKETS, "http", EVIL, True),
        (Sockets(), "websocket", EVIL, True),
        (None, "websocket", EVIL, True),
    ],
)
def test_an_origin_is_looked_at_before_a_credential(
    route: Route,
    sockets: Sockets | None,
    kind: Literal["http", "websocket"],
    origin: tuple[bytes, bytes] | None,
    passes: bool,
) -> None:
    """On every route that names some, whatever it asks for (R93)."""
    headers = [GOOD] if origin is None else [GOOD, origin]
    staff = Staff(route=replace(route, websocket=sockets))

    outcome = decide(staff, head_of(b"/orders/7", *headers, kind=kind))

    if passes:
        assert isinstance(outcome, Permit)
    else:
        assert outcome == Denial(Reason.ORIGIN_FORBIDDEN, route=staff.route)  # type: ignore[arg-type]
        assert staff.asked == ["match"]


@pytest.mark.parametrize(
    ("sockets", "kind", "passes"),
    [
        (Sockets(), "websocket", True),
        (Sockets(), "http", False),
        (None, "websocket", False),
    ],
)
def test_a_subprotocol_is_a_credential_where_websockets_are(
    sockets: Sockets | None, kind: Literal["http", "websocket"], passes: bool
) -> None:
    """Elsewhere it is a field like another."""
    head = head_of(
        b"/orders/7", (b"sec-websocket-protocol", b"bearer.good, chat"), kind=kind
    )
    outcome = decide(Staff(route=replace(ORDERS, websocket=sockets)), head)
    if passes:
        assert isinstance(outcome, Permit)
    else:
        assert isinstance(outcome, Denial)
        assert outcome.reason is Reason.CREDENTIAL_MISSING


# API keys

MACHINE = replace(
    ALICE,
    kind="api_key",
    issuer="api_keys",
    audience=frozenset({"api_keys"}),
    binding=Binding(networks=(ip_network("192.0.2.0/24"),)),
)
BY_KEY = replace(
    ORDERS,
    issuers=frozenset({"api_keys", "corp"}),
    credentials=frozenset({"api_key", "bearer"}),
)
PLACE = KeyPlace.of("x-api-key", "gw")


@dataclass
class Keys:
    """Knows one key, and how often it was asked for it."""

    principal: Principal | Denial = MACHINE
    asked: int = 0

    def recognises(self, token: str) -> bool:
        raise AssertionError(token)

    def authenticate(self, _token: str, _now: float) -> Steps[Principal | Denial]:
        self.asked += 1
        yield from ()
        return self.principal


def decide_key(
    staff: Staff, keys: Keys | ApiKeyAuthenticator, head: RequestHead | None = None
) -> Permit | Denial | Pending:
    return decide(
        staff,
        head or head_of(b"/orders/7", (b"x-api-key", b"a.b.c")),
        api_keys=(PLACE, keys),
        audiences={"corp": frozenset({"api"}), "api_keys": frozenset({"api_keys"})},
    )


def test_a_key_is_asked_for_each_time_by_who_knows_keys() -> None:
    """Never of the verified tokens, whatever they hold; never of other authenticators.

    A text that is a token by its shape is none where keys stand.
    """
    staff, keys = Staff(route=BY_KEY, known={"a.b.c": ALICE}), Keys()
    for number in (1, 2):
        permit = decide_key(staff, keys)
        assert isinstance(permit, Permit)
        assert permit.principal is MACHINE
        assert keys.asked == number
    assert "authenticate" not in staff.asked
    assert staff.known == {"a.b.c": ALICE}


def test_a_keys_refusal_is_final() -> None:
    """Nobody else is asked about it."""
    staff, keys = Staff(route=BY_KEY), Keys(Denial(Reason.KEY_UNKNOWN))
    assert str(decide_key(staff, keys)) == "token.key"
    assert staff.asked == ["match"]


def test_where_tokens_have_to_be_bound_keys_have_to_be_too() -> None:
    """But one that has networks, for these; a proof beside it makes it no better."""
    bound = replace(BY_KEY, binding=frozenset({"ip"}))
    assert isinstance(decide_key(Staff(route=bound), Keys()), Permit)
    bound = replace(BY_KEY, binding=frozenset({"dpop"}))
    assert str(decide_key(Staff(route=bound), Keys())) == "binding.missing"
    proven = head_of(
        b"/orders/7", (b"authorization", b"DPoP gw_key"), (b"dpop", b"a.b.c")
    )
    for route in (bound, BY_KEY):
        denial = decide_key(Staff(route=route), Keys(), proven)
        assert isinstance(denial, Denial)
        assert denial.reason in {Reason.DPOP_KEY, Reason.BINDING_MISSING}


def test_an_audience_of_the_route_is_about_tokens() -> None:
    """A key has none: it is for all routes that take keys."""
    route = replace(BY_KEY, audience=frozenset({"something"}))
    assert isinstance(decide_key(Staff(route=route), Keys()), Permit)


@pytest.mark.parametrize(
    ("principal", "route", "mirror", "reason"),
    [
        (replace(MACHINE, expires_at=NOW), BY_KEY, False, "token.expired"),
        (
            MACHINE,
            replace(BY_KEY, issuers=frozenset({"corp"})),
            False,
            "token.issuer_not_accepted",
        ),
        (
            replace(
                MACHINE, binding=Binding(networks=(ip_network("198.51.100.0/24"),))
            ),
            BY_KEY,
            False,
            "binding.wrong:ip",
        ),
        (MACHINE, BY_KEY, True, "token.revoked"),
        (
            MACHINE,
            replace(BY_KEY, credentials=frozenset({"bearer"})),
            False,
            "credential.missing",
        ),
    ],
)
def test_what_depends_on_the_moment_is_asked_of_a_key_too(
    principal: Principal, route: Route, mirror: bool, reason: str
) -> None:
    """Time, issuer, where it comes from, revocation, and whether its kind counts."""
    staff = Staff(route=route, mirror=mirror)
    assert str(decide_key(staff, Keys(principal))) == reason


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-api-key", b"cookie"]),
            st.binary(max_size=120)
            | st.binary(max_size=90).map(lambda rest: b"Bearer " + rest)
            | st.from_regex(rb"\A(Bearer )?gw_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\Z"),
        ),
        max_size=3,
    )
)
def test_no_bytes_at_all_are_a_key_that_nobody_knows(
    headers: list[tuple[bytes, bytes]],
) -> None:
    """Refused for what they are, or asked for once, by a digest (I1, I5)."""
    head = head_of(b"/orders/7")._replace(headers=tuple(headers))
    section = HeaderSection(tuple(headers), "api", b"api")
    keys = ApiKeyAuthenticator(KeyRules(imported=True), {}, Nobody())
    staff = Staff(route=BY_KEY, principal=Denial(Reason.SIGNATURE_INVALID))
    found = decide_key(staff, keys, head._replace(section=section))
    if isinstance(found, Pending):
        assert isinstance(found.need, ApiKeyNeeded)
        with pytest.raises(StopIteration) as end:
            found.steps.send(None)
        found = end.value.value
    assert isinstance(found, Denial)
    assert problem(found, request_id="r").status in {400, 401}


class Nobody:
    """Knows no key."""

    def find(self, _digest: bytes) -> None:
        return None

    def mark(self, key_id: str) -> None:
        raise AssertionError(key_id)


# Bound tokens

KEY = make.key("ES256", "client")
BOUND = replace(ALICE, binding=Binding(key=jkt_of(KEY)))
BY_PROOF = Bindings(proofs=Proofs("https://api.example"))
ALGORITHMS = ("ES256", "EdDSA", "PS256", "RS256")


def proving(key: make.Key = KEY) -> RequestHead:
    """Return a request with a token and a proof."""
    uri = "https://api.example/orders/7"
    proof = proof_of(key, "good", "GET", uri, NOW).encode()
    return head_of(b"/orders/7", (b"authorization", b"DPoP good"), (b"dpop", proof))


class Recorder(Staff):
    """A staff that knows which proofs were used."""

    is_first: object = True

    async def answer(self, need: Need) -> Any:
        if not isinstance(need, ReplayNeeded):
            return await super().answer(need)
        self.asked.append("replays")
        assert need.issued_at == NOW
        if isinstance(self.is_first, Unavailable):
            raise self.is_first
        return self.is_first


async def prove(staff: Staff, head: RequestHead | None = None) -> Permit | Denial:
    decider = staff.decider(bindings=BY_PROOF)
    return await decider.decide(head or proving(), NOW, staff.answer)


async def test_a_proof_is_used_up_after_all_that_can_be_seen_without() -> None:
    """And before any permission; for a known token as for a new one."""
    staff = Recorder(BOUND, mirror=None)

    first = await prove(staff)
    second = await prove(staff)

    assert isinstance(first, Permit)
    assert isinstance(second, Permit)
    steps = ["mirror", "store", "replays", "granted"]
    assert staff.asked == ["match", "authenticate", *steps, "match", *steps]


@pytest.mark.parametrize("is_first", [False, None, 1, "yes"])
async def test_only_a_proof_that_is_new_passes(is_first: object) -> None:
    """Whatever else the answer is, it is not yes."""
    staff = Recorder(BOUND)
    staff.is_first = is_first

    outcome = await prove(staff)

    assert outcome == Denial(Reason.DPOP_REPLAYED, route=ORDERS, principal=BOUND)
    assert staff.asked[-1] == "replays"


async def test_who_keeps_used_proofs_may_be_away() -> None:
    """An outage, and never a yes (R61)."""
    staff = Recorder(BOUND)
    staff.is_first = Unavailable("replay list")

    with pytest.raises(Unavailable) as outage:
        await prove(staff)

    assert (outage.value.route, outage.value.principal) == (ORDERS, BOUND)


@pytest.mark.parametrize(
    ("staff", "head", "reason", "last"),
    [
        (Recorder(BOUND), head_of(b"/orders/7", GOOD), Reason.DPOP_MISSING, None),
        (Recorder(BOUND), proving(make.key("ES256", "x")), Reason.DPOP_KEY, None),
        (Recorder(ALICE), proving(), Reason.DPOP_KEY, None),
        (Recorder(BOUND, mirror=True), proving(), Reason.TOKEN_REVOKED, "mirror"),
        (
            Recorder(replace(BOUND, expires_at=999.0)),
            proving(),
            Reason.TOKEN_EXPIRED,
            None,
        ),
        (
            Recorder(BOUND, granted_bits=0),
            proving(),
            Reason.PERMISSION_MISSING,
            "authorize",
        ),
    ],
)
async def test_a_bound_token_that_is_not_proven_goes_no_further(
    staff: Recorder, head: RequestHead, reason: Reason, last: str | None
) -> None:
    """Nor does a proven one that is not good; nothing is written down for either."""
    outcome = await prove(staff, head)

    assert isinstance(outcome, Denial)
    assert outcome.reason is reason
    assert staff.asked[-1] == (last or "authenticate")
    assert ("replays" in staff.asked) is (last == "authorize")


async def test_a_route_asks_for_a_bound_token_of_everybody() -> None:
    """Who presents nothing is told what a proof may be signed with."""
    asking = replace(ORDERS, binding=frozenset({"dpop"}))
    for staff, head, reason in (
        (Recorder(route=asking), head_of(), Reason.CREDENTIAL_MISSING),
        (Recorder(route=asking), head_of(b"/", GOOD), Reason.BINDING_MISSING),
    ):
        outcome = await prove(staff, head)
        assert isinstance(outcome, Denial)
        assert (outcome.reason, outcome.needed) == (reason, ALGORITHMS)
        assert outcome.route is asking
    assert isinstance(await prove(Recorder(BOUND, route=asking)), Permit)


async def test_a_ticket_proves_no_key() -> None:
    """It stands for the token alone."""
    clerk = Clerk(BOUND, route=BY_TICKET)

    outcome = await redeem(clerk)

    assert isinstance(outcome, Denial)
    assert outcome.reason is Reason.DPOP_MISSING


# Certificates as credentials

BY_CERTIFICATE = replace(
    ORDERS,
    credentials=frozenset({"bearer", "certificate"}),
    audience=frozenset({"elsewhere"}),
)


def showing(*headers: tuple[bytes, bytes], shown: bytes | None = b"der") -> RequestHead:
    """Return a request of a client that has shown a certificate."""
    peer = Peer("192.0.2.1", certificate="thumbprint", shown=shown)
    return head_of(b"/orders/7", *headers)._replace(peer=peer)


def test_a_certificate_counts_where_its_kind_does() -> None:
    """It is known by its bytes, and `audience` of a route is about tokens."""
    staff = Staff(route=BY_CERTIFICATE)

    permit = decide(staff, showing())

    assert isinstance(permit, Permit)
    assert list(staff.known) == ["x509:ZGVy"]
    for route, head in (
        (ORDERS, showing()),
        (BY_CERTIFICATE, showing(shown=None)),
    ):
        outcome = decide(Staff(route=route), head)
        assert isinstance(outcome, Denial)
        assert outcome.reason is Reason.CREDENTIAL_MISSING


def test_a_token_counts_before_a_certificate() -> None:
    """Also a bad one, and one that is malformed."""
    for field, reason in (
        (GOOD, Reason.AUDIENCE_WRONG),
        (bearer("odd"), Reason.CREDENTIAL_UNRECOGNISED),
        (bearer("a b"), Reason.CREDENTIAL_MALFORMED),
    ):
        outcome = decide(Staff(route=BY_CERTIFICATE), showing(field))
        assert isinstance(outcome, Denial)
        assert outcome.reason is reason


def test_what_a_proxy_tells_of_a_certificate_may_be_nonsense() -> None:
    """A refusal, also where nobody need be known."""
    route = replace(BY_CERTIFICATE, access="optional", needed=0)
    peer = Peer("127.0.0.1", trusted=True)
    head = head_of(b"/orders/7", (b"client-cert", b"x"))._replace(peer=peer)

    outcome = decide(Staff(route=route), head, bindings=Bindings("client-cert"))

    denial = Denial(Reason.CERTIFICATE_INVALID, "field", route=route)
    assert outcome == denial


# Who was let in before, and is decided again (a reload).


def again(staff: Staff, held: Principal = ALICE, **given: Any) -> Any:
    head = head_of(b"/orders/7", kind=given.pop("kind", "http"))
    return staff.decider(**given).decide_now(head, NOW, held)


def test_who_was_let_in_is_decided_again_without_what_was_presented() -> None:
    """It is used up, or would have to be verified: nobody asks for it."""
    staff = Staff()
    permit = again(staff)
    assert isinstance(permit, Permit)
    assert permit.principal is ALICE
    assert staff.asked == ["match", "mirror", "granted"]


KEYED = replace(ALICE, binding=Binding(key="k"))


@pytest.mark.parametrize(
    ("changed", "held", "reason"),
    [
        ({"route": Denial(Reason.ROUTE_UNKNOWN)}, ALICE, Reason.ROUTE_UNKNOWN),
        (
            {"route": replace(ORDERS, issuers=frozenset({"other"}))},
            ALICE,
            Reason.ISSUER_NOT_ACCEPTED,
        ),
        (
            {"route": replace(ORDERS, audience=frozenset({"other"}))},
            ALICE,
            Reason.AUDIENCE_WRONG,
        ),
        (
            {"route": replace(ORDERS, credentials=frozenset({"api_key"}))},
            ALICE,
            Reason.CREDENTIAL_MISSING,
        ),
        (
            {"route": ORDERS},
            replace(ALICE, issuer="api_keys"),
            Reason.CREDENTIAL_MISSING,
        ),
        (
            {"route": ORDERS},
            replace(ALICE, issuer="certificates"),
            Reason.CREDENTIAL_MISSING,
        ),
        (
            {"route": replace(ORDERS, binding=frozenset({"mtls"}))},
            KEYED,
            Reason.BINDING_MISSING,
        ),
        ({"mirror": True}, ALICE, Reason.TOKEN_REVOKED),
        ({"granted_bits": 0}, ALICE, Reason.PERMISSION_MISSING),
        ({"route": ORDERS}, ANONYMOUS, Reason.CREDENTIAL_MISSING),
    ],
)
def test_it_stops_where_a_request_would(
    changed: dict[str, Any], held: Principal, reason: Reason
) -> None:
    """But for what the credential itself would be asked."""
    outcome = again(Staff(**changed), held)
    assert isinstance(outcome, Denial)
    assert outcome.reason is reason


@pytest.mark.parametrize(
    ("route", "held"),
    [
        (PUBLIC, ALICE),
        (PUBLIC, ANONYMOUS),
        (OPTIONAL, ANONYMOUS),
        (ORDERS, KEYED),  # its proof is used up
        (replace(ORDERS, binding=frozenset({"dpop"})), KEYED),
        (replace(ORDERS, credentials=frozenset({"bearer", "ticket"})), ALICE),
    ],
)
def test_it_passes_where_nothing_of_that_has_changed(
    route: Route, held: Principal
) -> None:
    """Nobody's, too, where nobody is asked who he is."""
    assert isinstance(again(Staff(route=route), held), Permit)


def test_a_page_of_another_origin_is_no_longer_welcome() -> None:
    """As at a handshake."""
    closed = replace(
        ORDERS, websocket=Sockets(origins=frozenset({"https://a.example"}))
    )
    outcome = again(Staff(route=closed), kind="websocket")
    assert isinstance(outcome, Denial)
    assert outcome.reason is Reason.ORIGIN_FORBIDDEN


def test_optional_does_not_keep_who_could_not_come_so_any_more() -> None:
    """A request would be nobody's; what is open goes on in a name."""
    route = replace(OPTIONAL, credentials=frozenset({"api_key"}))
    assert isinstance(again(Staff(route=route), ALICE), Denial)

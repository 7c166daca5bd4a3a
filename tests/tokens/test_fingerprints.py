"""gateway.tokens.fingerprints: one name for one thing, and no two for two."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.tokens.fingerprints import SIZE, fingerprint, fingerprints

ISS = "https://id.example"


def test_a_fingerprint_stays_what_it_is() -> None:
    """It is written into stores that outlive a release: this value never changes."""
    assert fingerprint("token", ISS, "t-1").hex() == "d4d842d4b05423e6aef0e63e3d484c69"


def test_all_names_of_a_token_include_its_issuer() -> None:
    """The same subject of two issuers is two callers."""
    one, other = (
        fingerprints(
            url, token_id="t", session_id="s", subject="alice", client_id="shop"
        )
        for url in (ISS, ISS + "/")
    )

    assert one.token == fingerprint("token", ISS, "t")
    assert one.session == fingerprint("session", ISS, "s")
    assert one.subject == fingerprint("subject", ISS, "alice")
    assert one.client == fingerprint("client", ISS, "shop")
    names = {one.token, one.session, one.subject, one.client}
    assert names.isdisjoint({other.token, other.session, other.subject, other.client})


def test_what_a_token_does_not_name_has_no_fingerprint() -> None:
    """An absent session is not the empty one."""
    found = fingerprints(
        ISS, token_id="t", session_id=None, subject="a", client_id=None
    )

    assert found.session is None
    assert found.client is None


TEXTS = st.text(st.sampled_from("a:1é"), max_size=6)


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_two_pairs_run_together(a: str, b: str, c: str, d: str) -> None:
    """("a:b", "c") and ("a", "b:c") are two."""
    same = fingerprint("session", a, b) == fingerprint("session", c, d)

    assert same == ((a, b) == (c, d))
    assert fingerprint("session", a, b) != fingerprint("token", a, b)
    assert len(fingerprint("session", a, b)) == SIZE

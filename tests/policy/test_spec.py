"""gateway.policy.spec: what is not written opens nothing."""

from __future__ import annotations

from gateway.policy.spec import OwnerSpec, PolicyFile, RouteSpec, ServiceSpec


def test_a_route_that_says_nothing_more_says_neither_access_nor_require() -> None:
    """No default stands in for what an author leaves out."""
    spec = RouteSpec(("route", 0), ("GET",), "/")

    assert spec.access is None
    assert spec.require is None
    assert spec.owner is None
    assert spec.allow_encoded == ()


def test_a_service_that_says_nothing_more_has_no_default_routes() -> None:
    """Paths that no route names are not there unless read or write says so."""
    spec = ServiceSpec(("service",), "orders", "/api", "orders")

    assert (spec.read, spec.write) == (None, None)
    assert spec.credentials == ("bearer",)


def test_a_file_is_a_service_teams_unless_it_is_said_to_be_operators() -> None:
    """The fences stand around a file by default."""
    assert not PolicyFile("a.toml", None).operators


def test_an_owner_is_compared_with_the_subject_unless_a_claim_is_named() -> None:
    """`owner = "customer_id"` means the `sub` claim."""
    assert OwnerSpec("customer_id").claim == "sub"

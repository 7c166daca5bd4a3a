"""gateway.policy.permissions: who declares and grants what."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.permissions import Vocabulary, read_roles, read_vocabulary
from gateway.policy.spec import PolicyFile, Problem, RoleSpec
from tests.policy.making import file, line, service

OTHERS = file(
    service("billing", "/billing"),
    permissions=["billing:read", "billing:refund", "billing:items:read"],
)


def read(*files: PolicyFile) -> tuple[dict[str, tuple[str, ...]], list[Problem]]:
    """Return what each role grants, by name."""
    vocabulary, wrong = read_vocabulary(files, line)
    roles, more = read_roles(files, vocabulary)
    granted = {name: vocabulary.names_of(bits) for name, bits in roles.items()}
    return granted, wrong + more


def orders(**more: Any) -> PolicyFile:
    permissions = ["orders:read", "orders:write"]
    return file(service(), permissions=more.pop("permissions", permissions), **more)


def operators(**more: Any) -> PolicyFile:
    return file(None, operators=True, **more)


def test_a_permission_is_one_bit_in_the_order_of_names() -> None:
    """Bits and names turn into each other; what is not declared has no bit."""
    vocabulary = Vocabulary({"b": "f:2", "a": "f:1", "c": "f:3"})

    assert vocabulary.names == ("a", "b", "c")
    assert vocabulary.bits(["c", "a", "zzz"]) == 0b101
    assert vocabulary.names_of(0b101) == ("a", "c")
    assert vocabulary.pairs_of(0b110) == (("b", 2), ("c", 4))
    assert vocabulary.names_of(0) == ()
    assert "b" in vocabulary
    assert "B" not in vocabulary


def test_the_grants_of_a_role_add_up_over_files() -> None:
    """A role may be extended in several files."""
    granted, wrong = read(
        orders(roles={"support": ["orders:read"]}),
        OTHERS,
        operators(roles={"support": ["billing:read"]}),
    )

    assert not wrong
    assert granted == {"support": ("billing:read", "orders:read")}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("orders:*", ("orders:read", "orders:write")),
        ("*:read", ("billing:read", "orders:read")),
        ("billing:*", ("billing:read", "billing:refund")),
        ("billing:*:read", ("billing:items:read",)),
        ("*:*:*", ("billing:items:read",)),
        ("*:*", ("billing:read", "billing:refund", "orders:read", "orders:write")),
    ],
)
def test_a_star_is_one_whole_segment(pattern: str, names: tuple[str, ...]) -> None:
    """Operators grant `orders:*` or `*:read`; a star never spans a colon."""
    granted, wrong = read(orders(), OTHERS, operators(roles={"r": [pattern]}))

    assert not wrong
    assert granted["r"] == names


def test_roles_inherit_in_operators_files() -> None:
    """What a role inherits it grants too, through any number of roles."""
    granted, wrong = read(
        orders(roles={"a": ["orders:read"], "b": ["orders:write"]}),
        operators(inherits={"c": ["b"], "b": ["a"], "d": ["a", "c"]}),
    )

    assert not wrong
    assert granted == {
        "a": ("orders:read",),
        "b": ("orders:read", "orders:write"),
        "c": ("orders:read", "orders:write"),
        "d": ("orders:read", "orders:write"),
    }


@pytest.mark.parametrize(
    ("files", "at", "message", "suggestion"),
    [
        (
            [orders(permissions=["billing:read"])],
            ("permissions", "billing:read"),
            'permission "billing:read": this file declares orders:* only',
            'did you mean "orders:read"?',
        ),
        (
            [orders(permissions=["ordersx:read"])],
            ("permissions", "ordersx:read"),
            'permission "ordersx:read": this file declares orders:* only',
            'did you mean "orders:read"?',
        ),
        (
            [orders(permissions=["orders"])],
            ("permissions", "orders"),
            'permission "orders": this file declares orders:* only',
            'did you mean "orders:orders"?',
        ),
        (
            [orders(permissions=["orders:*"])],
            ("permissions", "orders:*"),
            (
                'permission "orders:*": a permission is declared by its full name, '
                'without "*"'
            ),
            "",
        ),
        *(
            (
                [orders(permissions=[name])],
                ("permissions", name),
                (
                    f'permission "{name}": a permission is letters, digits and _.- '
                    "between colons"
                ),
                "",
            )
            for name in ("orders:", "orders::read", "orders:re ad", 'orders:"', "")
        ),
        (
            [orders(), operators(permissions=["orders:read"])],
            ("permissions", "orders:read"),
            (
                'permission "orders:read": declared twice '
                "(first at orders.toml:permissions.orders:read)"
            ),
            "",
        ),
        (
            [orders(roles={"r": ["orders:raed"]})],
            ("roles", "r", "permissions", 0),
            'role "r": unknown permission "orders:raed"',
            'did you mean "orders:read"? (orders.toml:permissions.orders:read)',
        ),
        (
            [operators(roles={"r": ["zzz"]})],
            ("roles", "r", "permissions", 0),
            'role "r": unknown permission "zzz"',
            "declare it in [permissions]",
        ),
        (
            [orders(roles={"r": ["orders:read", "billing:read"]}), OTHERS],
            ("roles", "r", "permissions", 1),
            'role "r": "billing:read": this file grants orders:* only',
            'did you mean "orders:read"?',
        ),
        (
            [orders(roles={"r": ["billing:refund"]}), OTHERS],
            ("roles", "r", "permissions", 0),
            'role "r": "billing:refund": this file grants orders:* only',
            "another service's are granted in an operators' file",
        ),
        (
            [orders(roles={"r": ["orders:*"]})],
            ("roles", "r", "permissions", 0),
            'role "r": "orders:*": only operators\' files may use "*"',
            "write orders:read, orders:write",
        ),
        (
            [orders(roles={"r": ["*:zzz"]})],
            ("roles", "r", "permissions", 0),
            'role "r": "*:zzz": only operators\' files may use "*"',
            "",
        ),
        (
            [orders(), operators(roles={"r": ["order*:read"]})],
            ("roles", "r", "permissions", 0),
            'role "r": "order*:read": "*" stands for a whole segment',
            "",
        ),
        (
            [orders(), operators(roles={"r": ["*"]})],
            ("roles", "r", "permissions", 0),
            'role "r": "*": matches no permission',
            '"*" stands for one segment: "*:*" is all names with two',
        ),
        (
            [orders(roles={"a": ["orders:read"]}, inherits={"a": ["a"]})],
            ("roles", "a", "inherits"),
            'role "a": only operators\' files may use inherits',
            "list its permissions, or move it to a file of [roles] in gateway.toml",
        ),
        (
            [
                orders(roles={"admin": ["orders:read"]}),
                operators(inherits={"b": ["admn"]}),
            ],
            ("roles", "b", "inherits", 0),
            'role "b": inherits unknown role "admn"',
            'did you mean "admin"?',
        ),
        (
            [operators(roles={"r": []})],
            ("roles", "r"),
            'role "r": grants nothing',
            "",
        ),
        (
            [
                PolicyFile(
                    "roles.toml", None, {}, (RoleSpec(("roles", ""), ""),), (), True
                )
            ],
            ("roles", ""),
            "a role has a name",
            "",
        ),
    ],
)
def test_what_a_file_may_not_say_is_a_problem(
    files: list[PolicyFile], at: tuple[str | int, ...], message: str, suggestion: str
) -> None:
    """A service team's file speaks for its own permissions only."""
    _, wrong = read(*files)

    assert (at, message, suggestion) in {
        (it.at, it.message, it.suggestion) for it in wrong
    }


@pytest.mark.parametrize(
    ("inherits", "circles"),
    [
        ({"a": ["a"]}, ["a -> a"]),
        ({"a": ["b"], "b": ["a"]}, ["a -> b -> a", "b -> a -> b"]),
        ({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}, ["-> b -> c", "-> c -> a"]),
    ],
)
def test_roles_do_not_inherit_in_a_circle(
    inherits: dict[str, list[str]], circles: list[str]
) -> None:
    """A circle is reported once, with everyone in it."""
    _, (wrong,) = read(operators(inherits=inherits))

    assert wrong.message.startswith("roles inherit in a circle: ")
    assert any(circle in wrong.message for circle in circles)
    assert wrong.at[2:] == ("inherits", 0)
    assert wrong.value in inherits


def test_every_circle_is_reported() -> None:
    """Two circles are two problems; whoever stands beside them is not one."""
    _, wrong = read(
        operators(
            roles={"e": []},
            inherits={"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c"], "e": ["a"]},
        )
    )

    assert len(wrong) == 2
    assert len({it.message for it in wrong}) == 2


def test_a_long_chain_of_roles_is_no_trouble() -> None:
    """Closures are not computed by recursion."""
    chain = {f"r{n}": [f"r{n + 1}"] for n in range(3000)}
    granted, wrong = read(
        orders(roles={"r3000": ["orders:read"]}), operators(inherits=chain)
    )

    assert not wrong
    assert granted["r0"] == ("orders:read",)


def test_a_service_file_may_be_the_operators_own() -> None:
    """A file listed under `roles` has no fence, be there a service in it."""
    granted, wrong = read(OTHERS, orders(roles={"r": ["*:read"]}, operators=True))

    assert not wrong
    assert granted["r"] == ("billing:read", "orders:read")

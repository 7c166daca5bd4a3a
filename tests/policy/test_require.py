"""gateway.policy.require: what may be written, and what each thing means."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.permissions import Vocabulary
from gateway.policy.require import MAX_DEPTH, Reading
from gateway.policy.rules import Owner

VOCABULARY = Vocabulary({"o:read": "o.toml:2", "o:write": "o.toml:3", "o:any": "o:4"})
OWNER = Owner("id", "sub", "corp")
LESS = "whoever asks for less scope would pass"
AT = ("route", 0, "require")
SAY = 'route "r": '


def reading(owner: Owner | None = OWNER) -> Reading:
    return Reading("o.toml", SAY, VOCABULARY, owner)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("o:read", "o:read"),
        (["o:read"], "o:read"),
        (["o:read", "o:write"], "o:read and o:write"),
        ({"all": ["o:read", "o:write"]}, "o:read and o:write"),
        ({"any": ["o:read", "o:write"]}, "o:read or o:write"),
        ("@owner", "@owner ({id} is sub of corp)"),
        ({"not": "@owner"}, "not @owner ({id} is sub of corp)"),
        ({"not": {"not": "@owner"}}, "not not @owner ({id} is sub of corp)"),
        (["@owner", "o:read"], "o:read and @owner ({id} is sub of corp)"),
        (
            {"any": ["o:any", {"all": ["o:read", "@owner"]}]},
            "o:any or (o:read and @owner ({id} is sub of corp))",
        ),
        (
            ["o:read", {"any": ["o:any", {"not": "@owner"}]}],
            "o:read and (o:any or not @owner ({id} is sub of corp))",
        ),
        ({"any": ["o:any", ["o:read", "o:write"]]}, "o:any or (o:read and o:write)"),
        ({"not": ["@owner", "@owner"]}, None),
    ],
)
def test_a_require_means_what_it_says(value: object, text: str | None) -> None:
    """A string is a permission, @name a condition, a list all, and they nest."""
    read = reading()
    node = read.read(value, AT)

    assert not read.problems
    assert node is not None
    assert text is None or str(node) == text
    assert read.owns is ("@owner" in str(value))


def nested(depth: int) -> object:
    value: object = "o:read"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "at", "message", "suggestion"),
    [
        (
            "o:raed",
            (),
            'unknown permission "o:raed"',
            'did you mean "o:read"? (o.toml:2)',
        ),
        ("", (), 'unknown permission ""', "declare it in [permissions]"),
        (
            {"any": ["o:read", {"all": ["o:any", "O:READ"]}]},
            ("any", 1, "all", 1),
            'unknown permission "O:READ"',
            "declare it in [permissions]",
        ),
        (["o:read", "@x"], (1,), 'unknown condition "@x"', "known: @owner"),
        ("@onwer", (), 'unknown condition "@onwer"', 'did you mean "@owner"?'),
        ("@owns_path", (), 'unknown condition "@owns_path"', "known: @owner"),
        ("opa:orders", (), 'unknown authorizer "opa:orders"', ""),
        (
            "o:*",
            (),
            '"o:*": "*" is for granting; what is required has a full name',
            "",
        ),
        ([], (), "an empty list requires nothing", ""),
        ({"any": []}, ("any",), "an empty list requires nothing", ""),
        ({"all": []}, ("all",), "an empty list requires nothing", ""),
        (["o:read", []], (1,), "an empty list requires nothing", ""),
        ({"not": []}, ("not",), "an empty list requires nothing", ""),
        ({"any": "o:read"}, ("any",), '"any" takes a list', ""),
        ({"all": {"any": ["o:read"]}}, ("all",), '"all" takes a list', ""),
        ({"al": ["o:read"]}, ("al",), 'unknown key "al"', 'did you mean "all"?'),
        ({}, (), "exactly one of any, all and not belongs here", ""),
        (
            {"any": ["o:read"], "all": ["o:read"]},
            (),
            "exactly one of any, all and not belongs here",
            "",
        ),
        *(
            (value, (), "a string, a list, {any}, {all} or {not} belongs here", "")
            for value in (True, 1, 1.5, None)
        ),
        *(
            (value, at, '"o:read": "not" takes conditions, not permissions', LESS)
            for value, at in (
                ({"not": "o:read"}, ("not",)),
                ({"not": ["@owner", "o:read"]}, ("not", 1)),
                ({"not": {"any": ["o:read"]}}, ("not", "any", 0)),
                ({"not": {"not": "o:read"}}, ("not", "not")),
            )
        ),
        (
            nested(MAX_DEPTH + 1),
            (0,) * (MAX_DEPTH + 1),
            f"nested deeper than {MAX_DEPTH}",
            "",
        ),
    ],
)
def test_what_can_not_be_understood_is_said_at_its_place(
    value: object, at: tuple[str | int, ...], message: str, suggestion: str
) -> None:
    """No list is empty, no word unknown, and the absence of a permission no key."""
    read = reading()

    assert read.read(value, AT) is None
    (problem,) = read.problems
    assert (problem.at, problem.message) == ((*AT, *at), SAY + message)
    assert problem.suggestion == suggestion


def test_all_that_is_wrong_is_found_in_one_reading() -> None:
    """An author mends everything at once."""
    read = reading()
    value: dict[str, Any] = {"any": ["x:a", {"all": ["x:b", "@c"]}, {"not": 3}]}

    assert read.read(value, AT) is None
    assert [problem.value for problem in read.problems] == ["x:a", "x:b", "@c", ""]


def test_the_owner_has_to_be_named_on_the_route() -> None:
    """`@owner` without `owner = ...` compares nothing with nothing."""
    read = reading(owner=None)

    assert read.read(["o:read", "@owner"], AT) is None
    (problem,) = read.problems
    assert problem.message == SAY + '"@owner": the route has no owner'
    assert problem.suggestion == 'add owner = "<a parameter of the path>" to the route'


def test_as_deep_as_the_bound_is_fine() -> None:
    """Sixteen levels are read."""
    read = reading()

    assert str(read.read(nested(MAX_DEPTH), AT)) == "o:read"

"""gateway.config.positions: every key and every value has a place."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.positions import MAX_DEPTH, Positions, Span, blank, scan
from gateway.policy.spec import KeyPath

EXAMPLE = '''\
# a comment [with] "things" = in it
top = 1
"quoted key" = 'literal # no comment'
dotted . "in.side" . 'x' = [1, "two, [2]", # three
  { a = 4, "b c".d = '5' }, [ ], {},
]
text = """
a "quoted" line \\
  and a \\""" more"""" # ends in a quote
raw = \'\'\'it's # raw\'\'\'\'\'
when = 1979-05-27 07:32:00Z

[table . "sub.table"]
key = true
[[list]]
name = "first"
[list.inner]
deep = 1.5
[[list.many]]
n = 1
[[list.many]]
n = 2
[[list]]
name = "second"
[[list.many]]
n = 3
[table]
late = nan
'''


def leaves(data: Any, at: KeyPath = ()) -> list[tuple[KeyPath, Any]]:
    """Return every value of *data* that is no table, with its key path."""
    if isinstance(data, dict):
        return [x for key, value in data.items() for x in leaves(value, (*at, key))]
    if isinstance(data, list):
        inner = [x for i, value in enumerate(data) for x in leaves(value, (*at, i))]
        # [[tables]] have headers and no value of their own.
        return inner if any(isinstance(x, dict) for x in data) else [(at, data), *inner]
    return [(at, data)]


def same(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, float) and math.isnan(one):
        return math.isnan(two)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def check(text: str) -> Positions:
    """Scan *text* and compare with what tomllib says of it."""
    positions = scan(text)
    for at, value in leaves(tomllib.loads(text)):
        span = positions.values[at]
        said = tomllib.loads(f"x = {text[span.start : span.stop]}")["x"]
        assert same(said, value), at
        names = tuple(part for part in at if isinstance(part, str))
        if at[-1] == names[-1]:
            key = positions.keys[at]
            spelt = text[key.start : key.stop]
            assert list(tomllib.loads(f"{spelt} = 0")) == [at[-1]]
    return positions


def test_every_form_of_key_and_value_is_found() -> None:
    """Dotted and quoted keys, tables, arrays of tables, strings over several lines."""
    positions = check(EXAMPLE)

    def text(span: Span | None) -> str:
        assert span is not None
        return EXAMPLE[span.start : span.stop]

    assert text(positions.find(("list", 1, "many", 0, "n"))) == "3"
    assert text(positions.find(("list", 0, "many", 1), key=True)) == "many"
    assert text(positions.find(("table",))) == "table"
    assert text(positions.find(("table", "sub.table"))) == '"sub.table"'
    assert text(positions.find(("dotted", "in.side"), key=True)) == '"in.side"'
    assert text(positions.find(("dotted", "in.side", "x", 2, "b c", "d"))) == "'5'"
    assert text(positions.find(("top",), key=True)) == "top"
    assert text(positions.find(("list", 0, "missing", 3))) == "list"
    assert positions.find(("nothing",)) is None
    assert positions.find(()) is None


def test_lines_and_columns_count_from_one() -> None:
    """As editors count them; a column is a character, not a byte."""
    positions = scan('a = 1\n"é" = "ü"\n')
    span = positions.find(("é",))
    assert span is not None
    assert positions.line_column(span.start) == (2, 7)
    assert positions.line_text(2) == '"é" = "ü"'
    assert positions.line_text(3) == ""
    assert positions.offset(2, 7) == span.start
    assert positions.offset(99, 99) == len(positions.text)


def test_a_table_is_its_own_header_even_when_it_comes_late() -> None:
    """`[a.b]` names `a` on the way; the header `[a]` is the better place."""
    text = "[a.b]\n[a]\n"
    span = scan(text).find(("a",))
    assert span is not None
    assert blank(text).line_column(span.start) == (2, 2)


# --- documents made at random ---------------------------------------------------

bare = st.text("abcXYZ019_-", min_size=1, max_size=4)
quotable = st.text(
    st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t"), max_size=6
)
basic = quotable.map(
    lambda s: (
        '"' + s.replace("\\", "\\\\").replace('"', '\\"').replace("é", "\\u00e9") + '"'
    )
)
literal = quotable.filter(lambda s: "'" not in s).map(lambda s: f"'{s}'")
multi = st.text("ab\"\\\n# ]}',=", max_size=8).map(
    lambda s: '"""' + s.replace("\\", "\\\\").replace('"', '\\"') + '"""'
)
ends_in_quotes = st.sampled_from(
    ['"""a""""', '"""a"""""', "'''a''''", "'''a'''''", '"""\\\n  x"""', "''''''"]
)
raw = st.text('ab"\\\n# ]}=', max_size=8).map(lambda s: f"'''{s}'''")
scalar = st.sampled_from(
    [
        *("0", "-1_000", "0xFF", "1e3", "-inf", "nan", "true", "false", "1.5"),
        *("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5"),
    ]
)
text_value = basic | literal | multi | raw | ends_in_quotes
space = st.sampled_from(["", " ", "\t", "  "])
gap = st.sampled_from(["", " ", "\n", "\n  ", " # c ] } , '\n", "\n\n"])


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    items = [
        f"{draw(gap)}{item}{draw(gap)}" for item in draw(st.lists(inner, max_size=3))
    ]
    last = draw(st.sampled_from(["", ","])) if items else ""
    return f"[{','.join(items)}{last}{draw(gap)}]"


@st.composite
def keys(draw: st.DrawFn) -> str:
    parts = draw(st.lists(bare | basic | literal, min_size=1, max_size=3))
    return "".join(
        f"{'.' if n else ''}{draw(space)}{part}{draw(space)}"
        for n, part in enumerate(parts)
    )


@st.composite
def inline(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    names = draw(st.lists(bare, max_size=3, unique=True))
    pairs = [
        f"{draw(space)}{name}{draw(space)}={draw(space)}{draw(inner)}" for name in names
    ]
    return "{" + ",".join(pairs) + draw(space) + "}"


values = st.recursive(
    scalar | text_value, lambda inner: arrays(inner) | inline(inner), max_leaves=6
)
lines = st.one_of(
    st.builds(lambda k, s, v: f"{k}={s}{v}", keys(), space, values),
    st.builds(lambda k: f"[{k}]", keys()),
    st.builds(lambda k: f"[[{k}]]", keys()),
    st.just("# [comment] = 'x'"),
    st.just(""),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(lines, space, st.sampled_from(["", "# end"])), max_size=8))
def test_whatever_tomllib_reads_is_found_where_it_stands(
    parts: list[tuple[str, str, str]],
) -> None:
    """Each key path of tomllib has a span, whose text parses to the same value."""
    text = ""
    for line, blanks, comment in parts:
        longer = f"{text}{line}{blanks}{comment}\n"
        try:  # leave out the line that would say a key twice, and the like
            tomllib.loads(longer)
        except tomllib.TOMLDecodeError:
            continue
        text = longer
    check(text)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 100 + "'a # ['" + "]" * 100,
        "x = " + "[" * 50 + "1, # ] }\n" + "2" + "]" * 50,
        "x = " + "{a = " * 60 + "'''}'''" + "}" * 60,
        ".".join("a" * 500) + " = 1",
        ".".join("a" * 500) + " = '# [1'\nb = 2",
        "[" + ".".join("a" * 500) + "]\nx = [1]",
        "[[" + ".".join("a" * 500) + "]]\nx = {y = 1}",
    ],
)
def test_depth_costs_neither_the_stack_nor_the_scan(text: str) -> None:
    """What is nested deeper than any config is stepped over, not noted."""
    tomllib.loads(text)
    positions = scan(text)
    assert max(map(len, [*positions.keys, *positions.values])) <= MAX_DEPTH


@settings(deadline=None, max_examples=150)
@given(st.text("a1=.[]{}\"'#,\n \\_-:TZu", max_size=40))
def test_no_text_that_tomllib_accepts_stops_the_scan(text: str) -> None:
    """The scanner judges nothing; it must only not stumble."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    check(text)

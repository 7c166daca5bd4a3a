"""The route table: from host, path and method to the one route that decides.

The most specific template wins, in an order that is computed and never the order of
files: segments are compared left to right, literal before typed before plain before
rest, then a service that names the host before one that doesn't. The winner owns all
methods of its path: another method is 405, never a less specific template's (R9, R84).

The table is a trie. `_find` goes depth first, most specific branch first, so that the
first leaf it meets is the winner. At a node at most three branches take a segment: one
literal, one typed (no text is both int and uuid) and the plain one; rest ends the
search. So a match makes at most 1 + 3 + 9 + ... + 3^k visits, k being the segments of
the path or of the longest template, whichever are fewer. Each visit is to another node,
and only nodes whose every literal is in the path count: 3^k of them exist only in a
policy that spells out each mixture of parameters and literals. For one that doesn't,
a match makes about k visits, whatever the number of routes.

Only path, host and method are looked at (R12).

Imports: gateway.model, gateway.policy.templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.model import NOTHING, Denial, Reason, RequestHead, Route
from gateway.policy.templates import Segments, is_int, is_uuid

ANY_METHOD = "*"

# What `Allow` lists where all methods but GET and HEAD are served (RFC 9110 section
# 10.2.1 asks for those "supported"; nobody wants WebDAV's there).
WRITING = ("DELETE", "OPTIONS", "PATCH", "POST", "PUT", "QUERY")

_UNKNOWN = Denial(Reason.ROUTE_UNKNOWN)


@dataclass(frozen=True, slots=True)
class Entry:
    """A route and where it stands."""

    route: Route
    methods: frozenset[str]  # {"*"} for all
    forms: tuple[Segments, ...]
    excluded: frozenset[str] = frozenset()  # with "*": methods that are not meant


@dataclass(frozen=True, slots=True)
class Space:
    """A prefix on some hosts, and every route that competes below it."""

    hosts: frozenset[str]
    prefix: tuple[str, ...]
    entries: tuple[Entry, ...]  # of services that name the hosts
    elsewhere: tuple[Entry, ...] = ()  # of those that name none


class _Target:
    __slots__ = ("names", "rest", "route")

    def __init__(self, entry: Entry, form: Segments) -> None:
        self.route = entry.route
        self.names = tuple((s.text, at) for at, s in enumerate(form) if s.is_named)
        last = form[-1] if form else None
        self.rest = (
            (last.text, len(form) - 1)
            if last is not None and last.kind in {"rest", "end"}
            else None
        )


class _Leaf:
    __slots__ = ("allow", "escapes", "methods", "other")

    def __init__(self) -> None:
        self.methods: dict[str, _Target | None] = {}
        self.other: _Target | None = None
        self.allow: tuple[str, ...] = ()
        self.escapes: frozenset[str] = frozenset()

    def add(self, entry: Entry, form: Segments) -> None:
        target = _Target(entry, form)
        if ANY_METHOD in entry.methods:
            self.other = target
            for method in entry.excluded:
                self.methods.setdefault(method, None)
        for method in entry.methods - {ANY_METHOD}:
            self.methods[method] = target
        if "GET" in entry.methods:
            self.methods["HEAD"] = target
        allowed = {method for method, it in self.methods.items() if it is not None}
        self.allow = tuple(sorted(allowed.union(WRITING if self.other else ())))
        self.escapes |= entry.route.escapes

    def route(self) -> Route:
        """Return a route of this path, for the log of a refused method."""
        return next(
            target.route
            for target in (*self.methods.values(), self.other)
            if target is not None
        )


class _Node:
    __slots__ = ("end", "forks", "integer", "leaf", "literals", "plain", "rest", "uuid")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.forks = False  # anything but literals leads on
        self.integer: _Node | None = None
        self.uuid: _Node | None = None
        self.plain: _Node | None = None
        self.rest: _Leaf | None = None
        self.leaf: _Leaf | None = None
        self.end: _Leaf | None = None


def _insert(
    root: _Node, entries: Iterable[Entry], taken: set[int] | None = None
) -> set[int]:
    """Add *entries*, leaving alone the leaves in *taken*; return the leaves touched."""
    touched: set[int] = set()
    for entry in entries:
        for form in entry.forms:
            leaf = _leaf_at(root, form)
            if taken is None or id(leaf) not in taken:
                leaf.add(entry, form)
                touched.add(id(leaf))
    return touched


def _leaf_at(root: _Node, form: Segments) -> _Leaf:
    node = root
    for segment in form:
        node.forks = node.forks or segment.kind not in {"literal", "end"}
        match segment.kind:
            case "literal":
                node = node.literals.setdefault(segment.text, _Node())
            case "int":
                node.integer = node.integer or _Node()
                node = node.integer
            case "uuid":
                node.uuid = node.uuid or _Node()
                node = node.uuid
            case "plain":
                node.plain = node.plain or _Node()
                node = node.plain
            case "rest":
                node.rest = node.rest or _Leaf()
                return node.rest
            case _:
                node.end = node.end or _Leaf()
                return node.end
    node.leaf = node.leaf or _Leaf()
    return node.leaf


def _find(node: _Node, segments: tuple[str, ...], at: int, count: int) -> _Leaf | None:
    # A node's last branch is followed by the loop, the ones before it by recursion, as
    # only those can come back empty-handed to a sibling.
    while at < count:
        segment = segments[at]
        at += 1
        child = node.literals.get(segment)
        if not node.forks:
            if child is None:
                return None
            node = child
            continue
        if child is not None:
            leaf = _find(child, segments, at, count)
            if leaf is not None:
                return leaf
        # An empty segment is a trailing slash: no parameter takes it.
        if segment:
            if node.integer is not None and is_int(segment):
                leaf = _find(node.integer, segments, at, count)
                if leaf is not None:
                    return leaf
            if node.uuid is not None and is_uuid(segment):
                leaf = _find(node.uuid, segments, at, count)
                if leaf is not None:
                    return leaf
            plain = node.plain
            if plain is not None:
                if node.rest is None:
                    node = plain
                    continue
                leaf = _find(plain, segments, at, count)
                if leaf is not None:
                    return leaf
        return node.rest
    return node.leaf or node.end


class _Door:
    """The prefixes of one host: literals only, each ending in a space of its own."""

    __slots__ = ("nested", "space")

    def __init__(self) -> None:
        self.nested: dict[str, _Door] = {}
        self.space: _Node | None = None


class Table:
    """All routes."""

    def __init__(
        self, everywhere: Iterable[Entry], spaces: Iterable[Space] = ()
    ) -> None:
        """Build the table.

        Args:
            everywhere: The routes of services that name no host.
            spaces: What services that do name hosts have to themselves: there no other
                route counts. Of two nested ones on a host the inner has the word.
        """
        self._everywhere = _Node()
        _insert(self._everywhere, everywhere)
        self._hosts: dict[str, _Door] = {}
        for space in spaces:
            root = _Node()
            taken = _insert(root, space.entries)
            _insert(root, space.elsewhere, taken)
            for host in space.hosts:
                door = self._hosts.setdefault(host, _Door())
                for text in space.prefix:
                    door = door.nested.setdefault(text, _Door())
                door.space = root

    def _leaf(self, host: str, segments: tuple[str, ...]) -> _Leaf | None:
        space = self._everywhere
        door = self._hosts.get(host)
        if door is not None:
            # The deepest counts: only one of a service that names the host can lie
            # within another's (gateway.policy.spaces).
            space = door.space or space
            for text in segments:
                inner = door.nested.get(text)
                if inner is None:
                    break
                door = inner
                space = door.space or space
        return _find(space, segments, 0, len(segments))

    def match(self, head: RequestHead) -> tuple[Route, Mapping[str, str]] | Denial:
        """Return the route of *head* and the values of its path parameters."""
        segments = head.segments
        leaf = self._leaf(head.host, segments)
        if leaf is None:
            return _ambiguous(head.escapes) if head.escapes else _UNKNOWN

        # Servlet containers drop `;x` from a segment before they route, so that
        # `/admin;x` is `/admin` there and `/{name}` here. Where that reading leads
        # elsewhere the target has two meanings (R10: refused, never repaired).
        if b";" in head.path:
            without = tuple(segment.partition(";")[0] for segment in segments)
            if self._leaf(head.host, without) is not leaf:
                return Denial(Reason.TARGET_AMBIGUOUS, ";")

        target = leaf.methods.get(head.method, leaf.other)
        if target is None:
            if not head.escapes <= leaf.escapes:
                return _ambiguous(head.escapes - leaf.escapes, leaf.route())
            return Denial(
                Reason.METHOD_NOT_ALLOWED, needed=leaf.allow, route=leaf.route()
            )
        route = target.route
        if head.escapes and not head.escapes <= route.escapes:
            return _ambiguous(head.escapes - route.escapes, route)

        if target.rest is not None:
            params = {name: segments[at] for name, at in target.names}
            name, at = target.rest
            params[name] = "/".join(segments[at:])
            return route, params
        if target.names:
            return route, {name: segments[at] for name, at in target.names}
        return route, NOTHING


def _ambiguous(escapes: frozenset[str], route: Route | None = None) -> Denial:
    return Denial(Reason.TARGET_AMBIGUOUS, min(escapes), route=route)

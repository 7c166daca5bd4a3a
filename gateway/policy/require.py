"""Read `require` as TOML gives it: strings, lists, {any}, {all}, {not}.

A string is a permission, `@name` a condition, a list means all. What can't be
understood is a Problem at its own place; one reading finds them all.

`not` holds conditions only. A permission is absent for many reasons, a narrower scope
that the caller itself asked for among them, and no absent value may mean yes.

Imports: gateway.policy.permissions, gateway.policy.rules, gateway.policy.spec,
gateway.policy.suggest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.policy.permissions import Vocabulary
from gateway.policy.rules import Node, Owner, all_of, any_of, not_of, permission
from gateway.policy.spec import KeyPath, Problem
from gateway.policy.suggest import did_you_mean

# Nobody can read more, and the tree is walked by recursion.
MAX_DEPTH = 16


@dataclass(slots=True)
class Reading:
    """The reading of one route's `require`."""

    file: str
    say: str  # 'route "orders.list": '
    vocabulary: Vocabulary
    owner: Owner | None  # what "@owner" stands for
    problems: list[Problem] = field(default_factory=list)
    owns: bool = False  # "@owner" occurred

    def read(
        self, value: object, at: KeyPath, *, depth: int = 0, negated: bool = False
    ) -> Node | None:
        """Return the node of *value*; None where it, or a part of it, is wrong."""
        if depth > MAX_DEPTH:
            self._wrong(at, f"nested deeper than {MAX_DEPTH}")
            return None
        if isinstance(value, str):
            return self._word(value, at, negated=negated)
        if isinstance(value, list | tuple):
            nodes = self._list(value, at, depth=depth, negated=negated)
            return None if nodes is None else all_of(nodes)
        if not isinstance(value, dict):
            self._wrong(at, "a string, a list, {any}, {all} or {not} belongs here")
            return None
        if len(value) != 1:
            self._wrong(at, "exactly one of any, all and not belongs here")
            return None
        (key, inner), *_ = value.items()
        below = (*at, key)
        match key:
            case "not":
                node = self.read(inner, below, depth=depth + 1, negated=True)
                if node is None:
                    return None
                name = f"not {inner[1:]}" if isinstance(inner, str) else "not"
                return not_of(node, name)
            case "any" | "all":
                if not isinstance(inner, list | tuple):
                    self._wrong(below, f'"{key}" takes a list')
                    return None
                nodes = self._list(inner, below, depth=depth, negated=negated)
                if nodes is None:
                    return None
                return all_of(nodes) if key == "all" else any_of(nodes)
            case _:
                hint = did_you_mean(str(key), ("any", "all", "not"))
                self._wrong(below, f'unknown key "{key}"', hint, str(key))
                return None

    def _list(
        self,
        values: list[object] | tuple[object, ...],
        at: KeyPath,
        *,
        depth: int,
        negated: bool,
    ) -> list[Node] | None:
        if not values:
            self._wrong(at, "an empty list requires nothing")
            return None
        nodes = [
            self.read(value, (*at, index), depth=depth + 1, negated=negated)
            for index, value in enumerate(values)
        ]
        found = [node for node in nodes if node is not None]
        return found if len(found) == len(nodes) else None

    def _word(self, word: str, at: KeyPath, *, negated: bool) -> Node | None:
        if word.startswith("@"):
            return self._condition(word, at)
        if word.startswith("opa:"):
            what = f'unknown authorizer "{word}"'
            self._wrong(at, what, value=word)
            return None
        if "*" in word:
            what = f'"{word}": "*" is for granting; what is required has a full name'
            self._wrong(at, what, value=word)
            return None
        if word not in self.vocabulary:
            what = f'unknown permission "{word}"'
            self._wrong(at, what, self.vocabulary.suggestion(word), word)
            return None
        if negated:
            what = f'"{word}": "not" takes conditions, not permissions'
            hint = "whoever asks for less scope would pass"
            self._wrong(at, what, hint, word)
            return None
        return permission(word, self.vocabulary.bit(word))

    def _condition(self, word: str, at: KeyPath) -> Node | None:
        if word != "@owner":
            what = f'unknown condition "{word}"'
            self._wrong(at, what, did_you_mean(word, ("@owner",)), word)
            return None
        self.owns = True
        if self.owner is None:
            hint = 'add owner = "<a parameter of the path>" to the route'
            self._wrong(at, '"@owner": the route has no owner', hint, word)
            return None
        return self.owner

    def _wrong(
        self, at: KeyPath, message: str, suggestion: str = "", value: str = ""
    ) -> None:
        say = self.say + message
        self.problems.append(Problem(self.file, at, say, suggestion, value))

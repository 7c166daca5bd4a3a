"""What is found on the way from the files to the settings, with its place.

Imports: the standard library, gateway.config.documents, gateway.config.problems,
gateway.config.references, gateway.config.settings, gateway.policy.spec.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gateway.config.documents import Document, origin
from gateway.config.problems import Hidden, place_of
from gateway.config.references import OTHERS
from gateway.config.settings import Address, Weakening
from gateway.policy.spec import KeyPath, Problem

T = TypeVar("T")


@dataclass(slots=True)
class Findings:
    """Problems and weakenings in the overlaid *documents*.

    Args:
        documents: The overlaid files, the last on top.
        base: What relative paths are relative to; None: the file that says them.
    """

    documents: Sequence[Document]
    base: Path | None = None
    hidden: Hidden = field(default_factory=Hidden)
    problems: list[Problem] = field(default_factory=list)
    weakenings: list[Weakening] = field(default_factory=list)

    def file_of(self, at: KeyPath) -> str:
        """Name the file in which *at* stands."""
        return origin(self.documents, at).file

    def place_of(self, at: KeyPath) -> str:
        """Return file:line:column of *at*."""
        return place_of(origin(self.documents, at), at)

    def base_of(self, at: KeyPath) -> Path:
        """Return the directory that a relative path at *at* is relative to.

        A default stands nowhere; it is relative to the first file.
        """
        if self.base is not None:
            return self.base
        said = [document for document in self.documents if document.has(at)]
        return (said or self.documents[:1])[-1].path.parent

    def problem(
        self, at: KeyPath, message: str, suggestion: str = "", *, key: bool = False
    ) -> None:
        """Note that *at* is wrong."""
        self.problems.append(
            Problem(self.file_of(at), at, message, suggestion, key=key)
        )

    def weak(self, at: KeyPath, what: str, why: str = "") -> None:
        """Note that *at* makes the gate weaker."""
        mask = self.hidden.mask
        place = self.place_of(at)
        self.weakenings.append(Weakening(mask(what), mask(why), place))

    def parsed(self, at: KeyPath, parse: Callable[[str], T], text: str) -> T | None:
        """Return what *parse* makes of *text*; None, and a problem, if it refuses."""
        try:
            return parse(text)
        except ValueError as error:
            self.problem(at, str(error))
            return None

    def absolute(self, address: Address, at: KeyPath) -> Address:
        """Return *address*; that of a Unix socket with its path made absolute."""
        if not address.path:
            return address
        return Address(path=str((self.base_of(at) / address.path).absolute()))

    def existing(self, at: KeyPath, name: str, *, secret: bool = False) -> Path | None:
        """Return the absolute path of the file or directory *name*, which must exist.

        *secret* also notes it, and the PEM files in it, if others may read them.
        """
        if not name or "\0" in name:
            self.problem(at, "expected a path")
            return None
        path = (self.base_of(at) / name).absolute()
        try:
            files = [path] if path.is_file() else sorted(path.glob("*.pem"))
            path.stat()
            if not secret:
                return path
            open_ = any(file.stat().st_mode & OTHERS for file in files)
        except OSError as error:
            why = error.strerror or type(error).__name__
            self.problem(at, f"cannot be read: {why}")
            return None
        if open_:
            self.weak(at, f"readable secret {'.'.join(map(str, at))}")
        return path

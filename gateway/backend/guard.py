"""Inside a service: who calls, and may he (S20).

`identity` finds what the middleware verified; `require` refuses a caller to whom a
permission was not granted. Both work on whatever holds a request: an ASGI scope, a
WSGI environ, or the Request of a framework, which holds one of these. No framework is
imported; Starlette's exception is used where Starlette is already there.

Imports: gateway.backend.verify.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from inspect import Parameter, Signature
from typing import Any, TypeVar, overload

from gateway.backend.verify import Identity

KEY = "gateway.identity"
"""Where in an ASGI scope or a WSGI environ the middleware puts the Identity."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Refused(Exception):  # noqa: N818  (a refusal is an answer, not an error)
    """The caller may not do this. The middleware answers with `status`."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def identity(request: object) -> Identity | None:
    """Return who calls; None where the route is open to callers without a name.

    Args:
        request: A scope, an environ, or what has one (`.scope`, `.environ`).
    """
    found = _context(request)
    if found is None:
        raise TypeError("this holds neither an ASGI scope nor a WSGI environ")
    who = found.get(KEY)
    return who if isinstance(who, Identity) else None


def require(*permissions: str) -> Guard:
    """Return a guard that asks for all of *permissions*.

    As a decorator of a handler whose arguments hold the request, or as a dependency:
    `Depends(require("orders:read"))`.
    """
    return Guard(permissions)


class Guard:
    """Lets pass to whom every one of its permissions was granted."""

    def __init__(self, permissions: tuple[str, ...]) -> None:
        if not permissions or not all(isinstance(name, str) for name in permissions):
            raise TypeError('name a permission: require("orders:read")')
        self.permissions = permissions
        # FastAPI reads from the signature that it is to hand us the connection.
        starlette = sys.modules.get("starlette.requests")
        kind = getattr(starlette, "HTTPConnection", Parameter.empty)
        request = Parameter("target", Parameter.POSITIONAL_OR_KEYWORD, annotation=kind)
        self.__signature__ = Signature([request])

    @overload
    def __call__(self, target: Handler) -> Handler: ...

    @overload
    def __call__(self, target: Any) -> Identity: ...

    def __call__(self, target: Any) -> Any:
        """Judge a request, or put the guard before a handler."""
        if _context(target) is None and callable(target):
            return self._before(target)
        return self.check(target)

    def check(self, request: object) -> Identity:
        """Return who calls.

        Raises:
            Refused: 401 for a caller without a name, 403 for one without the
                permission. Where Starlette's handlers are in place: HTTPException.
        """
        who = identity(request)
        if who is None:
            raise _refusal(request, HTTPStatus.UNAUTHORIZED, "This needs an identity.")
        for permission in self.permissions:
            if not who.has(permission):
                raise _refusal(
                    request, HTTPStatus.FORBIDDEN, f"This needs {permission}."
                )
        return who

    def _before(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Return *handler* with this guard before it."""
        if inspect.iscoroutinefunction(handler):

            @functools.wraps(handler)
            async def waiting(*args: Any, **kwargs: Any) -> Any:
                self.check(_request(args, kwargs))
                return await handler(*args, **kwargs)

            return waiting

        @functools.wraps(handler)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.check(_request(args, kwargs))
            return handler(*args, **kwargs)

        return guarded


def _context(request: object) -> Mapping[str, Any] | None:
    """Return the scope or environ of *request*, None: it has none."""
    if isinstance(request, Mapping):
        return request
    for name in ("scope", "environ"):
        found = getattr(request, name, None)
        if isinstance(found, Mapping):
            return found
    return None


def _request(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    """Return the argument of a handler that holds the request."""
    for argument in (*args, *kwargs.values()):
        found = _context(argument)
        # A handler may well take a dict of its own; a scope has a type, an environ a
        # method.
        if found is not None and ("type" in found or "REQUEST_METHOD" in found):
            return argument
    raise TypeError("the handler takes no request: use require(...) as a dependency")


def _refusal(request: object, status: HTTPStatus, detail: str) -> Exception:
    """Return the exception that the framework at hand turns into *status*."""
    # Starlette leaves this note where it will catch. Ours would pass through it, and
    # be answered 500 by what stands around the app, before our middleware sees it.
    if "starlette.exception_handlers" in (_context(request) or {}):
        starlette = sys.modules["starlette.exceptions"]
        headers = (
            {"WWW-Authenticate": "Bearer"}
            if status == HTTPStatus.UNAUTHORIZED
            else None
        )
        made: Exception = starlette.HTTPException(status, detail, headers)
        return made
    return Refused(status, detail)

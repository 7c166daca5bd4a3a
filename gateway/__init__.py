"""An async auth gateway for backends that have no database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.door import GatewayMiddleware

__version__ = "0.1.0"
__all__ = ["GatewayMiddleware", "__version__"]


def __getattr__(name: str) -> Any:
    # Late, because gateway.backend is imported by services that want two libraries,
    # not all of ours.
    if name == "GatewayMiddleware":
        from gateway.door import GatewayMiddleware  # noqa: PLC0415

        return GatewayMiddleware
    raise AttributeError(name)

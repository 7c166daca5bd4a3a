"""An async auth gateway for backends that have no database."""

__version__ = "0.1.0"

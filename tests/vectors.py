"""Third-party test data: read where it lies, never copied into the repository."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(
    os.environ.get("GATEWAY_VECTORS")
    or Path(__file__).parent.parent.parent / "shared" / "vectors"
)


def path(name: str) -> Path:
    """Return where the vector file *name* is, or skip with the reason."""
    found = ROOT / name
    if not found.exists():
        pytest.skip(f"no test vectors: {name} (set GATEWAY_VECTORS)")
    return found


def load(name: str) -> Any:
    """Return the JSON of the vector file *name*."""
    return json.loads(path(name).read_text(encoding="utf-8"))

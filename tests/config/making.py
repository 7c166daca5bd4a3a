"""The repository's own configuration, copied to where a test may break it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.load import ConfigError, Loaded, load
from gateway.policy.spec import Problem

ROOT = Path(__file__).parent.parent.parent
# RFC 7515 appendix A.3: a public key that everybody knows.
JWK = {
    "kty": "EC",
    "crv": "P-256",
    "kid": "example",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}


@dataclass
class Project:
    """A directory with gateway.toml, policies/ and stub keys, in which we stand."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)

    def edit(self, file: str, old: str, new: str) -> Project:
        """Replace *old*, which stands in *file* once or more, the first time."""
        text = self.read(file)
        assert old in text, f"{old!r} is not in {file}"
        return self.write(file, text.replace(old, new, 1))

    def append(self, file: str, text: str) -> Project:
        return self.write(file, self.read(file) + text)

    def write(self, file: str, text: str, mode: int = 0o600) -> Project:
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return self

    def read(self, file: str) -> str:
        return (self.path / file).read_text(encoding="utf-8")

    def load(self, *files: str, env: Mapping[str, str] | None = None) -> Loaded:
        names = files or ("gateway.toml",)
        return load(
            [self.path / name for name in names], env=self.env if env is None else env
        )

    def error(self, *files: str) -> ConfigError:
        try:
            self.load(*files)
        except ConfigError as error:
            return error
        raise AssertionError("it loads")

    def problems(self, *files: str) -> list[Problem]:
        return list(self.error(*files).problems)

    def report(self, *files: str) -> str:
        return str(self.error(*files))

    def weak(self, *files: str) -> list[str]:
        return [item.what for item in self.load(*files).settings.weakenings]


def copy_to(path: Path) -> Project:
    """Copy the repository's configuration to *path*, with stubs for its keys."""
    shutil.copy(ROOT / "gateway.toml", path / "gateway.toml")
    shutil.copytree(ROOT / "policies", path / "policies", dirs_exist_ok=True)
    project = Project(path)
    project.write(".gateway/identity/stub.pem", "a stub")
    project.write(".gateway/demo-jwks.json", json.dumps({"keys": [JWK]}))
    os.chmod(path / ".gateway" / "identity", 0o700)  # noqa: PTH101
    return project

"""What a verdict must carry: package version, format version, and which model gave it."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import kstate
from fuzz.prog.prog import FORMAT_VERSION


def model_hash() -> str:
    """Which model: of kstate's sources."""
    return _hash_of(Path(kstate.__file__).parent)


def fuzz_hash() -> str:
    """Which search: of our own sources."""
    return _hash_of(Path(__file__).parent)


@cache
def _hash_of(root: Path) -> str:
    """SHA-256 over a package's sources, 12 hex digits."""
    digest = sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@cache
def package_version() -> str:
    try:
        return version("kstate-fuzz")
    except PackageNotFoundError:
        return "uninstalled"


def stamp() -> str:
    """One line: `kfuzz 0.1.0, format 1, model 0123456789ab`."""
    return f"kfuzz {package_version()}, format {FORMAT_VERSION}, model {model_hash()}"

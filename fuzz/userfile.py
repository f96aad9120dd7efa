"""A program of the user's own against kstate.machine alone, named FILE.py:function."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from fuzz.subject import MachineSubject


class BadFile(Exception):
    """Not a program: one line that says where and why."""


def is_user_program(name: str) -> bool:
    path, colon, _ = name.rpartition(":")
    return name.endswith(".py") or bool(colon and path.endswith(".py"))


def user_program(name: str) -> MachineSubject:
    """What FILE.py:function names.

    Raises:
        BadFile: there is no such file or function, or the file cannot be loaded.
    """
    if name.endswith(".py"):
        raise BadFile(f"{name}: which function? {name}:NAME")
    path, _, function = name.rpartition(":")
    return MachineSubject(_load(Path(path), function))


def _load(path: Path, name: str) -> Any:
    if not path.is_file():
        raise BadFile(f"{path}: No such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        line = last.lineno if last.filename == str(path) else 1
        if isinstance(error, SyntaxError):
            line = error.lineno or 1
        raise BadFile(f"{path}:{line}: {type(error).__name__}: {error}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise BadFile(f"{path}: no function {name!r} in it")
    return function

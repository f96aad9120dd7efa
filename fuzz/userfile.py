"""A program of the user's own against kstate.machine alone, named FILE.py:function."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from fuzz.subject import MachineSubject

NAME = re.compile(r"[\w.+-]+")


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
    before = set(sys.modules)
    setup = _load(Path(path), function)
    loaded = (sys.modules[name] for name in sorted(sys.modules.keys() - before))
    files = (getattr(module, "__file__", None) for module in loaded)
    return MachineSubject(setup, sources=tuple(Path(file) for file in files if file))


def _load(path: Path, name: str) -> Any:
    if not path.is_file():
        raise BadFile(f"{path}: No such file")
    if not NAME.fullmatch(path.name):
        raise BadFile(f"{path}: a schedule names the file: letters, digits and . + - _ only")
    spec = importlib.util.spec_from_file_location(f"kfuzz_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        line = last.lineno if last.filename == str(path) else 1
        if isinstance(error, SyntaxError):
            line = error.lineno or 1
        raise BadFile(f"{path}:{line}: {type(error).__name__}: {error}") from None
    function = getattr(module, name, None)
    if not callable(function):
        raise BadFile(f"{path}: no function {name!r} in it")
    return function

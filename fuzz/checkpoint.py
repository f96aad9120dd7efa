"""What a search has done so far, a line a part: one that was killed goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fuzz.parts import Key, Portion
from fuzz.version import fuzz_hash, stamp
from kstate.machine.machine import Fault

Faults = tuple[Fault, ...]


class OtherSearch(Exception):
    """The file is of another search, or of none."""


class Checkpoint:
    """A file of JSON lines: what is searched, then the parts that are done, in the order they were.

    Args:
        path: made where there is none; a last line that was cut short is forgotten.
        search: all that the result depends on besides the version, as JSON can hold it.
    Raises:
        OtherSearch: the file is of another search or another model; it is left alone.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, search: dict[str, Any]) -> None:
        head = json.dumps(
            {"search": search, "version": stamp(), "fuzz": fuzz_hash()}, sort_keys=True
        )
        self.done: dict[Faults, list[tuple[Key, Portion]]] = {}
        kept = 0
        if path.exists():
            kept = self._read(path.read_bytes(), head, path)
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._line(head)

    def _read(self, data: bytes, head: str, path: Path) -> int:
        """Take in whole lines. Returns how many bytes they have."""
        kept = data.rfind(b"\n") + 1
        lines = data[:kept].decode("utf-8", "replace").splitlines()
        if not lines and head.encode().startswith(data):
            return 0  # it was killed while the first line was written
        if not lines or lines[0] != head:
            raise OtherSearch(f"{path} is no checkpoint of this search by this version")
        for number, line in enumerate(lines[1:], 2):
            try:
                faults, key, portion = json.loads(line)
                told = tuple((str(task), str(kind), int(nth)) for task, kind, nth in faults)
                numbers = [int(number) for number in key]
                self.done.setdefault(told, []).append((numbers, Portion.unpacked(portion)))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise OtherSearch(f"{path}:{number}: no line of a checkpoint") from None
        return kept

    def add(self, faults: Faults, key: Key, portion: Portion) -> None:
        self._line(json.dumps([faults, key, portion.packed()]))

    def _line(self, text: str) -> None:
        self._file.write(text.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

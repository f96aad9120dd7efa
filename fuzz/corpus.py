"""Program files on disk: reading them, and what the race files say about themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fuzz.findings import FINDINGS
from fuzz.prog.prog import FILE_BYTES_MAX, ProgError, Program
from fuzz.prog.text import parse
from fuzz.schedulers import make_scheduler
from kstate.syscalls import FAULTS

FIELDS = ("id", "title", "source", "kind", "needs", "fixed by")
PREEMPTIONS = "preemptions"  # a field too, but of most not said


def read_program(path: Path) -> Program:
    """Parse a file; reads no more of it than a program may have. What it names must be there: its
    scheduler, the findings it expects, what it lets fail.

    Raises: ProgError, OSError.
    """
    with open(path, "rb") as file:
        source = file.read(FILE_BYTES_MAX + 1)
    program = parse(source)
    _check_names(program, source.decode().splitlines())
    return program


def _check_names(program: Program, lines: Sequence[str]) -> None:
    def wrong(text: str, start: str, word: str) -> ProgError:
        """At the first line that starts so and has this word."""
        for number, line in enumerate(lines, 1):
            if line.strip().startswith(start) and word in line:
                return ProgError(text, number, line.index(word) + 1)
        return ProgError(text)

    if program.choices is not None:
        try:
            make_scheduler(program.choices.scheduler)
        except ProgError as error:
            raise wrong(error.text, "choices:", program.choices.scheduler) from None
    for expect in program.expects:
        if expect.id and expect.id not in FINDINGS:
            text = f"unknown finding {expect.id!r}; 'kfuzz findings' lists them"
            raise wrong(text, "expect", expect.id)
    for task, kind, number in program.faults:
        if kind not in FAULTS:
            text = f"nothing called {kind!r} can fail; what can: {', '.join(FAULTS)}"
            raise wrong(text, task, kind)
        if task != "init" and int(task[3:]) >= len(program.tasks):
            raise wrong(f"there is no {task}", task, f"#{number}")


def program_files(path: Path) -> list[Path]:
    """The file itself, or every .prog file below a folder, by name; no pipe is waited for.

    Raises: OSError: a folder that cannot be looked into."""
    if not path.is_dir():
        return [path]

    def fail(error: OSError) -> NoReturn:
        raise error

    below = (
        Path(folder, name)
        for folder, _, names in os.walk(path, onerror=fail)
        for name in names
        if name.endswith(".prog")
    )
    return sorted(file for file in below if not file.is_fifo())


def races_folder() -> Path:
    """corpus/races of the checkout this runs from, or as it was installed.

    Raises: ProgError where there is none.
    """
    for root in (Path(__file__).parent.parent / "corpus", Path(sys.prefix) / "share/kfuzz/corpus"):
        if (root / "races").is_dir():
            return root / "races"
    raise ProgError("no race files here: name a folder")


@dataclass(frozen=True)
class Race:
    """One race file. id: of the race catalogue. source: the message it comes from. kind: finding |
    absent | trace | count | text. needs: SEQ | LOCKED | RACE. shows_on, absent_on: kernels.
    preemptions: how many it takes at most."""

    id: str
    source: str
    title: str
    kind: str
    needs: str
    shows_on: tuple[str, ...]
    absent_on: tuple[str, ...]
    fixed_by: str
    finding: str
    file: str
    preemptions: int = 2


def shown_on(kernel: str) -> frozenset[str]:
    """What the race files say that a kernel shows.

    Raises: ProgError, OSError."""
    expects = [
        expect
        for path in program_files(races_folder())
        for expect in read_program(path).expects
        if not expect.absent
    ]
    return frozenset(expect.id for expect in expects if expect.kernel == kernel)


# Rows of the catalogue that change no behaviour: they have no file.
TEXT_ROWS: tuple[Race, ...] = (
    Race(
        "5/12",
        "Hugh Dickins, 2015-10-19, [PATCH 5/12] mm: correct a couple of page migration comments",
        "comments only",
        "text",
        "SEQ",
        (),
        (),
        "nothing to fix",
        "",
        "",
    ),
    Race(
        "9b",
        "Hugh Dickins, 2015-10-19, [PATCH 9/12] mm: simplify page migration's anon_vma comment and "
        "flow",
        "the comment on swapcache pages described v2.6.16",
        "text",
        "SEQ",
        (),
        (),
        "nothing to fix",
        "",
        "",
    ),
)


def read_race(path: Path) -> Race:
    """Read a race file's header comments (`# id: 2b-i`) and expectations.

    Raises: ProgError, OSError.
    """
    program = read_program(path)
    said = {**dict.fromkeys(FIELDS, ""), PREEMPTIONS: "2"}
    for _, _, comment in program.comments:
        name, colon, value = comment.partition(":")
        if colon and name in said:
            said[name] = value.strip()
    missing = [name for name in FIELDS if not said[name]]
    if missing:
        raise ProgError(f"no '# {missing[0]}:' comment")
    if not said[PREEMPTIONS].isdecimal():
        raise ProgError(f"'# {PREEMPTIONS}: {said[PREEMPTIONS]}' is no number")
    shown = [expect for expect in program.expects if not expect.absent]
    finding = shown[0].id if shown else ""
    return Race(
        said["id"],
        said["source"],
        said["title"],
        said["kind"],
        said["needs"],
        tuple(e.kernel for e in shown if e.id == finding),
        tuple(e.kernel for e in program.expects if e.absent and (not e.id or e.id == finding)),
        said["fixed by"],
        finding,
        str(path),
        int(said[PREEMPTIONS]),
    )

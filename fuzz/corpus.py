"""Program files on disk: reading them, and what the race files say about themselves."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fuzz.prog.prog import FILE_BYTES_MAX, ProgError, Program
from fuzz.prog.text import parse

FIELDS = ("id", "title", "source", "kind", "needs", "fixed by")
PREEMPTIONS = "preemptions"  # a field too, but of most not said


def read_program(path: Path) -> Program:
    """Parse a file; reads no more of it than a program may have.

    Raises: ProgError, OSError.
    """
    with open(path, "rb") as file:
        return parse(file.read(FILE_BYTES_MAX + 1))


def program_files(path: Path) -> list[Path]:
    """The file itself, or every .prog file below a folder, by name."""
    if path.is_dir():
        return sorted(path.rglob("*.prog"))
    return [path]


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
        raise ProgError(f"{path}: no '# {missing[0]}:' comment")
    if not said[PREEMPTIONS].isdecimal():
        raise ProgError(f"{path}: '# {PREEMPTIONS}: {said[PREEMPTIONS]}' is no number")
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

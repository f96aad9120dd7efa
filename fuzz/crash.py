"""Crash folders: crashes/<id>-<sha8>/{repro.prog, report.txt}. Written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fuzz.conflict import key
from fuzz.findings import title
from fuzz.minimise import size
from fuzz.prog.prog import Expect, ProgError, Program
from fuzz.prog.text import parse, print_program
from fuzz.report.diagram import diagram
from fuzz.run import Outcome, run
from fuzz.sample import how_hard, table
from fuzz.turns import write_down
from fuzz.version import stamp

REPRO, REPORT = "repro.prog", "report.txt"


def folder_name(program: Program, outcome: Outcome, id: str) -> str:
    """`<finding id>-<sha8>`, the same for every reproducer of one conflict."""
    finding = next(finding for finding in outcome.findings if finding.id == id)
    return f"{id}-{key(program, outcome, finding)}"


def reproducer(program: Program, outcome: Outcome, id: str) -> Program:
    """The program with the turns the run executed and the finding it is to show."""
    return replace(
        program,
        schedule=write_down(outcome),
        choices=None,
        expects=(Expect(outcome.kernel, id),),
        faults=tuple(outcome.machine.faults_taken),
    )


def save(crashes: Path, program: Program, outcome: Outcome, id: str) -> Path:
    """Write a reproducer (see `reproducer`) into its folder, unless a better one is there.

    Raises:
        OSError: nothing was written, or everything was.
    """
    folder = crashes / folder_name(program, outcome, id)
    old = _read(folder / REPRO)
    if old is not None and size(old, run(old)) <= size(program, outcome):
        return folder
    crashes.mkdir(parents=True, exist_ok=True)
    fresh = crashes / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    write_atomically(fresh / REPRO, print_program(program))
    write_atomically(fresh / REPORT, report(program, id, folder / REPRO))
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        for name in (REPORT, REPRO):  # another one is there: each file is replaced whole
            os.replace(fresh / name, folder / name)
        fresh.rmdir()
    _sync(crashes)
    return folder


def add_odds(folder: Path, id: str, stop: Callable[[], bool]) -> None:
    """Say in a folder's report how hard its reproducer is to hit. If `stop` comes first, do not."""
    program = _read(folder / REPRO)
    if program is None:
        return
    odds = table(how_hard(program, id, stop=stop))
    if odds:
        write_atomically(folder / REPORT, report(program, id, folder / REPRO, odds))


def report(program: Program, id: str, path: Path, odds: Sequence[str] = ()) -> str:
    """What a person reads: the finding, the diagram, how to see it again. odds: how hard it is to
    hit, a line for each sampler."""
    drawn, outcome = diagram(program)
    hard = ["how hard to hit, in one run under each sampler, 95 % intervals:"]
    hard += [f"  {line}" for line in odds]
    return "\n".join(
        [
            f"{id}: {title(id)}",
            f"kernel {outcome.kernel}, {outcome.steps} steps, trace {outcome.trace_hash[:16]}",
            stamp(),
            "",
            drawn,
            *([*hard, ""] if odds else []),
            f"replay it:  kfuzz replay {path}",
            f"draw it:    kfuzz show {path}",
            "",
        ]
    )


def write_atomically(path: Path, text: str) -> None:
    """Temporary name, fsync, rename: the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> Program | None:
    try:
        return parse(path.read_bytes())
    except (OSError, ProgError):
        return None

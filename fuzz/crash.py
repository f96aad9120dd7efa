"""Crash folders: crashes/<id>-<sha8>/{repro.prog, report.txt}. Written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_IMODE

from fuzz.conflict import key
from fuzz.corpus import read_program
from fuzz.findings import title
from fuzz.minimise import size
from fuzz.oracles import and_slow
from fuzz.prog.prog import Expect, ProgError, Program
from fuzz.prog.text import print_program
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


@dataclass(frozen=True)
class Saved:
    """Where a reproducer of a crash is; written: it is the one that was to be saved."""

    folder: Path
    written: bool


def save(crashes: Path, program: Program, outcome: Outcome, id: str) -> Saved:
    """Write a reproducer (see `reproducer`) into its folder, unless a better one is there: one that
    still shows the finding and is no larger. One that shows it on another kernel stays where it is;
    the new one's folder is then `<id>-<sha8>+<kernel>`.

    Raises:
        OSError: nothing was written, or everything was.
    """
    name = folder_name(program, outcome, id)
    for folder in (crashes / name, crashes / f"{name}+{outcome.kernel}"):
        known = _still_shows(folder / REPRO, id)
        if known is None or known.kernel == outcome.kernel:
            break
    if known is not None and known.kernel == outcome.kernel:
        old = _read(folder / REPRO)
        if old is not None and size(old, known) <= size(program, outcome):
            return Saved(folder, False)
    crashes.mkdir(parents=True, exist_ok=True)
    fresh = crashes / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        write_atomically(fresh / REPRO, print_program(program))
        write_atomically(fresh / REPORT, report(program, id, folder / REPRO))
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            for file in (REPORT, REPRO):  # another one is there: each file is replaced whole
                os.replace(fresh / file, folder / file)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _sync(crashes)
    return Saved(folder, True)


def holds(folder: Path, text: str) -> bool:
    """Is this the reproducer in the folder?"""
    try:
        return (folder / REPRO).read_text("utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _still_shows(path: Path, id: str) -> Outcome | None:
    """The run of a reproducer that is there, if it shows what its folder says."""
    program = _read(path)
    if program is None:
        return None
    outcome = run(program, oracles=and_slow({id}))
    return outcome if id in outcome.ids else None


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
    """Temporary name, fsync, rename: the file is there whole or not at all. It keeps its mode; a
    link stays one, and what is no file (a pipe, a device) is written to as it is.

    Raises: OSError: nothing of it is left."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_text(text, "utf-8", "surrogateescape")
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> Program | None:
    try:
        return read_program(path)
    except (OSError, ProgError):
        return None

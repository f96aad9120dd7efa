"""The command `explore`: a verdict over all schedules, or over those with few preemptions."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from fuzz.checkpoint import Checkpoint, OtherSearch
from fuzz.cli import (
    OK,
    SECONDS,
    SHOWN,
    Signals,
    UserError,
    cli,
    emit,
    json_option,
    kernel_option,
    known_ids,
    load,
    no_kernel,
    on_terminal,
    user_errors,
    user_subject,
    with_yield_at,
    yield_at_option,
)
from fuzz.explore import EXHAUSTED, REFUTED, Exploration, explore
from fuzz.findings import title
from fuzz.oracles import SLOW_IDS
from fuzz.prog.text import print_fault, print_program, print_turn
from fuzz.subject import MachineSubject, ProgramSubject, Subject
from fuzz.userfile import is_user_program
from fuzz.version import stamp
from fuzz.workers import WorkerLost

UNDETERMINED = 3
PROGRESS_EVERY_S = 2.0
STATUS = {REFUTED: SHOWN, EXHAUSTED: OK}
OF_A_PROGRAM = "this program on this kernel of this model version"


@cli.command("explore")
@click.argument("file")
@click.option(
    "--preemptions",
    type=click.IntRange(min=0),
    metavar="N",
    help="Only schedules with at most N preemptions. Without: all schedules, one of each class of "
    "equivalent ones.",
)
@click.option(
    "--faults",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Also with each set of at most N calls that can fail failing.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes, with --preemptions; else one. The result is the same for any number.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep what is done in this file; stopped or killed, the same command goes on from there.",
)
@kernel_option()
@click.option("--time", "time_s", type=SECONDS, help="Give up after S seconds.")
@yield_at_option
@click.option("--only", metavar="ID", help="Only this finding counts.")
@json_option
def explore_command(
    file: str,
    preemptions: int | None,
    faults: int,
    jobs: int,
    checkpoint: Path | None,
    kernel: str | None,
    time_s: float | None,
    yield_at: tuple[str, ...],
    only: str | None,
    as_json: bool,
) -> int:
    """Run a program under every schedule: can this still happen?

    FILE is a .prog, or FILE.py:function, a program of your own against kstate.machine (see
    fuzz/MACHINE.md). REFUTED (exit 1): a run shows something. EXHAUSTED (0): no run within the
    bound does; that speaks of this program on this kernel of this model version. UNDETERMINED (3):
    time was up, or a run hit the step limit.

    \b
    Example:  kfuzz explore corpus/races/7a.prog --kernel v4.4
              kfuzz explore corpus/races/2b-i-munlock.prog --preemptions 2 --jobs 2
              kfuzz explore mine.py:lost_update
    """
    subject = _subject(file, preemptions, kernel, only, yield_at)
    kept = _checkpoint(checkpoint, file, subject, [preemptions, faults, only])
    signals = Signals()
    watch = _Watch(time_s, signals)
    with user_errors(file):
        try:
            result = explore(
                subject,
                preemptions=preemptions,
                faults=faults,
                only=only,
                jobs=jobs,
                checkpoint=kept,
                stop=watch,
            )
        except WorkerLost as error:
            again = "--checkpoint FILE would have kept what was done"
            if checkpoint is not None:
                again = f"the same command goes on from {checkpoint}"
            raise UserError(f"{file}: {error} (out of memory?); {again}") from None
        finally:
            if kept is not None:
                kept.close()
    watch.clear()
    _check_globs(file, subject, result)
    if as_json:
        emit(_record(file, result))
    else:
        _print(result)
    if signals.number:
        return signals.status
    return STATUS.get(result.verdict, UNDETERMINED)


def _check_globs(file: str, subject: Subject, result: Exploration) -> None:
    """A yield-at that no run has met would exhaust nothing, and say so of everything."""
    if isinstance(subject, ProgramSubject) and result.verdict == EXHAUSTED:
        for glob in subject.program.yield_at:
            if glob not in result.globs:
                raise UserError(f"{file}: yield-at {glob!r} matches no point of these runs")


def _checkpoint(
    path: Path | None, file: str, subject: Subject, options: list[Any]
) -> Checkpoint | None:
    if path is None:
        return None
    if isinstance(subject, ProgramSubject):
        source = print_program(subject.program)
    else:
        assert isinstance(subject, MachineSubject)
        source = "\0".join((file.rpartition(":")[2], *map(_text_of, subject.sources)))
    digest = sha256(source.encode()).hexdigest()
    try:
        return Checkpoint(path, {"of": [digest, subject.kernel_name], "options": options})
    except (OtherSearch, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(f"{path}: {reason}" if reason else str(error)) from None


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("latin-1")
    except OSError:
        return ""  # of a module that is in no file of its own


class _Watch:
    """Tells on stderr how far the search is, and ends it when time is up or at a signal."""

    def __init__(self, time_s: float | None, signals: Signals) -> None:
        self._signals = signals
        self._started = self._told = time.monotonic()
        self._time_s = time_s
        self._wide = 0

    def __call__(self, so_far: Exploration) -> bool:
        now = time.monotonic()
        if now - self._told >= PROGRESS_EVERY_S:
            self._told = now
            self._tell(so_far, now - self._started)
        return self._signals.number != 0 or (
            self._time_s is not None and now - self._started >= self._time_s
        )

    def _tell(self, so_far: Exploration, seconds: float) -> None:
        line = f"{seconds:6.0f}s  {so_far.schedules} schedules ({so_far.schedules / seconds:.0f}/s)"
        if so_far.share is not None:
            line += f"  {_estimated(so_far)} covered"
        line += f"  {', '.join(sorted(so_far.findings)) or 'nothing yet'}"
        if on_terminal():
            click.echo("\r" + line.ljust(self._wide), err=True, nl=False)
            self._wide = len(line)
        else:
            click.echo(line, err=True)

    def clear(self) -> None:
        if self._wide:
            click.echo(err=True)


def _subject(
    file: str,
    preemptions: int | None,
    kernel: str | None,
    only: str | None,
    yield_at: tuple[str, ...],
) -> Subject:
    if is_user_program(file):
        no_kernel(file, kernel)
        if yield_at:
            raise UserError(f"{file}: --yield-at is for .prog files")
        return user_subject(file)
    known_ids([only] if only else [])
    if only in SLOW_IDS:
        raise UserError(
            f"{only} is not asked of the runs of a search: see 'kfuzz sample --only {only}'"
        )
    program = with_yield_at(load(Path(file)), yield_at)
    if program.yield_at and preemptions is None:
        raise UserError(f"{file}: it has yield-at; then only --preemptions N can be searched")
    return ProgramSubject(program.bare(), kernel)


def _print(result: Exploration) -> None:
    found = result
    how = f"{found.schedules} schedules"
    if found.classes is not None:
        how += f", {'at most ' if found.cut_short else ''}{found.classes} classes"
    if found.probes:
        how += f", {found.probes} probes"
    if found.redundant:
        how += f", {found.redundant} given up as redundant"
    on = f" on {found.kernel}" if found.kernel else ""
    click.echo(f"{found.verdict.upper()} ({found.bound}){on}: {how}, {found.seconds:.1f} s")
    if found.verdict == EXHAUSTED:
        click.echo(f"no run shows {found.only or 'anything'}; that speaks of {OF_A_PROGRAM}")
    click.echo(f"({stamp()})")
    if found.limit_hit:
        click.echo("some run hit the step limit: nothing can be exhausted")
    if found.share is not None:
        click.echo(f"ended early: {_estimated(found)} of the schedules covered")
    for id, turns in sorted(found.findings.items()):
        click.echo(f"\n{id}: {title(id)}")
        click.echo(f"  {found.texts[id]}")
        if found.failing[id]:
            click.echo("faults:")
            for fault in found.failing[id]:
                click.echo(f"  {print_fault(fault)}")
        click.echo("schedule:" if turns else "schedule: the default run")
        for turn in turns:
            click.echo(f"  {print_turn(turn)}")


def _estimated(found: Exploration) -> str:
    assert found.share is not None
    text = f"estimated {_percent(found.share)} %"
    if found.spread is not None:
        low, high = found.spread
        text += f" ({_percent(low)} .. {_percent(high)})"
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.1 else f"{100 * share:.2g}"


def _record(file: str, result: Exploration) -> dict[str, Any]:
    failing = result.failing
    return {
        "file": file,
        "version": stamp(),
        "kernel": result.kernel or None,
        "verdict": result.verdict,
        "bound": {
            "preemptions": result.preemptions,
            "faults": result.faults,
            "steps": result.steps_max,
            "only": result.only,
            "given": list(result.given),
        },
        "schedules": result.schedules,
        "classes": result.classes,
        "classes_exact": None if result.classes is None else not result.cut_short,
        "probes": result.probes,
        "redundant": result.redundant,
        "estimated_share": result.share,
        "estimated_spread": result.spread,
        "limit_hit": result.limit_hit,
        "findings": [
            {
                "id": id,
                "title": title(id),
                "text": result.texts[id],
                "turns": [print_turn(turn) for turn in turns],
                "faults": [print_fault(fault) for fault in failing[id]],
            }
            for id, turns in sorted(result.findings.items())
        ],
        "seconds": round(result.seconds, 3),
    }

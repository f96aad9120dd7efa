"""Commands that run one program: `replay`, `show`, `sample`, `minimize`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from textwrap import indent
from typing import Any

import click

from fuzz.cli import (
    OK,
    SHOWN,
    USAGE,
    Signals,
    UserError,
    cli,
    counter,
    emit,
    json_option,
    kernel_option,
    known_ids,
    load,
    load_each,
    no_kernel,
    user_errors,
    user_subject,
    with_yield_at,
    yield_at_option,
)
from fuzz.corpus import read_program
from fuzz.crash import write_atomically
from fuzz.datarace import DataRace, spell, watched_data_races
from fuzz.explore import explore
from fuzz.findings import title
from fuzz.minimise import minimise, minimise_schedule
from fuzz.oracles import and_slow
from fuzz.prog.prog import ProgError, TurnSpec
from fuzz.prog.text import parse_schedule, print_program, print_schedule
from fuzz.replay import Replayed, replay_file, trace_lines
from fuzz.report.diagram import diagram, machine_diagram
from fuzz.run import Outcome, run
from fuzz.sample import Sample, expected_runs, sample, table, wilson
from fuzz.schedulers import SAMPLERS, Default, Profile, Replay, expand, make_scheduler, profile_of
from fuzz.subject import MachineSubject, ProgramSubject, Subject, check_deterministic
from fuzz.userfile import is_user_program
from fuzz.version import stamp
from kstate.machine.machine import Fault
from kstate.patches import parse_spec

SHOW_RUNS_MAX = 20_000  # to find a run of a user's program that shows something


@cli.command("replay")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@kernel_option()
@click.option("--expect", "expect_id", metavar="ID", help="This finding must be shown.")
@click.option("--trace", is_flag=True, help="Print every step.")
@click.option(
    "--stop-at", type=click.IntRange(min=1), metavar="TURN", help="With --pdb: stop there."
)
@click.option(
    "--pdb", "use_pdb", is_flag=True, help="Debug in the task that begins turn --stop-at."
)
@click.option(
    "--data-races", is_flag=True, help="Report accesses that nothing orders; never a finding."
)
@json_option
def replay_command(
    paths: tuple[Path, ...],
    kernel: str | None,
    expect_id: str | None,
    trace: bool,
    stop_at: int | None,
    use_pdb: bool,
    data_races: bool,
    as_json: bool,
) -> int:
    """Run what files say, on every kernel they name, and compare with what they expect.

    A folder means every .prog file below it. Exit 0: all as expected. 1: not.

    \b
    Example:  kfuzz replay corpus/races
              kfuzz replay corpus/races/2b-i-munlock.prog --kernel v4.3 --data-races
    """
    known_ids([expect_id] if expect_id else [])
    if (stop_at is not None) != use_pdb:
        raise UserError("--stop-at TURN and --pdb belong together")
    unexpected, bad = False, list[str]()
    for path, program in load_each(paths, bad, read_program):
        if stop_at is not None and stop_at > len(program.schedule or ()):
            turns = len(program.schedule or ())
            raise UserError(f"{path}: --stop-at {stop_at}: its schedule has {turns} turns")
        for result in replay_file(program, kernel, expect_id, stop_at):
            unexpected = unexpected or result.expected is False
            races = watched_data_races(program, result.outcome.kernel) if data_races else None
            if as_json:
                emit(_replayed(path, result, trace, races))
            else:
                click.echo(_replay_line(path, result))
                if trace:
                    for line in trace_lines(result.outcome):
                        click.echo(f"    {line}")
                for race in races or ():
                    click.echo(indent(spell(race), "    "))
    if bad:
        return USAGE
    return SHOWN if unexpected else OK


def _replay_line(path: Path, result: Replayed) -> str:
    outcome = result.outcome
    mark = {True: "ok  ", False: "FAIL", None: "    "}[result.expected]
    ids = " ".join(finding.id for finding in outcome.findings) or "clean"
    line = f"{mark} {path}  {outcome.kernel}: {ids}"
    if result.unmet:
        line += f"  (expected: {'; '.join(result.unmet)})"
    if outcome.diverged is not None:
        line += f"  [followed {outcome.diverged.turn} of {result.turns} turns]"
    if result.enumerated is not None:
        line += f"  [{result.enumerated}]"
    return line


def _replayed(
    path: Path, result: Replayed, trace: bool, races: list[DataRace] | None
) -> dict[str, Any]:
    outcome = result.outcome
    return {
        "file": str(path),
        "version": stamp(),
        "kernel": outcome.kernel,
        "outcome": outcome.outcome,
        "findings": _findings(outcome),
        "expected": result.expected,
        "diverged": None if outcome.diverged is None else asdict(outcome.diverged),
        "enumerated": None if result.enumerated is None else str(result.enumerated),
        "steps": outcome.steps,
        "trace_hash": outcome.trace_hash,
        "trace": list(trace_lines(outcome)) if trace else None,
        "data_races": None if races is None else [asdict(race) for race in races],
    }


def _findings(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "id": finding.id,
            "title": title(finding.id),
            "text": finding.text,
            "where": finding.where,
            "objects": list(finding.objects),
        }
        for finding in outcome.findings
    ]


schedule_option = click.option(
    "--schedule",
    "schedule_file",
    type=click.Path(path_type=Path),
    help="For FILE.py:function: a file with the turns, as minimize writes it. Without: the least "
    "run found that shows anything.",
)
subject_argument = click.argument("file", metavar="FILE")


@cli.command("show")
@subject_argument
@kernel_option()
@schedule_option
@json_option
def show_command(file: str, kernel: str | None, schedule_file: Path | None, as_json: bool) -> int:
    """Draw a run the way the thread draws races: a column per CPU, time downwards.

    FILE is a .prog, or FILE.py:function, a program of your own (see fuzz/MACHINE.md).

    \b
    Example:  kfuzz show corpus/races/2b-i-munlock.prog
              kfuzz show mine.py:lost_update
    """
    if is_user_program(file):
        no_kernel(file, kernel)
        subject = user_subject(file)
        with user_errors(file):
            if schedule_file:
                faults, turns = _schedule(schedule_file)
            else:
                faults, turns, _ = _shown_by(subject, None)
            text, ran = machine_diagram(subject.with_faults(faults), turns, file)
        findings = [
            {"id": id, "title": title(id), "text": said, "where": file, "objects": []}
            for id, said in ran.findings.items()
        ]
        outcome_name, spec = ran.outcome, None
    else:
        if schedule_file is not None:
            raise UserError(f"{file}: --schedule is for FILE.py:function: a .prog has its own")
        text, outcome = diagram(load(Path(file)), kernel)
        findings, outcome_name, spec = _findings(outcome), outcome.outcome, outcome.kernel
    if as_json:
        emit(
            {
                "file": file,
                "kernel": spec,
                "diagram": text,
                "outcome": outcome_name,
                "findings": findings,
            }
        )
    else:
        click.echo(text, nl=False)
    return OK


def _schedule(path: Path) -> tuple[tuple[Fault, ...], tuple[TurnSpec, ...]]:
    try:
        return parse_schedule(path.read_text("utf-8"))
    except ProgError as error:
        raise UserError(error.at(str(path))) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _shown_by(
    subject: MachineSubject, only: str | None
) -> tuple[tuple[Fault, ...], tuple[TurnSpec, ...], str | None]:
    """The faults and turns of a run with few of either that shows something, and what; else of the
    default run, and None."""
    for faults, preemptions in product((0, 1), (0, 1, 2, None)):
        found = explore(
            subject,
            preemptions=preemptions,
            faults=faults,
            only=only,
            stop_at_first=True,
            runs_max=SHOW_RUNS_MAX,
        )
        for id, turns in found.findings.items():
            return found.failing[id], turns, id
    return (), (), None


@cli.command("sample")
@subject_argument
@click.option(
    "--scheduler",
    required=True,
    metavar="S",
    help="all, or one: random_walk(run=N), pct(depth=N), pos, urw, surw, delay(delays=N).",
)
@click.option("--runs", "runs_count", required=True, type=click.IntRange(min=1))
@kernel_option()
@click.option("--seed", default="0", show_default=True)
@click.option("--only", multiple=True, metavar="ID", help="Only this finding counts.")
@click.option("--ignore", multiple=True, metavar="ID", help="This finding does not count.")
@yield_at_option
@json_option
def sample_command(
    file: str,
    scheduler: str,
    runs_count: int,
    kernel: str | None,
    seed: str,
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    yield_at: tuple[str, ...],
    as_json: bool,
) -> int:
    """How often does a scheduler hit? With 95 % (Wilson) intervals; `all` compares them.

    FILE is a .prog or FILE.py:function. Exit 0: never, which proves nothing. 1: it did.

    \b
    Example:  kfuzz sample corpus/races/2b-i-munlock.prog --scheduler all --runs 1000
    """
    subject: Subject
    if is_user_program(file):
        no_kernel(file, kernel)
        if yield_at:
            raise UserError(f"{file}: --yield-at is for .prog files")
        subject = user_subject(file)
        with user_errors(file):
            check_deterministic(subject)
    else:
        known_ids((*only, *ignore))
        program = with_yield_at(load(Path(file)), yield_at).bare()
        spec = parse_spec(kernel or program.kernel).text
        subject = ProgramSubject(program, spec, and_slow(only))
    names = SAMPLERS if scheduler == "all" else (scheduler,)
    profiled: list[Profile] = []

    def known() -> Profile:
        if not profiled:
            with user_errors(file):
                profiled.append(profile_of(subject.run(Default()).machine))
        return profiled[0]

    try:
        spellings = [expand(name, known) for name in names]
        for spelling in spellings:
            make_scheduler(spelling)
    except ProgError as error:
        raise UserError(str(error)) from None
    done: list[tuple[str, Sample, float]] = []
    try:
        for name, spelling in zip(names, spellings, strict=True):
            started = time.monotonic()
            with user_errors(file):
                result = sample(
                    subject,
                    None,
                    spelling,
                    runs_count,
                    seed,
                    frozenset(only),
                    frozenset(ignore),
                    progress=counter(name, runs_count),
                )
            done.append((name, result, max(1e-9, time.monotonic() - started)))
            if as_json:
                emit(_sampled(*done[-1][1:]))
    finally:  # Ctrl-C: what is complete is told
        if not as_json:
            _sample_table(file, done)
    return SHOWN if any(result.hits for _, result, _ in done) else OK


def _sampled(result: Sample, seconds: float) -> dict[str, Any]:
    intervals = {id: wilson(count, result.runs) for id, count in result.findings.items()}
    return {
        **asdict(result),
        "version": stamp(),
        "steps_per_run": result.steps_per_run,
        "interval": [round(bound, 6) for bound in wilson(result.hits, result.runs)],
        "intervals": {id: [round(bound, 6) for bound in both] for id, both in intervals.items()},
        "expected_runs": {
            id: expected_runs(count, result.runs) for id, count in result.findings.items()
        },
        "runs_per_second": round(result.runs / seconds, 1),
        "steps_per_second": round(result.steps / seconds),
    }


def _sample_table(file: str, done: list[tuple[str, Sample, float]]) -> None:
    """A table for each finding, a line for each scheduler; then what each one costs."""
    if not done:
        return
    click.echo(f"on {done[0][1].kernel or file}, probability of a hit in one run, 95 % intervals")
    ids = sorted({id for _, result, _ in done for id in result.findings})
    for id in ids or ["anything"]:
        click.echo(f"\n{id}")
        for line in table([(name, r.findings.get(id, 0), r.runs) for name, r, _ in done]):
            click.echo(f"  {line}")
    click.echo("\ncost")
    width = max(len(name) for name, _, _ in done)
    for name, result, seconds in done:
        click.echo(
            f"  {name:{width}}  {result.steps_per_run:.0f} steps a run, "
            f"{result.runs / seconds:.0f} runs/s, {result.steps / seconds:.0f} steps/s"
        )


@cli.command("minimize")
@subject_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here, not to stdout.")
@click.option("--only", metavar="ID", help="The finding to keep; by default the first one shown.")
@kernel_option()
@schedule_option
@json_option
def minimize_command(
    file: str,
    output: Path | None,
    only: str | None,
    kernel: str | None,
    schedule_file: Path | None,
    as_json: bool,
) -> int:
    """Make a reproducer smaller: operations, tasks, turns, machine. Stopped, it gives what it has.

    Of FILE.py:function just the faults and turns: none that is left can be left out.

    \b
    Example:  kfuzz minimize crashes/mlocked-page-leak-0123abcd/repro.prog -o small.prog
              kfuzz minimize mine.py:lost_update -o turns
    """
    signals: Signals | None = None
    if is_user_program(file):
        no_kernel(file, kernel)
        with user_errors(file):
            id, text, runs, what = _minimise_turns(user_subject(file), file, only, schedule_file)
    else:
        if schedule_file is not None:
            raise UserError(f"{file}: --schedule is for FILE.py:function: a .prog has its own")
        signals = Signals()
        stopped = signals.stopped
        id, text, runs, what = _minimise_program(Path(file), only, kernel, stopped)
    if output is not None:
        try:
            write_atomically(output, text)
        except OSError as error:
            raise UserError(f"{output}: {error.strerror}") from None
    if as_json:
        emit({"file": file, "id": id, "runs": runs, "program": text})
    elif output is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"{output}: {id} with {what}, after {runs} runs")
    return signals.status if signals and signals.number else OK


def _minimise_turns(
    subject: MachineSubject, file: str, only: str | None, schedule_file: Path | None
) -> tuple[str, str, int, str]:
    """(finding, text, runs, how much is left)."""
    if schedule_file is not None:
        faults, turns = _schedule(schedule_file)
        shown = list(subject.with_faults(faults).run(Replay(turns)).findings)
        id = only or (shown[0] if shown else None)
    else:
        faults, turns, id = _shown_by(subject, only)
    if id is None:
        raise UserError(f"{file}: no run is known that shows {only or 'anything'}")
    minimal = minimise_schedule(subject, faults, turns, id)
    if minimal is None:
        raise UserError(f"{schedule_file}: does not show {id}")
    faults, least, runs = minimal
    return id, print_schedule(faults, least), runs, f"{len(least)} turns"


def _minimise_program(
    file: Path, only: str | None, kernel: str | None, stop: Callable[[], bool]
) -> tuple[str, str, int, str]:
    known_ids([only] if only else [])
    program = load(file)
    if kernel is not None:
        program = replace(program, kernel=kernel)
    outcome = run(program)
    if not outcome.findings:
        raise UserError(f"{file}: shows nothing on {outcome.kernel}: nothing to keep")
    id = only or outcome.findings[0].id
    minimal = minimise(program, id, stop=stop)
    if minimal is None:
        raise UserError(f"{file}: does not show {id} on {outcome.kernel}")
    operations = minimal.program.operations_count()
    what = f"{operations} operations, {len(minimal.program.schedule or ())} turns"
    return id, print_program(minimal.program), minimal.runs, what

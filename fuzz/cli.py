"""The command line: `kfuzz`. What each command prints with --json stands in JSON.md."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from random import Random
from textwrap import indent
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from fuzz import bench as benches
from fuzz.bench_frontrun import NotInstalled
from fuzz.campaign.driver import Driver, Found, Options, Status, check_writable, load_corpus
from fuzz.campaign.growth import Growth
from fuzz.campaign.workers import run_workers
from fuzz.corpus import TEXT_ROWS, Race, program_files, races_folder, read_program, read_race
from fuzz.crash import write_atomically
from fuzz.datarace import DataRace, spell, watched_data_races
from fuzz.explore import explore
from fuzz.findings import FINDINGS, title
from fuzz.minimise import minimise, minimise_turns
from fuzz.oracles import and_slow
from fuzz.pairs import measure
from fuzz.prog.prog import ProgError, Program, TurnSpec
from fuzz.prog.text import parse_turns, print_program, print_turns
from fuzz.replay import Replayed, replay_file, trace_lines
from fuzz.report.diagram import diagram, machine_diagram
from fuzz.run import Outcome, run
from fuzz.sample import Sample, expected_runs, sample, table, wilson
from fuzz.schedulers import SAMPLERS, Default, Profile, Replay, expand, make_scheduler, profile_of
from fuzz.subject import MachineSubject, NotDeterministic, ProgramSubject, SetupError, Subject
from fuzz.userfile import BadFile, is_user_program, user_program
from fuzz.version import model_hash, package_version
from kstate.machine import ModelError, points_met
from kstate.machine.points import point_by_number
from kstate.patches import TABLE, SpecError, parse_spec
from kstate.syscalls import OPERATIONS

PROGRESS_EVERY_S = 2.0
SHOW_RUNS_MAX = 20_000  # to find a run of a user's program that shows something
OK, SHOWN, USAGE, OURS, INTERRUPTED, TERMINATED = 0, 1, 2, 70, 130, 143
KERNEL_HELP = (
    "Kernel spec: v4.3 or v4.4, then +item or -item. Modelled in this version: "
    + ", ".join(patch.name for patch in TABLE if patch.modelled and patch.behaviour)
    + "; v4.4 means v4.3 with those of the series."
)


Command = TypeVar("Command", bound=Callable[..., Any])


class UserError(click.ClickException):
    """Bad input: one line, exit 2."""

    exit_code = USAGE


def emit(record: dict[str, Any]) -> None:
    """One JSON object on a line of its own."""
    click.echo(json.dumps(record, sort_keys=True))


def version_text() -> str:
    return f"kfuzz {package_version()}, format 1, model {model_hash()}"


def kernel_option(default: str | None = None) -> Callable[[Command], Command]:
    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            return parse_spec(value).text
        except SpecError as error:
            raise UserError(str(error)) from None

    return click.option("--kernel", default=default, callback=check, help=KERNEL_HELP)


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
file_argument = click.argument("file", type=click.Path(path_type=Path))


def user_subject(name: str) -> MachineSubject:
    """Of FILE.py:function."""
    try:
        return user_program(name)
    except BadFile as error:
        raise UserError(str(error)) from None


@contextmanager
def user_errors(name: str) -> Iterator[None]:
    """What a user's program can do wrong that is no finding."""
    try:
        yield
    except (SetupError, NotDeterministic) as error:
        kind = "not deterministic: " if isinstance(error, NotDeterministic) else ""
        raise UserError(f"{name}: {kind}{error}") from None


def no_kernel(name: str, kernel: str | None) -> None:
    if kernel is not None:
        raise UserError(f"{name}: --kernel is for .prog files: this program has no kernel")


def load(path: Path) -> Program:
    try:
        return read_program(path)
    except ProgError as error:
        raise UserError(error.at(str(path))) from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version_text(), message="%(version)s")
def cli() -> None:
    """Find, replay, draw and minimise page-migration races in a model of Linux v4.3 and v4.4."""


# ---- run -----------------------------------------------------------------------------------------


@cli.command("run")
@kernel_option("v4.3")
@click.option("--time", "time_s", type=click.FloatRange(min=0.1), help="Stop after S seconds.")
@click.option("--runs", "runs_max", type=click.IntRange(min=1), help="Stop after N runs.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option(
    "--corpus", type=click.Path(path_type=Path), help="Read programs here, keep new ones."
)
@click.option("--crashes", type=click.Path(path_type=Path), help="Write crash folders here.")
@click.option("--seed", default="0", show_default=True, help="Same seed, same campaign.")
@click.option("--only", multiple=True, metavar="ID", help="Only this finding counts.")
@click.option("--ignore", multiple=True, metavar="ID", help="This finding does not count.")
@json_option
def run_command(
    kernel: str,
    time_s: float | None,
    runs_max: int | None,
    jobs: int,
    corpus: Path | None,
    crashes: Path | None,
    seed: str,
    only: tuple[str, ...],
    ignore: tuple[str, ...],
    as_json: bool,
) -> int:
    """Fuzz a kernel: make up programs and schedules, keep what behaves in new ways.

    Exit 0: nothing found. 1: something found. With --runs and --jobs 1 the same seed gives the
    same corpus and crashes, byte for byte.

    \b
    Example:  kfuzz run --kernel v4.3 --time 60 --crashes crashes
    """
    if time_s is None and runs_max is None:
        time_s = 60.0
    known_ids((*only, *ignore))
    bad: list[str] = []
    initial: tuple[Program, ...] = ()
    for folder in filter(None, (crashes, corpus)):
        try:
            check_writable(folder)
        except OSError as error:
            raise UserError(f"{folder}: cannot write there: {error.strerror}") from None
    if corpus is not None:
        initial = load_corpus(corpus, bad.append)
        for line in bad:
            click.echo(f"kfuzz: {line}", err=True)
    options = Options(
        kernel, seed, time_s, runs_max, corpus, crashes, frozenset(ignore), frozenset(only)
    )
    found: dict[str, Found] = {}
    status = Status()
    signalled: list[int] = []
    driver = Driver(options, initial)

    def stop(number: int, frame: FrameType | None) -> None:
        signalled.append(number)
        driver.stop()
        if len(signalled) > 1:
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    events = driver.events() if jobs == 1 else run_workers(driver, initial, jobs)
    for event in events:
        if isinstance(event, Status):
            status = event
            if as_json:
                emit({"event": "status", **_status(event)})
            elif sys.stderr.isatty() or int(event.elapsed_s) % 10 < 2:
                click.echo(_status_line(event), err=True)
        else:
            if event.minimised:
                found.pop(event.replaces, None)
                found[event.name] = event
            if as_json:
                emit({"event": "finding", **_found(event)})
            else:
                what = "smallest" if event.minimised else "found"
                place = event.folder or event.name
                click.echo(f"{what}: {event.id}  {title(event.id)}  {place}", err=True)
    if as_json:
        emit({"event": "summary", **_status(status), "crashes": sorted(found)})
    else:
        _summary(status, found)
    if signalled:
        return INTERRUPTED if signalled[0] == signal.SIGINT else TERMINATED
    if bad:
        return USAGE
    return SHOWN if status.counts else OK


def _status(status: Status) -> dict[str, Any]:
    record = asdict(status)
    record["elapsed_s"] = round(status.elapsed_s, 3)
    record["first_hit"] = {
        id: {"runs": runs, "seconds": round(seconds, 3)}
        for id, (runs, seconds) in status.first_hit.items()
    }
    record["strategies"] = {
        name: {**asdict(found), "per_thousand_steps": found.per_thousand_steps}
        for name, found in status.strategies.items()
    }
    return record


def _status_line(status: Status) -> str:
    rate = status.runs / status.elapsed_s if status.elapsed_s else 0
    hits = ", ".join(f"{id} x{count}" for id, count in sorted(status.counts.items()))
    return (
        f"{status.elapsed_s:6.0f}s  {status.runs} runs ({rate:.0f}/s)  corpus {status.corpus}  "
        f"features {status.features}  {hits or 'nothing yet'}"
    )


def _strategy_lines(status: Status) -> list[str]:
    strategies = status.strategies
    total = max(1, sum(mine.steps for mine in strategies.values()))
    width = max((len(name) for name in strategies), default=0)
    return [
        f"{name:{width}}  {100 * mine.steps / total:3.0f} %  {mine.news:5} new, "
        f"{mine.per_thousand_steps:.2f} per thousand"
        for name, mine in sorted(strategies.items(), key=lambda item: -item[1].steps)
    ]


def _found(event: Found) -> dict[str, Any]:
    return {
        "id": event.id,
        "title": title(event.id),
        "name": event.name,
        "folder": str(event.folder) if event.folder else None,
        "minimised": event.minimised,
        "replaces": event.replaces,
        "operations": event.program.operations_count(),
        "program": print_program(event.program),
    }


def _summary(status: Status, found: dict[str, Found]) -> None:
    click.echo(_status_line(status).strip())
    click.echo("strategies, by share of steps; new behaviours per thousand steps:")
    for line in _strategy_lines(status):
        click.echo(f"  {line}")
    shown: set[str] = set()
    for event in found.values():
        if event.id in shown:
            continue
        shown.add(event.id)
        runs, seconds = status.first_hit.get(event.id, (0, 0.0))
        click.echo(f"\n==== {event.id}: {title(event.id)}")
        click.echo(
            f"first after {runs} runs, {seconds:.1f} s; seen {status.counts[event.id]} times\n"
        )
        click.echo(diagram(event.program)[0])
        if event.folder is not None:
            click.echo(f"replay it:  kfuzz replay {event.folder}/repro.prog")
    if not status.counts:
        click.echo("nothing found: a sample, no proof of absence")


# ---- replay, show --------------------------------------------------------------------------------


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
    unexpected = bad = False
    for path in files_below(paths):
        try:
            program = load(path)
        except UserError as error:
            click.echo(f"kfuzz: {error.message}", err=True)
            bad = True
            continue
        for result in replay_file(program, kernel, expect_id, stop_at if use_pdb else None):
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


def files_below(paths: Iterable[Path]) -> list[Path]:
    """Every program file named, or below a folder named."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: No such file or directory")
        found = program_files(path)
        if not found:
            raise UserError(f"{path}: no .prog file in it")
        files += found
    return files


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
            turns = _turns(schedule_file) if schedule_file else _shown_by(subject, None)[0]
            text, ran = machine_diagram(subject, turns, file)
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


def _turns(path: Path) -> tuple[TurnSpec, ...]:
    try:
        return parse_turns(path.read_text("utf-8"))
    except ProgError as error:
        raise UserError(error.at(str(path))) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not text") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _shown_by(subject: MachineSubject, only: str | None) -> tuple[tuple[TurnSpec, ...], str | None]:
    """The turns of a run with few preemptions that shows something, and what; else of the default
    run, and None."""
    for preemptions in (0, 1, 2, None):
        found = explore(
            subject,
            preemptions=preemptions,
            only=only,
            stop_at_first=True,
            runs_max=SHOW_RUNS_MAX,
        )
        for id, turns in found.findings.items():
            return turns, id
    return (), None


# ---- sample, minimize, fmt -----------------------------------------------------------------------


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
@json_option
def sample_command(
    file: str,
    scheduler: str,
    runs_count: int,
    kernel: str | None,
    seed: str,
    only: tuple[str, ...],
    ignore: tuple[str, ...],
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
        subject = user_subject(file)
    else:
        known_ids((*only, *ignore))
        program = load(Path(file)).bare()
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
                    progress=_progress(name, runs_count),
                )
            done.append((name, result, max(1e-9, time.monotonic() - started)))
            if as_json:
                emit(_sampled(*done[-1][1:]))
    finally:  # Ctrl-C: what is complete is told
        if not as_json:
            _sample_table(file, done)
    return SHOWN if any(result.hits for _, result, _ in done) else OK


def _progress(name: str, total: int, unit: str = "runs") -> Callable[[int], None]:
    """Tells how far it is, on stderr, every other second. Ctrl-C ends it here, between two runs:
    raised within a run it would have to unwind every task."""
    last = [time.monotonic()]
    interrupted: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.append(number)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    signal.signal(signal.SIGINT, interrupt)

    def tell(done: int) -> None:
        if interrupted:
            raise KeyboardInterrupt
        if time.monotonic() - last[0] >= PROGRESS_EVERY_S:
            last[0] = time.monotonic()
            click.echo(f"{name}: {done} of {total} {unit}", err=True)

    return tell


def _sampled(result: Sample, seconds: float) -> dict[str, Any]:
    intervals = {id: wilson(count, result.runs) for id, count in result.findings.items()}
    return {
        **asdict(result),
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
    """Make a reproducer smaller: operations, tasks, turns, machine.

    Of FILE.py:function just the turns: none that is left can be left out.

    \b
    Example:  kfuzz minimize crashes/mlocked-page-leak-0123abcd/repro.prog -o small.prog
              kfuzz minimize mine.py:lost_update -o turns
    """
    if is_user_program(file):
        no_kernel(file, kernel)
        with user_errors(file):
            id, text, runs, what = _minimise_turns(user_subject(file), file, only, schedule_file)
    else:
        if schedule_file is not None:
            raise UserError(f"{file}: --schedule is for FILE.py:function: a .prog has its own")
        id, text, runs, what = _minimise_program(Path(file), only, kernel)
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
    return OK


def _minimise_turns(
    subject: MachineSubject, file: str, only: str | None, schedule_file: Path | None
) -> tuple[str, str, int, str]:
    """(finding, text, runs, how much is left)."""
    if schedule_file is not None:
        turns = _turns(schedule_file)
        shown = list(subject.run(Replay(turns)).findings)
        id = only or (shown[0] if shown else None)
    else:
        turns, id = _shown_by(subject, only)
    if id is None:
        raise UserError(f"{file}: no run is known that shows {only or 'anything'}")
    minimal = minimise_turns(subject, turns, id)
    if minimal is None:
        raise UserError(f"{schedule_file}: does not show {id}")
    least, runs = minimal
    return id, print_turns(least), runs, f"{len(least)} turns"


def _minimise_program(
    file: Path, only: str | None, kernel: str | None
) -> tuple[str, str, int, str]:
    known_ids([only] if only else [])
    program = load(file)
    if kernel is not None:
        program = replace(program, kernel=kernel)
    outcome = run(program)
    if not outcome.findings:
        raise UserError(f"{file}: shows nothing on {outcome.kernel}: nothing to keep")
    id = only or outcome.findings[0].id
    minimal = minimise(program, id)
    if minimal is None:
        raise UserError(f"{file}: does not show {id} on {outcome.kernel}")
    operations = minimal.program.operations_count()
    what = f"{operations} operations, {len(minimal.program.schedule or ())} turns"
    return id, print_program(minimal.program), minimal.runs, what


@cli.command("fmt")
@file_argument
@click.option("-w", "--write", is_flag=True, help="Rewrite the file instead of printing.")
@json_option
def fmt_command(file: Path, write: bool, as_json: bool) -> int:
    """Print a program in its canonical form; comments stay.

    \b
    Example:  kfuzz fmt mine.prog
    """
    text = print_program(load(file))
    if write:
        try:
            write_atomically(file, text)
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}") from None
    if as_json:
        emit({"file": str(file), "program": text})
    elif not write:
        click.echo(text, nl=False)
    return OK


# ---- lists ---------------------------------------------------------------------------------------


@cli.command("races")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@json_option
def races_command(folder: Path | None, as_json: bool) -> int:
    """List the race files: what each is about, where it shows, where it does not.

    \b
    Example:  kfuzz races
    """
    races = _races(folder)
    for race in races:
        if as_json:
            emit(asdict(race))
        else:
            click.echo(f"{race.id:14} {race.needs:7} {race.finding:26} {race.title}")
            click.echo(
                f"{'':14} shows on {', '.join(race.shows_on) or 'none'}; "
                f"not on {', '.join(race.absent_on) or 'none'}; {race.source}"
            )
    return OK


def _races(folder: Path | None) -> list[Race]:
    try:
        where = folder or races_folder()
        races = [read_race(path) for path in program_files(where)]
        return races if folder else [*races, *TEXT_ROWS]
    except ProgError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from None


@cli.command("findings")
@json_option
def findings_command(as_json: bool) -> int:
    """List finding ids: meaning, source, what is not checked.

    \b
    Example:  kfuzz findings
    """
    for info in FINDINGS.values():
        if as_json:
            emit(asdict(info))
        else:
            click.echo(f"{info.id}\n    {info.title}  [{info.source}]")
            if info.not_checked:
                click.echo(f"    not checked: {info.not_checked}")
    return OK


@cli.command("points")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@json_option
def points_command(paths: tuple[Path, ...], as_json: bool) -> int:
    """List yield points: every place where the runs of these files can be interrupted.

    Without files: those of the race files. Globs over these names are for `yield-at:`.

    \b
    Example:  kfuzz points | grep mlock_vma_page
    """
    for path in files_below(paths or (races_folder(),)):
        for _ in replay_file(load(path), None, None, None, enumerate_absent=False):
            pass
    for point in points_met():
        if as_json:
            emit({"name": point.name, "access": point.primitive.access})
        else:
            click.echo(point.name)
    return OK


@cli.command("ops")
@json_option
def ops_command(as_json: bool) -> int:
    """List operations: arguments, kernel source, return values.

    \b
    Example:  kfuzz ops
    """
    for operation in OPERATIONS.values():
        if as_json:
            record = asdict(operation)
            del record["call"]
            emit(record)
        else:
            usage = " ".join([operation.name, *operation.arguments])
            click.echo(f"{usage}\n    {operation.summary}  [{operation.source}]")
            click.echo(f"    returns {operation.returns}")
    return OK


@cli.command("pairs")
@kernel_option("v4.3")
@click.option(
    "--runs",
    "runs_count",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Runs spent on growing sequential tests to measure in.",
)
@click.option("--rows", "rows_count", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--seed", default="0", show_default=True)
@json_option
def pairs_command(kernel: str, runs_count: int, rows_count: int, seed: str, as_json: bool) -> int:
    """List pairs of operations that can conflict, rarest first: measured, not written down.

    Every operation is run alone from the states that short sequential tests lead to, and what it
    reads and writes there is compared. A pair that is not listed was not seen to conflict.

    \b
    Example:  kfuzz pairs --kernel v4.4
    """
    rng = Random(f"kfuzz pairs {seed}")
    tell = _progress("growing tests", runs_count)
    growth = Growth(kernel, rng)
    while growth.runs < runs_count:
        for _ in growth.round():
            pass
        tell(growth.runs)
    tests = [entry.program for entry in growth.corpus]
    index = measure(tests, rng, progress=_progress("measuring", len(tests), "tests"))
    if as_json:
        for name, use in sorted(index.uses.items()):
            emit({"event": "operation", "operation": name, **asdict(use)})
    else:
        click.echo(
            f"{len(tests)} states on {kernel}; in how many two operations conflict on a word"
        )
    rows = index.rarest_first()
    for seen, states, names, word in rows if as_json else rows[:rows_count]:
        places = index.pairs[names].places
        where = min((n, what) for what, n in places.items() if what[0] == word)[1][1]
        points = [point_by_number(number).name for _, number in where]
        if as_json:
            record = {"operations": names, "word": word, "conflicting": seen, "states": states}
            emit({"event": "pair", **record, "points": points})
        else:
            click.echo(f"{100 * seen / states:5.1f} %  {names[0]} | {names[1]}: {word}")
            for point in points:
                click.echo(f"{'':11}{point}")
    if not as_json and len(rows) > rows_count:
        click.echo(f"and {len(rows) - rows_count} more (--rows)")
    return OK


@cli.command("bench")
@click.argument("name", required=False)
@click.option("--salt", default="", help="find: another set of seeds.")
@click.option(
    "--keep",
    type=click.Path(dir_okay=False, path_type=Path),
    help="matrix, blind: add results to this file, and do not run again what is there.",
)
@json_option
def bench_command(name: str | None, salt: str, keep: Path | None, as_json: bool) -> int:
    """Measure something, by hand; without a name, list what.

    \b
    Example:  kfuzz bench steps
    """
    if name is None:
        for bench in benches.BENCHES.values():
            click.echo(f"{bench.__name__:8} {(bench.__doc__ or '').splitlines()[0]}")
        return OK
    if name not in benches.BENCHES:
        raise UserError(f"unknown bench {name!r}; known: {', '.join(benches.BENCHES)}")
    if salt and name != "find":
        raise UserError("--salt is for the bench 'find'")
    if keep is not None and name not in ("matrix", "blind"):
        raise UserError("--keep is for the benches 'matrix' and 'blind'")
    if keep is not None:
        try:
            benches.kept(keep)
        except ValueError as error:
            raise UserError(str(error)) from None
    ok = True
    try:
        for record in benches.BENCHES[name](*[given for given in (salt, keep) if given]):
            ok = ok and bool(record.get("ok", True))
            if as_json:
                emit(record)
            else:
                click.echo("  ".join(f"{key}={value}" for key, value in record.items()))
    except NotInstalled as error:
        raise UserError(str(error)) from None
    return OK if ok else SHOWN


# ---- errors --------------------------------------------------------------------------------------


def known_ids(ids: Iterable[str]) -> None:
    """Refuse what is no finding id."""
    for id in ids:
        if id not in FINDINGS:
            raise UserError(f"unknown finding {id!r}; 'kfuzz findings' lists them")


def _our_fault(error: BaseException) -> NoReturn:
    """A mistake of ours: say where the traceback is, exit 70."""
    handle, name = tempfile.mkstemp(prefix="kfuzz-traceback-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(version_text() + "\n" + " ".join(sys.argv) + "\n\n")
        traceback.print_exception(error, file=file)
    click.echo(f"kfuzz: a bug of kfuzz itself ({type(error).__name__}): see {name}", err=True)
    raise SystemExit(OURS)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of `kfuzz`."""
    import_module("fuzz.cli_explore")
    import_module("fuzz.cli_reports")  # more commands; they need what is above, so they come last
    try:
        status = cli.main(args=arguments, prog_name="kfuzz", standalone_mode=False)
    except click.ClickException as error:
        message = " ".join(error.format_message().split())
        click.echo(f"kfuzz: {message}", err=True)
        raise SystemExit(USAGE) from None
    except (KeyboardInterrupt, click.Abort):
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(OK) from None
    except ModelError as error:
        _our_fault(error)
    except Exception as error:
        _our_fault(error)
    raise SystemExit(status if isinstance(status, int) else OK)

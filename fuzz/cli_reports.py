"""Commands that compare kernels or gather from many runs: `patch`, `bisect`, `locks`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fuzz.bisect import (
    ABSENT,
    IN_SERIES,
    RUNS_MAX,
    UNKNOWN,
    NothingShown,
    Row,
    Subject,
    bisect,
    changes,
    effects,
    search,
    subject_of,
)
from fuzz.cli import (
    OK,
    SHOWN,
    USAGE,
    UserError,
    cli,
    emit,
    file_argument,
    json_option,
    kernel_option,
    known_ids,
    load,
    load_each,
)
from fuzz.corpus import races_folder, read_program
from fuzz.explore import REFUTED, Exploration
from fuzz.locks import Survey, as_they_say, random_runs, survey
from fuzz.version import stamp
from kstate.patches import SpecError
from kstate.patchview import PatchView, view

UNDETERMINED = 3


@cli.command("patch")
@click.argument("name")
@kernel_option()
@json_option
def patch_command(name: str, kernel: str | None, as_json: bool) -> int:
    """Print a patch as a diff of our own files, its toggles folded away.

    A patch of the series is shown on top of those before it; a commit, mutant, alternative or fix
    on v4.4, or on v4.3 where it is not there on v4.4; with --kernel, on that kernel.

    \b
    Example:  kfuzz patch P10
    """
    try:
        seen = view(name, kernel)
    except SpecError as error:
        raise UserError(str(error)) from None
    if as_json:
        emit(_patch(seen))
    else:
        click.echo(str(seen), nl=False)
    return OK


def _patch(seen: PatchView) -> dict[str, Any]:
    patch = seen.patch
    return {
        "patch": patch.name,
        "subject": patch.subject,
        "mail": patch.mail,
        "behaviour": patch.behaviour,
        "before": None if seen.before is None else seen.before.text,
        "after": None if seen.after is None else seen.after.text,
        "note": seen.note,
        "files": [
            {"file": file.file, "functions": list(file.functions), "diff": file.diff}
            for file in seen.files
        ],
    }


@cli.command("bisect")
@file_argument
@click.option("--only", metavar="ID", help="The finding; by default what the file expects.")
@click.option(
    "--preemptions",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Bound of the search where the schedule does not show it.",
)
@click.option(
    "--runs",
    "runs_max",
    type=click.IntRange(min=1),
    default=RUNS_MAX,
    show_default=True,
    help="Limit of each search.",
)
@json_option
def bisect_command(
    file: Path, only: str | None, preemptions: int, runs_max: int, as_json: bool
) -> int:
    """Which patch of the series makes a finding vanish, or appear?

    The file's schedule is replayed on v4.3 with P01..Pk, k = 0..12, and with commits of before and
    after put out or in. Where it does not show the finding, schedules are searched, up to a bound.
    Exit 0: each kernel has a verdict. 3: some search was cut short.

    \b
    Example:  kfuzz bisect corpus/races/2b-i-munlock.prog
    """
    known_ids([only] if only else [])
    try:
        subject = subject_of(load(file), only)
    except NothingShown as error:
        raise UserError(f"{file}: {error}") from None
    if not as_json:
        click.echo(f"{subject.id}, shown on {subject.home}")
    rows = []
    for row in bisect(subject, preemptions, runs_max):
        rows.append(row)
        if as_json:
            emit({"event": "kernel", "file": str(file), "id": subject.id, **_row(row)})
        else:
            click.echo(f"  {row.verdict:9}{_kernel(row):30}  {row.how}")
    calibrated = None
    if any(row.search for row in rows if row.verdict == ABSENT):
        calibrated = search(subject, subject.home, preemptions, runs_max)
    if as_json:
        record = {
            "event": "summary",
            "version": stamp(),
            "file": str(file),
            "id": subject.id,
            "home": subject.home,
            "changes": [
                {
                    "shown": change.shown,
                    "kernel": change.kernel,
                    "patch": change.patch.name,
                    "subject": change.patch.subject,
                    "between": list(change.between),
                }
                for change in changes(rows)
            ],
            "effects": effects(rows),
            "search_finds_it": None if calibrated is None else calibrated.verdict == REFUTED,
        }
        emit(record)
    else:
        for line in [*map(str, changes(rows)), *effects(rows)]:
            click.echo(line)
        if not changes(rows):
            click.echo("no patch of the series changes it, as far as could be told")
        if calibrated is not None:
            click.echo(_calibration(subject, calibrated))
    return UNDETERMINED if any(row.verdict == UNKNOWN for row in rows) else OK


def _kernel(row: Row) -> str:
    """Along the series, what is added; else all of it."""
    return f"+{row.patch.name}" if row.part == IN_SERIES and row.patch else row.kernel


def _calibration(subject: Subject, found: Exploration) -> str:
    if found.verdict == REFUTED:
        return f"absent: within that bound, in which the search does find it on {subject.home}"
    return (
        f"absent says little: the same search does not find it on {subject.home} either "
        f"({found}); try --preemptions {(found.preemptions or 0) + 1}"
    )


def _row(row: Row) -> dict[str, Any]:
    return {
        "part": row.part,
        "kernel": row.kernel,
        "patch": row.patch.name if row.patch else None,
        "verdict": row.verdict,
        "how": row.how,
        "followed": row.followed,
        "search": row.search,
    }


@cli.command("locks")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@kernel_option("v4.4")
@click.option(
    "--random",
    "random_count",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Also run N random programs.",
)
@click.option("--seed", default="0", show_default=True, help="Of the random programs.")
@click.option("--under", metavar="CLASS", help="Only what is taken with such a lock held: ptl.")
@click.option("--within", metavar="FUNCTION", help="Only what is taken in it or below it.")
@json_option
def locks_command(
    paths: tuple[Path, ...],
    kernel: str,
    random_count: int,
    seed: str,
    under: str | None,
    within: str | None,
    as_json: bool,
) -> int:
    """Which locks are taken under which, and does that agree with the documented order?

    Runs files, by default the race files, on one kernel. Exit 0: no cycle, no inversion, which
    speaks of these runs. 1: there is one.

    \b
    Example:  kfuzz locks --under ptl --within mlock_vma_page --random 500
    """
    bad: list[str] = []
    loaded = load_each(paths or (races_folder(),), bad, read_program)
    programs = [program for _, program in loaded]
    planned = [*as_they_say(programs), *random_runs(random_count, seed, kernel)]
    result = survey(planned, kernel, under=under, within=within)
    if under is not None and under not in result.classes:
        known = ", ".join(sorted(result.classes))
        raise UserError(f"no lock of class {under!r} was taken in these runs; known: {known}")
    if within is not None and within not in result.functions:
        raise UserError(f"no lock was taken within {within!r} in these runs")
    if as_json:
        emit(_survey(result, kernel, under, within))
    else:
        _print_survey(result, kernel, under, within)
    if bad:
        return USAGE
    return SHOWN if result.violations else OK


def _print_survey(result: Survey, kernel: str, under: str | None, within: str | None) -> None:
    asked = [f"under {under}"] * (under is not None) + [f"within {within}"] * (within is not None)
    click.echo(f"{result.runs} runs on {kernel}" + "".join(f", {words}" for words in asked))
    heading = ""
    for taking, times in sorted(result.takings.items()):
        irqs = ", irqs off" if taking.irqs_off else ""
        words = f"  {taking.held} > {taking.taken}{irqs}: {taking.order}"
        if words != heading:
            click.echo(words)
        heading = words
        click.echo(f"    {times} times at {taking.at}")
    if not result.takings:
        click.echo("  none")
    for report in result.violations:
        click.echo(f"lock-order: {report.text}")
    if not result.violations:
        click.echo("no cycle, and nothing against the documented order, in all of these runs")


def _survey(result: Survey, kernel: str, under: str | None, within: str | None) -> dict[str, Any]:
    return {
        "version": stamp(),
        "kernel": kernel,
        "runs": result.runs,
        "under": under,
        "within": within,
        "taken": [
            {
                "held": taking.held,
                "taken": taking.taken,
                "at": taking.at,
                "irqs_off": taking.irqs_off,
                "tries": taking.tries,
                "times": times,
                "order": taking.order,
            }
            for taking, times in sorted(result.takings.items())
        ],
        "violations": [
            {"text": report.text, "where": report.where, "objects": list(report.objects)}
            for report in result.violations
        ],
    }

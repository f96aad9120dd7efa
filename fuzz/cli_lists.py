"""Commands that say what there is: `races`, `findings`, `points`, `ops`, `pairs`; and two more."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from random import Random

import click

from fuzz import bench as benches
from fuzz.bench_frontrun import NotInstalled
from fuzz.campaign.growth import Growth
from fuzz.cli import (
    OK,
    SHOWN,
    USAGE,
    UserError,
    cli,
    counter,
    emit,
    file_argument,
    json_option,
    kernel_option,
    load,
    load_each,
)
from fuzz.corpus import TEXT_ROWS, races_folder, read_program, read_race
from fuzz.crash import write_atomically
from fuzz.findings import FINDINGS
from fuzz.pairs import measure
from fuzz.prog.text import print_program
from fuzz.replay import replay_file
from kstate.machine import points_met
from kstate.machine.points import point_by_number
from kstate.syscalls import OPERATIONS


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


@cli.command("races")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@json_option
def races_command(folder: Path | None, as_json: bool) -> int:
    """List the race files: what each is about, where it shows, where it does not.

    \b
    Example:  kfuzz races
    """
    bad: list[str] = []
    where = folder or races_folder()
    races = [race for _, race in load_each([where], bad, read_race)]
    for race in races if folder else (*races, *TEXT_ROWS):
        if as_json:
            emit(asdict(race))
        else:
            click.echo(f"{race.id:14} {race.needs:7} {race.finding:26} {race.title}")
            click.echo(
                f"{'':14} shows on {', '.join(race.shows_on) or 'none'}; "
                f"not on {', '.join(race.absent_on) or 'none'}; {race.source}"
            )
    return USAGE if bad else OK


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
    bad: list[str] = []
    for _, program in load_each(paths or (races_folder(),), bad, read_program):
        for _ in replay_file(program, None, None, None, enumerate_absent=False):
            pass
    for point in points_met():
        if as_json:
            emit({"name": point.name, "access": point.primitive.access})
        else:
            click.echo(point.name)
    return USAGE if bad else OK


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
    tell = counter("growing tests", runs_count)
    growth = Growth(kernel, rng)
    while growth.runs < runs_count:
        for _ in growth.round():
            pass
        tell(growth.runs)
    tests = [entry.program for entry in growth.corpus]
    index = measure(tests, rng, progress=counter("measuring", len(tests), "tests"))
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
            summary = (bench.__doc__ or "").splitlines()[0]
            if as_json:
                emit({"name": bench.__name__, "summary": summary})
            else:
                click.echo(f"{bench.__name__:8} {summary}")
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

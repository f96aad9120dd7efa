"""The command `run`: a campaign."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import click

from fuzz.campaign.driver import (
    Driver,
    Event,
    Failed,
    Found,
    Lost,
    Options,
    Status,
    check_writable,
    load_corpus,
)
from fuzz.campaign.workers import run_workers
from fuzz.cli import (
    INTERRUPTED,
    OK,
    SECONDS,
    SHOWN,
    TERMINATED,
    USAGE,
    UserError,
    cli,
    emit,
    json_option,
    kernel_option,
    known_ids,
    on_terminal,
)
from fuzz.findings import title
from fuzz.prog.prog import Program
from fuzz.prog.text import print_program
from fuzz.report.diagram import diagram


@cli.command("run")
@kernel_option("v4.3")
@click.option("--time", "time_s", type=SECONDS, help="Stop after S seconds.")
@click.option(
    "--runs",
    "runs_max",
    type=click.IntRange(min=1),
    help="Stop after N runs, at the end of a round; what was found is made smaller after that.",
)
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
    anything, lost = False, 0
    failed: Exception | None = None
    for event in _until_failed(events):
        if isinstance(event, Failed):
            failed = event.error
        elif isinstance(event, Status):
            status = event
            if as_json:
                emit({"event": "status", **_status(event)})
            elif on_terminal() or int(event.elapsed_s) % 10 < 2:
                click.echo(_status_line(event), err=True)
        elif isinstance(event, Lost):
            lost += 1
            told = "a worker was killed; what it had found is on disk, the others go on"
            click.echo(f"kfuzz: {told} (seed {event.seed})", err=True)
        else:
            anything = True
            if event.minimised:
                found.pop(event.replaces, None)
                found[event.name] = event
            if as_json:
                emit({"event": "finding", **_found(event)})
            else:
                what = "reproducer" if event.minimised else "found"
                place = event.folder or event.name
                click.echo(f"{what}: {event.id}  {title(event.id)}  {place}", err=True)
    if as_json:
        emit({"event": "summary", **_status(status), "crashes": sorted(found)})
    else:
        _summary(status, found, anything)
    if failed is not None:
        raise failed
    if signalled:
        return INTERRUPTED if signalled[0] == signal.SIGINT else TERMINATED
    if lost == jobs and not anything:
        raise UserError("every worker was killed: nothing can be said")
    if bad:
        return USAGE
    return SHOWN if status.counts or anything else OK


def _until_failed(events: Iterator[Event]) -> Iterator[Event]:
    """A campaign that cannot go on, for the disk is full, still tells what it has found."""
    try:
        yield from events
    except Exception as error:
        yield Failed("", error)


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


def _summary(status: Status, found: dict[str, Found], anything: bool) -> None:
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
        seen = status.counts.get(event.id, 0)
        click.echo(f"first after {runs} runs, {seconds:.1f} s; seen {seen} times\n")
        click.echo(diagram(event.program)[0])
        if event.folder is not None:
            click.echo(f"replay it:  kfuzz replay {event.folder}/repro.prog")
    if not status.counts and not anything:
        click.echo("nothing found: a sample, no proof of absence")

"""`kfuzz bench NAME`: measurements, made by hand and quoted with their command. Never tests."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import greenlet
import multiprocess

from fuzz import bench_blind, bench_frontrun
from fuzz.campaign.driver import Driver, Options, Status
from fuzz.corpus import program_files, races_folder, read_program, read_race, shown_on
from fuzz.explore import EXHAUSTED, REFUTED, explore
from fuzz.oracles import ORACLES
from fuzz.prog.prog import Program
from fuzz.run import profile, run
from fuzz.sample import sampled_choices
from fuzz.schedulers import SAMPLERS, Default, Pct, RandomWalk, Replay, expand, make_scheduler
from fuzz.version import model_hash
from kstate.boot import boot
from kstate.machine import GREENLETS, THREADS, Choices, Machine, Scheduler
from kstate.machine.compiled import COMPILED
from kstate.machine.switch import Backend
from kstate.patches import CLEAN, parse_spec

Record = dict[str, Any]
REPEATS = 5
RUNS_PER_MEASUREMENT = 200
SMALL_MAX = 200  # schedules a race may have to be searched under all of them too
SAMPLER_SEEDS = 20
SAMPLER_RUNS_MAX = 500
SAMPLER_RUNS_TOTAL = 900_000  # where nothing is hit: about five minutes of two cores
FIND = ("mlocked-page-leak", "bug-newpage-trylock")


def steps() -> Iterator[Record]:
    """Cost of a step, in G: one bare greenlet round trip, two switches."""
    program = read_program(races_folder() / "2b-i-munlock.prog")
    bare = program.bare()
    k = profile(bare).steps
    g = min(_g() for _ in range(REPEATS))
    boot_s = min(_boot(bare) for _ in range(REPEATS))
    yield {"what": "kstate", "build": "compiled" if COMPILED else "pure"}
    yield {"what": "G", "us": round(g * 1e6, 3)}
    yield {
        "what": "boot without init",
        "us": round(boot_s * 1e6, 1),
        "G": round(boot_s / g, 1),
        "target_G": 60,
    }
    turns = program.schedule or ()
    cases: tuple[tuple[str, Callable[[], Scheduler], float | None], ...] = (
        ("replay", lambda: Replay(turns), None),
        ("pct(depth=3)", lambda: Pct(3, k), 0.8),
        ("random_walk at every step", RandomWalk, 2.0),
    )
    for name, make, target in cases:
        for backend, label in ((GREENLETS, "greenlets"), (THREADS, "threads")):
            plain = None
            for oracles in ((), ORACLES):
                cost, rate = _cost(bare, make, backend, bool(oracles), boot_s)
                record = {
                    "what": name,
                    "backend": label,
                    "oracles": len(oracles),
                    "us_per_step": round(cost * 1e6, 3),
                    "G_per_step": round(cost / g, 2),
                    "runs_per_second": round(rate),
                }
                if backend is GREENLETS and target is not None and not oracles:
                    record["target_G"] = target
                if oracles and plain:
                    record["times_without_oracles"] = round(cost / plain, 2)
                plain = cost
                yield record


def _g() -> float:
    home = greenlet.getcurrent()

    def bounce() -> None:
        while True:
            home.switch()

    other = greenlet.greenlet(bounce)
    other.switch()
    count = 50_000
    started = time.perf_counter()
    for _ in range(count):
        other.switch()
    return (time.perf_counter() - started) / count


def _boot(program: Program) -> float:
    toggles = parse_spec(program.kernel).toggles
    names = program.processes()
    count = 500
    started = time.perf_counter()
    for _ in range(count):
        boot(Machine(RandomWalk()), toggles, program.size, names).machine.forget()
    return (time.perf_counter() - started) / count


def _cost(
    program: Program, make: Callable[[], Scheduler], backend: Backend, oracles: bool, boot_s: float
) -> tuple[float, float]:
    """(seconds a step without boot, the trace hash included; runs a second): the best of some."""
    best, rate = float("inf"), 0.0
    count = RUNS_PER_MEASUREMENT if backend is GREENLETS else RUNS_PER_MEASUREMENT // 10
    for repeat in range(REPEATS):
        rng = Random(repeat)
        taken = 0
        gc.collect()
        started = time.perf_counter()
        for _ in range(count):
            outcome = run(
                program,
                None,
                make(),
                Choices(more=lambda rng=rng: rng.getrandbits(16)),  # type: ignore[misc]
                oracles=ORACLES if oracles else (),
                backend=backend,
            )
            assert outcome.trace_hash
            taken += outcome.steps
            outcome.machine.forget()
        elapsed = time.perf_counter() - started
        best = min(best, (elapsed - count * boot_s) / taken)
        rate = max(rate, count / elapsed)
    return best, rate


def find(salt: str = "") -> Iterator[Record]:
    """From nothing to both findings on v4.3, five seeds from HEAD, one core, an empty directory.

    salt: for other seeds. cpu_s: what a campaign took of a core, on a machine that is shared."""
    head = _head()
    times = []
    for number in range(5):
        seed = sha256(f"{head}{salt} {number}".encode()).hexdigest()
        cpu = time.process_time()
        with TemporaryDirectory() as folder:
            driver = Driver(Options("v4.3", seed, time_s=180, crashes=Path(folder)))
            status = Status()
            for event in driver.events():
                if set(FIND) <= set(driver.status.first_hit):
                    driver.stop()
                if isinstance(event, Status):
                    status = event
        firsts = {id: status.first_hit.get(id) for id in FIND}
        both = max((first[1] if first else 180.0) for first in firsts.values())
        times.append(both)
        yield {
            "seed": seed[:12],
            **{
                id: "not found" if first is None else f"{first[0]} runs, {first[1]:.1f} s"
                for id, first in firsts.items()
            },
            "both_s": round(both, 1),
            "cpu_s": round(time.process_time() - cpu, 1),
        }
    median = statistics.median(times)
    yield {"what": "median", "both_s": round(median, 1), "target_s": 20, "ok": median <= 20}


def _head() -> str:
    """HEAD's commit id, or what KFUZZ_HEAD says where there is no checkout."""
    said = os.environ.get("KFUZZ_HEAD")
    if said:
        return said
    result = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return result.stdout.strip() or "no checkout"


def clean() -> Iterator[Record]:
    """60 seconds on the clean kernel find nothing; on v4.4 what the race files say of it."""
    for kernel in (CLEAN, "v4.4"):
        status = Status()
        for event in Driver(Options(kernel, "clean", time_s=60)).events():
            if isinstance(event, Status):
                status = event
        yield {
            "kernel": kernel,
            "runs": status.runs,
            "findings": dict(sorted(status.counts.items())),
            "ok": set(status.counts) <= shown_on(kernel),
        }


def matrix(keep: Path | None = None) -> Iterator[Record]:
    """Every race with up to 2 preemptions, on every kernel that shows it or does not; all cores.

    The smallest under all schedules too. Shown where the file says so, absent where it says so, and
    on the clean kernel nothing at all.
    keep: records are added there; what is there already, of this model, is not run again."""
    jobs = [job for path in program_files(races_folder()) for job in _matrix_jobs(path)]
    known = {tuple(record["job"]): record for record in kept(keep)}
    left = [job for job in jobs if job not in known]
    counts = {True: 0, False: 0}
    with multiprocess.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        fresh = pool.imap(_matrix_row, left)
        for job in jobs:
            record = known.get(job)
            if record is None:
                record = next(fresh)
                _keep(keep, record)
            counts[record["ok"]] += 1
            yield {name: value for name, value in record.items() if name != "job"}
            sys.stdout.flush()
    yield {"what": "matrix", "as said": counts[True], "not": counts[False], "ok": not counts[False]}


def _keep(keep: Path | None, record: Record) -> None:
    """Add a record; what was cut short before stays a line of its own."""
    if keep is not None:
        with keep.open("a") as file:
            file.write(f"\n{json.dumps(record)}\n")


MatrixJob = tuple[str, str, str, str, str]  # file, kernel, finding or any, verdict, sources


def _matrix_jobs(path: Path) -> Iterator[MatrixJob]:
    race = read_race(path)
    sources = sha256(model_hash().encode() + path.read_bytes()).hexdigest()[:12]
    if race.needs != "SEQ" and race.finding:
        for kernel in race.shows_on:
            yield str(path), kernel, race.finding, REFUTED, sources
        for kernel in race.absent_on:
            if kernel != CLEAN:
                yield str(path), kernel, race.finding, EXHAUSTED, sources
    yield str(path), CLEAN, "", EXHAUSTED, sources


def kept(keep: Path | None) -> list[Record]:
    """Records of an earlier run; a line that was cut short is left out.

    Raises: ValueError: it has lines, but none is a record: some other file."""
    records: list[Record] = []
    lines = keep.read_text("utf-8").split("\n") if keep is not None and keep.exists() else []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "job" in record:
            records.append(record)
    if any(lines) and not records:
        raise ValueError(f"{keep} has no results of a bench in it; it is left alone")
    return records


def _matrix_row(job: MatrixJob) -> Record:
    file, kernel, id, wanted, _ = job
    program = read_program(Path(file))
    shown = wanted == REFUTED
    preemptions = read_race(Path(file)).preemptions
    result = explore(program, kernel, preemptions=preemptions, only=id or None, stop_at_first=shown)
    whole = explore(program, kernel, preemptions=None, only=id or None, runs_max=SMALL_MAX)
    small = whole.schedules < SMALL_MAX
    return {
        "file": Path(file).name,
        "kernel": "CLEAN" if kernel == CLEAN else kernel,
        "finding": id or "any",
        "verdict": str(result),
        "all": f"{whole.verdict} after {whole.schedules}" if small else f"more than {SMALL_MAX}",
        "findings": sorted(result.findings),
        "seconds": round(result.seconds + whole.seconds, 1),
        "ok": result.verdict == wanted and (whole.verdict == wanted or not small),
        "job": job,
    }


def frontrun() -> Iterator[Record]:
    """2b-i as a plain class of two threads: our explore against the package frontrun."""
    yield from bench_frontrun.compare()


def blind(keep: Path | None = None) -> Iterator[Record]:
    """How many mechanical mutants of the model, drawn by HEAD, a campaign and explore kill.

    keep: as for the matrix; KFUZZ_HEAD says whose mutants where HEAD has moved on."""
    yield from bench_blind.blind(_head(), kept(keep), lambda record: _keep(keep, record))


def samplers() -> Iterator[Record]:
    """Median runs to first hit of each racy file under each sampler, 20 seeds. Both cores."""
    races = [
        (str(path), *wanted) for path in program_files(races_folder()) if (wanted := _racy(path))
    ]
    cells = len(races) * len(SAMPLERS)
    runs_max = max(1, min(SAMPLER_RUNS_MAX, SAMPLER_RUNS_TOTAL // (SAMPLER_SEEDS * max(1, cells))))
    jobs = [(*race, name, runs_max) for race in races for name in SAMPLERS]
    with multiprocess.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        medians = pool.imap(_runs_to_hit, jobs)
        for file, kernel, id in races:
            record = {"file": Path(file).name, "kernel": kernel, "finding": id}
            for name in SAMPLERS:
                record[name] = next(medians)
            yield record
            sys.stdout.flush()
    yield {"what": "median runs to first hit", "seeds": SAMPLER_SEEDS, "runs_max": runs_max}


def _racy(path: Path) -> tuple[str, str] | None:
    """(kernel, finding) a file expects, if its default run does not show it on its own."""
    program = read_program(path)
    for expect in program.expects:
        if not expect.absent:
            shown = run(program.bare(), expect.kernel, Default(), Choices())
            return None if expect.id in shown.ids else (expect.kernel, expect.id)
    return None


def _runs_to_hit(job: tuple[str, str, str, str, int]) -> float | str:
    """The median over the seeds. All advance together, so nothing is run once it is known."""
    file, kernel, id, name, runs_max = job
    program = read_program(Path(file)).bare()
    scheduler = make_scheduler(expand(name, lambda: profile(program, kernel)))
    firsts: list[int] = []
    waiting = list(range(SAMPLER_SEEDS))
    for number in range(1, runs_max + 1):
        for seed in list(waiting):
            outcome = run(program, kernel, scheduler, sampled_choices(seed, number))
            if id in outcome.ids:
                waiting.remove(seed)
                firsts.append(number)
        if len(firsts) > SAMPLER_SEEDS // 2:
            return statistics.median(firsts + [runs_max + 1] * len(waiting))
    return f"> {runs_max}"


BENCHES: dict[str, Callable[..., Iterator[Record]]] = {
    "steps": steps,
    "find": find,
    "clean": clean,
    "matrix": matrix,
    "samplers": samplers,
    "frontrun": frontrun,
    "blind": blind,
}

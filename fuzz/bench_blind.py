"""`kfuzz bench blind`: how many mechanical mutants of the model does a campaign kill, and explore?

Each mutant gets a tree of its own and, on CLEAN, where nothing must be found: a campaign of 60
seconds from nothing; a search with at most one preemption of a neutral set of programs, grown
beforehand on the model as it is; and, where neither kills it, the same search of the race files.
Killed is what shows a finding, or ends in an exception. Killable is what any of these has killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import multiprocess

import kstate
from fuzz.campaign.driver import Driver, Found, Options
from fuzz.corpus import program_files, races_folder, read_program
from fuzz.explore import explore
from fuzz.mutants import OPERATORS, REACHED, Mutant, chosen
from fuzz.pairs import resident_partner, residents
from fuzz.prog.text import print_program
from kstate.patches import CLEAN
from kstate.syscalls import OPERATIONS

Record = dict[str, Any]
MUTANTS = 60
CAMPAIGN_S = 60.0
SEARCH_S = 60.0
NEUTRAL_RUNS = 6000  # of the campaign that grows the neutral set
NEUTRAL_PROGRAMS = 300
CAMPAIGN, NEUTRAL, RACES = "campaign", "neutral", "races"
REACHED_SOURCE = """import atexit
import os

hits = 0


def hit() -> None:
    global hits
    hits += 1


atexit.register(lambda: open(os.environ["KFUZZ_REACHED"], "w").write(str(hits)))
"""


@dataclass(frozen=True)
class Job:
    mutant: Mutant
    programs: Path
    seed: str


def blind(head: str, known: Sequence[Record], keep: Callable[[Record], None]) -> Iterator[Record]:
    """A record a mutant, then the rates. head: what the mutants and the campaign are drawn by.

    known: records of an earlier run; those of these mutants are not measured again. keep: told
    each record that is new."""
    mutants = chosen(Path(kstate.__file__).parent / "mm", MUTANTS, head)
    done = {record["job"]: record for record in known}
    with TemporaryDirectory() as folder:
        programs = Path(folder)
        _grow(programs, head)
        jobs = [Job(mutant, programs, head) for mutant in mutants if str(mutant) not in done]
        records = []
        with multiprocess.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
            fresh = pool.imap(_measure, jobs)
            for mutant in mutants:
                record = done.get(str(mutant))
                if record is None:
                    record = next(fresh)
                    keep(record)
                records.append(record)
                yield {name: value for name, value in record.items() if name != "job"}
    yield from _rates(records)


def _rates(records: list[Record]) -> Iterator[Record]:
    for operator in (*OPERATORS, "all"):
        mine = [record for record in records if operator in (record["operator"], "all")]
        killable = [r for r in mine if any(r[how] for how in (CAMPAIGN, NEUTRAL, RACES))]
        yield {
            "what": operator,
            "mutants": len(mine),
            "killable": len(killable),
            "campaign": sum(bool(record[CAMPAIGN]) for record in killable),
            "explore": sum(bool(record[NEUTRAL]) for record in killable),
        }


def _grow(folder: Path, seed: str) -> None:
    """The neutral set: tests from the corpus of a campaign on the model as it is, each with a
    random operation of one of its processes beside it."""
    corpus = folder / "corpus"
    for _ in Driver(Options(CLEAN, seed, runs_max=NEUTRAL_RUNS, corpus=corpus)).events():
        pass
    every = [read_program(path).bare() for path in program_files(corpus)]
    tests = [test for test in every if residents(test)]
    shutil.rmtree(corpus)
    rng = Random(seed)
    for number in range(NEUTRAL_PROGRAMS):
        test = rng.choice(tests)
        beside = resident_partner(rng, test, rng.choice(sorted(OPERATIONS)))
        program = replace(test, tasks=(*test.tasks[:1], (beside,)))
        (folder / f"{number:03}.prog").write_text(print_program(program))


def _measure(job: Job) -> Record:
    mutant = job.mutant
    record: Record = {
        "job": str(mutant),
        "operator": mutant.operator,
        "place": f"{mutant.file}:{mutant.line} {mutant.function}",
        "was": mutant.was,
        "reached": 0,
    }
    with TemporaryDirectory() as folder:
        tree = Path(folder)
        shutil.copytree(
            Path(kstate.__file__).parent,
            tree / "kstate",
            ignore=shutil.ignore_patterns("__pycache__", "*.so"),
        )
        (tree / "kstate" / mutant.file).write_text(mutant.source)
        (tree / Path(*REACHED.split(".")).with_suffix(".py")).write_text(REACHED_SOURCE)
        for how in (CAMPAIGN, NEUTRAL, RACES):
            record[how] = ""
            if how == RACES and (record[CAMPAIGN] or record[NEUTRAL]):
                continue
            record[how], seconds, hits = attempt(tree, how, job)
            record[f"{how}_s"] = round(seconds, 1)
            record["reached"] += hits
    return record


def attempt(tree: Path, how: str, job: Job) -> tuple[str, float, int]:
    """(what killed it or nothing, seconds, how often the place was reached)."""
    count = tree / "reached"
    paths = [str(tree), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "KFUZZ_REACHED": str(count),
    }
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.bench_blind", how, str(job.programs), job.seed],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tree,
    )
    seconds = time.monotonic() - started
    hits = int(count.read_text()) if count.exists() else 0
    if done.returncode != 0:
        last = (done.stderr.strip().split("\n") or [""])[-1]
        return f"exception: {last[:80]}", seconds, hits
    found = json.loads(done.stdout)["found"]
    return str(found), seconds, hits


def _campaign(seed: str) -> str:
    driver = Driver(Options(CLEAN, seed, time_s=CAMPAIGN_S))
    found = ""
    for event in driver.events():
        if isinstance(event, Found):
            found = found or event.id
        elif driver.status.counts:
            found = found or min(driver.status.counts)
        if found:
            driver.stop()
    return found


def _search(folder: Path) -> str:
    started = time.monotonic()
    for path in program_files(folder):
        result = explore(
            read_program(path),
            CLEAN,
            preemptions=1,
            stop_at_first=True,
            stop=lambda _: time.monotonic() - started > SEARCH_S,
        )
        if result.findings:
            return min(result.findings)
    return ""


def main() -> None:
    """In a mutant's tree: campaign | neutral | races, the neutral programs, the seed."""
    how, programs, seed = sys.argv[1:]
    if how == CAMPAIGN:
        found = _campaign(seed)
    else:
        found = _search(Path(programs) if how == NEUTRAL else races_folder())
    print(json.dumps({"found": found}))


if __name__ == "__main__":
    main()

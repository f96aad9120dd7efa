"""Same program + kernel + scheduler + choices -> same event stream, everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from fuzz.campaign.driver import Driver, Options
from fuzz.explore import explore
from fuzz.prog import parse
from fuzz.prog.generate import generate
from fuzz.prog.prog import Program
from fuzz.replay import replay_file
from fuzz.run import run
from fuzz.schedulers import Pct, RandomWalk
from fuzz.turns import write_down
from kstate.machine import GREENLETS, THREADS, Choices, Scheduler
from kstate.machine.switch import Backend

RUNS = 1000
KERNELS = ("v4.3", "v4.4", "v4.3+alt:single-page-munlock", "v4.4+70feee0e1ef3")


def numbered(number: int) -> tuple[Program, Scheduler, Choices]:
    """The same random program, scheduler and draws for a number, everywhere."""
    rng = Random(f"determinism {number}")
    program = generate(rng, KERNELS[number % len(KERNELS)])
    scheduler = RandomWalk(1 + number % 7) if number % 2 else Pct(1 + number % 4, 300)
    return program, scheduler, Choices([rng.getrandbits(16) for _ in range(400)])


def hashes(
    numbers: range, *, backend: Backend = GREENLETS, observed: bool = False, oracles: bool = True
) -> str:
    """One hash over the trace hashes of many runs."""
    digest = sha256()
    observers = ((lambda task, point, operand: None),) if observed else ()
    for number in numbers:
        program, scheduler, choices = numbered(number)
        more = {} if oracles else {"oracles": ()}
        outcome = run(
            program, None, scheduler, choices, backend=backend, observers=observers, **more
        )
        digest.update(outcome.trace_hash.encode())
    return digest.hexdigest()


def test_processes_with_other_hash_seeds_see_the_same_runs() -> None:
    code = f"from test_determinism import hashes; print(hashes(range({RUNS})))"
    printed = set()
    for seed in ("0", "1", "random"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(Path(__file__).parent),
        }
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        printed.add(result.stdout)
    assert len(printed) == 1


def test_threads_greenlets_observers_and_oracles_see_the_same_runs() -> None:
    plain = hashes(range(RUNS))
    assert hashes(range(RUNS), observed=True) == plain
    assert hashes(range(RUNS), oracles=False) == plain
    assert hashes(range(RUNS), backend=THREADS) == plain


def test_written_down_turns_replay_to_the_same_trace() -> None:
    for number in range(300):
        program, scheduler, choices = numbered(number)
        first = run(program, None, scheduler, choices)
        again = run(replace(program, schedule=write_down(first)))
        assert again.diverged is None, number
        assert again.trace_hash == first.trace_hash, number


def test_a_campaign_with_a_seed_gives_the_same_corpus_and_crashes(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        corpus, crashes = tmp_path / name / "corpus", tmp_path / name / "crashes"
        driver = Driver(Options("v4.3", 7, runs_max=3000, corpus=corpus, crashes=crashes))
        for _ in driver.events():
            pass
        root = tmp_path / name
        contents.append(
            {
                str(path.relative_to(root)): path.read_text().replace(str(root), "")
                for path in sorted(root.rglob("*"))
                if path.is_file()
            }
        )
    assert contents[0] == contents[1]
    assert any("repro.prog" in path for path in contents[0])
    assert any("corpus" in path for path in contents[0])


TURNS = "kfuzz 1\nkernel: v4.3\nmachine: cpus=2 zones=2 pages=8 pool=0\ninit:\n" + (
    "  A map 0 tmpfs_shared\n  B map 0 tmpfs_shared\n  A read 0.0\n  B read 0.0\n"
    "cpu0:\n  A munlock 0.0 +1\n  A mlock 0.0 +1\ncpu1:\n  B mlock 0.0 +1\nschedule:\n"
)
PTL = "mm/gup.py:follow_page_mask spin_lock"


@pytest.mark.parametrize(
    ("turn", "next_point", "results"),
    [
        (f"cpu1 until {PTL}(ptl) #1", f"{PTL}(ptl)", 0),
        (f"cpu1 until {PTL}(ptl@B) #1", f"{PTL}(ptl)", 0),
        (f"cpu1 through {PTL}(ptl) #1", "mm/gup.py:follow_page_mask load(pte)", 1),
    ],
)
def test_a_turn_stops_where_it_says(turn: str, next_point: str, results: int) -> None:
    outcome = run(parse(f"{TURNS}  {turn}\n  cpu0 for 7\n  cpu1 to end\n"))
    assert outcome.diverged is None
    switches = [switch for switch in outcome.machine.switches if switch.entered > 0]
    assert [switch.entered for switch in switches] == [2, 1, 2, 1]
    assert switches[1].point is not None
    assert switches[1].point.name == next_point
    taken = [e for e in outcome.machine.events() if e.log_at < switches[1].log_at and e.task == 2]
    assert sum(event.point.name == f"{PTL}(ptl)" for event in taken) == results
    assert switches[2].step - switches[1].step == 7


def test_an_instance_that_is_not_there_is_never_arrived_at() -> None:
    outcome = run(parse(f"{TURNS}  cpu1 until {PTL}(ptl@A) #1\n"))
    assert outcome.diverged is not None
    assert outcome.diverged.turn == 0


def test_enumeration_twice_gives_the_same_witness() -> None:
    program = numbered(12)[0]
    one, two = (explore(program, "v4.3", preemptions=1) for _ in range(2))
    assert (one.schedules, one.findings, one.verdict) == (two.schedules, two.findings, two.verdict)


def test_a_diverged_replay_says_where_and_is_no_evidence_of_absence() -> None:
    program = parse(
        "kfuzz 1\nkernel: v4.3\nmachine: cpus=2 zones=2 pages=8 pool=0\n"
        "init:\n  A map 0 tmpfs_shared\n  B map 0 tmpfs_shared\n  A mlock 0.0 +1\n"
        "  B mlock 0.0 +1\ncpu0:\n  A exit\ncpu1:\n  B munlock 0.0 +1\n"
        "schedule:\n  cpu1 until mm/swap.py:no_such_function lock_page(flags.locked) #3\n"
        "expect v4.3: not mlocked-page-leak\n"
    )
    (result,) = replay_file(program)
    assert result.outcome.diverged is not None
    assert result.outcome.diverged.turn == 0
    assert "mlocked-page-leak" not in result.outcome.ids
    assert result.expected is False, "the enumeration that stands in for the schedule finds it"

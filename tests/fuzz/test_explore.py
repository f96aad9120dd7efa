"""The searches against plain enumeration, and what they promise: the same from any number of
processes, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from random import Random

import pytest
from small_programs import ACTIONS, observed, small_program

from fuzz.bounded import Reduced, plain
from fuzz.checkpoint import Checkpoint, OtherSearch
from fuzz.corpus import races_folder, read_program
from fuzz.dpor import Search
from fuzz.dpor.guide import Follow
from fuzz.explore import EXHAUSTED, REFUTED, UNDETERMINED, Exploration, explore
from fuzz.footprint import Footprint, steps_from
from fuzz.prog import parse
from fuzz.prog.generate import generate
from fuzz.prog.prog import Program
from fuzz.run import run
from fuzz.subject import MachineSubject, NotDeterministic, ProgramSubject, Ran, Subject
from fuzz.workers import WorkerLost
from kstate.machine import Machine, Word, decode, fetch_add, load, look, store
from kstate.patches import CLEAN

BOUNDS = range(4)
PROGRAMS_OF_A_KIND, MM_PROGRAMS = 31, 30
RUNS_MAX = 250  # of a program under plain enumeration; others are passed over
RUNS_MAX_JOIN = 600  # a child is a third task
KINDS = (
    "trylock", "rwsem", "bit", "queue", "rcu", "join", "fault", "spin", "mutex", "findings",
    "borrow",
)  # fmt: skip
ORDINAL = ("mapping", "mem_cgroup", "mm.memcg")  # their results number objects as they are made


def shown(runs: Iterator[Ran], runs_max: int = RUNS_MAX) -> set[object] | None:
    """What the runs show; None if there are too many."""
    every = [(observed(ran), ran.limit_hit) for ran in islice(runs, runs_max + 1)]
    return set(every) if len(every) <= runs_max else None


def agrees(subject: Subject, runs_max: int = RUNS_MAX) -> bool:
    """Do the reduced searches show what plain enumeration does? False if that is too long."""
    for bound in BOUNDS:
        every = shown(plain(subject, bound), runs_max)
        if every is None:
            return False
        assert shown(iter(Reduced(subject, bound)), runs_max) == every, bound
    every = shown(plain(subject, 1000), runs_max)
    if every is not None:
        search = Search(subject)
        assert shown(search.runs(), runs_max) == every
        found = explore(subject, preemptions=None)
        if not found.findings:  # a program that crashes has classes that no run can be told to have
            assert found.schedules == found.classes == search.counts.schedules
    return True


def test_reduced_searches_and_plain_enumeration_agree_on_small_programs() -> None:
    """Each kind that the issue names in at least 30 of them; with and without a fault."""
    kinds: Counter[str] = Counter()
    faulty = 0
    for wanted in KINDS:
        compared = 0
        joins = wanted == "join"
        for seed in range(100_000):
            subject, used = small_program(seed, 1 if joins else 2, wanted)
            if wanted not in used or not agrees(subject, RUNS_MAX_JOIN if joins else RUNS_MAX):
                continue
            kinds.update(used)
            calls = subject.run(Follow(())).machine.fault_calls
            if calls:
                faulty += agrees(subject.with_faults((calls[-1],)))
            compared += 1
            if compared == PROGRAMS_OF_A_KIND:
                break
    assert set(kinds) == {*ACTIONS, "forgets"}
    assert kinds["forgets"] >= 30
    assert faulty >= 30


def short_programs() -> Iterator[Program]:
    """Programs of the kernel of which plain enumeration can do all: one short call a task."""
    for number in range(100_000):
        rng = Random(f"short {number}")
        program = generate(rng, rng.choice(("v4.3", "v4.4", CLEAN)))
        tasks = tuple(task[:1] for task in program.tasks if task)
        program = replace(program, tasks=tasks)
        if len(tasks) >= 2 and run(program).competing_steps <= 22:
            yield program


def test_reduced_searches_and_plain_enumeration_agree_on_the_kernel() -> None:
    for program in islice(short_programs(), MM_PROGRAMS):
        subject = ProgramSubject(program.bare())
        for bound in BOUNDS:
            every = {of_kernel(ran) for ran in plain(subject, bound)}
            assert {of_kernel(ran) for ran in Reduced(subject, bound)} == every, program


@pytest.mark.parametrize(
    "name", ["2b-i-munlock", "2c", "6c", "7a", "x-balloon", "x8", "2i-trylock"]
)
def test_a_bounded_search_of_a_race_shows_what_plain_enumeration_shows(name: str) -> None:
    program = read_program(races_folder() / f"{name}.prog")
    for kernel in ("v4.3", CLEAN):
        subject = ProgramSubject(program.bare(), kernel)
        every = {of_kernel(ran) for ran in plain(subject, 1)}
        runs = [of_kernel(ran) for ran in Reduced(subject, 1)]
        assert set(runs) == every


def of_kernel(ran: Ran) -> object:
    """What each task has seen, but for numbers of objects, and the findings."""
    seen: dict[int, list[object]] = {}
    for event in decode(ran.machine.log):
        primitive = event.point.primitive
        results = None if primitive.word in ORDINAL else event.results
        seen.setdefault(event.task, []).append((str(primitive), results))
    return tuple((task, tuple(mine)) for task, mine in sorted(seen.items())), tuple(ran.findings)


# ---- what is said to commute, does --------------------------------------------------------------


def swapped(subject: Subject, seed: int, swaps_max: int) -> Iterator[tuple[Ran, Ran]]:
    """A random run, and runs in which two neighbouring steps that do not conflict are swapped."""
    rng = Random(seed)

    class Walk(Follow):
        def pick(self, runnable, current, steps):  # type: ignore[no-untyped-def]
            if steps == 1:
                runnable[0].machine.looked = []
            self.tasks = [*self.tasks, rng.choice(runnable).index]
            return super().pick(runnable, current, steps)

    ran = subject.run(Walk(()))
    if ran.crashed:
        return
    steps = steps_from(ran, 0)
    order = [step.task for step in steps[1:]]
    places = []
    for at in range(1, len(steps) - 1):
        one, other = steps[at], steps[at + 1]
        footprint = Footprint()
        footprint.add(other.accesses)
        if 0 not in (one.task, other.task) and one.task != other.task:
            if not footprint.conflicts(one) and not other.about_tasks:
                places.append(at)
    for at in rng.sample(places, min(swaps_max, len(places))):
        tasks = [*order[: at - 1], order[at], order[at - 1], *order[at + 1 :]]
        yield ran, subject.run(Follow(tasks))


def test_steps_that_are_said_to_commute_do() -> None:
    compared = 0
    for number in range(150):
        rng = Random(f"commute {number}")
        program = generate(rng, rng.choice(("v4.3", "v4.4", CLEAN)))
        for ran, other in swapped(ProgramSubject(program.bare()), number, 6):
            assert of_kernel(ran) == of_kernel(other), program
            compared += 1
    assert compared >= 300


def test_a_look_that_is_not_told_is_noticed() -> None:
    """The check above, of a program that reads a word without a step; told, and not."""

    def subject(told: bool) -> MachineSubject:
        def setup(m: Machine) -> Callable[[], object]:
            x, y = Word(m, "x"), Word(m, "y")

            def peeks() -> None:
                load(y)
                if told:
                    look(x)
                store(y, x._value)

            return lambda: m.join(*m.spawn(peeks, lambda: fetch_add(x, 1)))

        return MachineSubject(setup)

    def differs(told: bool) -> bool:
        return any(
            observed(ran) != observed(other)
            for seed in range(20)
            for ran, other in swapped(subject(told), seed, 5)
        )

    assert not differs(told=True)
    assert differs(told=False)


# ---- jobs, checkpoints, faults ------------------------------------------------------------------


def result(found: Exploration) -> dict[str, object]:
    said = {**vars(found)}
    for changes in ("seconds", "probes"):
        del said[changes]
    return said


@pytest.mark.parametrize(("name", "preemptions"), [("4-lrucare", None), ("2k", None), ("7a", 2)])
def test_any_number_of_jobs_gives_the_same(name: str, preemptions: int | None) -> None:
    program = read_program(races_folder() / f"{name}.prog")
    one, two, three = (
        result(explore(program, preemptions=preemptions, jobs=jobs)) for jobs in (1, 2, 3)
    )
    assert one == two == three


def test_parts_are_the_whole() -> None:
    program = read_program(races_folder() / "4-lrucare.prog").bare()
    forms = []
    search = Search(ProgramSubject(program))
    for _ in search.runs():
        forms.append(search.trace.form())
    found = explore(program, preemptions=None)
    assert (found.schedules, found.classes, found.redundant) == (len(forms), len(set(forms)), 0)


def kfuzz(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fuzz", *map(str, arguments)]


def test_a_search_that_was_killed_goes_on(tmp_path: Path) -> None:
    file, kept = races_folder() / "2k.prog", tmp_path / "kept"
    command = kfuzz("explore", file, "--checkpoint", kept, "--json")
    whole = subprocess.run(kfuzz("explore", file, "--json"), capture_output=True, check=False)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while process.poll() is None and not (kept.exists() and kept.read_text().count("\n") > 3):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    lines = kept.read_text().count("\n")
    with kept.open("a") as stream:
        stream.write("[[], [3")  # a line cut short
    again = subprocess.run(command, capture_output=True, check=False)
    records = [json.loads(out.stdout) for out in (whole, again)]
    for record in records:
        del record["seconds"], record["probes"]
    assert records[0] == records[1]
    assert kept.read_text().count("\n") >= lines
    finished = kept.read_bytes()
    subprocess.run(command, capture_output=True, check=False)
    assert kept.read_bytes() == finished, "all was there already"


def test_a_checkpoint_of_another_search_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    file = races_folder() / "7a.prog"
    subprocess.run(kfuzz("explore", file, "--checkpoint", kept), capture_output=True, check=False)
    before = kept.read_bytes()
    for more in (("--kernel", "v4.4"), ("--preemptions", 1), ("--faults", 1)):
        refused = subprocess.run(
            kfuzz("explore", file, "--checkpoint", kept, *more),
            capture_output=True,
            text=True,
            check=False,
        )
        assert refused.returncode == 2
        assert refused.stderr == f"kfuzz: {kept} is no checkpoint of this search by this version\n"
        assert kept.read_bytes() == before
    kept.write_bytes(before.replace(b"model ", b"model 0"))
    with pytest.raises(OtherSearch):
        Checkpoint(kept, {})


def failing(m: Machine) -> Callable[[], object]:
    """Wrong only where both of two calls fail, and one task is between the other's."""
    x = Word(m, "x")

    def one() -> None:
        if m.fault("left"):
            store(x, 1)
            store(x, 0)

    def other() -> None:
        if m.fault("right"):
            assert load(x) == 0

    return lambda: m.join(*m.spawn(one, other))


@pytest.mark.parametrize("preemptions", [None, 1])
def test_faults_are_branches(preemptions: int | None) -> None:
    subject = MachineSubject(failing)
    for faults in (0, 1):
        assert explore(subject, preemptions=preemptions, faults=faults).verdict == EXHAUSTED
    found = explore(subject, preemptions=preemptions, faults=2, jobs=2)
    assert found.verdict == REFUTED
    assert found.bound.endswith("faults <= 2")
    assert found.failing["assertion"] == (("cpu0", "left", 1), ("cpu1", "right", 1))


def test_faults_show_what_plain_enumeration_of_sets_shows() -> None:
    compared = 0
    for seed in range(1000):
        subject, used = small_program(seed, 2, "fault")
        if "fault" not in used or shown(plain(subject, 1)) is None:
            continue
        tasks = ("cpu0", "cpu1", "cpu2")
        calls = [
            (task, kind, nth) for task in tasks for kind in ("first", "second") for nth in (1, 2)
        ]
        every: set[str] = set()
        for count in range(3):
            for faults in combinations(calls, count):
                for ran in plain(subject.with_faults(faults), 1):
                    every |= set(ran.findings)
        assert set(explore(subject, preemptions=1, faults=2).findings) == every, seed
        compared += bool(every)
        if compared == 5:
            return
    raise AssertionError("too few programs")


def test_an_early_end_is_no_verdict_and_says_how_far_it_is() -> None:
    program = read_program(races_folder() / "4-lrucare.prog")
    so_far: list[int] = []

    def stop(found: Exploration) -> bool:
        so_far.append(found.schedules)
        return len(so_far) > 80

    found = explore(program, CLEAN, preemptions=None, stop=stop)
    assert found.verdict == UNDETERMINED
    assert found.share is not None
    assert 0 < found.share < 1
    assert found.spread is not None
    low, high = found.spread
    assert 0 <= low <= high <= 1


def test_a_program_that_is_not_deterministic_is_noticed_with_several_jobs() -> None:
    draws = Random(0)

    def setup(m: Machine) -> Callable[[], object]:
        x = Word(m, "x")
        return lambda: m.join(*m.spawn(*[lambda: store(x, draws.getrandbits(30))] * 2))

    with pytest.raises(NotDeterministic):
        explore(MachineSubject(setup), preemptions=None, jobs=2)


def test_a_worker_that_is_killed_is_missed() -> None:
    parent = os.getpid()

    def setup(m: Machine) -> Callable[[], None]:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        word = Word(m, "word")
        return lambda: m.join(*m.spawn(*[lambda: fetch_add(word, 1)] * 2))

    with pytest.raises(WorkerLost):
        explore(MachineSubject(setup), preemptions=2, jobs=2)


def test_all_schedules_are_searched_whole_with_several_jobs() -> None:
    """The class in which b saw y before x was stored last is lost if parts run side by side."""

    def setup(m: Machine) -> Callable[[], object]:
        x, y = Word(m, "x"), Word(m, "y")
        seen: list[int] = []

        def late() -> None:
            store(y, 1)
            store(x, 2)

        def init() -> None:
            m.join(*m.spawn(lambda: store(x, 1), lambda: seen.append(load(y)), late))
            assert not (seen == [1] and x.peek() == 1)

        return init

    for jobs in (1, 2):
        found = explore(MachineSubject(setup), preemptions=None, jobs=jobs)
        assert (found.verdict, found.schedules) == (REFUTED, 4)


def test_what_is_looked_at_as_an_rcu_reader_conflicts_with_a_grace_period() -> None:
    """mem_cgroup_begin_page_stat reads under RCU without a step of its own for the lock."""
    race = read_program(races_folder() / "x-memcg-stat.prog")
    assert explore(race, "v4.4", preemptions=None, stop_at_first=True).verdict == REFUTED
    assert explore(race, CLEAN, preemptions=None).verdict == EXHAUSTED


@pytest.mark.parametrize(
    ("cpu0", "cpu1"),
    [("A fork C", "C write 0.0"), ("A io_setup 0", "B io_setup 0"), ("B exit", "A io_setup 0")],
)
def test_what_there_is_only_one_of_is_told_of(cpu0: str, cpu1: str) -> None:
    """The process of a name, the ring: they are looked up without a step."""
    head = f"kfuzz 1\nkernel: {CLEAN}\nmachine: cpus=2 zones=1 pages=16 pool=0\ninit:\n"
    text = f"{head}  A map 0 anon\n  B io_setup 0\n  B unmap 0\ncpu0:\n  {cpu0}\ncpu1:\n  {cpu1}\n"
    if "io_setup" in cpu0:
        text = text.replace("  B io_setup 0\n  B unmap 0\n", "", 1)
    program = parse(text)
    for seed in range(40):
        for ran, other in swapped(ProgramSubject(program), seed, 40):
            assert of_kernel(ran) == of_kernel(other), seed

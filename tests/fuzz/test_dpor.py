"""The reduced search: one run per class, and nothing missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from math import factorial
from random import Random

import pytest
from small_programs import ACTIONS, observed, small_program

from fuzz.bounded import plain
from fuzz.corpus import races_folder, read_program
from fuzz.dpor import Search
from fuzz.explore import EXHAUSTED, explore
from fuzz.run import run
from fuzz.subject import MachineSubject, NotDeterministic, ProgramSubject, Subject
from kstate.machine import Choices, Machine, Task, Turn, Word, fetch_add, load, store

Setup = Callable[[Machine], Callable[[], object]]


def adders(count: int) -> Setup:
    def setup(m: Machine) -> Callable[[], object]:
        x = Word(m, "x")
        return lambda: m.join(*m.spawn(*[lambda: fetch_add(x, 1)] * count))

    return setup


def one_writer(readers: int) -> Setup:
    def setup(m: Machine) -> Callable[[], object]:
        x = Word(m, "x")
        return lambda: m.join(*m.spawn(lambda: store(x, 1), *[lambda: load(x)] * readers))

    return setup


def lastzero(writers: int) -> Setup:
    """Writers a[j] = a[j - 1] + 1; a reader looks for the last zero, from a[writers] down."""

    def setup(m: Machine) -> Callable[[], object]:
        a = [Word(m, "a", label=f"a{number}") for number in range(writers + 1)]

        def reader() -> None:
            at = writers
            while load(a[at]):
                at -= 1

        def writer(at: int) -> Callable[[], object]:
            return lambda: store(a[at], load(a[at - 1]) + 1)

        return lambda: m.join(*m.spawn(reader, *map(writer, range(1, writers + 1))))

    return setup


@pytest.mark.parametrize(
    ("setup", "classes"),
    [
        *((adders(count), factorial(count)) for count in range(2, 7)),
        (one_writer(2), 4),
        (one_writer(8), 256),
        (lastzero(5), 64),
        (lastzero(10), 3328),
    ],
)
def test_one_run_per_class(setup: Setup, classes: int) -> None:
    """The numbers are those GenMC expects. No run is redundant, no two are equivalent."""
    search = Search(MachineSubject(setup))
    forms = set()
    for _ in search.runs():
        forms.add(search.trace.form())
    assert (search.counts.schedules, search.counts.redundant) == (classes, 0)
    assert len(forms) == classes


def searched(subject: Subject) -> tuple[Search, set[object]]:
    """All classes, and what they show. Each is met once, if no run was cut short."""
    search, seen, forms, cut_short = Search(subject), set(), set(), False
    for ran in search.runs():
        seen.add(observed(ran))
        forms.add(search.trace.form())
        cut_short |= ran.cut_short
    assert len(forms) == search.counts.schedules or cut_short
    return search, seen


class Anything:
    """Any task that can run, at every step."""

    every_step = True

    def __init__(self, rng: Random, stay: float) -> None:
        self.rng, self.stay = rng, stay

    def begin(self, choices: Choices) -> None:
        pass

    def pick(self, runnable: Sequence[Task], current: Task | None, steps: int) -> Turn:
        if current is not None and self.rng.random() < self.stay:
            return Turn(current, 1)
        return Turn(self.rng.choice(runnable), 1)


def test_small_programs_show_the_same_as_under_plain_enumeration() -> None:
    """What each task saw, the final state and the findings; of programs with few schedules."""
    compared = 0
    for seed in range(1000):
        subject, _ = small_program(seed, 2)
        every = [observed(ran) for ran in islice(plain(subject, 1000), 301)]
        if len(every) > 300:
            continue
        _, reduced = searched(subject)
        assert reduced == set(every), seed
        compared += 1
        if compared == 40:
            return
    raise AssertionError("too few programs")


def test_larger_programs_show_nothing_else_in_random_runs() -> None:
    """Each kind of action in at least 20 programs; only those that can crash make a search give
    runs up."""
    kinds: Counter[str] = Counter()
    for seed in range(5000, 5300):
        subject, used = small_program(seed, 3)
        search, reduced = searched(subject)
        crashes = used & {"findings", "mutex", "forgets"}
        assert search.counts.redundant == 0 or crashes, seed
        for number in range(20):
            assert observed(subject.run(Anything(Random(number), 0.0))) in reduced, seed
        kinds.update(used)
    assert set(kinds) == {*ACTIONS, "forgets"}
    assert min(kinds.values()) >= 20, kinds


@pytest.mark.parametrize("name", ["2c", "2h", "2k", "4-lrucare", "7a", "x7a"])
def test_races_show_nothing_else_in_other_searches(name: str) -> None:
    program = read_program(races_folder() / f"{name}.prog")
    for kernel in (None, "v4.4+70feee0e1ef3"):
        subject = ProgramSubject(program.bare(), kernel)
        search, reduced = searched(subject)
        assert search.counts.redundant == 0 or kernel is None
        for number in range(30):
            assert observed(subject.run(Anything(Random(number), 0.9))) in reduced
        all_of_them = explore(program, kernel, preemptions=None)
        few = explore(program, kernel, preemptions=1)
        assert set(few.findings) <= set(all_of_them.findings)
        for id, turns in all_of_them.findings.items():
            again = run(replace(program.bare(), schedule=turns), kernel)
            assert id in again.ids
            assert again.diverged is None


def reorder(setters: int) -> Setup:
    """Setters store a = 1, then b = -1; a checker must never see b without a. The bug needs one
    preemption."""

    def setup(m: Machine) -> Callable[[], object]:
        a, b = Word(m, "a"), Word(m, "b")

        def setter() -> None:
            store(a, 1)
            store(b, -1)

        def checker() -> None:
            seen = load(a), load(b)
            assert seen in ((0, 0), (1, -1)), seen

        return lambda: m.join(*m.spawn(*[setter] * setters, checker))

    return setup


def test_bounded_search_finds_the_bug_of_one_preemption() -> None:
    """frontrun says after 34 runs with its bound of 2 that there is none (search-notes 3)."""
    subject = MachineSubject(reorder(3))
    assert explore(subject, preemptions=0).verdict == EXHAUSTED
    assert list(explore(subject, preemptions=1).findings) == ["assertion"]
    result = explore(subject, preemptions=None)
    assert list(result.findings) == ["assertion"]
    assert result.probes == 0  # that init could not have joined before is told without a run


def test_what_is_wrong_with_a_program_is_told_as_what_it_is() -> None:
    draws = Random(0)

    def forgotten(m: Machine) -> Callable[[], object]:
        return lambda: m.spawn(lambda: load(Word(m, "x")))

    def broken(m: Machine) -> Callable[[], object]:
        return lambda: {}["key"]

    def random(m: Machine) -> Callable[[], object]:
        x = Word(m, "x")
        return lambda: m.join(*m.spawn(*[lambda: store(x, draws.getrandbits(30))] * 2))

    assert list(explore(MachineSubject(forgotten), preemptions=None).findings) == ["forgotten-join"]
    found = explore(MachineSubject(broken), preemptions=None)
    assert found.texts["exception"].startswith("KeyError: 'key' (test_dpor.py:")
    with pytest.raises(NotDeterministic):
        explore(MachineSubject(random), preemptions=None)

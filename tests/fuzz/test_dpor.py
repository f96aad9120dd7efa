"""The reduced search: one run per class, and nothing missed."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import pytest

from fuzz.dpor import Search
from fuzz.subject import MachineSubject
from kstate.machine import Machine, Word, fetch_add, load, store

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
        assert search.trace is not None
        forms.add(search.trace.form())
    assert (search.counts.schedules, search.counts.redundant) == (classes, 0)
    assert len(forms) == classes

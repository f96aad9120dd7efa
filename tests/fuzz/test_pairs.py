"""Which operations can conflict, and who gets the budget: both measured."""

from __future__ import annotations

import heapq
from dataclasses import replace
from random import Random

import pytest

from fuzz.access import Access, accesses, compete, conflicts, reaches
from fuzz.bounded import Deviate
from fuzz.campaign.directed import Directed
from fuzz.campaign.growth import Entry, Growth
from fuzz.campaign.meeting import Meetings
from fuzz.campaign.portfolio import FLOOR, Portfolio
from fuzz.coverage import features
from fuzz.pairs import Index, beside, footprint, measure, resident_partner
from fuzz.prog.prog import Op, Program
from fuzz.run import Outcome, run
from kstate.boot import MachineSize
from kstate.machine import Choices

A_MAPS = Op("A", "map", (0, "tmpfs_shared"))
A_ANON = Op("A", "map", (0, "anon"))
B_ANON = Op("B", "map", (0, "anon"))
B_MAPS = Op("B", "map", (0, "tmpfs_shared"))
LOCKS = (Op("A", "mlock", (0, 1)), Op("B", "mlock", (0, 1)))
MUNLOCK, EXIT, READ_A, READ_B = (
    Op("B", "munlock", (0, 1)),
    Op("A", "exit"),
    Op("A", "read", (0,)),
    Op("B", "read", (0,)),
)


def compared(init: tuple[Op, ...], one: Op, other: Op) -> set[str]:
    """The words on which two operations conflict in a state."""
    state = Program("v4.3", init=init)
    index = Index()
    done = [footprint(run(beside(state, cpu, op)), cpu) for cpu, op in enumerate((one, other))]
    index.add((one.name, done[0]), (other.name, done[1]))
    (record,) = index.pairs.values()
    return set(record.words)


def test_conflicts_are_those_of_the_state() -> None:
    """Two threads share their ptl, and mmap_sem where one of them takes it for write; two processes
    share nothing until they map one file; munlock and exit meet at vm_flags only where both have
    locked the page."""
    assert compared((A_ANON, B_ANON), READ_A, READ_A) == {"mm_users", "ptl"}
    assert "mmap_sem" in compared((A_ANON, B_ANON), READ_A, Op("A", "unmap", (0,)))
    assert compared((A_ANON, B_ANON), Op("A", "exit"), Op("B", "drain")) == set()
    assert "page_tree" in compared((A_MAPS, B_MAPS), READ_A, READ_B)
    assert "vm_flags" in compared((A_MAPS, B_MAPS, *LOCKS), MUNLOCK, EXIT)
    assert "vm_flags" not in compared((A_MAPS, B_MAPS), MUNLOCK, EXIT)


def test_what_a_task_makes_for_itself_or_is_conflicts_with_nobody() -> None:
    """Two processes map afresh and read: the new vmas have one number in both runs, and so have the
    tasks; but only what was there before is compared. Pages come from one free list."""
    assert compared((A_ANON, B_ANON), A_MAPS, B_ANON) == set()
    assert compared((A_ANON, B_ANON), READ_A, READ_B) == set()
    write = [Op(process, "write", (0,)) for process in "AB"]
    assert compared((A_ANON, B_ANON), *write) == {"free_list"}


def test_an_operation_of_a_process_that_is_not_there_is_not_compared() -> None:
    """It would make another state, with other numbers for the same objects."""
    test = Program("v4.3", init=(A_ANON,), tasks=((B_ANON,),))
    assert measure([test], Random("residents")).pairs == {}
    rng = Random("residents")
    assert {resident_partner(rng, test, "read").process for _ in range(50)} == {"A"}


def test_an_index_is_measured_and_lists_the_rarest_first() -> None:
    rng = Random("pairs")
    growth = Growth("v4.3", rng)
    while growth.runs < 250:
        list(growth.round())
    index = measure([entry.program for entry in growth.corpus[:20]], rng)
    rows = index.rarest_first()
    shares = [seen / states for seen, states, _, _ in rows]
    assert shares == sorted(shares)
    assert len(rows) > 100
    assert all(0 < share <= 1 for share in shares)
    assert all(one <= other for _, _, (one, other), _ in rows)
    assert "vm_flags" in index.uses["mlock"].writes
    assert "vm_flags" not in index.uses["read"].writes
    assert set(index.uses["drain"].writes) & {"pagevec"}


def entry(*ops: Op) -> Entry:
    test = Program("v4.3", init=ops[:-1], tasks=(ops[-1:],))
    return Entry(test, tuple(sorted(features(test, run(test)))))


def test_states_of_pages_that_many_map_and_of_pages_not_seen_go_first() -> None:
    meetings = Meetings(Random("states"), Directed())
    twice = entry(A_MAPS, B_MAPS, READ_A, READ_B)
    once, same = entry(A_MAPS, B_MAPS, READ_A), entry(B_MAPS, A_MAPS, READ_B, READ_A)
    alone = entry(A_MAPS, READ_A)
    corpus = [alone, once, twice, same]
    states = [meetings.next_state(corpus) for _ in range(5)]
    inits = [None if state is None else len(state.init) for state in states]
    assert inits == [4, 3, 4, 2, None]
    assert states[0] is not None
    assert states[0].init == (A_MAPS, B_MAPS, READ_A, READ_B)
    assert states[0].tasks == ()


def test_meetings_come_from_lone_runs_and_give_way_when_tried() -> None:
    directed = Directed()
    meetings = Meetings(Random("meetings"), directed)
    state = Program("v4.3", init=(A_MAPS, B_MAPS, *LOCKS))
    programs: list[Program] = []

    def perform(program: Program) -> Outcome:
        programs.append(program)
        return run(program)

    meetings.measure(state, perform)
    assert all(sum(map(len, program.tasks)) <= 1 for program in programs)
    queued = {item[2].program.tasks: item[2] for item in meetings.queue}
    assert len(queued) > len(programs)
    best = meetings.take()
    assert best is not None
    for pair in best.pairs:
        for seen in (pair, (*pair[2:4], *pair[:2], pair[4])):
            directed.points[seen[1], seen[3]] = directed.contexts[seen] = 9
    following = meetings.take()
    assert following is not None
    assert following.program != best.program
    heapq.heappush(meetings.queue, (-1e9, 0, best))  # what it was thought to be worth
    assert meetings.take() is not best


def spend(portfolio: Portfolio, yields: dict[str, float], rounds: int) -> dict[str, float]:
    """Shares of the steps, each round 1000 steps with so many news on average."""
    owed = dict.fromkeys(yields, 0.0)
    before = {name: mine.steps for name, mine in portfolio.yields().items()}
    for _ in range(rounds):
        name = portfolio.next()
        owed[name] += yields[name]
        news = int(owed[name])
        owed[name] -= news
        portfolio.spent(name, 1000, news)
    spent = {name: mine.steps - before[name] for name, mine in portfolio.yields().items()}
    return {name: steps / (1000 * rounds) for name, steps in spent.items()}


def test_a_portfolio_shares_steps_by_yield_and_keeps_a_floor() -> None:
    shares = spend(Portfolio(("one", "two", "three")), {"one": 6, "two": 3, "three": 0}, 3000)
    assert 0.55 < shares["one"] < 0.65
    assert 0.28 < shares["two"] < 0.38
    assert FLOOR <= shares["three"] < 2 * FLOOR


def test_a_portfolio_moves_when_yields_do() -> None:
    portfolio = Portfolio(("one", "two"))
    first = spend(portfolio, {"one": 8, "two": 1}, 2000)
    second = spend(portfolio, {"one": 0, "two": 4}, 2000)
    assert first["one"] > 0.8
    assert second["two"] > 0.8


def access(
    drops: bool = False, waits: bool = False, shares: bool = False, held: int | None = None
) -> Access:
    locks = frozenset() if held is None else frozenset({(held, False)})
    return Access(1, 1, 7, "ptl", True, "exit", locks, locks, drops, waits, shares)


def test_who_waits_for_a_lock_does_not_compete_with_who_drops_it_but_who_tries_does() -> None:
    drops, waits, tries = access(drops=True), access(waits=True), access()
    assert not compete(drops, waits)
    assert not compete(waits, drops)
    assert not compete(drops, drops)
    assert compete(drops, tries)
    assert compete(tries, drops)
    assert compete(waits, waits)
    assert not compete(access(held=3), access(held=3))
    assert compete(access(held=3), access(held=4))
    reader = access(waits=True, shares=True)
    assert not compete(reader, reader)
    assert compete(reader, waits)


def test_of_two_rwsem_users_only_what_a_writer_takes_competes() -> None:
    """munmap takes mmap_sem for write and a fault for read: each may come first, and that is all.
    Two faults do not mind each other."""
    state = Program("v4.3", size=MachineSize(cpus=2, zones=2, pages=16), init=(A_ANON,))
    fault, other, unmap = (
        accesses(run(beside(state, 0, op)), 1)
        for op in (Op("A", "write", (0,)), Op("A", "write", (1,)), Op("A", "unmap", (0,)))
    )

    def on_mmap_sem(mine: list[Access], theirs: list[Access]) -> set[tuple[bool, bool]]:
        return {(a.waits, b.waits) for a, b in conflicts(mine, theirs) if a.word == "mmap_sem"}

    assert on_mmap_sem(fault, other) == set()
    assert on_mmap_sem(fault, unmap) == {(True, True)}


def test_nobody_is_left_where_the_other_would_have_to_wait_first() -> None:
    """Of munlock and exit, both ways: left just before an access, does the other get to its own?
    Told from what each does alone, which is mostly right: what has changed meanwhile may let the
    other go another way, as where exit finds nothing to munlock and so locks no page."""
    state = Program("v4.3", init=(A_MAPS, B_MAPS, *LOCKS))
    both = replace(state, tasks=((MUNLOCK,), (EXIT,)))
    done = [
        accesses(run(both, None, Deviate(((0, task),), record=False), Choices()), task)
        for task in (1, 2)
    ]
    told: dict[tuple[bool, bool], int] = {}
    for first, other in ((1, 2), (2, 1)):
        mine, theirs = done[first - 1], done[other - 1]
        for left, their in conflicts(mine, theirs):
            if left.step == 0:
                continue
            deviations = ((0, first), (left.step, other))
            machine = run(both, None, Deviate(deviations, record=False), Choices()).machine
            away = next(n for n, switch in enumerate(machine.switches) if switch.entered == other)
            since, until = (switch.log_at for switch in machine.switches[away : away + 2])
            met = any(
                (event.point.number, event.operand) == (their.number, their.operand)
                for event in machine.events(since)
                if event.log_at < until
            )
            key = reaches(their, left), met
            told[key] = told.get(key, 0) + 1
        reached = {a.step for a, b in conflicts(mine, theirs) if reaches(b, a)}
        proposed = Directed().propose(first, mine, other, theirs, {})
        assert {deviations[1][0] for deviations in proposed} <= reached
    assert told[True, True] > 3 * told[True, False]
    assert told[False, False] > 2 * told[False, True]


def test_an_unlock_competes_with_a_trylock_as_in_7a() -> None:
    """A previous user of newpage holds its lock; migration tries it and waits for nobody."""
    state = Program(
        "v4.3",
        size=MachineSize(cpus=2, zones=2, pages=16, pool=1),
        init=(A_ANON, Op("A", "write", (0,))),
    )
    user, mover = (
        accesses(run(beside(state, 0, op)), 1)
        for op in (Op("A", "pool_lookup", (0,)), Op("A", "pool_migrate", (0,)))
    )
    met = [
        (mine.word, their.drops, their.waits)
        for mine, their in conflicts(user, mover)
        if mine.drops
    ]
    assert met
    assert set(met) == {("flags.locked", False, False)}


def test_a_meeting_is_worth_less_when_its_like_was_tried_in_another_state() -> None:
    directed = Directed()
    meetings = Meetings(Random(1), directed)
    init = (A_MAPS, B_MAPS, *LOCKS)
    for state in (init, (*init, READ_A)):
        meetings.measure(Program("v4.3", init=state), run)
    queued = sorted(meetings.queue)
    first = meetings.take()
    assert first is not None
    assert first is queued[0][2]
    like = [meeting for _, _, meeting in queued[1:] if meeting.kind == first.kind]
    unlike = next(meeting for _, _, meeting in queued if meeting.kind != first.kind)
    assert like
    before = {id(meeting): -worth for worth, _, meeting in queued}
    for meeting in like:
        assert meetings._worth(meeting) == pytest.approx(before[id(meeting)] / 4)
    assert meetings._worth(unlike) == pytest.approx(before[id(unlike)])
    one, other = first.program.tasks[0][0], first.program.tasks[1][0]
    assert first.kind[:3] == (*sorted((one.name, other.name)), one.process == other.process)

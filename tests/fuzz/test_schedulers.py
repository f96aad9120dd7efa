"""Samplers: all-zero draws are the default run, and each samples what its paper says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import comb, factorial
from random import Random

import pytest

from fuzz.corpus import races_folder, read_program
from fuzz.prog.generate import generate
from fuzz.prog.prog import ProgError
from fuzz.run import profile, run
from fuzz.schedulers import (
    SAMPLERS,
    Default,
    Delay,
    Pos,
    Profile,
    RandomWalk,
    Surw,
    Urw,
    expand,
    make_scheduler,
    profile_of,
)
from kstate.machine import (
    GREENLETS,
    THREADS,
    Choices,
    Machine,
    Mutex,
    MutexClass,
    RwSem,
    RwSemClass,
    Scheduler,
    Word,
    down_read,
    down_write,
    fetch_add,
    load,
    mutex_lock,
    mutex_unlock,
    store,
    up_read,
    up_write,
)

LOCK, SEM = MutexClass("scheduler-test-mutex"), RwSemClass("scheduler-test-sem")
KERNELS = ("v4.3", "v4.4")


def draws(seed: int) -> Choices:
    rng = Random(f"schedulers {seed}")
    return Choices(more=lambda: rng.getrandbits(16))


# ---- the default run -----------------------------------------------------------------------------


def random_machine_program(m: Machine, seed: int) -> Callable[[], None]:
    """Two to four tasks of mutexes, an rwsem and words; locks in order, so nothing deadlocks."""
    rng = Random(f"machine program {seed}")
    words = [Word(m, f"w{number}") for number in range(3)]
    mutex, sem = Mutex(m, LOCK, "mutex"), RwSem(m, SEM, "sem")

    def task(script: list[int]) -> None:
        for what in script:
            word = words[what % 3]
            if what % 5 == 0:
                mutex_lock(mutex)
                store(word, load(word) + 1)
                mutex_unlock(mutex)
            elif what % 5 == 1:
                down_read(sem)
                load(word)
                up_read(sem)
            elif what % 5 == 2:
                down_write(sem)
                fetch_add(word, what)
                up_write(sem)
            else:
                store(word, what)

    scripts = [
        [rng.randrange(30) for _ in range(rng.randrange(1, 7))] for _ in range(rng.randrange(2, 5))
    ]

    def root() -> None:
        m.join(*m.spawn(*(lambda s=s: task(s) for s in scripts)))  # type: ignore[misc]

    return root


def machine_run(seed: int, scheduler: Scheduler, choices: Choices) -> Machine:
    m = Machine(scheduler, choices)
    assert m.run(random_machine_program(m, seed)) is None
    return m


@pytest.mark.parametrize("spelling", SAMPLERS)
def test_all_zero_draws_are_the_default_run(spelling: str) -> None:
    """Of 200 machine programs and 60 mm programs, an exhausted stream and an explicit one."""
    for seed in range(200):
        default = machine_run(seed, Default(), Choices())
        scheduler = make_scheduler(expand(spelling, lambda d=default: profile_of(d)))  # type: ignore[misc]
        for zeros in ((), [0] * 10_000):
            assert machine_run(seed, scheduler, Choices(zeros)).log == default.log
    for seed in range(60):
        program = generate(Random(f"zero {seed}"), KERNELS[seed % 2])
        scheduler = make_scheduler(expand(spelling, lambda p=program: profile(p)))  # type: ignore[misc]
        default_hash = run(program, None, Default(), Choices()).trace_hash
        assert run(program, None, scheduler, Choices()).trace_hash == default_hash


@pytest.mark.parametrize("spelling", SAMPLERS)
def test_spelling_and_draws_decide_everything(spelling: str) -> None:
    """The draws a run made, stored, give it again: with a used scheduler and on OS threads too."""
    program = read_program(races_folder() / "2b-i-munlock.prog").bare()
    expanded = expand(spelling, lambda: profile(program))
    assert expand(expanded, lambda: Profile(1)) == expanded
    scheduler = make_scheduler(expanded)
    seen = set()
    for seed in range(20):
        choices = draws(seed)
        first = run(program, None, scheduler, choices)
        used = Choices(choices.used())
        again = run(program, None, make_scheduler(expanded), used, backend=THREADS)
        assert again.trace_hash == first.trace_hash
        assert run(program, None, scheduler, Choices(used.schedule)).trace_hash == first.trace_hash
        seen.add(first.trace_hash)
    assert len(seen) > 1


def test_expansion_comes_from_the_profile_run_and_wrong_spellings_are_refused() -> None:
    known = Profile(212, (1, 120, 92), {"pte": (1, 9, 3), "flags.lru": (1, 1, 2)})
    assert expand("pos", lambda: known) == "pos"
    assert expand("urw", lambda: known) == "urw(events=1+120+92)"
    assert expand("surw", lambda: known) == "surw(words=pte:1+9+3/flags.lru:1+1+2)"
    assert expand("surw(words=pte:01+2)", lambda: known) == "surw(words=pte:1+2)"
    assert expand("delay", lambda: known) == "delay(delays=2,steps=212)"
    assert expand("surw", lambda: Profile(1)) == "surw(words=)"
    make_scheduler("surw(words=)")
    for wrong in (
        "urw(events=0+1)", "urw(events=1++2)", "urw(events=)", "surw(words=pte)", "surw(words=:1)",
        "surw(words=pte:1/pte:2)", "delay(delays=0)", "pos(depth=1)", "urw(events=1+2",
        "pct(depth=²)",
    ):  # fmt: skip
        with pytest.raises(ProgError):
            expand(wrong, lambda: known)
    with pytest.raises(ProgError, match="not expanded"):
        make_scheduler("urw")


# ---- what they sample ----------------------------------------------------------------------------


def orders(
    make: Callable[[], Scheduler], lengths: tuple[int, ...], runs: int, others: int = 0
) -> Counter[tuple[int, ...]]:
    """In which orders tasks of some lengths make their accesses to one word. others: accesses to
    words of its own each task makes before each of them."""
    seen: Counter[tuple[int, ...]] = Counter()
    for seed in range(runs):
        m = Machine(make(), draws(seed))
        shared = Word(m, "shared")
        order: list[int] = []

        def task(number: int, length: int, m: Machine = m, shared: Word = shared,
                 order: list[int] = order) -> None:  # fmt: skip
            own = Word(m, f"own{number}")
            for _ in range(length):
                for _ in range(others * number):
                    store(own, 1)
                fetch_add(shared, 1)
                order.append(number)

        def root(m: Machine = m, task: Callable[[int, int], None] = task) -> None:
            bodies = [lambda n=n, c=c: task(n, c) for n, c in enumerate(lengths)]  # type: ignore[misc]
            m.join(*m.start(*bodies))

        assert m.run(root) is None
        seen[tuple(order)] += 1
    return seen


def chi_square(seen: Counter[tuple[int, ...]], kinds: int) -> float:
    """Against the uniform distribution over so many kinds."""
    expected = seen.total() / kinds
    unseen = kinds - len(seen)
    return sum((n - expected) ** 2 / expected for n in seen.values()) + unseen * expected


def test_surw_makes_every_order_of_the_selected_events_equally_likely() -> None:
    """Two tasks of 3 and 2 accesses, 10 orders, among unequal numbers of other events. Chi-square
    with 9 degrees of freedom exceeds 45 with p < 1e-6; a random walk is far beyond."""
    kinds = comb(5, 2)
    surw = orders(lambda: Surw({"shared": (1, 3, 2)}), (3, 2), 3000, others=3)
    assert len(surw) == kinds
    assert chi_square(surw, kinds) < 45
    assert chi_square(orders(RandomWalk, (3, 2), 3000, others=3), kinds) > 450


def test_urw_makes_every_interleaving_equally_likely() -> None:
    """begin, access, access, end of two tasks: 70 interleavings. All distinct ones are told apart
    by their logs. Chi-square with 69 degrees of freedom exceeds 140 with p < 1e-6."""

    def logs(make: Callable[[], Scheduler]) -> Counter[tuple[int, ...]]:
        seen: Counter[tuple[int, ...]] = Counter()
        for seed in range(4000):
            m = Machine(make(), draws(seed))
            word = Word(m, "shared")

            def task(word: Word = word) -> None:
                fetch_add(word, 1)
                fetch_add(word, 1)

            def root(m: Machine = m, task: Callable[[], None] = task) -> None:
                m.join(*m.start(task, task))

            m.run(root)
            seen[tuple(event.task for event in m.events() if event.task)] += 1
        return seen

    urw = logs(lambda: Urw((1, 4, 4)))
    assert len(urw) == comb(8, 4)
    assert chi_square(urw, 70) < 140
    assert chi_square(logs(RandomWalk), 70) > 700


def test_pos_lets_an_event_wait_for_many_independent_ones() -> None:
    """Two tasks make one racing access each; cpu1 has 40 other events before its own. That cpu0's
    waits for all of them has p >= 1/43 under POS: 2000 runs show it less than 15 times with
    p < 1e-7. A random walk does it with p < 2^-40."""
    assert orders(Pos, (1, 1), 2000, others=40)[1, 0] >= 15
    assert orders(RandomWalk, (1, 1), 2000, others=40)[1, 0] == 0


def test_pos_reaches_all_orders_of_three_racing_events() -> None:
    """Six orders; each has p >= 1/10 and is missed by 400 runs with p < 1e-18."""
    assert len(orders(Pos, (1, 1, 1), 400)) == factorial(3)


def test_one_delay_hits_what_one_delay_shows_as_often_as_the_paper_says() -> None:
    """cpu0 loads, then stores; only a delay before that store (1 of k = 8 steps, and no delay)
    loses cpu1's update: p = 1/9. 4500 runs deviate from 500 hits by 110 with p < 1e-6."""

    def lost(seed: int) -> bool:
        m = Machine(Delay(1, 8), draws(seed))
        word = Word(m, "counter")

        def increment() -> None:
            store(word, load(word) + 1)

        m.run(lambda: m.join(*m.start(increment, increment)))
        return word.peek() == 1

    assert profile_steps_of_two_increments() == 8
    assert abs(sum(lost(seed) for seed in range(4500)) - 500) < 110


def profile_steps_of_two_increments() -> int:
    m = Machine(Default(), backend=GREENLETS)
    word = Word(m, "counter")

    def increment() -> None:
        store(word, load(word) + 1)

    m.run(lambda: m.join(*m.start(increment, increment)))
    return profile_of(m).steps


def test_under_counted_weights_still_find_the_bug() -> None:
    """A profile that saw one event of cpu1 where there are four. Clamped, cpu1 makes both accesses
    first with p >= 1/64: 1500 runs all miss with p < 1e-10. With a weight of 0 none would hit."""
    assert orders(lambda: Urw((1, 3, 1)), (1, 2), 1500)[1, 1, 0] > 0


def test_the_profile_counts_what_tasks_share() -> None:
    m = Machine(Default())
    shared, own = Word(m, "shared"), Word(m, "own")

    def one() -> None:
        store(shared, 1)
        store(own, load(own) + 1)

    m.run(lambda: m.join(*m.start(one, lambda: [load(shared), load(shared)])))
    assert profile_of(m) == Profile(9, (1, 5, 4), {"shared": (1, 1, 2)})


@pytest.mark.parametrize("name", ["2b-i-munlock", "7a", "2d"])
@pytest.mark.parametrize("spelling", SAMPLERS)
def test_a_sampler_sees_only_what_a_schedule_can_show(name: str, spelling: str) -> None:
    """A sampled run, its turns written down and replayed, is the same run."""
    from dataclasses import replace

    from fuzz.turns import write_down

    program = read_program(races_folder() / f"{name}.prog").bare()
    scheduler = make_scheduler(expand(spelling, lambda: profile(program)))
    for seed in range(15):
        outcome = run(program, None, scheduler, draws(seed))
        again = run(replace(program, schedule=write_down(outcome)))
        assert again.diverged is None
        assert again.trace_hash == outcome.trace_hash

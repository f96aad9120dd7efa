"""Programs of a user's own that behave badly: none of them gets a wrong verdict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.prog.text import parse_schedule
from fuzz.schedulers import Replay
from fuzz.userfile import user_program

HEAD = """\
from kstate.machine import *
from kstate.machine import RwSem, RwSemClass

A, B, R = MutexClass("a"), MutexClass("b"), RwSemClass("sem")
"""


def kfuzz(
    tmp_path: Path, command: str, body: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Run `kfuzz COMMAND mine.py:f` with f's file so."""
    file = tmp_path / "mine.py"
    file.write_text(HEAD + body)
    return subprocess.run(
        [sys.executable, "-m", "fuzz", command, f"{file}:f", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


TWO_LOCKS = """
def f(m):
    a, b = Mutex(m, A, "a"), Mutex(m, B, "b")

    def task(one, other):
        def body():
            {}
        return body

    return lambda: m.join(*m.spawn(task(a, b), task(b, a)))
"""


@pytest.mark.parametrize(
    "body",
    [
        """mutex_lock(one)
            try:
                mutex_lock(other)
                mutex_unlock(other)
            finally:
                mutex_unlock(one)""",
        """mutex_lock(one)
            try:
                mutex_lock(other)
                mutex_unlock(other)
            except Exception:
                pass
            mutex_unlock(one)""",
        """mutex_lock(one)
            try:
                mutex_lock(other)
                mutex_unlock(other)
            finally:
                try:
                    mutex_unlock(one)
                finally:
                    mutex_lock(one)""",
    ],
    ids=["finally", "except", "finally twice"],
)
@pytest.mark.parametrize("bound", [(), ("--preemptions", 2), ("--preemptions", 2, "--jobs", 2)])
def test_a_deadlock_is_one_whatever_the_tasks_do_about_it(
    tmp_path: Path, body: str, bound: tuple[object, ...]
) -> None:
    result = kfuzz(tmp_path, "explore", TWO_LOCKS.format(body), *bound)
    assert result.returncode == 1, result
    assert "\ndeadlock: " in result.stdout
    assert "context-error" not in result.stdout


def test_a_task_that_exits_is_an_exception_of_the_program(tmp_path: Path) -> None:
    result = kfuzz(
        tmp_path, "explore", "def f(m):\n    return lambda: m.join(*m.spawn(lambda: exit(0)))\n"
    )
    assert result.returncode == 1
    assert "exception: " in result.stdout
    assert "SystemExit" in result.stdout


@pytest.mark.parametrize(
    "body",
    [
        "raise SystemExit(0)\n",
        "def f(m):\n    exit(0)\n",
        "def f(m):\n    def task():\n        yield\n    return lambda: m.join(*m.spawn(task))\n",
        "def f(m):\n    async def task():\n        pass\n    return task\n",
        "def f(m):\n    Word(m, 'a # b')\n    return lambda: None\n",
        "def f(m):\n    mutex_unlock(Mutex(m, A, 'a'))\n    return lambda: None\n",
    ],
    ids=["exit on import", "exit in set-up", "generator", "coroutine", "name", "no task yet"],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, body: str) -> None:
    result = kfuzz(tmp_path, "explore", body)
    assert result.returncode == 2, result
    assert result.stderr.startswith("kfuzz: ")
    assert result.stderr.count("\n") == 1


def test_calls_of_the_first_task_may_fail(tmp_path: Path) -> None:
    body = """
def f(m):
    def init():
        assert not m.fault("disk")
        m.join(*m.spawn(lambda: None))
    return init
"""
    assert kfuzz(tmp_path, "explore", body).returncode == 0
    result = kfuzz(tmp_path, "explore", body, "--faults", 1)
    assert result.returncode == 1
    assert "  init disk #1\n" in result.stdout


FAILS = """
def f(m):
    done = Word(m, "done")

    def task():
        if m.fault("disk"):
            assert load(done)

    return lambda: m.join(*m.spawn(task, lambda: store(done, 1)))
"""


def test_a_run_with_a_fault_is_minimised_and_drawn(tmp_path: Path) -> None:
    turns = tmp_path / "turns"
    assert kfuzz(tmp_path, "minimize", FAILS, "-o", turns).returncode == 0
    assert turns.read_text() == "faults:\n  cpu0 disk #1\nschedule:\n"
    drawn = kfuzz(tmp_path, "show", FAILS, "--schedule", turns)
    assert "// assertion: " in drawn.stdout
    turns.write_text("faults:\n  cpu0 disk #1\n  cpu0 disk #2\nschedule:\n")
    again = kfuzz(tmp_path, "minimize", FAILS, "--schedule", turns)
    assert again.stdout == "faults:\n  cpu0 disk #1\nschedule:\n"


INIT_COMPETES = """
def f(m):
    word = Word(m, "word")
    seen = []

    def init():
        task, = m.spawn(lambda: seen.append(load(word)))
        store(word, 1)
        store(word, 2)
        m.join(task)
        assert seen != [1]
    return init
"""


@pytest.mark.parametrize("bound", [(), ("--preemptions", 2)])
def test_turns_of_an_init_that_competes(tmp_path: Path, bound: tuple[object, ...]) -> None:
    result = kfuzz(tmp_path, "explore", INIT_COMPETES, *bound)
    assert result.returncode == 1
    schedule = result.stdout[result.stdout.index("schedule:") :]
    assert "  init until mine.py:init store(word) #2\n" in schedule
    turns = tmp_path / "turns"
    turns.write_text(schedule)
    drawn = kfuzz(tmp_path, "show", INIT_COMPETES, "--schedule", turns)
    assert "// assertion: " in drawn.stdout
    assert "diverged" not in drawn.stdout
    assert drawn.stdout.splitlines()[2].split() == ["init", "cpu0"]
    small = kfuzz(tmp_path, "minimize", INIT_COMPETES)
    assert small.stdout.startswith("schedule:\n  init until mine.py:init store(word) #2\n")


def test_turns_of_tasks_that_begin_in_two_rounds(tmp_path: Path) -> None:
    body = """
def f(m):
    word, seen = Word(m, "word"), []

    def one():
        store(word, 1)
        store(word, 2)

    def init():
        m.join(*m.spawn(lambda: None, lambda: None))
        m.join(*m.spawn(one, lambda: seen.append(load(word))))
        assert seen != [1]
    return init
"""
    turns = tmp_path / "turns"
    assert kfuzz(tmp_path, "minimize", body, "-o", turns).returncode == 0
    drawn = kfuzz(tmp_path, "show", body, "--schedule", turns)
    assert "// assertion: " in drawn.stdout
    assert "diverged" not in drawn.stdout


FORGETS = """
count = [0]

def f(m):
    count[0] += 1
    word, seen = Word(m, "word"), []
    late = count[0] > {}

    def one():
        store(word, 1)
        store(word, 2)

    def init():
        m.join(*m.spawn(one, lambda: seen.append(load(word))))
        assert late or seen != [1]
    return init
"""


@pytest.mark.parametrize("bound", [(), ("--preemptions", 2)])
def test_a_finding_that_cannot_be_had_again_is_none(
    tmp_path: Path, bound: tuple[object, ...]
) -> None:
    """Only its first runs show it."""
    results = [kfuzz(tmp_path, "explore", FORGETS.format(runs), *bound) for runs in (4, 5, 6, 8)]
    refused = [result for result in results if result.returncode == 2]
    assert refused
    for result in refused:
        assert "not deterministic" in result.stderr
    assert {result.returncode for result in results} <= {0, 1, 2}


def test_a_choice_that_is_gone_is_told(tmp_path: Path) -> None:
    body = """
count = [0]

def f(m):
    count[0] += 1
    word = Word(m, "word")

    def task():
        store(word, 1)
        if count[0] < 5:
            store(word, 2)
            store(word, 3)

    return lambda: m.join(*m.spawn(task, task))
"""
    result = kfuzz(tmp_path, "explore", body, "--preemptions", 2)
    assert result.returncode == 2
    assert "not deterministic" in result.stderr


def test_a_sample_of_a_program_that_is_not_deterministic_is_refused(tmp_path: Path) -> None:
    body = """
count = [0]

def f(m):
    count[0] += 1
    return lambda: m.join(*m.spawn(*[lambda: None] * count[0]))
"""
    result = kfuzz(tmp_path, "sample", body, "--scheduler", "pos", "--runs", 5)
    assert result.returncode == 2
    assert "not deterministic" in result.stderr


def test_a_run_at_the_step_limit_refutes_nothing(tmp_path: Path) -> None:
    body = """
def f(m):
    flag = Word(m, "flag")

    def wait():
        while not load(flag):
            pass

    return lambda: m.join(*m.spawn(wait, lambda: store(flag, 1)))
"""
    result = kfuzz(tmp_path, "explore", body, "--preemptions", 0)
    assert result.returncode == 3, result
    assert result.stdout.startswith("UNDETERMINED")
    assert "\nstep-limit: " in result.stdout
    named = kfuzz(tmp_path, "explore", body, "--preemptions", 0, "--only", "step-limit")
    assert named.returncode == 1


def test_a_clean_search_for_one_finding_names_it(tmp_path: Path) -> None:
    result = kfuzz(tmp_path, "explore", FAILS, "--faults", 1, "--only", "deadlock")
    assert result.returncode == 0
    assert "no run shows deadlock;" in result.stdout


def test_a_checkpoint_is_of_all_the_files_that_were_loaded(tmp_path: Path) -> None:
    body = "import helper\n\ndef f(m):\n    return lambda: m.join(*m.spawn(helper.task))\n"
    helper, kept = tmp_path / "helper.py", tmp_path / "kept"
    helper.write_text("def task():\n    pass\n")
    assert kfuzz(tmp_path, "explore", body, "--checkpoint", kept).returncode == 0
    assert kfuzz(tmp_path, "explore", body, "--checkpoint", kept).returncode == 0
    helper.write_text("def task():\n    assert False\n")
    result = kfuzz(tmp_path, "explore", body, "--checkpoint", kept)
    assert result.returncode == 2
    assert "is no checkpoint of this search" in result.stderr


def test_a_reader_behind_a_queued_writer_waits_though_it_reads_already(tmp_path: Path) -> None:
    body = """
def f(m):
    sem = RwSem(m, R, "sem")

    def reader():
        down_read(sem)
        down_read(sem)
        up_read(sem)
        up_read(sem)

    def writer():
        down_write(sem)
        up_write(sem)

    return lambda: m.join(*m.spawn(reader, writer))
"""
    result = kfuzz(tmp_path, "explore", body)
    assert result.returncode == 1
    assert "\ndeadlock: " in result.stdout


def test_a_grace_period_does_not_wait_for_sections_that_begin_later(tmp_path: Path) -> None:
    """The reader's second section lasts until the grace period is over. That ends, unless it began
    within that section."""
    body = """
def f(m):
    begun, over = Word(m, "begun"), Word(m, "over")

    def reader():
        rcu_read_lock(m)
        rcu_read_unlock(m)
        rcu_read_lock(m)
        if load(begun):
            if not load(over):
                retry_when_changed((over, "_value"))
        rcu_read_unlock(m)

    def updater():
        synchronize_rcu(m)
        store(over, 1)

    def init():
        store(begun, 1)
        m.join(*m.spawn(reader, updater))
    return init
"""
    turns = tmp_path / "turns"
    turns.write_text(
        "schedule:\n  cpu0 until mine.py:reader rcu_read_unlock(rcu) #1\n"
        "  cpu1 until blocked\n  cpu0 until blocked\n"
    )
    drawn = kfuzz(tmp_path, "show", body, "--schedule", turns)
    assert "// nothing found" in drawn.stdout, drawn
    assert "diverged" not in drawn.stdout


def test_a_dataclass_with_annotations_as_text(tmp_path: Path) -> None:
    body = """
from dataclasses import dataclass

@dataclass
class Thing:
    number: "int"

def f(m):
    return lambda: m.join(*m.spawn(lambda: Thing(1)))
"""
    file = tmp_path / "mine.py"
    file.write_text("from __future__ import annotations\n" + HEAD + body)
    again = subprocess.run(
        [sys.executable, "-m", "fuzz", "explore", f"{file}:f"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again


def test_an_error_is_told_by_the_users_line(tmp_path: Path) -> None:
    body = "def f(m):\n    return lambda: m.join(*m.spawn(lambda: load(None)))\n"
    result = kfuzz(tmp_path, "explore", body)
    assert result.returncode == 1
    assert "(mine.py:" in result.stdout


def test_a_file_that_no_schedule_can_name(tmp_path: Path) -> None:
    file = tmp_path / "my file.py"
    file.write_text("def f(m):\n    return lambda: None\n")
    result = subprocess.run(
        [sys.executable, "-m", "fuzz", "explore", f"{file}:f"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert "a schedule names the file" in result.stderr


NEVER_RAN = """
def f(m):
    seen = Word(m, "seen")

    def a():
        store(seen, 1)

    def b():
        assert load(seen) == 1, "not seen"

    return lambda: m.join(*m.spawn(a, b))
"""
GRANDCHILD = """
def f(m):
    x = Word(m, "x")

    def child():
        m.spawn(lambda: store(x, 1))

    def init():
        m.spawn(child)
        assert load(x) == 0, "the grandchild was first"
        while len([t for t in m.tasks if not t.ended]) > 1:
            m.join(*[t for t in m.tasks[1:] if not t.ended])

    return init
"""
LENT = """
def f(m):
    w, x, lock = Word(m, "w"), Word(m, "x"), SpinLock(m, SpinLockClass("s"), "s")

    def one():
        store(w, 1)
        spin_lock(lock)
        store(x, 1)
        spin_unlock(lock)

    def other():
        borrow_cpu(m.tasks[1])
        seen = load(w), load(x)
        return_cpu(m.tasks[1])
        assert seen != (1, 0), "between the two"

    return lambda: m.join(*m.spawn(one, other))
"""
NAMED_RCU = """
def f(m):
    x = Word(m, "rcu")

    def init():
        m.join(*m.spawn(lambda: store(x, 1), lambda: store(x, 2)))
        assert load(x) != 1, "1 was last"

    return init
"""
FORGOTTEN = """
def f(m):
    x, y = Word(m, "x"), Word(m, "y")

    def task():
        store(x, 1)
        assert load(y) == 0, "late"

    def init():
        m.spawn(task)
        store(y, 1)

    return init
"""


@pytest.mark.parametrize(
    "bound", [(), ("--preemptions", 1), ("--preemptions", 2, "--jobs", 2)], ids=str
)
@pytest.mark.parametrize(
    "body",
    [NEVER_RAN, GRANDCHILD, LENT, NAMED_RCU, FORGOTTEN],
    ids=["a task that never ran", "grandchild", "lent CPU", "a word named rcu", "forgotten join"],
)
def test_an_assertion_that_can_fail_is_refuted_by_a_run_that_replays(
    tmp_path: Path, body: str, bound: tuple[object, ...]
) -> None:
    result = kfuzz(tmp_path, "explore", body, *bound)
    assert result.returncode == 1, result
    assert "\nassertion: " in result.stdout
    turns = result.stdout.partition("schedule:\n")[2]
    if turns:
        (tmp_path / "turns").write_text("schedule:\n" + turns.partition("\n\n")[0])
        shown = kfuzz(tmp_path, "show", body, "--schedule", tmp_path / "turns")
        assert shown.returncode == 0, shown


def test_what_a_task_does_after_a_deadlock_is_no_part_of_the_run(tmp_path: Path) -> None:
    """Its `finally` would let the other in, who would find what no run can show."""
    body = """
def f(m):
    lock, q, inside = Mutex(m, A, "a"), WaitQueue(m, WaitQueueClass("q"), "q"), Word(m, "inside")

    def holder():
        mutex_lock(lock)
        try:
            wait_event(q, lambda: load(inside) == 1)
        finally:
            mutex_unlock(lock)

    def waiter():
        mutex_lock(lock)
        assert False, "I am inside, though it holds the lock"

    return lambda: m.join(*m.spawn(holder, waiter))
"""
    for bound in ((), ("--preemptions", 0)):
        result = kfuzz(tmp_path, "explore", body, *bound, "--only", "deadlock")
        assert result.returncode == 1, result
    result = kfuzz(tmp_path, "explore", body, "--preemptions", 0)
    assert "deadlock" in result.stdout
    assert "cpu0" in result.stdout


def test_a_task_that_swallows_everything_ends_at_the_step_limit(tmp_path: Path) -> None:
    body = """
def f(m):
    x = Word(m, "x")

    def task():
        while True:
            try:
                load(x)
            except BaseException:
                pass

    return lambda: m.join(*m.spawn(task))
"""
    result = kfuzz(tmp_path, "explore", body, "--preemptions", 0)
    assert result.returncode == 3, result
    assert "step limit" in result.stdout


def test_a_word_that_is_stored_with_the_same_value_has_not_changed(tmp_path: Path) -> None:
    body = """
def f(m):
    x = Word(m, "x", 1000)

    def waits():
        load(x)
        retry_when_changed((x, "_value"))

    return lambda: m.join(*m.spawn(waits, lambda: store(x, 10 * 100)))
"""
    result = kfuzz(tmp_path, "explore", body, "--preemptions", 0)
    assert "deadlock" in result.stdout


def test_of_the_turns_that_minimize_leaves_none_can_be_left_out(tmp_path: Path) -> None:
    body = """
def f(m):
    x, y = Word(m, "x"), Word(m, "y")

    def a():
        fetch_add(x, 1)
        fetch_add(x, 1)
        store(y, 1)

    def b():
        load(x)
        assert not (load(y) == 0 and load(x) == 1), "in between"

    def c():
        fetch_add(y, 0)
        fetch_add(y, 0)

    return lambda: m.join(*m.spawn(a, b, c))
"""
    kfuzz(tmp_path, "minimize", body, "-o", tmp_path / "turns")
    subject = user_program(f"{tmp_path / 'mine.py'}:f")
    _, turns = parse_schedule((tmp_path / "turns").read_text())
    assert "assertion" in subject.run(Replay(turns)).findings
    for at in range(len(turns)):
        less = subject.run(Replay(turns[:at] + turns[at + 1 :]))
        assert "assertion" not in less.findings, at

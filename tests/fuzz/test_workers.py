"""Worker processes: what they answer, and that one that is lost is missed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from fuzz.workers import WorkerLost, Workers

TIMEOUT_S = 10.0


def _all(workers: Workers, parts: list[int]) -> dict[int, int]:
    done = {}
    left = list(parts)
    while left or workers.busy:
        while left and workers.idle:
            workers.give(left.pop())
        done.update(workers.answers(TIMEOUT_S))
    return done


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_part_is_answered_once(jobs: int) -> None:
    with Workers(jobs, lambda part: part * part) as workers:
        assert _all(workers, list(range(20))) == {part: part * part for part in range(20)}


def test_what_work_raises_is_raised() -> None:
    def work(part: int) -> int:
        raise ValueError(f"no {part}")

    with Workers(2, work) as workers, pytest.raises(ValueError, match="no 7"):
        _all(workers, [7])


def test_one_that_is_killed_while_idle_is_missed() -> None:
    with Workers(2, lambda part: part) as workers:
        process = workers.processes[0]
        os.kill(process.pid, signal.SIGKILL)
        process.join(TIMEOUT_S)
        with pytest.raises(WorkerLost):
            list(workers.answers(TIMEOUT_S))


def test_one_that_is_killed_at_work_is_missed() -> None:
    def work(part: int) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with Workers(2, work) as workers, pytest.raises(WorkerLost):
        _all(workers, [1])


def test_no_worker_outlives_one_that_is_killed() -> None:
    """Each ends when its pipe does: no other worker holds the far end of it open."""
    said, heard = os.pipe()
    starter = os.fork()
    if starter == 0:
        os.setsid()
        workers = Workers(3, lambda part: part)
        pids = " ".join(str(process.pid) for process in workers.processes)
        os.write(heard, pids.encode())
        signal.pause()
    pids = [int(pid) for pid in os.read(said, 200).split()]
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    deadline = time.monotonic() + TIMEOUT_S
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    left = [pid for pid in pids if _runs(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def _runs(pid: int) -> bool:
    """Does it run? One that has ended and that nobody has waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

"""Several campaigns at once, one a process, each with a seed of its own."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from queue import Empty
from typing import Any

import multiprocess

from fuzz.campaign.driver import Driver, Event, Options, Status
from fuzz.campaign.portfolio import Yield
from fuzz.prog.prog import Program


def run_workers(driver: Driver, initial: tuple[Program, ...], jobs: int) -> Iterator[Event]:
    """Run `jobs` campaigns; tells their events and a common status. `driver.stop` stops them all.

    Each worker saves what it finds itself, at once; two that find one crash keep the smaller.
    """
    context = multiprocess.get_context("fork")
    queue: Any = context.Queue()
    options = driver.options
    share = None if options.runs_max is None else -(-options.runs_max // jobs)
    workers = []
    for number in range(jobs):
        mine = replace(options, seed=f"{options.seed}/{number}", runs_max=share)
        worker = context.Process(target=_work, args=(queue, number, mine, initial), daemon=True)
        worker.start()
        workers.append(worker)
    latest: dict[int, Status] = {}
    told: set[tuple[str, bool]] = set()
    finished = 0
    stopping = False
    while finished < jobs:
        if driver.stopped and not stopping:
            stopping = True
            for worker in workers:
                worker.terminate()  # SIGTERM: they end their round and say so
        try:
            number, event = queue.get(timeout=0.2)
        except Empty:
            if not any(worker.is_alive() for worker in workers):
                break
            continue
        if event is None:
            finished += 1
        elif isinstance(event, Status):
            latest[number] = event
            yield _together(latest)
        elif (event.name, event.minimised) not in told:
            told.add((event.name, event.minimised))
            yield event
    for worker in workers:
        worker.join()
    yield _together(latest)


def _work(queue: Any, number: int, options: Options, initial: tuple[Program, ...]) -> None:
    driver = Driver(options, initial)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    signal.signal(signal.SIGTERM, lambda *_: driver.stop())
    for event in driver.events():
        queue.put((number, event))
    queue.put((number, None))


def _together(latest: dict[int, Status]) -> Status:
    total = Status()
    for status in latest.values():
        total.runs += status.runs
        total.elapsed_s = max(total.elapsed_s, status.elapsed_s)
        total.corpus += status.corpus
        total.features = max(total.features, status.features)
        for id, count in status.counts.items():
            total.counts[id] = total.counts.get(id, 0) + count
        for id, first in status.first_hit.items():
            known = total.first_hit.get(id)
            total.first_hit[id] = first if known is None or first[1] < known[1] else known
        for name, mine in status.strategies.items():
            common = total.strategies.setdefault(name, Yield())
            common.rounds += mine.rounds
            common.steps += mine.steps
            common.news += mine.news
    return total

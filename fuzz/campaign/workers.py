"""Several campaigns at once, one a process, each with a seed of its own."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import multiprocess
from multiprocess.connection import wait

from fuzz.campaign.driver import Driver, Event, Failed, Lost, Options, Status
from fuzz.campaign.portfolio import Yield
from fuzz.prog.prog import Program

LOOK_EVERY_S = 0.2  # whether to stop


def run_workers(driver: Driver, initial: tuple[Program, ...], jobs: int) -> Iterator[Event]:
    """Run `jobs` campaigns; tells their events and a common status. `driver.stop` stops them all.

    Each worker saves what it finds itself, at once; two that find one crash keep the smaller. One
    that is killed is told of, and the others go on.
    """
    context = multiprocess.get_context("fork")
    options = driver.options
    share = None if options.runs_max is None else -(-options.runs_max // jobs)
    workers: dict[
        Any, tuple[Any, str]
    ] = {}  # process and seed, by the pipe it tells events through
    for number in range(jobs):
        seed = f"{options.seed}/{number}"
        mine = replace(options, seed=seed, runs_max=share)
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(theirs, mine, initial), daemon=True)
        worker.start()
        theirs.close()
        workers[ours] = worker, seed
    latest: dict[str, Status] = {}
    told: set[tuple[str, bool]] = set()
    stopping = False
    while workers:
        if driver.stopped and not stopping:
            stopping = True
            for worker, _ in workers.values():
                worker.terminate()  # SIGTERM: they end their round and say so
        for pipe in wait(list(workers), LOOK_EVERY_S):
            worker, seed = workers[pipe]
            try:
                event = pipe.recv()
            except (EOFError, OSError):
                event = Lost(seed)
            if event is None or isinstance(event, (Failed, Lost)):
                worker.join()
                del workers[pipe]
            if isinstance(event, Status):
                latest[seed] = event
                yield _together(latest)
            elif isinstance(event, (Failed, Lost)):
                yield event
            elif event is not None and (event.name, event.minimised) not in told:
                told.add((event.name, event.minimised))
                yield event
    yield _together(latest)


def _work(pipe: Any, options: Options, initial: tuple[Program, ...]) -> None:
    driver = Driver(options, initial)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    signal.signal(signal.SIGTERM, lambda *_: driver.stop())
    try:
        for event in driver.events():
            pipe.send(event)
        pipe.send(None)
    except BrokenPipeError:
        return  # whoever started it is gone
    except Exception as error:
        error.add_note(traceback.format_exc())  # its own traceback does not go through the pipe
        pipe.send(Failed(str(options.seed), error))


def _together(latest: dict[str, Status]) -> Status:
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

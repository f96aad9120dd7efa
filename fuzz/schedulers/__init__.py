"""Schedulers, one algorithm a file. The protocol is the machine's: kstate.machine.Scheduler."""

from fuzz.schedulers.default import Default
from fuzz.schedulers.pct import Pct
from fuzz.schedulers.random_walk import RandomWalk
from fuzz.schedulers.replay import Replay
from fuzz.schedulers.spelling import expand, make_scheduler

__all__ = ["Default", "Pct", "RandomWalk", "Replay", "expand", "make_scheduler"]

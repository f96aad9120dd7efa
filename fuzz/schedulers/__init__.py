"""Schedulers, one algorithm a file. The protocol is the machine's: kstate.machine.Scheduler."""

from fuzz.schedulers.default import Default
from fuzz.schedulers.delay import Delay
from fuzz.schedulers.pct import Pct
from fuzz.schedulers.pos import Pos
from fuzz.schedulers.profile import Profile, profile_of
from fuzz.schedulers.random_walk import RandomWalk
from fuzz.schedulers.replay import Replay
from fuzz.schedulers.spelling import SAMPLERS, expand, make_scheduler
from fuzz.schedulers.surw import Surw
from fuzz.schedulers.urw import Urw

__all__ = [
    "SAMPLERS",
    "Default",
    "Delay",
    "Pct",
    "Pos",
    "Profile",
    "RandomWalk",
    "Replay",
    "Surw",
    "Urw",
    "expand",
    "make_scheduler",
    "profile_of",
]

"""Every schedule, one run per class of equivalent ones.

events.py    what conflicts
trace.py     happens-before and races of a run
guide.py     the scheduler that follows a path
subject.py   what can be searched
search.py    the search
"""

from fuzz.dpor.search import Search
from fuzz.dpor.subject import MachineSubject, ProgramSubject, Ran, Subject

__all__ = ["MachineSubject", "ProgramSubject", "Ran", "Search", "Subject"]

"""Every schedule, one run per class of equivalent ones.

events.py    what conflicts
trace.py     happens-before and races of a run
guide.py     the scheduler that follows a path
search.py    the search
"""

from fuzz.dpor.search import Search

__all__ = ["Search"]

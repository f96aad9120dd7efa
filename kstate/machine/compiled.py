"""Is this kstate compiled? The build that compiles it, see setup.py, says True in its copy."""

from typing import Final

COMPILED: Final = False

"""`python -m fuzz` is `kfuzz`."""

import os
import signal


def main() -> None:
    """Until all commands are imported Ctrl-C just ends it: nothing can be lost yet."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    from fuzz import cli

    cli.main()


if __name__ == "__main__":
    main()

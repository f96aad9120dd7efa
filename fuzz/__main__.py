"""`python -m fuzz` is `kfuzz`."""

from fuzz.cli import main

if __name__ == "__main__":
    main()

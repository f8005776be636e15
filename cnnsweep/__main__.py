"""`python -m cnnsweep`."""

from cnnsweep.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m harness.cli`: the command line without what `harness.__main__` catches while it is imported."""

import sys

from harness.cli.running import main

if __name__ == "__main__":
    sys.exit(main())

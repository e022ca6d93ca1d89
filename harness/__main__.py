"""`harness` and `python -m harness`: an interrupt before the command line is there ends as one in it."""

import sys


def main() -> int:
    """Run the command line and return the exit code."""
    try:
        from harness import cli
    except KeyboardInterrupt:
        print("harness: stopped", file=sys.stderr)
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())

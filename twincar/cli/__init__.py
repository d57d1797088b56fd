"""The command line `twincar`; `twincar --help` lists its commands.

Each command parses its options, calls functions of the package and prints the result.
"""

import sys

from twincar.cli import classes, data, evaluate, fit, hub, predict, train  # noqa: F401  registers the commands
from twincar.cli.base import app


def main() -> None:
    """Run the command line: the entry point of `twincar` and `python -m twincar`."""
    try:
        app()
    except BrokenPipeError:  # `twincar predict … | head`
        sys.stderr.close()

"""The command `twincar`. Each verb reads its words, calls one function of the package, and says what came of it.

twincar --help
"""

import sys

from twincar.cli import data, evaluate, fit, hub, predict, train  # noqa: F401  each adds its commands to the app
from twincar.cli.base import app


def main() -> None:
    """Entry point of the command; also `python -m twincar`."""
    try:
        app()
    except BrokenPipeError:  # `twincar predict … | head`
        sys.stderr.close()

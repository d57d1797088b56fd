"""Formatting of numbers and of untrusted file names. Standard library only, so that the command line starts fast."""

MAX_NAME_LENGTH = 160  # characters


def count(n: int, one: str, many: str | None = None) -> str:
    """Format a count with its noun: 1 picture, 2 pictures, 8,144 pictures.

    Args:
        n: The number.
        one: The noun in the singular.
        many: The noun in the plural; by default `one` with an "s".
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def percent(fraction: float, digits: int = 1) -> str:
    """Format a fraction (0-1) as a percentage: "91.8 %" with a no-break space, "< 0.1 %" for what rounds to 0."""
    if 0 < fraction < 0.5 * 10 ** -(digits + 2):
        return f"<\N{NO-BREAK SPACE}{10.0**-digits:.{digits}f}\N{NO-BREAK SPACE}%"
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def printable(name: str) -> str:
    """Return an untrusted file name on one line, without control characters (a terminal would run them)."""
    return "".join(" " if c.isspace() else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def display_name(name: str) -> str:
    """Return an untrusted file name for display: printable, the end of at most MAX_NAME_LENGTH characters."""
    name = printable(name)
    return name if len(name) <= MAX_NAME_LENGTH else "…" + name[1 - MAX_NAME_LENGTH :]

"""Numbers and strangers' names, fit to be read. It imports nothing, so that the command line starts at once."""

LONGEST_NAME = 160  # characters that are shown


def count(n: int, one: str, many: str | None = None) -> str:
    """1 picture, 2 pictures, 8,144 pictures."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def printable(name: str) -> str:
    """A stranger's name for a file on one line, without anything that a terminal would obey."""
    return "".join(" " if c.isspace() else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)


def shown(name: str) -> str:
    """A stranger's name for a file, fit to be shown: printable, no longer than LONGEST_NAME, its end kept."""
    name = printable(name)
    return name if len(name) <= LONGEST_NAME else "…" + name[1 - LONGEST_NAME :]

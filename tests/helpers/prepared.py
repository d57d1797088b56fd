"""Run `prepare`, and read what it wrote."""

from pathlib import Path

import pandas as pd

from twincar.data.table import load_table, prepare


def run(source, out, **options):
    summary = prepare(source, out, progress=False, **options)
    return summary, load_table(out)


def rejected(out) -> dict[str, str]:
    rows = pd.read_csv(out / "rejected.csv", dtype=str)
    return {Path(path).name: reason for path, reason in zip(rows["path"], rows["reason"], strict=True)}


def names_of(table, split) -> set[str]:
    return {Path(p).name for p in table.loc[table["split"] == split, "path"]}

"""A published model and prepared data -> everything in `reports/<recipe>/`.

    twincar report --model models/twincar --data data/

writes the tables: `scores.json`, `predictions.csv`, `per_class.csv` (of `evaluate`), `confusion.csv`,
`confused_pairs.csv`, `class_distribution.csv`, `classification_report.json` and `.csv`, `class_mappings.json`,
`reliability.csv`, `calibration.json`. The training log (`metrics.csv`, `recipe.json`, `run.json`) is the run's own.
"""

import shutil
from pathlib import Path

import pandas as pd
import torch

from twincar import tables
from twincar.config import TwinCarError
from twincar.files import write_beside, write_csv, write_json
from twincar.modeling.calibrate import calibration, cross_fitted, reliability
from twincar.modeling.evaluate import Evaluation, evaluate
from twincar.modeling.predict import Predictor

LOG = ("metrics.csv", "recipe.json", "run.json")  # what a run leaves


def report(
    predictor: Predictor, table: pd.DataFrame, out: Path, *, run: Path | None = None, split: str = "val", progress=True
) -> Evaluation:
    """Measure `predictor` on a split of `table` and write every table and figure into the folder `out`.

    run : a folder that `twincar train` wrote, whose log is copied; else a log that lies in `out` already is used.
    Raises TwinCarError as `evaluate` does, or when `run` holds no log.
    """
    if run and (missing := [name for name in LOG if not (run / name).is_file()]):
        raise TwinCarError(f"{run} holds no {missing[0]}: name a folder that `twincar train` wrote.")
    result = evaluate(predictor, table, split, progress=progress)
    for name in LOG if run else ():
        with write_beside(out / name) as beside:
            shutil.copyfile(run / name, beside)
    write_tables(predictor, result, table, out)
    return result


def folder_name(config: dict) -> str:
    """The folder in `reports/` for a model: its recipe's name, else its own."""
    return config.get("recipe", {}).get("name") or config.get("name", "model").lower().replace(" ", "-")


def write_tables(predictor: Predictor, result: Evaluation, table: pd.DataFrame, out: Path) -> None:
    """Write every table that hangs on the model's answers, and the tables of names and data beside them."""
    names = predictor.class_names
    result.save(out)
    counted = tables.classification_report(result.predictions, names)
    write_json(counted, out / "classification_report.json")
    counted.pop("accuracy", None)
    rows = pd.DataFrame(counted).T.rename_axis("class_name").reset_index().astype({"support": int})
    write_csv(rows, out / "classification_report.csv")
    write_json(tables.class_mappings(names), out / "class_mappings.json")
    write_csv(tables.confusion(result.predictions), out / "confusion.csv")
    write_csv(tables.confused_pairs(result.predictions), out / "confused_pairs.csv")
    write_csv(tables.class_distribution(table, names), out / "class_distribution.csv")

    probabilities, labels = torch.from_numpy(result.probabilities), result.labels
    facts = {"temperature": predictor.config.get("temperature"), "cross_fitted": False, "as_published": None}
    if facts["temperature"] and result.scores["split"] == "val" and len(labels) > 1:
        # The published temperature was fitted on these very pictures: what it does to others is what we want to know.
        facts |= {"cross_fitted": True, "as_published": calibration(probabilities, labels)}
        probabilities = cross_fitted(probabilities, labels)
    write_json({**calibration(probabilities, labels), "pictures": len(labels), **facts}, out / "calibration.json")
    write_csv(reliability(probabilities, labels), out / "reliability.csv")

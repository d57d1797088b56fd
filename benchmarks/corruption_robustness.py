"""Robustness to corruptions: accuracy on corrupted validation pictures.

    python -m benchmarks.corruption_robustness models/twincar --data data --out reports

Validation pictures are cropped as `twincar evaluate` does, resized to the network's input size, corrupted with every
corruption and severity of `corruptions.py`, and predicted in one pass.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from scipy.stats import binomtest
from tqdm import tqdm

from benchmarks.common import write_report
from benchmarks.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from twincar import Predictor
from twincar.data.table import load_table
from twincar.features.transforms import squash
from twincar.files import write_csv
from twincar.modeling.evaluation.evaluate import load_crops
from twincar.plots.figures import canvas, percents, styled
from twincar.plots.palette import GREY, VIOLET
from twincar.report.report import save

REJECTED = "rejected as unknown or no car"


def corrupt(
    picture: np.ndarray, name: str, severity: int, row: int, corruptions: Mapping[str, Corruption] = CORRUPTIONS
) -> np.ndarray:
    """Corrupt a picture, with random numbers determined by its row, the corruption and the severity."""
    rng = np.random.default_rng([row, list(corruptions).index(name), severity])
    return corruptions[name](picture, severity, rng)


def measure(
    predictor: Predictor,
    pictures: list[np.ndarray],
    names: list[str],
    corruptions: Mapping[str, Corruption] = CORRUPTIONS,
) -> pd.DataFrame:
    """Predict the pictures without corruption and with each corruption and severity.

    Args:
        predictor: A published model.
        pictures: (H, W, 3) uint8, each of one car.
        names: Class name of each.
        corruptions: The corruptions by name.

    Returns:
        One row per corruption and severity: the accuracy, the mean probability of the predicted class, and the fraction
        of pictures that the model rejects.
    """
    jobs = [("none", 0), *((name, severity) for name in corruptions for severity in range(1, SEVERITIES + 1))]
    lines = []
    for name, severity in tqdm(jobs, desc="Corrupting", disable=None):
        inputs = (
            corrupt(picture, name, severity, row, corruptions) if severity else picture
            for row, picture in enumerate(pictures)
        )
        answers = predictor.batch(inputs, refine=False)
        best = [answer.top(1)[0] for answer in answers]
        lines.append(
            {
                "corruption": name,
                "severity": severity,
                "accuracy": np.mean([guess.class_name == truth for guess, truth in zip(best, names, strict=True)]),
                "probability": np.mean([guess.probability for guess in best]),
                REJECTED: np.mean([not (answer.is_car and answer.is_known) for answer in answers]),
            }
        )
    return pd.DataFrame(lines)


@styled
def figure(found: pd.DataFrame, count: int) -> Figure:
    """Draw accuracy and mean probability by severity, one chart per corruption."""
    drawn = canvas(
        7.2,
        "Accuracy by corruption and severity",
        f"Top-1 accuracy on {count} validation pictures (violet) and mean probability of the predicted class (grey), "
        "by severity; 0 is without corruption. Where grey is above violet, the model is overconfident.",
    )
    clean = found[found["severity"] == 0]
    for axes, name in zip(drawn.subplots(3, 3, sharex=True, sharey=True).flat, CORRUPTIONS, strict=True):
        line = pd.concat([clean, found[found["corruption"] == name]])
        axes.plot(line["severity"], line["probability"], color=GREY, ls=(0, (4, 3)), label="probability")
        axes.plot(line["severity"], line["accuracy"], color=VIOLET, marker="o", ms=4, label="accuracy")
        axes.set(title=name, ylim=(0, 1), xticks=range(SEVERITIES + 1))
        percents(axes.yaxis)
    return drawn


@styled
def sheet(picture: np.ndarray) -> Figure:
    """Draw one picture with every corruption (rows) and severity (columns)."""
    drawn = canvas(
        14.6,
        "The corruptions",
        "One picture with every corruption: left without, then severities 1 to 5.",
    )
    for axes, name in zip(drawn.subplots(len(CORRUPTIONS), SEVERITIES + 1), CORRUPTIONS, strict=True):
        for severity, place in enumerate(axes):
            place.imshow(corrupt(picture, name, severity, 0) if severity else picture)
            place.set(xticks=[], yticks=[])
            place.set_title(f"{name}, {severity}" if severity else "original", fontsize=9, weight="normal")
    return drawn


def table(found: pd.DataFrame, count: int) -> list[str]:
    """Format the results of `measure` as lines of Markdown."""
    clean = found.iloc[0]
    low, high = binomtest(round(clean["accuracy"] * count), count).proportion_ci(0.95, method="wilson")
    lines = [
        f"{count} validation pictures. Without corruption, top-1 accuracy is {clean['accuracy']:.1%} (95 % interval "
        f"{low:.1%} to {high:.1%}, Wilson), the mean probability of the predicted class {clean['probability']:.1%}, "
        f"and {clean[REJECTED]:.1%} are {REJECTED}. Columns 1 to 5 are the accuracy by severity; the last two columns "
        "are of severity 3.",
        "",
        f"| corruption | 1 | 2 | 3 | 4 | 5 | mean | probability | {REJECTED} |",
        "| --- |" + " ---: |" * (SEVERITIES + 3),
    ]
    for name in CORRUPTIONS:
        rows = found[found["corruption"] == name].set_index("severity")
        cells = [f"{value:.1%}" for value in [*rows["accuracy"], rows["accuracy"].mean()]]
        cells += [f"{rows.at[3, column]:.1%}" for column in ("probability", REJECTED)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    corrupted = found[found["severity"] > 0]
    return [*lines, "", f"Mean accuracy over all {len(corrupted)}: {corrupted['accuracy'].mean():.1%}."]


def main(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    data: Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write corruption_robustness.md, .csv and figures to.")
    ] = None,
    count: Annotated[int, typer.Option(min=8, help="Number of validation pictures.")] = 408,
) -> None:
    """Measure the accuracy of a published model on corrupted pictures."""
    predictor = Predictor.from_pretrained(model)
    rows = load_table(data).query("split == 'val'")
    rows = rows.sample(min(count, len(rows)), random_state=0)
    pictures = [squash(picture, predictor.size) for picture in load_crops(rows)]
    found = measure(predictor, pictures, list(rows["class_name"]))
    lines = table(found, len(rows))
    print("\n".join(lines))
    if out:
        save(figure(found, len(rows)), out / "corruption_robustness.svg")
        save(sheet(pictures[0]), out / "corruption_robustness.jpg")
        write_csv(found[["corruption", "severity", "accuracy"]], out / "corruption_robustness.csv", decimals=3)
        text = [
            "![Accuracy by severity](corruption_robustness.svg)",
            "",
            *lines,
            "",
            "The corruptions and severities, on one picture:",
            "",
            "![Every corruption and severity](corruption_robustness.jpg)",
        ]
        command = f"corruption_robustness {model} --data data --out reports"
        write_report(out / "corruption_robustness.md", "Robustness to corruptions", command, text)


if __name__ == "__main__":
    typer.run(main)

"""How much does a spoilt photo cost?

    python -m benchmarks.corruption_robustness models/twincar --data data --out reports

Validation pictures, cut to their boxes as `twincar evaluate` cuts them, spoilt in the ways and severities of
`corruptions.py` at the size that the network reads, and answered from one look.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from scipy.stats import binomtest
from tqdm import tqdm

from benchmarks.corruptions import CORRUPTIONS, SEVERITIES
from twincar import Predictor
from twincar.data.table import load_table
from twincar.features.transforms import squash
from twincar.files import atomic_write
from twincar.modeling.evaluation.evaluate import boxed
from twincar.plots.figures import canvas, percents, styled
from twincar.plots.palette import GREY, VIOLET
from twincar.report.report import save

KNOWN = "called unknown or no car"


def spoilt(picture: np.ndarray, name: str, severity: int, row: int) -> np.ndarray:
    """One picture, spoilt; the same each time, and otherwise than its neighbours."""
    rng = np.random.default_rng([row, list(CORRUPTIONS).index(name), severity])
    return CORRUPTIONS[name](picture, severity, rng)


def measure(predictor: Predictor, pictures: list[np.ndarray], names: list[str]) -> pd.DataFrame:
    """A row a way and severity, and one of the sound pictures: share right, mean probability of the answer, and share
    that the model doubts to be a car it knows."""
    jobs = [("none", 0), *((name, severity) for name in CORRUPTIONS for severity in range(1, SEVERITIES + 1))]
    lines = []
    for name, severity in tqdm(jobs, desc="Spoiling", disable=None):
        seen = (spoilt(picture, name, severity, row) if severity else picture for row, picture in enumerate(pictures))
        answers = predictor.batch(seen, refine=False)
        best = [answer.top(1)[0] for answer in answers]
        lines.append(
            {
                "spoilt by": name,
                "severity": severity,
                "right": np.mean([guess.class_name == truth for guess, truth in zip(best, names, strict=True)]),
                "probability": np.mean([guess.probability for guess in best]),
                KNOWN: np.mean([not (answer.is_car and answer.is_known) for answer in answers]),
            }
        )
    return pd.DataFrame(lines)


@styled
def figure(found: pd.DataFrame, count: int) -> Figure:
    """A small chart a way: accuracy, and what the model thought of it, over the severities."""
    drawn = canvas(
        7.2,
        "What spoils an answer",
        f"Top-1 accuracy on {count} validation pictures (violet), and the mean probability that the model gave its "
        "answers (grey), by severity; 0 is the sound picture. Grey above violet: surer than it should be.",
    )
    sound = found[found["severity"] == 0]
    for axes, name in zip(drawn.subplots(3, 3, sharex=True, sharey=True).flat, CORRUPTIONS, strict=True):
        line = pd.concat([sound, found[found["spoilt by"] == name]])
        axes.plot(line["severity"], line["probability"], color=GREY, ls=(0, (4, 3)), label="probability")
        axes.plot(line["severity"], line["right"], color=VIOLET, marker="o", ms=4, label="right")
        axes.set(title=name, ylim=(0, 1), xticks=range(SEVERITIES + 1))
        percents(axes.yaxis)
    return drawn


@styled
def sheet(picture: np.ndarray) -> Figure:
    """One picture in every way, a row each, and severity."""
    drawn = canvas(
        14.6,
        "What was done to them",
        "One picture for all, sound on the left, then spoilt more and more.",
    )
    for axes, name in zip(drawn.subplots(len(CORRUPTIONS), SEVERITIES + 1), CORRUPTIONS, strict=True):
        for severity, place in enumerate(axes):
            place.imshow(spoilt(picture, name, severity, 0) if severity else picture)
            place.set(xticks=[], yticks=[])
            place.set_title(f"{name}, {severity}" if severity else "sound", fontsize=9, weight="normal")
    return drawn


def table(found: pd.DataFrame, count: int) -> list[str]:
    sound = found.iloc[0]
    low, high = binomtest(round(sound["right"] * count), count).proportion_ci(0.95, method="wilson")
    lines = [
        f"{count} validation pictures. Sound, {sound['right']:.1%} are answered right (95 % interval {low:.1%} to "
        f"{high:.1%}, Wilson), with a mean probability of {sound['probability']:.1%}, and {sound[KNOWN]:.1%} are "
        f"{KNOWN}. The columns are severities; the last two are of severity 3.",
        "",
        f"| spoilt by | 1 | 2 | 3 | 4 | 5 | mean | probability | {KNOWN} |",
        "| --- |" + " ---: |" * (SEVERITIES + 3),
    ]
    for name in CORRUPTIONS:
        some = found[found["spoilt by"] == name].set_index("severity")
        shares = [f"{share:.1%}" for share in [*some["right"], some["right"].mean()]]
        lines.append(f"| {name} | {' | '.join(shares)} | {some.at[3, 'probability']:.1%} | {some.at[3, KNOWN]:.1%} |")
    worse = found[found["severity"] > 0]
    return [*lines, "", f"Mean over all {len(worse)}: {worse['right'].mean():.1%}."]


def main(
    model: Annotated[Path, typer.Argument(help="A published model's folder.")],
    data: Annotated[Path, typer.Option(help="What `twincar prepare` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write corruption_robustness.md and its figures there, too.")] = None,
    count: Annotated[int, typer.Option(min=8, help="Validation pictures to spoil.")] = 408,
) -> None:
    """Measure a published model on spoilt pictures."""
    predictor = Predictor.from_pretrained(model)
    rows = load_table(data).query("split == 'val'")
    rows = rows.sample(min(count, len(rows)), random_state=0)
    pictures = [squash(picture, predictor.size) for picture in boxed(rows)]
    found = measure(predictor, pictures, list(rows["class_name"]))
    lines = table(found, len(rows))
    print("\n".join(lines))
    if out:
        save(figure(found, len(rows)), out / "corruption_robustness.svg")
        save(sheet(pictures[0]), out / "corruption_robustness.jpg")
        command = "python -m benchmarks.corruption_robustness models/twincar --data data --out reports"
        with atomic_write(out / "corruption_robustness.md") as beside:
            text = [
                f"# What a spoilt photo costs\n\n`{command}`\n",
                "![Accuracy by severity](corruption_robustness.svg)\n",
                *lines,
            ]
            text += ["\nWhat was done to them, one picture for all:\n", "![Every way and severity](corruption_robustness.jpg)"]
            beside.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)

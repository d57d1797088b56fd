"""Unknown classes and new classes on the Semantic Shift Benchmark's split of Stanford Cars.

    python -m benchmarks.teaching split --data data --classes ssb_stanford_cars.json --out data_known
    twincar train --recipe flagship --data data_known --init WEIGHTS --out runs/known
    twincar fit-head --model runs/known/model --data data_known
    python -m benchmarks.teaching measure runs/known/model --data data --classes ssb_stanford_cars.json --out reports

A network is trained on the 98 known classes only. Then, on pictures that it never saw: how well each OOD score
separates known from unknown classes, by difficulty; and how many pictures are right after the unknown classes were
added from a few photos each. The file of classes is a JSON object with the lists known, unknown_easy, unknown_medium
and unknown_hard of class names (Vaze et al., ICLR 2022, arXiv:2110.06207).
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import table, write_report
from twincar import Predictor
from twincar.config import TwinCarError
from twincar.data.table import load_table
from twincar.features.transforms import squash
from twincar.files import write_csv
from twincar.modeling.evaluation.evaluate import evaluate, load_crops
from twincar.modeling.inference.calibration import ece
from twincar.modeling.inference.predictor import REFERENCE
from twincar.modeling.open_set.open_set import energy
from twincar.modeling.open_set.scores import SCORES, separation
from twincar.plots.figures import canvas, percents, styled
from twincar.plots.palette import AMBER, GREY, VIOLET
from twincar.report.report import save

app = typer.Typer(add_completion=False, help=__doc__)

PHOTOS = (1, 3, 5, 10, 20)  # of each new class
DRAWS = 10
KNOWN = 0.95  # fraction of the known cars that the threshold of "a known car" accepts
DIFFICULTIES = ("easy", "medium", "hard")
BATCH = 16
USED = "energy"  # the score of `OpenSet`

Data = Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote, with all classes.")]
Classes = Annotated[Path, typer.Option(help="JSON file with the lists of known and unknown classes.")]


@dataclass(frozen=True)
class Pictures:
    """Pooled features of N pictures.

    Attributes:
        plain: (N, D) features of the pictures.
        example: (N, D) means of them and those of the mirror images, as new classes are computed from.
        names: (N,) class names.
    """

    plain: Tensor
    example: Tensor
    names: np.ndarray


@app.command()
def split(data: Data, classes: Classes, out: Annotated[Path, typer.Option(help="Folder to write.")]) -> None:
    """Write a table of the known classes only, to train on."""
    rows, known = load_table(data), set(_read(classes)["known"])
    rows = rows[rows["class_name"].isin(known)]
    order = {name: label for label, name in enumerate(rows.sort_values("label")["class_name"].unique())}
    out.mkdir(parents=True, exist_ok=True)
    write_csv(rows.assign(label=rows["class_name"].map(order)), out / "cars.csv")
    print(f"{len(order)} classes, {len(rows):,} pictures in {out}.")


@app.command()
def measure(
    model: Annotated[Path, typer.Argument(help="Model folder with class statistics, trained on the known classes.")],
    data: Data,
    classes: Classes,
    ceiling: Annotated[
        Path | None, typer.Option(help="Model folder that was trained on all classes, to compare with.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write teaching.md, .csv and .svg to.")] = None,
) -> None:
    """Measure unknown and new classes with pictures that the network never saw."""
    predictor = Predictor.from_pretrained(model, engine=REFERENCE)
    if predictor.model.class_statistics is None:
        raise TwinCarError(f"{model} has no class statistics: run `twincar fit-head` on it first.")
    groups, rows = _read(classes), load_table(data)
    difficulty = {name: group for group in DIFFICULTIES for name in groups[group]}
    known_rows = rows[rows["class_name"].isin(groups["known"]) & (rows["split"] == "val")]
    new_rows = rows[rows["class_name"].isin(difficulty)]
    known, new = (read(predictor, part) for part in (known_rows, new_rows))

    separated = open_set(predictor, known, new, difficulty)
    draws = pd.DataFrame(teach(predictor, known, new))
    lines = [
        f"`{predictor.config['name']}`, trained on {len(predictor.class_names)} classes. {len(known.names)} validation "
        f"pictures of these, and all {len(new.names):,} pictures of {len(set(new.names))} others; cropped to their "
        "boxes, one pass.",
        "",
        "## Known or unknown",
        "",
        f"AUROC, and in brackets the unknown pictures accepted where 95 % of the known ones are. TwinCar uses {USED}.",
        "",
        table(["score", *DIFFICULTIES, "all"], separated),
        "",
        "## New classes from a few photos",
        "",
        f"Means of {DRAWS} draws of the photos, and in brackets the lowest and the highest. All new classes are added "
        "at once; “alone” is the mean over adding each of them alone. A lost picture was right before.",
        "",
        table(
            [
                "photos of a class",
                "new right",
                "new right, alone",
                "old right",
                "old taken for new",
                "old lost, alone",
                "all right",
                "ECE",
            ],
            [[photos, *(_range(part, column) for column in SHOWN)] for photos, part in draws.groupby("photos")],
        ),
        "",
        f"Before, {draws['old_before'].iloc[0]:.1%} of the old ones are right.",
    ]
    if ceiling:
        right, count = trained_on_all(ceiling, rows, set(difficulty))
        lines += [
            "",
            f"A network that was trained on all classes has {right:.1%} of the {count} validation pictures of the new "
            f"classes right (`{ceiling.name}`).",
        ]
    lines += ["", "## Known after teaching", "", *taught_or_not(predictor, known, new)]
    print("\n".join(lines))
    if out:
        save(curve(draws), out / "teaching.svg")
        command = f"teaching measure {model.name} --data data --classes {classes.name}"
        lines += ["", "![Accuracy by number of photos](teaching.svg)"]
        summary = draws.groupby("photos").mean().reset_index().round(4)
        write_report(out / "teaching.md", "Teaching new classes", command, lines, summary)


def _read(path: Path) -> dict[str, list[str]]:
    """The lists of class names: known, and the unknown ones by difficulty.

    Raises:
        TwinCarError: The file lacks one of them.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    keys = {"known": "known"} | {name: f"unknown_{name}" for name in DIFFICULTIES}
    if missing := [key for key in keys.values() if key not in content]:
        raise TwinCarError(f"{path} has no list {missing[0]!r}: it needs {', '.join(keys.values())}.")
    return {name: content[key] for name, key in keys.items()}


@torch.no_grad()
def read(predictor: Predictor, rows: pd.DataFrame) -> Pictures:
    """Compute the features of all pictures of the rows."""
    crops = [squash(crop, predictor.size) for crop in load_crops(rows)]
    plain, mirrored = [], []
    for start in tqdm(range(0, len(crops), BATCH), desc="Reading pictures", disable=None):
        for found, pictures in (
            (plain, crops[start : start + BATCH]),
            (mirrored, [crop[:, ::-1] for crop in crops[start : start + BATCH]]),
        ):
            features = predictor.run(pictures)[0].features.float()
            found.append(predictor.network.forward_head(features, pre_logits=True).cpu())
    first, second = torch.cat(plain), torch.cat(mirrored)
    return Pictures(first, (first + second) / 2, rows["class_name"].to_numpy())


def open_set(predictor: Predictor, known: Pictures, new: Pictures, difficulty: dict[str, str]) -> list[list[str]]:
    """Rows of the table of OOD scores: name, and separation by difficulty and of all unknown classes."""
    temperature = predictor.calibration.temperature
    means = predictor.model.class_statistics.means
    group = np.array([difficulty[name] for name in new.names])
    sides = [(_logits(predictor, part.plain) / temperature, part.plain) for part in (known, new)]
    rows = []
    for name, score in SCORES.items():
        inside, outside = (score(logits, pooled, means).numpy() for logits, pooled in sides)
        chosen = [outside[group == each] for each in DIFFICULTIES] + [outside]
        found = [separation(inside, values) for values in chosen]
        rows.append([name, *(f"{each['auroc']:.3f} ({each['fpr95']:.0%})" for each in found)])
    return rows


@torch.no_grad()
def _logits(predictor: Predictor, pooled: Tensor) -> Tensor:
    return predictor.network.fc(pooled.to(next(predictor.network.fc.parameters()).device)).float().cpu()


SHOWN = ("new", "alone", "old", "taken", "lost", "all", "ece")  # columns of `teach` in the table


def teach(predictor: Predictor, known: Pictures, new: Pictures) -> list[dict]:
    """Add all new classes from random photos, and count what is right on the others.

    Returns:
        One dict for each number of photos and draw: `photos`, and fractions (0-1): `new`, `old` and `all` of the
        pictures right, `alone` of the new ones right with no other new class, `taken` of the old ones answered with a
        new class, `lost` of them right before and answered with a new class that is added alone, `old_before` of them
        right before; and `ece` over all of them.
    """
    names, added = list(predictor.class_names), sorted(set(new.names))
    labels = {name: label for label, name in enumerate(names + added)}
    truth, new_truth = (torch.tensor([labels[name] for name in part.names]) for part in (known, new))
    before = _logits(predictor, known.plain)
    was_right = before.argmax(1) == truth
    found = []
    for photos in PHOTOS:
        for draw in range(DRAWS):
            chosen = choose(new.names, photos, np.random.default_rng([photos, draw]))
            rest = torch.from_numpy(~chosen)
            weight, bias = extended_head(predictor, new, added, chosen)
            old = known.plain @ weight.T + bias
            right = new_truth[rest]
            others = new.plain[rest] @ weight.T + bias
            own = others.gather(1, right[:, None])[:, 0]
            logits, target = torch.cat([old, others]) / predictor.calibration.temperature, torch.cat([truth, right])
            confidence, guess = logits.softmax(1).max(1)
            found.append(
                {
                    "photos": photos,
                    "new": _mean(others.argmax(1) == right),
                    "alone": _mean(own > others[:, : len(names)].amax(1)),
                    "old": _mean(old.argmax(1) == truth),
                    "taken": _mean(old.argmax(1) >= len(names)),
                    "all": _mean(guess == target),
                    "lost": _mean(
                        was_right[:, None] & (old[:, len(names) :] > old[:, : len(names)].amax(1, keepdim=True))
                    ),
                    "old_before": _mean(was_right),
                    "ece": ece(confidence.double().numpy(), (guess == target).numpy()),
                }
            )
    return found


def choose(names: np.ndarray, photos: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) mask of `photos` random pictures of each class."""
    chosen = np.zeros(len(names), bool)
    for name in sorted(set(names)):
        chosen[rng.choice(np.flatnonzero(names == name), photos, replace=False)] = True
    return chosen


def extended_head(predictor: Predictor, new: Pictures, added: list[str], chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Weights and biases of the model's head with the new classes, in the order of `added`, from chosen pictures."""
    groups = [new.example[torch.from_numpy(chosen & (new.names == name))] for name in added]
    means = torch.stack([group.mean(0) for group in groups])
    statistics = predictor.model.class_statistics.with_classes(means, torch.tensor([len(group) for group in groups]))
    head = predictor.network.fc
    return statistics.extend(head.weight.detach(), head.bias.detach())


def taught_or_not(predictor: Predictor, known: Pictures, new: Pictures) -> list[str]:
    """Lines on how often pictures count as a known car, before and after half of the new classes were added."""
    added = sorted(set(new.names))
    rng, five = np.random.default_rng(0), 5
    taught = sorted(rng.permutation(added)[: len(added) // 2])
    is_taught = np.isin(new.names, taught)
    half = replace(new, plain=new.plain[is_taught], example=new.example[is_taught], names=new.names[is_taught])
    chosen = choose(half.names, five, rng)
    temperature = predictor.calibration.temperature
    sides = {
        "old classes": known.plain,
        "taught classes": half.plain[~chosen],
        "classes that were not taught": new.plain[~is_taught],
    }
    weight, bias = extended_head(predictor, half, taught, chosen)
    scores = [
        {name: energy(_logits(predictor, plain), temperature).numpy() for name, plain in sides.items()},
        {name: energy(plain @ weight.T + bias, temperature).numpy() for name, plain in sides.items()},
    ]
    threshold = np.quantile(scores[0]["old classes"], 1 - KNOWN)
    rows = [[name, *(f"{(each[name] >= threshold).mean():.1%}" for each in scores)] for name in sides]
    return [
        f"Fraction that counts as a known car, at the threshold that accepts {KNOWN:.0%} of the old ones; "
        f"{len(taught)} classes are taught from {five} photos each.",
        "",
        table(["pictures of", "before", "after"], rows),
    ]


def trained_on_all(folder: Path, rows: pd.DataFrame, new: set[str]) -> tuple[float, int]:
    """Accuracy of a model that has all classes on the validation pictures of the new ones, and their number."""
    predictor = Predictor.from_pretrained(folder, engine=REFERENCE)
    scores = evaluate(predictor, rows[rows["class_name"].isin(new)], "val").scores
    return scores["top1"], scores["pictures"]


@styled
def curve(draws: pd.DataFrame) -> Figure:
    """Draw the accuracy on new and old classes by the number of photos of a new class."""
    drawn = canvas(
        4.6,
        "New classes from a few photos",
        "Pictures that are right after all new classes were added at once, by photos of each; bands span ten draws. "
        "Dashed: a new class that is added alone.",
    )
    axes = drawn.subplots()
    by_photos = draws.groupby("photos")
    for column, color, label in (("new", VIOLET, "new classes"), ("old", AMBER, "old classes")):
        low, mean, high = (getattr(by_photos[column], part)() for part in ("min", "mean", "max"))
        axes.fill_between(mean.index, low, high, color=color, alpha=0.2, lw=0)
        axes.plot(mean.index, mean, color=color, marker="o", ms=5, label=label)
    alone = by_photos["alone"].mean()
    axes.plot(alone.index, alone, color=GREY, ls=(0, (4, 3)), label="a new class, alone")
    axes.set(xlabel="Photos of each new class", ylim=(0, 1), xticks=PHOTOS)
    percents(axes.yaxis)
    axes.legend(loc="lower right")
    return drawn


def _mean(right: Tensor) -> float:
    return float(right.float().mean())


def _range(part: pd.DataFrame, column: str) -> str:
    form = {"ece": "{:.3f}", "lost": "{:.2%}"}.get(column, "{:.1%}")
    low, mean, high = (form.format(value) for value in (part[column].min(), part[column].mean(), part[column].max()))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    app()

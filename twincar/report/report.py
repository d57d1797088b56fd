"""Reports: evaluate a published model and write tables, figures and a page to `reports/<recipe>/`.

    twincar report --model models/twincar --data data/
    twincar report --redraw                                # figures and pages only, from the tables in `reports/`

The folder contains the tables `scores.json`, `predictions.csv`, `per_class.csv` (of `evaluate`), `confusion.csv`,
`confused_pairs.csv`, `class_distribution.csv`, `classification_report.json` and `.csv`, `class_mappings.json`,
`reliability.csv`, `selective.csv` and `calibration.json`; the log of the training run, `metrics.csv`, `recipe.json` and
`run.json`; the figures in `figures/`; and `README.md`, a page with all figures.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from twincar.config import TwinCarError, parse_class_name
from twincar.data import statistics
from twincar.data.listing import BOX
from twincar.features.backgrounds import load_backgrounds
from twincar.features.photo import load_photo
from twincar.features.transforms import augmentation, squash
from twincar.files import atomic_write, write_csv, write_json
from twincar.modeling.evaluation.evaluate import Evaluation, evaluate
from twincar.modeling.hub.card import scores_table
from twincar.modeling.inference.calibration import calibration, cross_fitted, ece, reliability, selective
from twincar.modeling.inference.predictor import Predictor
from twincar.modeling.training.data_module import CACHE_SIZE
from twincar.modeling.training.recipes import RECIPES, Recipe, monitor_mode
from twincar.plots import confusion, figures, photos
from twincar.report import comparison, tables

LOG = ("metrics.csv", "recipe.json", "run.json")  # files of a training run
DPI = 120


@dataclass(frozen=True)
class Drawing:
    """A figure of a report.

    Attributes:
        file: File name in `figures/`.
        shows: What it shows, for the page; "" leaves it out of the page.
        needs: The tables that `draw` takes.
        draw: Draws the figure from its tables; None for figures with photos, which `photo_figures` draws.
    """

    file: str
    shows: str
    needs: tuple[str, ...] = ()
    draw: Callable[..., Figure | None] | None = None


def _names(per_class: pd.DataFrame) -> list[str]:
    return list(per_class["class_name"])


def _f1_all(per_class: pd.DataFrame) -> Figure:
    return figures.f1_all(per_class, {name: parse_class_name(name).make for name in _names(per_class)})


def _with_monitor(draw: Callable[..., Figure]) -> Callable[[pd.DataFrame, dict], Figure]:
    return lambda log, recipe: draw(log, recipe["monitor"], monitor_mode(recipe["monitor"]))


DRAWINGS = (
    Drawing("training.png", "Loss, accuracy, macro F1, precision and recall by epoch.",
            ("metrics.csv", "recipe.json"), _with_monitor(figures.training)),
    Drawing("top_k.png", "Top-1, top-3 and top-5 accuracy and the learning rate by epoch.",
            ("metrics.csv", "recipe.json"), _with_monitor(figures.top_k)),
    Drawing("confusion.png", "Confusion matrix; "
            "[confusion.svg](figures/confusion.svg) is the same with all class names, for zooming in.",
            ("confusion.csv", "per_class.csv"), lambda counts, rows: confusion.confusion(counts, _names(rows))),
    Drawing("confusion.svg", "", ("confusion.csv", "per_class.csv"),
            lambda counts, rows: confusion.confusion(counts, _names(rows), all_names=True)),
    Drawing("confusion_makes.png", "Confusion matrices of the makes with the most errors.",
            ("confusion.csv", "per_class.csv"),
            lambda counts, rows: confusion.confusion_makes(counts, _names(rows))),
    Drawing("confused_pairs.jpg", "The most frequently confused pairs of classes."),
    Drawing("f1_all.png", "F1 of every class, by make.", ("per_class.csv",), _f1_all),
    Drawing("f1_extremes.png", "Classes with the lowest and the highest F1.", ("per_class.csv",), figures.f1_extremes),
    Drawing("reliability.png", "Reliability diagram: accuracy by confidence.", ("reliability.csv", "calibration.json"),
            figures.reliability),
    Drawing("selective.png", "Accuracy when only the most confident photos are answered.", ("selective.csv",),
            figures.selective),
    Drawing("grad_cam.jpg", "Grad-CAM++ of correct and of wrong predictions."),
    Drawing("class_distribution.png", "Pictures per class and per make.", ("class_distribution.csv",),
            figures.class_distribution),
    Drawing("augmentation.jpg", "Training pictures and their augmented variants."),
)  # fmt: skip


def report(
    predictor: Predictor,
    table: pd.DataFrame,
    out: Path,
    *,
    run: Path | None = None,
    split: str = "val",
    not_cars: Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Evaluate a model on a split and write all tables, all figures and the page to the folder `out`.

    Args:
        predictor: The model.
        table: The prepared table.
        out: The folder to write to.
        run: The folder of the training run, whose log is copied to `out`; by default a log already in `out` is used.
        split: The split to evaluate on.
        not_cars: A folder of photos without cars, onto which the recipe pasted pictures; without it the figure of the
            augmentation shows everything but that.
        progress: Show a progress bar.

    Raises:
        TwinCarError: As raised by `evaluate` and `load_backgrounds`, or `run` contains no log.
    """
    if run and (missing := [name for name in LOG if not (run / name).is_file()]):
        raise TwinCarError(f"{run} contains no {missing[0]}: pass a folder that `twincar train` wrote.")
    backgrounds = load_backgrounds(not_cars) if not_cars else []
    result = evaluate(predictor, table, split, progress=progress)
    if run:
        for name in LOG:
            with atomic_write(out / name) as temporary:
                shutil.copyfile(run / name, temporary)
    write_tables(predictor, result, table, out)
    for file, figure in photo_figures(predictor, result, table, backgrounds):
        save(figure, out / "figures" / file)
    redraw(out)
    return result


def report_around(reports: Path, table: pd.DataFrame) -> None:
    """Write what is not about a single model: `data/`, statistics of `table`, and `recipes.csv`, if there are recipes.

    Args:
        reports: The folder of all reports.
        table: The prepared table.
    """
    statistics.save(reports / "data", table, statistics.measure(table)[0])
    if any(comparison.is_measured(reports / name) for name in RECIPES):
        comparison.write(reports)


def folder_name(config: dict) -> str:
    """Return the name of a model's folder in `reports/`: the name of its recipe, or of the model if it has none."""
    return config.get("recipe", {}).get("name") or config.get("name", "model").lower().replace(" ", "-")


def write_tables(predictor: Predictor, result: Evaluation, table: pd.DataFrame, out: Path) -> None:
    """Write the tables of an evaluation, and those of class names and class frequencies, to the folder `out`."""
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
    write_csv(statistics.distribution(table, names), out / "class_distribution.csv")

    probabilities, labels = torch.from_numpy(result.probabilities), result.labels
    logits = torch.from_numpy(result.logits)
    facts = {"calibration": predictor.calibration.as_dict(), "cross_fitted": False, "as_published": None}
    facts |= {"before": _calibration(logits.softmax(1), labels)}
    if "calibration" in predictor.config and result.scores["split"] == "val" and len(labels) > 1:
        # The published calibration was fitted on these pictures; its effect on other pictures is to be measured.
        facts |= {"cross_fitted": True, "as_published": _calibration(probabilities, labels)}
        probabilities = cross_fitted(logits, labels)
    facts = {
        **_calibration(probabilities, labels),
        **_calibration_intervals(probabilities, labels),
        "pictures": len(labels),
        **facts,
    }
    write_json(facts, out / "calibration.json")
    write_csv(reliability(probabilities, labels), out / "reliability.csv")
    write_csv(selective(probabilities, labels), out / "selective.csv")


def _calibration(probabilities: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Compute the calibration errors, rounded to digits that are the same on every machine."""
    return {name: round(value, 6) for name, value in calibration(probabilities, labels).items()}


def _calibration_intervals(probabilities: torch.Tensor, labels: torch.Tensor, draws: int = 200) -> dict[str, Any]:
    """Compute 95 % bootstrap intervals of the calibration errors, and the ECE expected of perfect probabilities.

    Resampling increases the ECE, which cannot be negative, so its interval is biased upwards. `ece_if_calibrated`, the
    mean ECE of simulated, perfectly calibrated answers, is the value to compare with.
    """
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        rows = torch.from_numpy(rng.integers(len(labels), size=len(labels)))
        drawn.append(calibration(probabilities[rows], labels[rows]))
    confidence = probabilities.max(1).values.numpy()
    perfect = [ece(confidence, rng.random(len(confidence)) < confidence) for _ in range(draws)]
    quantiles = pd.DataFrame(drawn).quantile([0.025, 0.975])
    intervals = {f"{name}_interval": quantiles[name].round(6).tolist() for name in quantiles}
    return intervals | {"ece_if_calibrated": round(float(np.mean(perfect)), 6)}


# Figures and the page ------------------------------------------------------------------------------------------------


def redraw(out: Path) -> list[Path]:
    """Draw all figures that have their tables in the folder `out`, and write the page.

    Figures with photos are not drawn again.

    Args:
        out: The folder of a report.

    Returns:
        The files of the figures that were drawn.

    Raises:
        TwinCarError: The folder contains no tables.
    """
    drawn = []
    for drawing in DRAWINGS:
        sources = [out / name for name in drawing.needs]
        if drawing.draw and all(source.is_file() for source in sources):
            figure = drawing.draw(*map(_read, sources))
            if figure:
                drawn.append(save(figure, out / "figures" / drawing.file))
    if not drawn:
        raise TwinCarError(
            f"{out} contains no tables of a report: run `twincar report --model MODEL --data DATA` first."
        )
    with atomic_write(out / "README.md") as temporary:
        temporary.write_text(_page(out), encoding="utf-8")
    return drawn


def _read(path: Path) -> Any:
    """Read a table: a DataFrame of a CSV, or the content of a JSON file."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    texts = ("class_name", "make", "true", "predicted")  # a class may be named "NA" or "2012"
    table = pd.read_csv(path, keep_default_na=False, na_values={}, dtype=dict.fromkeys(texts, str))
    return table.apply(lambda column: column if column.name in texts else pd.to_numeric(column, errors="coerce"))


def save(figure: Figure, path: Path) -> Path:
    """Write a figure to a .png, .svg or .jpg file, reproducibly, and return the path."""
    options: dict[str, dict[str, Any]] = {
        ".png": {"metadata": {"Software": None}},
        ".svg": {"metadata": {"Date": None, "Creator": None}},
        ".jpg": {"pil_kwargs": {"quality": 72, "optimize": True}},
    }
    with atomic_write(path) as temporary:
        figures.styled(figure.savefig)(temporary, dpi=DPI, **options[path.suffix])
        if path.suffix == ".png":  # a chart has few colors: a palette makes the file less than half as large
            with Image.open(temporary) as image:
                chart = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
            chart.save(temporary, optimize=True)
    return path


def photo_figures(
    predictor: Predictor, result: Evaluation, table: pd.DataFrame, backgrounds: Sequence[np.ndarray]
) -> Iterator[tuple[str, Figure]]:
    """Draw the figures with photos, and yield (file name, figure); those with nothing to show are left out."""
    rows = table.set_index("path")
    readable = table[~table["path"].isin([path for path, _ in result.unreadable])]

    def photo(path: str) -> Image.Image:
        return load_photo(path, rows.loc[path, BOX])

    predictions = result.predictions
    cards = []
    for pair in tables.confused_pairs(predictions).to_dict("records"):
        mine = (predictions["class_name"] == pair["true"]) & (predictions["predicted"] == pair["predicted"])
        other = readable.loc[readable["class_name"] == pair["predicted"], "path"]
        misread = predictions.loc[mine, "path"].iloc[0]
        cards.append(pair | {"photo": photo(misread), "other": photo(other.iloc[0]) if len(other) else None})
    if cards:
        yield "confused_pairs.jpg", photos.confused_pairs(cards)

    right, wrong = (
        [evidence(predictor, photo(row["path"]), row) for row in rows.to_dict("records")]
        for rows in tables.examples(predictions)
    )
    if right or wrong:
        yield "grad_cam.jpg", photos.grad_cam(right, wrong)

    known = {field.name for field in fields(Recipe)}
    settings = {name: value for name, value in predictor.config.get("recipe", {}).items() if name in known}
    train = table[table["split"] == "train"].drop_duplicates("class_name")
    if settings and len(train):
        paths = train["path"].iloc[np.unique(np.linspace(0, len(train) - 1, 6).round().astype(int))]
        recipe = Recipe(**settings)
        columns = [variants(photo(path), recipe, seed, backgrounds) for seed, path in enumerate(paths)]
        yield "augmentation.jpg", photos.augmentation(columns, recipe.name, bool(recipe.mix_probability))


def evidence(predictor: Predictor, photo: Image.Image, row: dict) -> dict:
    """Make a card for `plots.photos.grad_cam`: a photo with overlays for the predicted and for the true class.

    Args:
        predictor: The model.
        photo: The photo.
        row: Its row of `predictions.csv`.
    """
    answer = predictor(photo, refine=False)  # as `evaluate` does
    of = {guess.class_name: guess.probability for guess in answer.top(len(answer.class_names))}
    card = {"photo": photo, "predicted": row["predicted"], "probability": of[row["predicted"]]}
    card |= {"evidence": answer.overlay(row["predicted"]), "true": row["class_name"]}
    return card | {"true_evidence": answer.overlay(card["true"]), "true_probability": of[card["true"]]}


def variants(
    photo: Image.Image, recipe: Recipe, seed: int, backgrounds: Sequence[np.ndarray] = (), count: int = 4
) -> list[Image.Image]:
    """Make a column for `plots.photos.augmentation`: a photo, then augmented variants of it.

    Args:
        photo: The photo.
        recipe: The recipe, whose last image size is used.
        seed: Seed of the augmentation.
        backgrounds: Photos without cars, for a recipe that pastes pictures onto them; without any it does not.
        count: How many variants to make.
    """
    picture = torch.from_numpy(squash(photo, CACHE_SIZE).copy()).permute(2, 0, 1)
    recipe = recipe if backgrounds else replace(recipe, paste=0.0)
    transform = augmentation(recipe, recipe.sizes[-1][1], backgrounds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        augmented = [transform(picture).permute(1, 2, 0).numpy() for _ in range(count)]
    return [photo, *map(Image.fromarray, augmented)]


def _page(out: Path) -> str:
    """Return the page in Markdown: the scores, then each figure in the folder `out` below what it shows."""
    recipe = _read(out / "recipe.json") if (out / "recipe.json").is_file() else {}
    parts = [f"# {out.name}"]
    if recipe.get("summary"):
        parts.append(recipe["summary"])
    if (out / "scores.json").is_file():
        scores = _read(out / "scores.json")
        parts.append(
            f"Measured on {scores['pictures']:,} {scores['split']} pictures, with 95 % bootstrap intervals. All "
            "scores are in [scores.json](scores.json), all predictions in [predictions.csv](predictions.csv)."
        )
        parts.append(scores_table(scores))
    for drawing in DRAWINGS:
        if drawing.shows and (out / "figures" / drawing.file).is_file():
            title = drawing.shows.split(";")[0].rstrip(".")
            parts += [drawing.shows, f"![{title}](figures/{drawing.file})"]
    parts.append(
        "Written by `twincar report`. `twincar report --redraw` draws the figures again from the tables in this folder,"
        " except those with photos, which need the model and the data."
    )
    return "\n\n".join(parts) + "\n"

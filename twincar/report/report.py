"""A published model and prepared data -> everything in `reports/<recipe>/`.

    twincar report --model models/twincar --data data/
    twincar report --redraw                                # figures and pages again, from the tables that lie there

`<recipe>/` then holds the tables: `scores.json`, `predictions.csv`, `per_class.csv` (of `evaluate`), `confusion.csv`,
`confused_pairs.csv`, `class_distribution.csv`, `classification_report.json` and `.csv`, `class_mappings.json`,
`reliability.csv`, `selective.csv`, `calibration.json`; the training log, which is the run's own: `metrics.csv`,
`recipe.json`, `run.json`; `figures/`, and a page, `README.md`, that shows them.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from twincar.config import TwinCarError, parse_class_name
from twincar.data import statistics
from twincar.data.listing import BOX
from twincar.features.photo import load_photo
from twincar.features.transforms import augmentation, squash
from twincar.files import atomic_write, write_csv, write_json
from twincar.modeling.evaluation.evaluate import Evaluation, evaluate
from twincar.modeling.hub.card import figures_table
from twincar.modeling.inference.calibration import calibration, cross_fitted, ece, reliability, selective
from twincar.modeling.inference.predictor import Predictor
from twincar.modeling.training.data_module import CACHE_SIZE
from twincar.modeling.training.recipes import RECIPES, Recipe, best_is
from twincar.plots import confusion, figures, photos
from twincar.report import comparison, tables

LOG = ("metrics.csv", "recipe.json", "run.json")  # what a run leaves
DOTS = 120  # an inch, in figures


@dataclass(frozen=True)
class Drawing:
    """A figure of a report: its file, what it shows, the tables it is drawn from and how. One that shows photos needs
    more than tables: its `draw` is None, and it is drawn by `photo_figures`."""

    file: str
    shows: str
    needs: tuple[str, ...] = ()
    draw: Callable[..., Figure | None] | None = None


def _names(per_class: pd.DataFrame) -> list[str]:
    return list(per_class["class_name"])


def _f1_all(per_class: pd.DataFrame) -> Figure:
    return figures.f1_all(per_class, {name: parse_class_name(name).make for name in _names(per_class)})


def _with_monitor(draw: Callable[..., Figure]) -> Callable[[pd.DataFrame, dict], Figure]:
    return lambda log, recipe: draw(log, recipe["monitor"], best_is(recipe["monitor"]))


DRAWINGS = (
    Drawing("training.png", "How training went, epoch by epoch.", ("metrics.csv", "recipe.json"),
            _with_monitor(figures.training)),
    Drawing("top_k.png", "How often the right car is among one, three and five guesses, before the learning rate.",
            ("metrics.csv", "recipe.json"), _with_monitor(figures.top_k)),
    Drawing("confusion.png", "Which class was called which; "
            "[confusion.svg](figures/confusion.svg) has every class's name, to zoom into.",
            ("confusion.csv", "per_class.csv"), lambda counts, rows: confusion.confusion(counts, _names(rows))),
    Drawing("confusion.svg", "", ("confusion.csv", "per_class.csv"),
            lambda counts, rows: confusion.confusion(counts, _names(rows), all_names=True)),
    Drawing("confusion_makes.png", "The makes that are muddled most, class by class.",
            ("confusion.csv", "per_class.csv"),
            lambda counts, rows: confusion.confusion_makes(counts, _names(rows))),
    Drawing("confused_pairs.jpg", "The pairs that are most often taken for one another."),
    Drawing("f1_all.png", "How well each class is read.", ("per_class.csv",), _f1_all),
    Drawing("f1_extremes.png", "The classes that are read worst, and best.", ("per_class.csv",), figures.f1_extremes),
    Drawing("reliability.png", "Whether a probability means what it says.", ("reliability.csv", "calibration.json"),
            figures.reliability),
    Drawing("selective.png", "How often it is right, when it may decline to answer.", ("selective.csv",),
            figures.selective),
    Drawing("grad_cam.jpg", "What in the photo spoke for right and wrong answers."),
    Drawing("class_distribution.png", "How many pictures there are of what.", ("class_distribution.csv",),
            figures.class_distribution),
    Drawing("augmentation.jpg", "What training does to a picture before the network sees it."),
)  # fmt: skip


def report(
    predictor: Predictor, table: pd.DataFrame, out: Path, *, run: Path | None = None, split: str = "val", progress=True
) -> Evaluation:
    """Measure `predictor` on a split of `table` and write every table, every figure and the page into the folder `out`.

    run : a folder that `twincar train` wrote, whose log is copied; else a log that lies in `out` already is used.
    Raises TwinCarError as `evaluate` does, or when `run` holds no log.
    """
    if run and (missing := [name for name in LOG if not (run / name).is_file()]):
        raise TwinCarError(f"{run} holds no {missing[0]}: name a folder that `twincar train` wrote.")
    result = evaluate(predictor, table, split, progress=progress)
    for name in LOG if run else ():
        with atomic_write(out / name) as beside:
            shutil.copyfile(run / name, beside)
    write_tables(predictor, result, table, out)
    for file, figure in photo_figures(predictor, result, table):
        save(figure, out / "figures" / file)
    redraw(out)
    return result


def report_around(reports: Path, table: pd.DataFrame) -> None:
    """Write what belongs to no one model: `recipes.csv`, where recipes were measured, and `data/`, what the pictures of
    `table` are like."""
    statistics.save(reports / "data", table, statistics.measure(table)[0])
    if any(comparison.is_measured(reports / name) for name in RECIPES):
        comparison.write(reports)


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
    write_csv(statistics.distribution(table, names), out / "class_distribution.csv")

    probabilities, labels = torch.from_numpy(result.probabilities), result.labels
    logits = torch.from_numpy(result.logits)
    facts = {"calibration": predictor.calibration.as_dict(), "cross_fitted": False, "as_published": None}
    facts |= {"before": _calibration(logits.softmax(1), labels)}
    if "calibration" in predictor.config and result.scores["split"] == "val" and len(labels) > 1:
        # The published one was fitted on these very pictures: what it does to others is what we want to know.
        facts |= {"cross_fitted": True, "as_published": _calibration(probabilities, labels)}
        probabilities = cross_fitted(logits, labels)
    facts = {**_calibration(probabilities, labels), **_spread(probabilities, labels), "pictures": len(labels), **facts}
    write_json(facts, out / "calibration.json")
    write_csv(reliability(probabilities, labels), out / "reliability.csv")
    write_csv(selective(probabilities, labels), out / "selective.csv")


def _calibration(probabilities, labels) -> dict[str, float]:
    """In the digits that another machine finds as well."""
    return {name: round(value, 6) for name, value in calibration(probabilities, labels).items()}


def _spread(probabilities, labels, draws: int = 200) -> dict[str, list[float]]:
    """Bootstrap 95 % intervals of the three. Drawing pictures anew can only add to the calibration error, which is
    never below 0: its interval leans upwards, and `ece_of_chance` tells what perfect probabilities would show."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        rows = torch.from_numpy(rng.integers(len(labels), size=len(labels)))
        drawn.append(calibration(probabilities[rows], labels[rows]))
    sure = probabilities.max(1).values.numpy()
    perfect = [ece(sure, rng.random(len(sure)) < sure) for _ in range(draws)]
    spread = pd.DataFrame(drawn).quantile([0.025, 0.975])
    told = {f"{name}_interval": spread[name].round(6).tolist() for name in spread}
    return told | {"ece_of_chance": round(float(np.mean(perfect)), 6)}


# Figures and the page ------------------------------------------------------------------------------------------------


def redraw(out: Path) -> list[Path]:
    """Draw every figure whose tables lie in `out`, write the page of all figures there, and return what was drawn.

    Figures that show photos stay as they are. Raises TwinCarError where there is no table at all.
    """
    drawn = []
    for drawing in DRAWINGS:
        sources = [out / name for name in drawing.needs]
        if drawing.draw and all(source.is_file() for source in sources):
            figure = drawing.draw(*map(_read, sources))
            if figure:
                drawn.append(save(figure, out / "figures" / drawing.file))
    if not drawn:
        raise TwinCarError(f"{out} holds no tables of a report: run `twincar report --model MODEL --data DATA` first.")
    with atomic_write(out / "README.md") as beside:
        beside.write_text(_page(out), encoding="utf-8")
    return drawn


def _read(path: Path) -> pd.DataFrame | dict:
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    words = ("class_name", "make", "true", "predicted")  # a class may be called "NA", or "2012"
    table = pd.read_csv(path, keep_default_na=False, na_values={}, dtype=dict.fromkeys(words, str))
    return table.apply(lambda column: column if column.name in words else pd.to_numeric(column, errors="coerce"))


def save(figure: Figure, path: Path) -> Path:
    """Write a figure; the same figure gives the same file."""
    options = {
        ".png": {"metadata": {"Software": None}},
        ".svg": {"metadata": {"Date": None, "Creator": None}},
        ".jpg": {"pil_kwargs": {"quality": 72, "optimize": True}},
    }
    with atomic_write(path) as beside:
        figures.styled(figure.savefig)(beside, dpi=DOTS, **options[path.suffix])
        if path.suffix == ".png":  # a chart has few colours: a palette makes the file less than half as large
            with Image.open(beside) as image:
                chart = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
            chart.save(beside, optimize=True)
    return path


def photo_figures(predictor: Predictor, result: Evaluation, table: pd.DataFrame):
    """Yield (file, figure) of the figures that show photos; those that have nothing to show are left out."""
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

    chosen = [[evidence(predictor, photo(row["path"]), row) for row in some.to_dict("records")]
              for some in tables.examples(predictions)]  # fmt: skip
    if any(chosen):
        yield "grad_cam.jpg", photos.grad_cam(*chosen)

    known = {field.name for field in fields(Recipe)}
    recipe = {name: value for name, value in predictor.config.get("recipe", {}).items() if name in known}
    train = table[table["split"] == "train"].drop_duplicates("class_name")
    if recipe and len(train):
        paths = train["path"].iloc[np.unique(np.linspace(0, len(train) - 1, 6).round().astype(int))]
        recipe = Recipe(**recipe)
        columns = [variants(photo(path), recipe, seed) for seed, path in enumerate(paths)]
        yield "augmentation.jpg", photos.augmentation(columns, recipe.name, bool(recipe.mix_probability))


def evidence(predictor: Predictor, photo: Image.Image, row: dict) -> dict:
    """A card of `photo_plots.grad_cam`: the photo, and what in it speaks for the answer and for the truth of `row`."""
    answer = predictor(photo, refine=False)  # as the answers in `row` were given
    of = {guess.class_name: guess.probability for guess in answer.top(len(answer.class_names))}
    card = {"photo": photo, "predicted": row["predicted"], "probability": of[row["predicted"]]}
    card |= {"evidence": answer.overlay(row["predicted"]), "true": row["class_name"]}
    return card | {"true_evidence": answer.overlay(card["true"]), "true_probability": of[card["true"]]}


def variants(photo: Image.Image, recipe: Recipe, seed: int, count: int = 4) -> list[Image.Image]:
    """A column of `photo_plots.augmentation`: the photo, then `count` pictures as training would see it at last."""
    picture = torch.from_numpy(squash(photo, CACHE_SIZE).copy()).permute(2, 0, 1)
    transform = augmentation(recipe, recipe.sizes[-1][1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seen = [transform(picture).permute(1, 2, 0).numpy() for _ in range(count)]
    return [photo, *map(Image.fromarray, seen)]


def _page(out: Path) -> str:
    """The page in Markdown: scores, then every figure that lies in `out`, each under what it shows."""
    recipe = _read(out / "recipe.json") if (out / "recipe.json").is_file() else {}
    parts = [f"# {out.name}"]
    if recipe.get("summary"):
        parts.append(recipe["summary"])
    if (out / "scores.json").is_file():
        scores = _read(out / "scores.json")
        parts.append(
            f"Measured on {scores['pictures']:,} {scores['split']} pictures, with 95 % bootstrap intervals. All "
            "measures are in [scores.json](scores.json), the answers in [predictions.csv](predictions.csv)."
        )
        parts.append(figures_table(scores))
    for drawing in DRAWINGS:
        if drawing.shows and (out / "figures" / drawing.file).is_file():
            words = drawing.shows.split(";")[0].rstrip(".")
            parts += [drawing.shows, f"![{words}](figures/{drawing.file})"]
    parts.append(
        "Written by `twincar report`. `twincar report --redraw` draws the figures again from the tables beside them, "
        "but for those with photos, which need the model and the data."
    )
    return "\n\n".join(parts) + "\n"

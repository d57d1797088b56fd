"""Faithfulness of the heatmaps.

    python -m benchmarks.explanations models/twincar --data data --frames data_full --out reports

Four measures of Grad-CAM++ (TwinCar's default), pytorch-grad-cam's Grad-CAM and HiResCAM, and two controls that do not
depend on the network: a random map of the size of the features, and a Gaussian in the center.

* Deletion and insertion (Petsiuk et al., "RISE", arXiv:1806.07421): the probability of the predicted class while the
  pixels are replaced by gray, or inserted into a blurred picture, from the highest value of the map to the lowest, a
  tenth of them at a time; the mean over all steps.
* ROAD (Rong et al., arXiv:2202.00449): the same probability after imputing the lowest 10 and 30 % of the pixels from
  their surroundings, minus that after imputing the highest; half the difference.
* Pointing game (Zhang et al., arXiv:1608.00507): whether the maximum is inside the annotated box, in whole photos.
* Sanity check (Adebayo et al., arXiv:1810.03292): the similarity of the maps before and after the layers were given
  random weights, from the last to the first. A map that does not change does not depend on the weights.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import pandas as pd
import torch
import typer
from matplotlib.figure import Figure
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scipy.stats import bootstrap, spearmanr
from torch import Tensor, nn
from tqdm import tqdm

from twincar import Predictor
from twincar.data.listing import BOX
from twincar.data.table import load_table
from twincar.features.photo import load_photo
from twincar.features.transforms import squash, to_batch
from twincar.files import atomic_write
from twincar.modeling.inference import explain
from twincar.plots.figures import canvas, styled
from twincar.plots.palette import CATEGORICAL, GREY, SUBDUED
from twincar.report.report import save

SHOWN = "Grad-CAM++"
CONTROLS = ("random", "center")
STEPS = 10
REMOVED = (0.1, 0.3)  # fractions of the pixels, for ROAD
BLUR = 0.07  # standard deviation, as a fraction of the side
BATCH = 16
SANITY = 50  # pictures for the sanity check


class Maps:
    """Computes the map of each method: (C, h, w) features of one picture -> (h, w) in 0-1."""

    def __init__(self, network: nn.Module):
        self.network, self.rng = network, np.random.default_rng(0)
        head = _Head(network)
        self.library = {
            name: method(model=head, target_layers=[head.features])
            for name, method in (("Grad-CAM", GradCAM), ("HiResCAM", HiResCAM))
        }

    def __call__(self, features: Tensor, label: int) -> dict[str, np.ndarray]:
        rows, columns = features.shape[1:]
        y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
        features = features.detach().float().requires_grad_(True)
        maps = {SHOWN: explain.grad_cam_plus_plus(self.network, features, label)}
        target = [ClassifierOutputTarget(label)]
        maps |= {name: method(features[None], target)[0] for name, method in self.library.items()}
        return maps | {CONTROLS[0]: self.rng.random((rows, columns)), CONTROLS[1]: np.exp(-(x**2 + y**2))}


class _Head(nn.Module):
    """The head of a network after an identity layer, the target layer of pytorch-grad-cam."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.features, self.network = nn.Identity(), network

    def forward(self, features: Tensor) -> Tensor:
        return self.network.forward_head(self.features(features))


def order(cam: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the flat indices of a (size, size) picture, the highest value of the map first; ties in random order."""
    values = explain.at_size(cam.astype(np.float32), (size, size)).ravel()
    return np.lexsort((rng.random(values.size), -values))


def changed(picture: np.ndarray, ground: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the (H, W, 3) picture with the pixels at flat indices `places` replaced by those of `ground`."""
    made = picture.reshape(-1, 3).copy()
    made[places] = ground.reshape(-1, 3)[places]
    return made.reshape(picture.shape)


def perturbed(picture: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Make all pictures that a map is evaluated on.

    Returns:
        "deletion" and "insertion": STEPS + 1 pictures each, from no to all pixels; "road": for each fraction of
        REMOVED, the picture without its highest and without its lowest pixels.
    """
    grey = np.broadcast_to(picture.reshape(-1, 3).mean(0).astype(np.uint8), picture.shape)
    blurred = cv2.GaussianBlur(picture, (0, 0), BLUR * len(picture))
    cuts = np.linspace(0, places.size, STEPS + 1).astype(int)
    removed = [some[: round(part * places.size)] for part in REMOVED for some in (places, places[::-1])]
    return {
        "deletion": [changed(picture, grey, places[:cut]) for cut in cuts],
        "insertion": [changed(blurred, picture, places[:cut]) for cut in cuts],
        "road": [imputed(picture, some) for some in removed],
    }


def imputed(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the (H, W, 3) picture with the pixels at flat indices `places` imputed by pytorch-grad-cam."""
    kept = np.ones(picture.shape[:2], np.float32)
    kept.ravel()[places] = 0
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float() / 255
    filled = NoisyLinearImputer()(image, torch.from_numpy(kept)).clamp(0, 1)
    return (filled * 255).round().byte().permute(1, 2, 0).numpy()


def probabilities(predictor: Predictor, pictures: list[np.ndarray], label: int) -> np.ndarray:
    """Predict the probability of a class in each (size, size, 3) picture, in one pass without mirror image."""
    found = []
    for start in range(0, len(pictures), BATCH):
        batch = torch.from_numpy(np.stack(pictures[start : start + BATCH]))
        with torch.no_grad():
            logits = predictor.network.forward_head(predictor.engine.run(batch).features).float()
        found.append(predictor.calibration(logits.cpu()).softmax(1)[:, label])
    return torch.cat(found).numpy()


def removal(predictor: Predictor, rows: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
    """Compute, by method, the (N, 2, STEPS + 1) curves of deletion and insertion, and the (N,) values of each score."""
    maps, rng = Maps(predictor.network), np.random.default_rng(0)
    curves: dict[str, list] = {}
    scores: dict[str, dict[str, list]] = {}
    for row in tqdm(rows.itertuples(), total=len(rows), desc="Removing pixels", disable=None):
        picture = squash(load_photo(row.path, (row.x1, row.y1, row.x2, row.y2)), predictor.size)
        answer = predictor(picture, refine=False)
        label = int(answer.probabilities.argmax())
        for name, cam in maps(answer.features, label).items():
            made = perturbed(picture, order(cam, predictor.size, rng), rng)
            values = probabilities(predictor, [one for some in made.values() for one in some], label)
            deleted, inserted, road = np.split(values, np.cumsum([STEPS + 1] * 2))
            curves.setdefault(name, []).append((deleted, inserted))
            of = scores.setdefault(name, {"deletion": [], "insertion": [], "ROAD": []})
            of["deletion"].append(deleted.mean())
            of["insertion"].append(inserted.mean())
            of["ROAD"].append((road[1::2] - road[::2]).mean() / 2)
    return (
        {name: np.array(curve) for name, curve in curves.items()},
        {name: {key: np.array(values) for key, values in of.items()} for name, of in scores.items()},
    )


def pointing(predictor: Predictor, rows: pd.DataFrame) -> tuple[dict[str, dict], float]:
    """Play the pointing game.

    Returns:
        By method, whether the maximum is inside the box ("pointing") and the fraction of the map inside it ("inside"),
        (N,) each; and the mean fraction of the photos that the boxes cover, the hit rate of a random point.
    """
    maps = Maps(predictor.network)
    found: dict[str, dict[str, list]] = {}
    covered = []
    for row in tqdm(rows.itertuples(), total=len(rows), desc="Pointing", disable=None):
        photo = load_photo(row.path)
        answer = predictor(photo, refine=False)
        x1, y1, x2, y2 = (int(value) for value in (row.x1, row.y1, row.x2, row.y2))
        covered.append((x2 - x1) * (y2 - y1) / (photo.width * photo.height))
        for name, cam in maps(answer.features, int(answer.probabilities.argmax())).items():
            whole = explain.at_size(cam.astype(np.float32), photo.size)
            y, x = np.unravel_index(whole.argmax(), whole.shape)
            of = found.setdefault(name, {"pointing": [], "inside": []})
            of["pointing"].append(float(x1 <= x < x2 and y1 <= y < y2))
            of["inside"].append(float(whole[y1:y2, x1:x2].sum() / max(whole.sum(), 1e-9)))
    return {name: {key: np.array(values) for key, values in of.items()} for name, of in found.items()}, np.mean(covered)


def sanity(predictor: Predictor, rows: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean rank correlation (Spearman) of maps before and after randomizing weights.

    Returns:
        One row per stage of the network, from the head to the first: the correlation by method after this stage and all
        later ones were given random weights.
    """
    pictures = [
        squash(load_photo(row.path, (row.x1, row.y1, row.x2, row.y2)), predictor.size) for row in rows.itertuples()
    ]
    batches = [
        to_batch(pictures[at : at + BATCH], predictor.mean, predictor.std) for at in range(0, len(pictures), BATCH)
    ]
    network = deepcopy(predictor.network)

    def all_maps(labels: list[int] | None = None) -> tuple[list[dict], list[int]]:
        with torch.no_grad():
            features = torch.cat([network.forward_features(batch) for batch in batches])
            labels = labels or network.forward_head(features).argmax(1).tolist()
        maps = Maps(network)
        return [maps(one, label) for one, label in zip(features, labels, strict=True)], labels

    before, labels = all_maps()
    stages = list(dict.fromkeys(network.stage(name) for name, _ in network.named_parameters()))
    lines = []
    torch.manual_seed(0)
    for stage in reversed(stages):
        for name, module in network.named_modules():
            if hasattr(module, "reset_parameters") and network.stage(name) == stage:
                module.reset_parameters()
        after, _ = all_maps(labels)
        like = {
            name: np.mean([_correlation(one[name], other[name]) for one, other in zip(before, after, strict=True)])
            for name in before[0]
            if name not in CONTROLS
        }
        lines.append({"random weights from the head down to": stage, **like})
    return pd.DataFrame(lines)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the rank correlation of two maps; 0 if one is constant."""
    if np.ptp(one) < 1e-6 or np.ptp(other) < 1e-6:
        return 0.0
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


def interval(values: np.ndarray) -> str:
    """Format the mean with its 95 % bootstrap interval over pictures."""
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    return f"{values.mean():.3f} ({found.confidence_interval.low:.3f} to {found.confidence_interval.high:.3f})"


@styled
def figure(curves: dict[str, np.ndarray], count: int) -> Figure:
    """Draw the curves of deletion and insertion, one line per method."""
    drawn = canvas(
        4.6,
        "Faithfulness of the heatmaps",
        "Probability of the predicted class while pixels are removed or inserted in the order of the map; mean of "
        f"{count} pictures. Deletion should fall early, insertion rise early. Gray: controls without the network.",
    )
    colors = dict(zip((name for name in curves if name not in CONTROLS), CATEGORICAL, strict=False))
    for place, (axes, title) in enumerate(
        zip(drawn.subplots(1, 2, sharey=True), ("Deletion", "Insertion"), strict=True)
    ):
        for name, curve in curves.items():
            style = {"color": colors[name]} if name in colors else {"color": GREY, "ls": "-:"[CONTROLS.index(name)]}
            style |= {"ls": (0, (4, 3))} if name == "HiResCAM" else {}  # it can coincide with Grad-CAM
            axes.plot(np.linspace(0, 100, STEPS + 1), curve[:, place].mean(0), label=name, **style)
        axes.set(
            title=title,
            xlabel=f"% of the pixels {('replaced by gray', 'inserted into the blurred picture')[place]}",
            ylim=(0, 1),
        )
    axes.legend(loc="lower right", labelcolor=SUBDUED)
    return drawn


def main(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    data: Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote.")],
    frames: Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote for whole photos with boxes.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write explanations.md and its figure to.")] = None,
    count: Annotated[int, typer.Option(min=3, help="Number of validation pictures.")] = 200,
) -> None:
    """Measure the faithfulness of the heatmaps of a published model."""
    predictor = Predictor.from_pretrained(model)
    val = load_table(data).query("split == 'val'").sample(count, random_state=0)
    curves, scores = removal(predictor, val)
    points, covered = pointing(predictor, load_table(frames).dropna(subset=BOX))
    checked = sanity(Predictor.from_pretrained(model, device="cpu", engine="torch:f32"), val.head(SANITY))
    lines = [*table(scores, points, covered, count), "", *difference(scores), "", *sane(checked, min(SANITY, count))]
    print("\n".join(lines))
    if out:
        save(figure(curves, count), out / "explanations.svg")
        command = "python -m benchmarks.explanations models/twincar --data data --frames data_full --out reports"
        head = [f"# Faithfulness of the heatmaps\n\n`{command}`\n", "![Deletion and insertion](explanations.svg)\n"]
        with atomic_write(out / "explanations.md") as temporary:
            temporary.write_text("\n".join(head + lines) + "\n", encoding="utf-8")


def table(scores: dict, points: dict, covered: float, count: int) -> list[str]:
    """Format the scores of all methods as lines of Markdown."""
    pictures = len(next(iter(points.values()))["pointing"])
    measures: list[tuple[str, Callable[[str], np.ndarray]]] = [
        ("deletion (lower is better)", lambda name: scores[name]["deletion"]),
        ("insertion (higher is better)", lambda name: scores[name]["insertion"]),
        ("ROAD (higher is better)", lambda name: scores[name]["ROAD"]),
        ("maximum on the car", lambda name: points[name]["pointing"]),
        ("fraction of the map on the car", lambda name: points[name]["inside"]),
    ]
    return [
        f"Deletion, insertion and ROAD of the predicted class on {count} validation pictures; pointing game on "
        f"{pictures} whole photos, of which the cars cover {covered:.0%}. With 95 % bootstrap intervals.",
        "",
        f"| method | {' | '.join(title for title, _ in measures)} |",
        f"| --- |{' --- |' * len(measures)}",
        *(f"| {name} | {' | '.join(interval(of(name)) for _, of in measures)} |" for name in scores),
    ]


def difference(scores: dict) -> list[str]:
    """Format the paired differences of all methods to Grad-CAM++ as lines of Markdown."""
    others = [name for name in scores if name not in (SHOWN, *CONTROLS)]
    keys = list(scores[SHOWN])
    return [
        f"Mean paired difference to {SHOWN}:",
        "",
        f"| method | {' | '.join(keys)} |",
        f"| --- |{' --- |' * len(keys)}",
        *(
            f"| {name} | {' | '.join(interval(scores[name][key] - scores[SHOWN][key]) for key in keys)} |"
            for name in others
        ),
    ]


def sane(checked: pd.DataFrame, count: int) -> list[str]:
    """Format the result of `sanity` as lines of Markdown."""
    columns = list(checked.columns)
    return [
        f"Sanity check: mean rank correlation with the map of the trained network, same class, {count} pictures.",
        "",
        f"| {' | '.join(columns)} |",
        f"| --- |{' --- |' * (len(columns) - 1)}",
        *(
            f"| {row[columns[0]]} | {' | '.join(f'{row[name]:.2f}' for name in columns[1:])} |"
            for row in checked.to_dict("records")
        ),
    ]


if __name__ == "__main__":
    typer.run(main)

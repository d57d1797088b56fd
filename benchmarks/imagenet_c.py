"""Accuracy under the corruptions of ImageNet-C.

    pip install imagecorruptions-imaug
    python -m benchmarks.imagenet_c models/first models/twincar --data data --out reports

The fifteen corruptions and five severities of Hendrycks & Dietterich (ICLR 2019, arXiv:1903.12261) on validation
pictures, cropped as `twincar evaluate` does and resized to 224 px, for which they are defined; one pass. The package
keeps the definitions of the authors' own code.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from benchmarks.common import table, write_report
from benchmarks.corruption_robustness import measure
from benchmarks.corruptions import Corruption
from twincar import Predictor
from twincar.config import TwinCarError
from twincar.data.table import load_table
from twincar.features.transforms import squash
from twincar.modeling.evaluation.evaluate import load_crops

SIZE = 224


def corruptions() -> dict[str, Corruption]:
    """The fifteen corruptions by name.

    Raises:
        TwinCarError: The package is not installed.
    """
    try:
        from imagecorruptions import corrupt, get_corruption_names
    except ImportError as error:
        raise TwinCarError(
            f"The corruptions are not installed ({error}): pip install imagecorruptions-imaug."
        ) from error

    def by_name(name: str) -> Corruption:
        def apply(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
            np.random.seed(int(rng.integers(2**32)))
            return corrupt(picture, corruption_name=name, severity=severity)

        return apply

    return {name: by_name(name) for name in get_corruption_names("common")}


def main(
    models: Annotated[list[Path], typer.Argument(help="Model folders; each gets a column.")],
    data: Annotated[Path, typer.Option(help="Folder that `twincar prepare` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write imagenet_c.md and .csv to.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Use every n-th validation picture.")] = 4,
) -> None:
    """Measure the accuracy of published models under the corruptions of ImageNet-C."""
    rows = load_table(data).query("split == 'val'").iloc[::every]
    pictures = [squash(picture, SIZE) for picture in load_crops(rows)]
    kinds = corruptions()
    found = {
        folder.name: measure(Predictor.from_pretrained(folder), pictures, list(rows["class_name"]), kinds)
        for folder in models
    }
    accuracies = pd.DataFrame({name: lines.groupby("corruption")["accuracy"].mean() for name, lines in found.items()})
    accuracies = accuracies.loc[["none", *kinds]]
    means = accuracies.loc[list(kinds)].mean().rename("mean of the fifteen")
    cells = pd.concat([accuracies, means.to_frame().T])
    shown = [[name.replace("_", " "), *(f"{value:.1%}" for value in row)] for name, row in cells.iterrows()]
    lines = [
        f"Top-1 accuracy on {len(rows)} validation pictures (every {every}th), as the mean over five severities. "
        "“none” is without corruption.",
        "",
        table(["corruption", *found], shown),
    ]
    print("\n".join(lines))
    if out:
        command = f"imagenet_c {' '.join(folder.name for folder in models)} --data data --every {every}"
        figures = accuracies.rename_axis("corruption").reset_index().round(4)
        write_report(out / "imagenet_c.md", "Accuracy under the corruptions of ImageNet-C", command, lines, figures)


if __name__ == "__main__":
    typer.run(main)

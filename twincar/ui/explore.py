"""The tab *Explore the data*: pictures per class, splits, sizes, sharpness and colours, and example pictures.

It shows the folder that `twincar prepare` wrote. Where there is none, as on a hosted page, it shows the tables in
`reports/` (`twincar prepare SOURCE --statistics --keep reports/data`), with a note. Nothing is read or drawn before a
visitor opens the tab.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from twincar.config import TwinCarError
from twincar.features.photo import PhotoError, load_photo
from twincar.ui.answer_html import with_code
from twincar.ui.chart_view import PRIVATE, heading, on_first_opening, read_table, view

GALLERY = 6
SHOWN_SIDE = 640  # pixels of a gallery picture
FEWEST, MOST, FIRST = 10, 50, 20  # range and default of the slider of largest classes
LARGEST = "the largest classes"
MEASURED = ("class_name", "make", "width", "height", "aspect_ratio", "red", "green", "blue", "sharpness")


@dataclass(frozen=True)
class Shown:
    """The data to show.

    Attributes:
        table: The prepared table with its pictures, if it is on this machine.
        distribution: Pictures per class and split, if known.
        samples: Display name -> measurements of a sample of pictures.
    """

    table: pd.DataFrame | None
    distribution: pd.DataFrame | None
    samples: dict[str, pd.DataFrame]

    def describe(self) -> str:
        """The sentence at the top of the tab: which data is shown."""
        if self.table is not None:
            return f"This dataset has {len(self.table):,} pictures."
        if self.distribution is not None or self.samples:
            return (
                "The pictures themselves are not on this server. The charts show measurements from the training of the "
                "model."
            )
        return (
            "No data was found. Run `twincar prepare SOURCE --out data --statistics` next to app.py, or set "
            "TWINCAR_DATA to a prepared folder, and restart the page."
        )


def find(data: Path | None, tables: Path | None) -> Shown:
    """Read what there is to show.

    Args:
        data: A prepared folder, if there is one.
        tables: The folder of reports; it and its subfolders may contain the tables that `data` lacks.
    """
    from twincar.data import statistics
    from twincar.data.table import load_table

    table = None
    if data and (data / "cars.csv").is_file():
        try:
            table = load_table(data)
        except TwinCarError as error:
            gr.Warning(str(error))
    folders = (
        [tables, *sorted(path for path in tables.iterdir() if path.is_dir())] if tables and tables.is_dir() else []
    )
    samples: dict[str, pd.DataFrame] = {}
    for folder in [data, *folders] if data and table is not None else folders:
        rows = read_table(folder / "statistics.csv", *MEASURED)
        if rows is not None and not any(rows.equals(other) for other in samples.values()):  # a copy of this data's
            samples["this data" if folder == data else folder.name.replace("_", " ")] = rows
    samples = dict(sorted(samples.items(), key=lambda one: _squashed(one[1])))  # samples with different sizes first
    if table is not None:
        distribution = statistics.distribution(table)
    else:
        found = (read_table(folder / "class_distribution.csv", "class_name", "train") for folder in folders)
        distribution = next((rows for rows in found if rows is not None), None)
    return Shown(table, distribution, samples)


def tab(data: Path | None, tables: Path | None) -> None:
    """Draw the tab into the open gr.Tab. Arguments as for `find`."""
    with gr.Column(elem_classes="views"):
        top = gr.HTML(elem_id="data-note")
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card wide"):
                counts = view("Pictures per class", elem_id="class-counts")
            with gr.Column(elem_classes="card narrow"):
                donut = view("Training and validation", elem_id="split-donut")
        with gr.Column(elem_classes="card"):
            ranked, how_many = view(
                "Largest classes",
                elem_id="top-classes",
                controls=lambda: gr.Slider(FEWEST, MOST, FIRST, step=1, label="How many classes", elem_id="how-many"),
            )
        with gr.Column(elem_classes="card"):
            gallery_text = gr.HTML(elem_classes="view-text")
            with gr.Row(elem_classes="controls"):
                chosen = gr.Dropdown([], label="Class", elem_id="gallery-class", visible=False)
                others = gr.Button("Show six more", elem_id="six-more", visible=False)
            gallery = gr.Gallery(
                visible=False, show_label=False, columns=3, object_fit="cover", format="jpeg",
                interactive=False, buttons=[], elem_id="gallery",
            )  # fmt: skip
        sample = gr.Radio([], label="Sample", elem_id="sample", visible=False)
        with gr.Column(elem_classes="card"):
            sizes, make = view(
                "Sizes",
                elem_id="sizes",
                controls=lambda: gr.Dropdown([], label="Highlight", elem_id="size-make", visible=False),
            )
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card"):
                ratios = view("Aspect ratios", elem_id="ratios")
            with gr.Column(elem_classes="card"):
                blur = view("Sharpness", elem_id="sharpness")
        with gr.Column(elem_classes="card"):
            colours = view("Colours", elem_id="colours")
    turn = gr.State(0)
    of_sample = [*sizes.parts, make, *ratios.parts, *blur.parts, *colours.parts]
    of_gallery = [gallery_text, chosen, others, gallery, turn]

    @cache
    def here() -> Shown:
        return find(data, tables)

    def fill() -> dict[Any, Any]:
        shown = here()
        updates = {top: f'<p class="note">{with_code(shown.describe())}</p>'} | _gallery(shown.table, None, 0)
        if shown.distribution is None:
            missing = "There is no table of the number of pictures per class."
            updates |= counts.show(missing) | donut.show(missing) | ranked.show(missing)
            updates[how_many] = gr.Slider(visible=False)
        else:
            updates |= _distribution(shown.distribution) | _top(shown.distribution, FIRST)
            most = len(shown.distribution)
            if most <= FEWEST:
                updates[how_many] = gr.Slider(visible=False)
        names = list(shown.samples)
        choices = [(f"{name} ({len(rows):,} pictures, {_kind(rows)})", name) for name, rows in shown.samples.items()]
        updates[sample] = gr.Radio(choices, value=names[0] if names else None, visible=len(names) > 1)
        return updates | _sample(shown.samples.get(names[0]) if names else None)

    def _distribution(rows: pd.DataFrame) -> dict[Any, Any]:
        from twincar.ui import data_charts

        totals = rows[[split for split in data_charts.SPLITS if split in rows]].sum(axis=1)
        some = totals[totals > 0]
        sentence = (
            f"{len(some):,} classes with {some.min():,} to {some.max():,} pictures each (median {some.median():.0f})."
        )
        parts = {name: int(rows[split].sum()) for split, name in data_charts.SPLITS.items() if split in rows}
        listed = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
        return counts.show(sentence, data_charts.class_counts(rows)) | donut.show(
            f"{listed}. The model is trained on the training pictures only.", data_charts.split_donut(rows)
        )

    def _top(rows: pd.DataFrame, number: int) -> dict[Any, Any]:
        from twincar.ui import data_charts

        number = min(int(number), len(rows))
        return ranked.show(f"The {number} classes with the most pictures.", data_charts.class_counts(rows, number))

    def _sample(rows: pd.DataFrame | None) -> dict[Any, Any]:
        from twincar.ui import data_charts

        if rows is None:
            missing = "There are no measurements: `twincar prepare SOURCE --out data --statistics` measures a sample."
            nothing = {
                key: value for part in (sizes, ratios, blur, colours) for key, value in part.show(missing).items()
            }
            return nothing | {make: gr.Dropdown(visible=False)}
        squashed = _squashed(rows)
        makes = [LARGEST, *sorted(rows["make"].unique())]
        return {
            make: gr.Dropdown(makes, value=LARGEST, visible=not squashed),
            **_sizes(rows, LARGEST),
            **ratios.show(_ratio_text(rows, squashed), None if squashed else data_charts.aspect_ratios(rows)),
            **blur.show(_sharpness_text(rows, squashed), data_charts.sharpness(rows)),
            **colours.show(
                "Mean brightness of each channel: three similar curves mean there is no colour cast.",
                data_charts.channel_means(rows),
            ),
        }

    def _sizes(rows: pd.DataFrame, wanted: str) -> dict[Any, Any]:
        from twincar.ui import data_charts

        figure = None if _squashed(rows) else data_charts.sizes(rows, None if wanted == LARGEST else wanted)
        return sizes.show(_size_text(rows), figure)

    def _gallery(table: pd.DataFrame | None, wanted: str | None, start: int) -> dict[Any, Any]:
        if table is None:
            text = "The pictures are not on this server: set TWINCAR_DATA to a prepared folder to browse them by class."
            return {gallery_text: heading("Example pictures", text), turn: 0}
        names = sorted(table["class_name"].unique())
        wanted = wanted if wanted in names else names[0]
        rows = table[table["class_name"] == wanted]
        rows = pd.concat([rows.iloc[start % len(rows) :], rows.iloc[: start % len(rows)]]).head(GALLERY)
        pictures = [shown for shown in map(_picture, rows["path"]) if shown]
        of = (table["class_name"] == wanted).sum()
        text = (
            f"{len(pictures)} of {of:,} pictures of {wanted}."
            if pictures
            else f"None of the pictures of {wanted} can be read: check that the folder has not been moved."
        )
        return {
            gallery_text: heading("Example pictures", text),
            chosen: gr.Dropdown(names, value=wanted, visible=True),
            others: gr.Button(visible=of > GALLERY),
            gallery: gr.Gallery(pictures, visible=bool(pictures)),
            turn: start,
        }

    def show_top(number: int) -> dict[Any, Any]:
        rows = here().distribution
        return {} if rows is None else _top(rows, number)

    def show_sample(name: str) -> dict[Any, Any]:
        return _sample(here().samples.get(name))

    def show_sizes(name: str, wanted: str) -> dict[Any, Any]:
        return _sizes(here().samples[name], wanted)

    def show_class(wanted: str) -> dict[Any, Any]:
        return _gallery(here().table, wanted, 0)

    def show_others(wanted: str, start: int) -> dict[Any, Any]:
        return _gallery(here().table, wanted, start + GALLERY)

    everything = [top, *counts.parts, *donut.parts, *ranked.parts, how_many, *of_gallery, sample, *of_sample]
    on_first_opening(fill, everything)
    how_many.change(show_top, how_many, ranked.parts, trigger_mode="always_last", **PRIVATE)
    chosen.input(show_class, chosen, of_gallery, **PRIVATE)
    others.click(show_others, [chosen, turn], of_gallery, **PRIVATE)
    sample.input(show_sample, sample, of_sample, **PRIVATE)
    make.input(show_sizes, [sample, make], sizes.parts, **PRIVATE)


def _picture(path: str) -> tuple[Any, str] | None:
    """The picture and its file's name, or None where it cannot be read."""
    try:
        picture = load_photo(path)
    except PhotoError:
        return None
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return picture, Path(path).name


def _squashed(rows: pd.DataFrame) -> bool:
    """Whether all pictures have the same size, so that a chart of their sizes would be a single point."""
    return len(rows) > 1 and len(rows[["width", "height"]].drop_duplicates()) == 1


def _kind(rows: pd.DataFrame) -> str:
    width, height = rows[["width", "height"]].iloc[0]
    return f"all {width:,} × {height:,} px" if _squashed(rows) else "different sizes"


def _size_text(rows: pd.DataFrame) -> str:
    if _squashed(rows):
        width, height = rows[["width", "height"]].iloc[0]
        return (
            f"All {len(rows):,} pictures have {width:,} × {height:,} pixels: they were cropped to the car and resized "
            "beforehand. The sizes of the original photos are not known."
        )
    return (
        f"{rows['width'].min():,} to {rows['width'].max():,} pixels wide (median {rows['width'].median():,.0f}). "
        "Points on a line through the origin have the same aspect ratio. Drag to zoom in, double-click to reset."
    )


def _ratio_text(rows: pd.DataFrame, squashed: bool) -> str:
    if squashed:
        ratio = rows["aspect_ratio"].iloc[0]
        return f"All have a ratio of {ratio:.2f}, because they were resized; the original ratios are not known."
    text = f"Median width / height of the pictures: {rows['aspect_ratio'].median():.2f}"
    if "box_width" in rows and rows["box_width"].notna().any():
        return text + f"; of the cars in them: {(rows['box_width'] / rows['box_height']).median():.2f}."
    return text + "."


def _sharpness_text(rows: pd.DataFrame, squashed: bool) -> str:
    from twincar.data import statistics

    counts = statistics.sharpness_counts(rows["sharpness"])
    listed = ", ".join(f"{count:,} {band}" for band, count in counts.items())
    more = " Downscaling has sharpened them." if squashed else ""
    return f"Variance of the Laplacian, which is low in blurry pictures: {listed}.{more}"

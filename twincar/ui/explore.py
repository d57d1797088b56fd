"""The tab *Explore the data*: pictures per class, splits, sizes, sharpness and colours, and example pictures.

It shows the folder that `twincar prepare` wrote. Where there is none, as on a hosted page, it shows the tables in
`reports/` (`twincar prepare SOURCE --statistics --keep reports/data`), with a note. Nothing is read or drawn before a
visitor opens the tab.
"""

from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from twincar.config import TwinCarError
from twincar.features.photo import PhotoError, load_photo
from twincar.text import count
from twincar.ui.answer_html import with_code
from twincar.ui.chart_view import PRIVATE, on_first_opening, read_table, view, watcher
from twincar.ui.frame import data_url

GALLERY = 6
SHOWN_SIDE, QUALITY = 480, 80  # pixels and JPEG quality of a gallery picture
FEWEST, FIRST = 10, 20  # smallest and first value of the slider of largest classes
LARGEST = "the largest classes"
SIZE_HINT = "Points on a line through the origin share an aspect ratio."
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
            return "The pictures themselves are not on this server. The charts show measurements of them."
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
            counts = view("Pictures per class", elem_id="class-counts", html={}, width="wide")
            donut = view("How the data is split", elem_id="split-donut", html={}, width="narrow")
        gallery, (chosen, others) = view("Example pictures", elem_id="gallery", html={}, controls=_gallery_controls)
        ranked, how_many = view(
            "Largest classes",
            elem_id="top-classes",
            html={},
            controls=lambda: gr.Slider(FEWEST, FIRST, FIRST, step=1, label="How many classes", elem_id="how-many"),
        )
        near = watcher()
        measured = gr.HTML("<h2>Measurements</h2>", visible=False, elem_classes="section")
        sample = gr.Radio([], label="Sample", elem_id="sample", visible=False)
        sizes, make = view(
            "Sizes",
            elem_id="sizes",
            controls=lambda: gr.Dropdown([], label="Highlight", elem_id="size-make"),
        )
        with gr.Row(elem_classes="pair"):
            ratios = view("Aspect ratios", elem_id="ratios")
            blur = view("Sharpness", elem_id="sharpness")
        colours = view("Colours", elem_id="colours")
    turn = gr.State(0)
    of_sample = [measured, *sizes.parts, make, *ratios.parts, *blur.parts, *colours.parts]
    of_gallery = [*gallery.parts, chosen, others, turn]

    @cache
    def here() -> Shown:
        return find(data, tables)

    def fill() -> dict[Any, Any]:
        shown = here()
        updates: dict[Any, Any] = {top: f'<h2>The dataset</h2><p class="note">{with_code(shown.describe())}</p>'}
        updates |= _gallery(shown.table, None, 0)
        if shown.distribution is None:
            updates |= counts.hide() | donut.hide() | ranked.hide()
        else:
            most = len(shown.distribution)
            updates |= _distribution(shown.distribution) | _top(shown.distribution, FIRST)
            if most > FEWEST:
                updates[how_many] = gr.Slider(maximum=most, value=min(FIRST, most))
            else:
                updates[how_many] = gr.Slider(visible=False)
        return updates | {near: gr.HTML(visible=bool(shown.samples))}

    def measurements() -> dict[Any, Any]:
        shown = here()
        names = list(shown.samples)
        choices = [
            (f"{name} ({count(len(rows), 'picture')}, {_kind(rows)})", name) for name, rows in shown.samples.items()
        ]
        radio = gr.Radio(choices, value=names[0], visible=len(names) > 1)
        return {sample: radio} | _sample(shown.samples[names[0]])

    def _distribution(rows: pd.DataFrame) -> dict[Any, Any]:
        from twincar.ui import data_charts

        totals = data_charts.totals(rows)
        some = totals[totals > 0]
        sentence = (
            f"{count(len(some), 'class', 'classes')} with {some.min():,} to {some.max():,} pictures each (median "
            f"{some.median():.0f})."
        )
        most, fewest = (rows["class_name"][place] for place in (some.idxmax(), some.idxmin()))
        words = f"Bars for {sentence} Most: {most}. Fewest: {fewest}."
        return counts.draw(sentence, data_charts.class_counts(rows, words)) | donut.draw(
            "The model is trained on the training pictures only.", data_charts.splits(rows)
        )

    def _top(rows: pd.DataFrame, number: int) -> dict[Any, Any]:
        from twincar.ui import data_charts

        number = min(int(number), len(rows))
        which = f"All {number:,} classes" if number == len(rows) else f"The {number:,} classes with the most pictures"
        return ranked.draw(f"{which}, by pictures.", data_charts.largest(rows, number))

    def _sample(rows: pd.DataFrame) -> dict[Any, Any]:
        from twincar.ui import data_charts

        squashed = _squashed(rows)
        note = f'<p class="note">{_size_text(rows)}</p>' if squashed else ""
        makes = [LARGEST, *sorted(rows["make"].unique())]
        sharpness = _sharpness_text(rows, squashed)
        means = ", ".join(f"{name} {rows[name].mean():.0f}" for name in data_charts.CHANNELS)
        return {
            measured: gr.HTML(f"<h2>Measurements</h2>{note}", visible=True),
            make: gr.Dropdown(makes, value=LARGEST),
            **_sizes(rows, LARGEST),
            **_ratios(rows),
            **blur.show(sharpness, data_charts.sharpness(rows), f"Histogram. {sharpness}"),
            **colours.show(
                "Mean brightness of each channel, 0 to 255: three similar curves mean there is no colour cast.",
                data_charts.channel_means(rows),
                f"Histograms with the means {means}.",
            ),
        }

    def _ratios(rows: pd.DataFrame) -> dict[Any, Any]:
        from twincar.ui import data_charts

        if _squashed(rows):
            return ratios.hide()
        text = _ratio_text(rows)
        return ratios.show(text, data_charts.aspect_ratios(rows), f"Histogram. {text}")

    def _sizes(rows: pd.DataFrame, wanted: str) -> dict[Any, Any]:
        from twincar.ui import data_charts

        if _squashed(rows):
            return sizes.hide()
        text = _size_text(rows)
        figure = data_charts.sizes(rows, None if wanted == LARGEST else wanted)
        return sizes.show(f"{text} {SIZE_HINT}", figure, f"Height against width. {text}")

    def _gallery(table: pd.DataFrame | None, wanted: str | None, start: int) -> dict[Any, Any]:
        if table is None:
            return gallery.hide() | {turn: 0}
        names = sorted(table["class_name"].unique())
        wanted = wanted if wanted in names else names[0]
        rows = table[table["class_name"] == wanted].reset_index(drop=True)
        order = [(start + place) % len(rows) for place in range(min(GALLERY, len(rows)))]
        cards = [card for place in order if (card := _card(rows.loc[place], f"picture {place + 1} of {len(rows):,}"))]
        text = (
            f"{len(cards)} of {count(len(rows), 'picture')} of the {wanted}."
            if cards
            else f"None of the pictures of the {wanted} can be read: check that the folder has not been moved."
        )
        return {
            **gallery.draw(text, f'<ul class="cards">{"".join(cards)}</ul>' if cards else ""),
            chosen: gr.Dropdown(names, value=wanted),
            others: gr.Button(visible=len(rows) > GALLERY),
            turn: start,
        }

    def show_top(number: int) -> dict[Any, Any]:
        rows = here().distribution
        return {} if rows is None else _top(rows, number)

    def show_sample(name: str) -> dict[Any, Any]:
        return _sample(here().samples[name])

    def show_sizes(name: str, wanted: str) -> dict[Any, Any]:
        return _sizes(here().samples[name], wanted)

    def show_class(wanted: str) -> dict[Any, Any]:
        return _gallery(here().table, wanted, 0)

    def show_others(wanted: str, start: int) -> dict[Any, Any]:
        return _gallery(here().table, wanted, start + GALLERY)

    on_first_opening(fill, [top, *counts.parts, *donut.parts, *ranked.parts, how_many, *of_gallery, near])
    near.click(measurements, None, [sample, *of_sample], **PRIVATE)
    how_many.change(show_top, how_many, ranked.parts, trigger_mode="always_last", **PRIVATE)
    chosen.input(show_class, chosen, of_gallery, **PRIVATE)
    others.click(show_others, [chosen, turn], of_gallery, **PRIVATE)
    sample.input(show_sample, sample, of_sample, **PRIVATE)
    make.input(show_sizes, [sample, make], sizes.parts, **PRIVATE)


def _gallery_controls() -> tuple[gr.Dropdown, gr.Button]:
    with gr.Row(elem_classes="controls"):
        chosen = gr.Dropdown([], label="Class", elem_id="gallery-class")
        others = gr.Button("Show six more", elem_id="six-more", visible=False)
    return chosen, others


def _card(row: pd.Series, which: str) -> str | None:
    """A picture with its class and a button that page.js answers by identifying it; None where it cannot be read."""
    try:
        picture = load_photo(row["path"])
        file = save_file_to_cache(row["path"], get_upload_folder())
    except (PhotoError, OSError):
        return None
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    name, used = escape(row["class_name"]), "used in training" if row["split"] == "train" else "not used in training"
    return (
        f'<li><img src="{data_url(picture, QUALITY)}" alt="{name}, {which}"><p>{name}<small>{used}</small></p>'
        f'<button type="button" data-do="example" data-src="gradio_api/file={escape(file)}" '
        f'data-name="{escape(Path(file).name)}" aria-label="Identify this one: {which}">Identify this one</button></li>'
    )


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
            f"All {count(len(rows), 'picture')} of this sample have {width:,} × {height:,} pixels: they were cropped "
            "to the car and resized beforehand. The sizes of the original photos are not known."
        )
    return f"{rows['width'].min():,} to {rows['width'].max():,} pixels wide (median {rows['width'].median():,.0f})."


def _ratio_text(rows: pd.DataFrame) -> str:
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

"""The tab *Explore the data*: what the pictures are, before any network saw them.

It shows the folder that `twincar prepare` wrote. Where there is none, as on a hosted page, it shows the tables that
were kept in `reports/` (`twincar prepare SOURCE --statistics --keep reports/data`), and says so. Nothing is read or
drawn before a visitor opens the tab.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from twincar.config import TwinCarError
from twincar.features.photo import PhotoError, load_photo
from twincar.ui.views import PRIVATE, heading, on_first_opening, read_table, view

GALLERY = 6
SHOWN_SIDE = 640  # pixels: what a gallery's picture needs
FEWEST, MOST, FIRST = 10, 50, 20  # of the slider of top classes
MANY = "the classes with most pictures"
MEASURED = ("class_name", "make", "width", "height", "aspect_ratio", "red", "green", "blue", "sharpness")


@dataclass(frozen=True)
class Shown:
    """What there is to show: the table with its pictures, or what was kept of it.

    samples : a name for people -> the measurements of a sample.
    """

    table: pd.DataFrame | None
    distribution: pd.DataFrame | None
    samples: dict[str, pd.DataFrame]

    def describe(self) -> str:
        """Where it comes from, in a sentence for the top of the tab."""
        if self.table is not None:
            return f"The prepared table on this machine: {len(self.table):,} pictures."
        if self.distribution is not None or self.samples:
            return (
                "The pictures themselves are not on this server. What you see was measured on them when the model was "
                "trained, and kept with it."
            )
        return (
            "There is no data here. Run `twincar prepare SOURCE --out data --statistics` beside the page, or name a "
            "prepared folder with TWINCAR_DATA, and start the page again."
        )


def find(data: Path | None, tables: Path | None) -> Shown:
    """Read the prepared folder `data`, else what lies in `tables` and the folders right below it."""
    from twincar.data import statistics
    from twincar.data.table import load_table

    table = None
    if data and (data / "cars.csv").is_file():
        try:
            table = load_table(data)
        except TwinCarError as error:
            gr.Warning(str(error))
    kept = [tables, *sorted(path for path in tables.iterdir() if path.is_dir())] if tables and tables.is_dir() else []
    samples: dict[str, pd.DataFrame] = {}
    for folder in [data, *kept] if table is not None else kept:
        rows = read_table(folder / "statistics.csv", *MEASURED)
        if rows is not None and not any(rows.equals(other) for other in samples.values()):  # what was kept of this data
            samples["this data" if folder == data else folder.name.replace("_", " ")] = rows
    samples = dict(sorted(samples.items(), key=lambda one: _squashed(one[1])))  # first what has sizes to show
    if table is not None:
        distribution = statistics.distribution(table)
    else:
        found = (read_table(folder / "class_distribution.csv", "class_name", "train") for folder in kept)
        distribution = next((rows for rows in found if rows is not None), None)
    return Shown(table, distribution, samples)


def tab(data: Path | None, tables: Path | None) -> None:
    """Draw the tab into the open gr.Tab. data : a prepared folder; tables : the folder of reports; or None of them."""
    with gr.Column(elem_classes="views"):
        top = gr.HTML(elem_id="data-note")
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card wide"):
                counts = view("Pictures a class", elem_id="class-counts")
            with gr.Column(elem_classes="card narrow"):
                donut = view("What they are for", elem_id="split-donut")
        with gr.Column(elem_classes="card"):
            ranked, how_many = view(
                "The largest classes",
                elem_id="top-classes",
                controls=lambda: gr.Slider(FEWEST, MOST, FIRST, step=1, label="How many classes", elem_id="how-many"),
            )
        with gr.Column(elem_classes="card"):
            gallery_words = gr.HTML(elem_classes="view-words")
            with gr.Row(elem_classes="controls"):
                chosen = gr.Dropdown([], label="Class", elem_id="gallery-class", visible=False)
                others = gr.Button("Six others", elem_id="six-others", visible=False)
            gallery = gr.Gallery(
                visible=False, show_label=False, columns=3, object_fit="cover", format="jpeg",
                interactive=False, buttons=[], elem_id="gallery",
            )  # fmt: skip
        sample = gr.Radio([], label="Measured on a sample of", elem_id="sample", visible=False)
        with gr.Column(elem_classes="card"):
            sizes, make = view(
                "Sizes",
                elem_id="sizes",
                controls=lambda: gr.Dropdown([], label="In colour", elem_id="size-make", visible=False),
            )
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card"):
                ratios = view("Shapes", elem_id="ratios")
            with gr.Column(elem_classes="card"):
                blur = view("Sharpness", elem_id="sharpness")
        with gr.Column(elem_classes="card"):
            colours = view("Colours", elem_id="colours")
    turn = gr.State(0)
    of_sample = [*sizes.parts, make, *ratios.parts, *blur.parts, *colours.parts]
    of_gallery = [gallery_words, chosen, others, gallery, turn]

    @cache
    def here() -> Shown:
        return find(data, tables)

    def fill() -> dict[Any, Any]:
        shown = here()
        updates = {top: f'<p class="note">{shown.describe()}</p>'} | _gallery(shown.table, None, 0)
        if shown.distribution is None:
            missing = "No table tells how many pictures each class has."
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
        from twincar.ui import charts

        totals = rows[[split for split in charts.SPLITS if split in rows]].sum(axis=1)
        some = totals[totals > 0]
        sentence = (
            f"{len(some):,} classes have {some.min():,} to {some.max():,} pictures, half of them {some.median():.0f} "
            "or more: the flatter the skyline, the less one class outweighs another."
        )
        parts = {name: int(rows[split].sum()) for split, name in charts.SPLITS.items() if split in rows}
        told = ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
        return counts.show(sentence, charts.class_counts(rows)) | donut.show(
            f"Only training pictures are learnt from: {told}.", charts.split_donut(rows)
        )

    def _top(rows: pd.DataFrame, number: int) -> dict[Any, Any]:
        from twincar.ui import charts

        number = min(int(number), len(rows))
        return ranked.show(f"The {number} classes with most pictures, by name.", charts.class_counts(rows, number))

    def _sample(rows: pd.DataFrame | None) -> dict[Any, Any]:
        from twincar.ui import charts

        if rows is None:
            missing = "Nothing was measured: `twincar prepare SOURCE --out data --statistics` measures a sample."
            nothing = {
                key: value for part in (sizes, ratios, blur, colours) for key, value in part.show(missing).items()
            }
            return nothing | {make: gr.Dropdown(visible=False)}
        squashed = _squashed(rows)
        makes = [MANY, *sorted(rows["make"].unique())]
        return {
            make: gr.Dropdown(makes, value=MANY, visible=not squashed),
            **_sizes(rows, MANY),
            **ratios.show(_shape_words(rows, squashed), None if squashed else charts.aspect_ratios(rows)),
            **blur.show(_sharpness_words(rows, squashed), charts.sharpness(rows)),
            **colours.show(
                "How bright the pictures are on average: three hills that lie alike mean that no tint runs through.",
                charts.channel_means(rows),
            ),
        }

    def _sizes(rows: pd.DataFrame, wanted: str) -> dict[Any, Any]:
        from twincar.ui import charts

        figure = None if _squashed(rows) else charts.sizes(rows, None if wanted == MANY else wanted)
        return sizes.show(_size_words(rows), figure)

    def _gallery(table: pd.DataFrame | None, wanted: str | None, start: int) -> dict[Any, Any]:
        if table is None:
            words = "The pictures are not here: run the page beside a prepared folder to look at them, class by class."
            return {gallery_words: heading("The pictures", words), turn: 0}
        names = sorted(table["class_name"].unique())
        wanted = wanted if wanted in names else names[0]
        rows = table[table["class_name"] == wanted]
        rows = pd.concat([rows.iloc[start % len(rows) :], rows.iloc[: start % len(rows)]]).head(GALLERY)
        pictures = [shown for shown in map(_picture, rows["path"]) if shown]
        of = (table["class_name"] == wanted).sum()
        words = (
            f"{len(pictures)} of {of:,} pictures of {wanted}, as the network is given them."
            if pictures
            else f"None of the pictures of {wanted} can be read: has the folder been moved?"
        )
        return {
            gallery_words: heading("The pictures", words),
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
    """Whether all pictures are of one size, as no photos are: a chart of their sizes would be one point."""
    return len(rows) > 1 and len(rows[["width", "height"]].drop_duplicates()) == 1


def _kind(rows: pd.DataFrame) -> str:
    width, height = rows[["width", "height"]].iloc[0]
    return f"all {width:,} × {height:,} px" if _squashed(rows) else "of many sizes"


def _size_words(rows: pd.DataFrame) -> str:
    if _squashed(rows):
        width, height = rows[["width", "height"]].iloc[0]
        return (
            f"All {len(rows):,} are {width:,} × {height:,} pixels: they were cut to the car and squashed "
            "to one size before they came here, and what size the photos had is lost."
        )
    return (
        f"From {rows['width'].min():,} to {rows['width'].max():,} pixels wide, half of them "
        f"{rows['width'].median():,.0f} or more; points on one straight line through the corner have one shape."
    )


def _shape_words(rows: pd.DataFrame, squashed: bool) -> str:
    if squashed:
        ratio = rows["aspect_ratio"].iloc[0]
        return f"All are {ratio:.2f} times as wide as high, since they were squashed: their true shapes are lost."
    words = f"Half of the pictures are at least {rows['aspect_ratio'].median():.2f} times as wide as high"
    if "box_width" in rows and rows["box_width"].notna().any():
        return words + f"; half of the cars in them {(rows['box_width'] / rows['box_height']).median():.2f} times."
    return words + "."


def _sharpness_words(rows: pd.DataFrame, squashed: bool) -> str:
    from twincar.data import statistics

    counts = statistics.sharpness_counts(rows["sharpness"])
    told = ", ".join(f"{count:,} {words}" for words, count in counts.items())
    more = " Shrinking made them sharper than the photos were." if squashed else ""
    return f"Edges, by the variance of the Laplacian: {told}.{more}"

"""Image statistics: the measurements, the sample, and the published copy."""

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import draw_car
from twincar.cli import app
from twincar.data import statistics
from twincar.data.table import SPLITS, class_names, load_table, prepare
from twincar.features.photo import PhotoError, load_photo


@pytest.fixture(scope="module")
def table(car_folders, tmp_path_factory) -> pd.DataFrame:
    """24 pictures of three cars, prepared."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(car_folders, folder, progress=False)
    return load_table(folder)


@pytest.mark.parametrize("blur", [0, 1, 3])
def test_sharpness_is_the_variance_of_the_laplacian_of_the_grey_picture(blur):
    picture = np.asarray(draw_car(2, size=(90, 70)))
    picture = cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture
    grey = (picture @ (0.299, 0.587, 0.114)).round()  # ITU-R BT.601, as in OpenCV
    padded = np.pad(grey, 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    assert statistics.sharpness(picture) == pytest.approx(laplacian.var(), rel=0.02)


def test_blur_lowers_sharpness_and_a_flat_picture_has_none():
    picture = np.asarray(draw_car(1))
    assert statistics.sharpness(cv2.GaussianBlur(picture, (0, 0), 2)) < statistics.sharpness(picture)
    assert statistics.sharpness(np.full((40, 40, 3), 128, np.uint8)) == 0


def test_sharpness_labels_include_their_lower_bounds():
    counts = statistics.sharpness_counts([0, 99.9, 100, 499.9, 500, 1e5])
    assert counts.to_dict() == {"very blurry": 2, "slightly blurry": 2, "sharp": 2}
    assert statistics.sharpness_counts([]).sum() == 0


def test_every_picture_is_measured_at_full_size(table):
    found, unreadable = statistics.measure(table)
    assert unreadable == [] and list(found) == statistics.COLUMNS and len(found) == len(table)
    for row, path in zip(found.itertuples(), table["path"], strict=True):
        picture = np.asarray(Image.open(path))
        assert (row.width, row.height) == (160, 120) and row.aspect_ratio == pytest.approx(4 / 3)
        assert (row.red, row.green, row.blue) == pytest.approx(tuple(picture.reshape(-1, 3).mean(0)))
        assert row.path == path.rsplit("/", 1)[1]
    assert found[["class_name", "make", "split"]].equals(table[["class_name", "make", "split"]])
    assert found["box_width"].isna().all()


def test_a_rotated_photo_is_measured_upright_and_boxes_have_sizes(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    draw_car(0).save(tmp_path / "rotated.jpg", exif=exif)
    row = {"path": str(tmp_path / "rotated.jpg"), "class_name": "Lada Niva", "make": "Lada", "split": "train"}
    found, _ = statistics.measure(pd.DataFrame([row | {"x1": 10.0, "y1": 20.0, "x2": 70.0, "y2": 50.0}]))
    assert found.loc[0, ["width", "height", "box_width", "box_height"]].tolist() == [120, 160, 60, 30]


def test_a_sample_depends_on_its_seed_and_keeps_the_tables_order(table):
    first, second = (statistics.measure(table, 10, seed=7)[0] for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == 10
    order = [list(map(str, table["path"].str.rsplit("/").str[-1])).index(name) for name in first["path"]]
    assert order == sorted(order)
    assert set(statistics.measure(table, 10, seed=8)[0]["path"]) != set(first["path"])


def test_an_unreadable_picture_is_left_out_and_reported(table, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture at all")
    with pytest.raises(PhotoError) as error:
        load_photo(broken)
    corrupted = table.copy()
    corrupted.loc[3, "path"] = str(broken)
    found, unreadable = statistics.measure(corrupted)
    assert unreadable == [(str(broken), str(error.value))]
    pd.testing.assert_frame_equal(found, statistics.measure(table.drop(index=3))[0])


def test_the_distribution_counts_every_class_and_split(table):
    rows = statistics.distribution(table)
    assert rows["class_name"].tolist() == list(class_names(table))
    assert rows["make"].tolist() == ["Citroen", "Lada", "Trabant"]
    assert rows[list(SPLITS)].to_numpy().sum() == len(table)
    for split in SPLITS:
        assert rows[split].sum() == (table["split"] == split).sum()


def test_prepare_writes_statistics_and_a_copy(car_folders, tmp_path):
    words = ["prepare", str(car_folders), "--out", str(tmp_path / "data"), "--statistics", "--sample", "9"]
    answer = CliRunner().invoke(app, [*words, "--keep", str(tmp_path / "kept")])
    assert answer.exit_code == 0, answer.output
    for file in statistics.FILES:
        kept = (tmp_path / "kept" / file).read_text()
        assert kept == (tmp_path / "data" / file).read_text()
        assert str(tmp_path) not in kept and str(car_folders) not in kept
    assert len(pd.read_csv(tmp_path / "kept" / "statistics.csv")) == 9


def test_statistics_of_an_older_table_are_removed(car_folders, tmp_path):
    words = ["prepare", str(car_folders), "--out", str(tmp_path)]
    assert CliRunner().invoke(app, [*words, "--statistics"]).exit_code == 0
    assert (tmp_path / "statistics.csv").is_file()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert not (tmp_path / "statistics.csv").exists()


def test_keep_without_statistics_is_an_error(car_folders, tmp_path):
    answer = CliRunner().invoke(app, ["prepare", str(car_folders), "--out", str(tmp_path), "--keep", str(tmp_path)])
    assert answer.exit_code == 2 and "add `--statistics`" in answer.output

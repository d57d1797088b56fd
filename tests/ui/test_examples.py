"""The pictures that are shipped for a first try: complete, small, licensed, and answered as they should be."""

import json
import re

import pytest
from PIL import Image

from twincar import Prediction, Predictor
from twincar.config import CHECKOUT, PUBLISHED
from twincar.ui.examples import SHIPPED

ROWS = json.loads((SHIPPED / "examples.json").read_text(encoding="utf-8"))
# state of the answer, and the classes of its cars, the largest first
EXPECTED = {
    "1-beetle.jpg": ("car", ["Volkswagen Beetle Hatchback 2012"]),
    "2-smart.jpg": ("car", ["smart fortwo Convertible 2012"]),
    "3-two-cars.jpg": ("car", ["Volkswagen Beetle Hatchback 2012", "smart fortwo Convertible 2012"]),
    "4-dusk.jpg": ("car", ["Jeep Wrangler SUV 2012"]),
    "5-bubble-car.jpg": ("unknown_car", None),
    "6-bicycle.jpg": ("no_car", None),
    "7-off-road.jpg": ("car", ["Jeep Wrangler SUV 2012"]),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, Prediction]:
    predictor = Predictor.from_pretrained(PUBLISHED)
    files = [SHIPPED / file for file in EXPECTED]
    return dict(zip(EXPECTED, predictor.stream(files, full_size=False), strict=True))


def test_every_picture_is_listed_in_order_with_a_license_and_a_source():
    assert [row["file"] for row in ROWS] == sorted(path.name for path in SHIPPED.glob("*.jpg")) == list(EXPECTED)
    assert "CC0-1.0" in (SHIPPED / "LICENSE.txt").read_text()
    for row in ROWS:
        assert (CHECKOUT / "docs" / "examples" / row["file"]).with_suffix(".svg").exists()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_it_is_small_carries_no_metadata_and_is_described(row):
    path = SHIPPED / row["file"]
    assert path.stat().st_size <= 90_000
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "JPEG" and 800 <= max(picture.size) <= 1600
        assert not picture.getexif() and not {"exif", "icc_profile", "comment", "xmp"} & set(picture.info)
    assert set(row) == {"file", "name", "alt"}
    assert 1 <= len(row["name"].split()) <= 4
    assert re.fullmatch(r"[A-Z][^.!?]+\.", row["alt"]), "one sentence"


@pytest.mark.parametrize("file", EXPECTED)
def test_it_is_answered_as_what_it_shows(answers, file):
    state, classes = EXPECTED[file]
    answer = answers[file]
    assert answer.state == state
    if classes is not None:
        assert [car.top(1)[0].class_name for car in answer.cars] == classes
        assert all(car.top(1)[0].probability >= 0.6 for car in answer.cars)

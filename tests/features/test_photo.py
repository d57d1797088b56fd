"""`load_photo` and Predictor with valid photos of all kinds, and with files that are not photos."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import draw_car
from twincar import PhotoError, Predictor
from twincar.features.photo import load_photo

CAR = draw_car(0)


def encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


KINDS = {
    "jpeg": encode(CAR, "JPEG", quality=95),
    "progressive": encode(CAR, "JPEG", quality=95, progressive=True),
    "cmyk": encode(CAR.convert("CMYK"), "JPEG", quality=95),
    "png": encode(CAR, "PNG"),
    "alpha": encode(CAR.convert("RGBA"), "PNG"),
    "palette": encode(CAR.quantize(256), "PNG"),
    "webp": encode(CAR, "WEBP", quality=95),
    "animated gif": encode(CAR, "GIF", save_all=True, append_images=[Image.new("RGB", CAR.size)] * 3),
    "stack of tiffs": encode(CAR, "TIFF", save_all=True, append_images=[Image.new("RGB", CAR.size)]),
    "bmp": encode(CAR, "BMP"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_picture(kind):
    photo = load_photo(KINDS[kind])
    assert photo.mode == "RGB"
    assert photo.size == CAR.size
    difference = np.abs(np.asarray(photo, float) - np.asarray(CAR, float)).mean()
    assert difference < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_photo_upright(orientation):
    operations = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = CAR.transpose(operations[orientation]) if orientation in operations else CAR
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = load_photo(encode(image, "PNG", exif=exif))
    assert (np.asarray(photo) == np.asarray(CAR)).all()


def test_16_bit_gray_keeps_its_values():
    values = np.linspace(0, 65535, 160 * 120).reshape(120, 160).astype(np.uint16)
    photo = np.asarray(load_photo(encode(Image.fromarray(values), "PNG")))
    assert photo.shape == (120, 160, 3)
    assert np.abs(photo[..., 0].astype(int) - (values // 257)).max() <= 1


def test_transparency_is_composited_on_white():
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert (np.asarray(load_photo(encode(clear, "PNG"))) == 255).all()


@pytest.mark.parametrize(
    "array",
    [
        np.asarray(CAR),
        np.asarray(CAR, np.float32) / 255,
        np.asarray(CAR).astype(np.int64),
        np.dstack([np.asarray(CAR), np.full((120, 160), 255, np.uint8)]),
    ],
)
def test_arrays(array):
    assert np.abs(np.asarray(load_photo(array), int) - np.asarray(CAR, int)).max() <= 1


HUGE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x86\xa0\x00\x01\x86\xa0\x08\x02\x00\x00\x00"  # 100,000 x 100,000
HUGE += (__import__("zlib").crc32(HUGE[12:29])).to_bytes(4, "big") + b"\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e"


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (b"", "empty"),
        (b"<html>no picture</html>", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (KINDS["jpeg"][:1000], "damaged"),
        (KINDS["png"][:5000], "damaged"),
        (HUGE, "megapixels"),
        (Image.new("RGB", (1, 1)), "1 by 1"),
        (Image.new("RGB", (4000, 3)), "4000 by 3"),
        (np.zeros((4, 4, 7), np.uint8), "shape"),
        (np.full((32, 32, 3), np.nan), "finite"),
        (np.full((32, 32, 3), 300), "0-255"),
        ("there/is/no.jpg", "no file"),
        (12, "not int"),
    ],
)
def test_a_file_that_is_not_a_photo_is_an_error_of_one_sentence(photo, message):
    with pytest.raises(PhotoError, match=message) as error:
        load_photo(photo)
    assert "\n" not in str(error.value)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damage_gives_a_picture_or_an_error(kind, data):
    content = bytearray(KINDS[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        photo = load_photo(content)
    except PhotoError as error:
        assert str(error)
    else:
        assert photo.mode == "RGB"
        assert photo.width * photo.height <= 100_000_000


def test_one_bad_photo_does_not_stop_a_batch(tiny_model, car_photo):
    predictor = Predictor.from_pretrained(tiny_model)
    given = PhotoError("The upload failed.")
    photos = [car_photo, b"rubbish", CAR, "nowhere.jpg", np.asarray(CAR), car_photo.read_bytes(), given]
    predictions = predictor.batch(photos, batch_size=2)
    assert [isinstance(answer, PhotoError) for answer in predictions] == [False, True, False, True, False, False, True]
    assert predictions[6] is given
    single = predictor(car_photo)
    np.testing.assert_allclose(predictions[0].probabilities, single.probabilities, atol=1e-5)
    np.testing.assert_allclose(predictions[5].probabilities, single.probabilities, atol=1e-5)


def test_top_is_ranked_and_named(tiny_model, car_photo):
    answer = Predictor.from_pretrained(tiny_model)(car_photo)
    top = answer.top(99)
    assert len(top) == 5
    assert abs(sum(guess.probability for guess in top) - 1) < 1e-5
    assert sorted((guess.probability for guess in top), reverse=True) == [guess.probability for guess in top]
    van = next(guess for guess in top if guess.make == "Ram")
    assert (van.model, van.body, van.year) == ("C/V Cargo Van", "Minivan", 2012)
    assert (answer.heatmap("Ram C-V Cargo Van Minivan 2012") == answer.heatmap(van.class_name)).all()
    with pytest.raises(ValueError, match="none of the 5 classes"):
        answer.heatmap("Trabant 601 Sedan 1964")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "side", "small"),
    [
        ((801, 600), 300, (401, 300)),
        ((800, 600), 301, (800, 600)),
        ((600, 800), 70, (75, 100)),
        ((960, 512), 64, (120, 64)),
        ((640, 90), 400, (640, 90)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_photo_is_the_same_picture_with_enough_pixels(kind, size, side, small, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(CAR.resize(size, Image.Resampling.BICUBIC), kind, exif=exif, quality=95)
    whole, found = load_photo(data), load_photo(data, side=side)
    assert found.size == (small if orientation == 1 else small[::-1])
    actual, expected = (np.asarray(photo.resize((16, 16), Image.Resampling.BOX), int) for photo in (found, whole))
    assert np.abs(actual - expected).mean() < 2


def test_a_box_is_in_full_size_pixels_also_for_a_reduced_photo():
    buffer = io.BytesIO()
    picture = Image.new("RGB", (800, 600), "white")
    picture.paste("red", (400, 300, 800, 600))
    picture.save(buffer, "JPEG", quality=95)
    cut = load_photo(buffer.getvalue(), (420, 320, 780, 580), side=64)
    assert cut.size == (98, 73)  # 392 by 292 with the margin, at a quarter
    assert np.abs(np.asarray(cut, int) - (254, 0, 0)).max() < 12


def test_the_callers_image_is_not_changed(tmp_path):
    draw_car(1, size=(800, 600)).save(tmp_path / "car.jpg")
    with Image.open(tmp_path / "car.jpg") as opened:
        assert load_photo(opened, side=64).size == (89, 67)
        assert opened.size == (800, 600)

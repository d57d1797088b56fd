"""Untrusted zips: their photos are read one at a time, and every error is one sentence."""

import io
import struct
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincar import PhotoError
from twincar.batch import archive
from twincar.files import for_spreadsheets, is_system_name
from twincar.text import MAX_NAME_LENGTH, display_name

PHOTOS = {"a.jpg": b"first", "sub/b.png": b"second", "sub/deep/c.webp": b"third"}


def zipped(members: dict[str, bytes], how: int = ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", how) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def contents(folder: Path, content: bytes, name: str = "trip.zip") -> list[tuple[str, bytes | str]]:
    """(name, bytes or error message) of everything in a zip."""
    path = folder / "stored"
    path.write_bytes(content)
    items = archive.unpack([(name, path)])
    read = (str(got) if isinstance(got, PhotoError) else got for got in archive.read(items))
    return list(zip((item.name for item in items), read, strict=True))


@pytest.mark.parametrize("how", [ZIP_STORED, ZIP_DEFLATED])
def test_the_photos_of_a_zip_come_in_its_order(tmp_path, how):
    found = contents(tmp_path, zipped(PHOTOS, how))
    assert found == [(f"trip.zip/{name}", content) for name, content in PHOTOS.items()]


def test_files_and_zips_mix_and_each_is_read_again_by_itself(tmp_path):
    (tmp_path / "one").write_bytes(b"by itself")
    (tmp_path / "two").write_bytes(zipped(PHOTOS))
    items = archive.unpack([("one.jpg", tmp_path / "one"), ("two.zip", tmp_path / "two")])
    assert list(archive.read(items)) == [b"by itself", *PHOTOS.values()]
    assert [item.read() for item in reversed(items)] == [*reversed(PHOTOS.values()), b"by itself"]


def test_a_zip_is_detected_by_its_content_too(tmp_path):
    assert contents(tmp_path, zipped({"a.jpg": b"x"}), name="blob") == [("blob/a.jpg", b"x")]


def test_hidden_files_are_skipped_and_a_zip_in_a_zip_is_refused(tmp_path):
    hidden = ["__MACOSX/._a.jpg", ".hidden/b.jpg", "sub/.DS_Store", "Thumbs.db", "empty/"]
    found = contents(tmp_path, zipped({"a.jpg": b"photo", **dict.fromkeys(hidden, b"no"), "more.ZIP": zipped(PHOTOS)}))
    assert found[0] == ("trip.zip/a.jpg", b"photo")
    assert found[1] == ("trip.zip/more.ZIP", "A zip inside a zip is not opened: send it separately.")
    assert len(found) == 2


@pytest.mark.parametrize("evil", ["../../evil.jpg", "/etc/evil.jpg", "C:\\evil.jpg", "a/../../evil.jpg"])
def test_no_name_in_a_zip_is_used_as_a_path(tmp_path, evil):
    inner = tmp_path / "some" / "folder"
    inner.mkdir(parents=True)
    before = set(tmp_path.rglob("*")) | {inner / "stored"}
    [(_, content)] = contents(inner, zipped({evil: b"harmless"}))
    assert content == b"harmless"
    assert set(tmp_path.rglob("*")) == before


def test_an_encrypted_zip_is_one_sentence(tmp_path):
    content = bytearray(zipped(PHOTOS))
    at = content.index(b"PK\1\2")
    content[at + 8] |= 1  # the flag "encrypted" in the central directory
    assert contents(tmp_path, bytes(content)) == [
        ("trip.zip", "This zip is protected by a password: send one without a password.")
    ]


def test_a_zip_bomb_is_refused_and_other_members_are_read(tmp_path):
    found = dict(contents(tmp_path, zipped({"bomb.bmp": bytes(5_000_000), "a.jpg": b"fine"}, ZIP_DEFLATED)))
    assert "compressed more than 100-fold" in found["trip.zip/bomb.bmp"]
    assert found["trip.zip/a.jpg"] == b"fine"


def test_no_more_than_the_stated_size_is_read(tmp_path):
    content = bytearray(zipped({"bomb.jpg": bytes(20_000_000), "a.jpg": b"fine"}, ZIP_DEFLATED))
    at = content.index(b"PK\1\2")
    content[at + 24 : at + 28] = struct.pack("<I", 1000)
    found = dict(contents(tmp_path, bytes(content)))
    assert found["trip.zip/a.jpg"] == b"fine"
    assert "damaged" in found["trip.zip/bomb.jpg"]  # the checksum of a thousand bytes is not that of 20 million


def test_limits_are_items_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "PHOTO_BYTES", 2_000_000)
    monkeypatch.setattr(archive, "UNPACKED_BYTES", 3_000_000)
    members = {"huge.jpg": bytes(2_500_000), "a.jpg": b"fine", "rest.jpg": bytes(1_000_000), "tail.jpg": b"too late"}
    found = dict(contents(tmp_path, zipped(members)))
    assert found["trip.zip/huge.jpg"] == "This file has 2 MB: photos of up to 2 MB are accepted."
    assert found["trip.zip/a.jpg"] == b"fine"
    assert "send the other photos separately" in found["trip.zip/rest.jpg"]
    assert "send the other photos separately" in found["trip.zip/tail.jpg"]


def test_too_many_photos_are_read_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_PHOTOS", 3)
    found = contents(tmp_path, zipped({f"{n}.jpg": b"x" for n in range(8)}))
    assert [content for _, content in found[:3]] == [b"x"] * 3
    assert found[3:] == [("5 more", "At most 3 photos are processed at a time: send the others afterwards.")]


def test_a_huge_central_directory_is_not_read(tmp_path, monkeypatch):
    content = zipped({f"{n:0100}.jpg": b"" for n in range(800)})
    assert len(contents(tmp_path, content)) > 1
    monkeypatch.setattr(archive, "CHUNK", 90_000)  # less than its 800 names need
    assert contents(tmp_path, content) == [("trip.zip", "This zip has too many files: send fewer at a time.")]


def test_an_unsupported_compression_is_refused(tmp_path):
    [(_, sentence)] = contents(tmp_path, zipped({"a.jpg": b"x" * 100}, ZIP_BZIP2))
    assert "use a standard zip" in sentence


@pytest.mark.parametrize(  # with names: a zip holds the time, and test processes must agree on those of the tests
    "content",
    [b"", b"no zip at all", b"PK\3\4" + b"x" * 50, zipped(PHOTOS)[:-30]],
    ids=["empty", "text", "start of a zip", "cut"],
)
def test_a_file_that_is_not_a_zip_is_one_sentence(tmp_path, content):
    [(name, sentence)] = contents(tmp_path, content)
    assert name == "trip.zip"
    assert sentence.startswith("This zip, or a part of it, is damaged")


def test_an_empty_zip_and_a_missing_file_are_reported(tmp_path):
    assert contents(tmp_path, zipped({})) == [("trip.zip", "There are no photos in this zip.")]
    [item] = archive.unpack([("gone.jpg", tmp_path / "gone")])
    with pytest.raises(PhotoError, match="no longer stored here"):
        item.read()


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=60), max_size=6))
def test_any_names_and_contents_are_read(tmp_path_factory, members):
    names = {name.replace("\0", "_").replace("/", "-").replace("\\", "-") for name in members}
    names = {name for name in names if not is_system_name(name)}
    names = {name.encode("utf-8", "replace").decode() for name in names if not name.lower().endswith(".zip")}
    content = {name: name.encode() for name in sorted(names)}
    found = contents(tmp_path_factory.getbasetemp(), zipped(content))
    if content:
        assert [got for _, got in found] == list(content.values())
    assert all(name.isprintable() and len(name) <= MAX_NAME_LENGTH for name, _ in found)


@given(st.data())
def test_any_damage_is_a_sentence(tmp_path_factory, data):
    content = bytearray(
        zipped(PHOTOS | {"d.jpg": b"fourth" * 50}, data.draw(st.sampled_from([ZIP_STORED, ZIP_DEFLATED])))
    )
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))]) if data.draw(st.booleans()) else bytes(content)
    for name, got in contents(tmp_path_factory.getbasetemp(), content):
        assert name and (isinstance(got, bytes) or got.endswith("."))


@given(st.text())
def test_a_shown_name_is_printable_and_keeps_its_end(name):
    fit = display_name(name)
    assert fit.isprintable() and len(fit) <= MAX_NAME_LENGTH
    if name.isprintable():
        assert fit[-20:] == name[-20:]


@given(st.lists(st.text(alphabet="=+-@ \t\r\nab1", max_size=5)))
def test_no_cell_of_a_table_is_a_formula(texts):
    table = for_spreadsheets(pd.DataFrame({"text": pd.Series(texts, dtype=object), "number": -1.5}))
    assert not table["text"].str.match(r"\s*[=+\-@]").any() and not table["text"].str.match(r"[\t\r\n]").any()
    assert [text.removeprefix("'") for text in table["text"]] == texts
    assert (table["number"] == -1.5).all()

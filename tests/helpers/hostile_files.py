"""A generated corpus of about 200 broken and malicious photo files, with the expected result of each.

    python -m tests.helpers.hostile_files corpus/                     # write the files
    python -m tests.helpers.hostile_files --model models/twincar      # predict each; one line of JSON per case

The second command runs under limits of memory and processor time, and prints how much of both each case took.
"""

import io
import json
import random
import resource
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pillow_heif
from PIL import Image, ImageCms

from tests.conftest import draw_car

CAR = draw_car(0)
GIGABYTES = 1 << 30
MEMORY = 3 * GIGABYTES  # on top of what is loaded before the first photo
SECONDS = 30  # of processor time per photo

# Expected result of a case: a prediction, an error that contains a text, or (None) either of the two.
ANSWER = ""
BROKEN, NO_PICTURE, MANY_PIXELS = "damaged", "not a picture", "megapixels"


@dataclass(frozen=True)
class Case:
    """An uploaded file: its id, content, expected result, and original file name."""

    id: str
    content: bytes
    expected: str | None = None
    file: str = ""

    def put(self, folder: Path) -> Path:
        """Write it under a valid file name: no slashes, and at most 255 bytes."""
        name = (self.file or self.id).replace("/", "_").replace("\0", "_")
        path = folder / name.encode("utf-8", "surrogateescape")[-200:].decode("utf-8", "ignore")
        path.write_bytes(self.content)
        return path


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def heic(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=90, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, pixels: bytes, *more: bytes) -> bytes:
    """A PNG from raw rows: `pixels` includes the filter byte of each row."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + chunk(b"IEND", b"")


def gif_of_many_frames(count: int) -> bytes:
    """16 by 16 pixels and `count` frames of 14 bytes each: counting them takes minutes."""
    start = b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    frame = b"," + struct.pack("<HHHHB", 0, 0, 16, 16, 0) + b"\x02\x00"
    return start + frame * count + b";"


def jpeg_of_many_scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated `count` times: each is a pass over all pixels."""
    jpeg = encode(Image.new("RGB", (side, side), "grey"), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * count + jpeg[-2:]


def exif(orientation: int | str) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def with_exif(block: bytes) -> bytes:
    """The car as JPEG, with `block` as its EXIF."""
    jpeg = encode(CAR, "JPEG", quality=92)
    body = b"Exif\0\0" + block
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header declares another size."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


@cache
def cases() -> tuple[Case, ...]:
    """The corpus; the same on every call."""
    return (*_kinds(), *_exif(), *_shapes(), *_damage(), *_disguises(), *_bombs(), *_names())


def valid_files() -> dict[str, bytes]:
    """The car in every supported kind of file."""
    grey16 = Image.fromarray((np.asarray(CAR.convert("L")).astype(np.uint16)) * 257)
    clear = CAR.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(CAR.size))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    cmyk = srgb[:16] + b"CMYK" + srgb[20:]
    rgb16 = np.asarray(CAR).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in rgb16)
    iphone = heic(CAR)
    return {
        "baseline.jpg": encode(CAR, "JPEG", quality=92),
        "progressive.jpg": encode(CAR, "JPEG", quality=92, progressive=True),
        "grey.jpg": encode(CAR.convert("L"), "JPEG"),
        "cmyk.jpg": encode(CAR.convert("CMYK"), "JPEG", quality=92),
        "cmyk-with-profile.jpg": encode(CAR.convert("CMYK"), "JPEG", quality=92, icc_profile=cmyk),
        "rgb-with-profile.jpg": encode(CAR, "JPEG", quality=92, icc_profile=srgb),
        "profile-of-nonsense.jpg": encode(CAR, "JPEG", quality=92, icc_profile=b"\xff" * 3000),
        "ends-with-a-film.jpg": encode(CAR, "JPEG", quality=92) + b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\2" * 500,
        "two-in-one.mpo.jpg": encode(CAR, "MPO", quality=92, **_frames()),
        "colour.png": encode(CAR, "PNG"),
        "1-bit.png": encode(CAR.convert("1"), "PNG"),
        "16-bit-grey.png": encode(grey16, "PNG"),
        "16-bit-colour.png": png(*CAR.size, 16, 2, rows),
        "clear.png": encode(clear, "PNG"),
        "grey-and-clear.png": encode(clear.convert("LA"), "PNG"),
        "palette.png": encode(CAR.quantize(64), "PNG"),
        "palette-one-clear.png": encode(CAR.quantize(64), "PNG", transparency=3),
        "palette-all-clear.png": encode(CAR.quantize(64), "PNG", transparency=bytes(range(64))),
        "colour-one-clear.png": encode(CAR, "PNG", transparency=(200, 30, 30)),
        "animated.png": encode(CAR, "PNG", **_frames()),
        "colour.webp": encode(CAR, "WEBP", quality=92),
        "lossless-clear.webp": encode(clear, "WEBP", lossless=True),
        "animated.webp": encode(CAR, "WEBP", quality=92, **_frames()),
        "colour.gif": encode(CAR, "GIF"),
        "clear.gif": encode(CAR.quantize(64), "GIF", transparency=3),
        "animated.gif": encode(CAR, "GIF", **_frames()),
        "pages.tiff": encode(CAR, "TIFF", **_frames()),
        "lzw.tif": encode(CAR, "TIFF", compression="tiff_lzw"),
        "fax.tif": encode(CAR.convert("1"), "TIFF", compression="group4"),
        "cmyk.tif": encode(CAR.convert("CMYK"), "TIFF"),
        "lab.tif": encode(ImageCms.applyTransform(CAR, _to_lab(), inPlace=False), "TIFF"),
        "32-bit.tif": encode(grey16.convert("I"), "TIFF"),
        "float.tif": encode(CAR.convert("F"), "TIFF"),
        "colour.bmp": encode(CAR, "BMP"),
        "colour.avif": encode(CAR, "AVIF", quality=92),
        "clear.avif": encode(clear, "AVIF", quality=92),
        "iphone.heic": iphone,
        "android.heic": iphone.replace(b"ftypheic", b"ftypmif1", 1),
        "clear.heic": heic(clear),
    }


def _frames() -> dict:
    return {"save_all": True, "append_images": [Image.new("RGB", CAR.size) for _ in range(3)]}


def _to_lab() -> ImageCms.ImageCmsTransform:
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    return ImageCms.buildTransform(*profiles, "RGB", "LAB")


def _kinds() -> Iterator[Case]:
    for name, content in valid_files().items():
        yield Case(name, content, ANSWER)


def _exif() -> Iterator[Case]:
    for turn in range(1, 9):
        yield Case(f"turned-{turn}.jpg", encode(CAR, "JPEG", quality=92, exif=exif(turn)), ANSWER)
    loop = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    far = b"MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 0x010E, 2, 0xFFFFFFF0, 0xFFFFFFF0) + b"\0\0\0\0"
    for name, content in {
        "exif-orientation-9.jpg": encode(CAR, "JPEG", exif=exif(9)),
        "exif-empty.jpg": with_exif(b""),
        "exif-noise.jpg": with_exif(random.Random(0).randbytes(2000)),
        "exif-cut.jpg": with_exif(b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0"),
        "exif-of-itself.jpg": with_exif(loop),
        "exif-far-away.jpg": with_exif(far),
        "exif-orientation-in-words.jpg": with_exif(
            b"II*\0\x08\0\0\0" + struct.pack("<HHHI4s", 1, 0x0112, 2, 4, b"top\0") + b"\0\0\0\0"
        ),
    }.items():
        yield Case(name, content, ANSWER)


def _shapes() -> Iterator[Case]:
    for width, height in ((1, 1), (1, 20000), (20000, 1), (15, 16)):
        yield Case(f"{width}x{height}.png", encode(Image.new("RGB", (width, height)), "PNG"), f"{width} by {height}")
    for width, height in ((16, 16), (16, 20000), (20000, 16)):
        yield Case(f"{width}x{height}.png", encode(CAR.resize((width, height)), "PNG"), ANSWER)


def _damage() -> Iterator[Case]:
    good = valid_files()
    yield Case("nothing.jpg", b"", "empty")
    yield Case("one-byte.jpg", b"\xff", NO_PICTURE)
    for name in ("baseline.jpg", "progressive.jpg", "colour.png", "colour.webp", "colour.avif", "iphone.heic"):
        for tenth in range(1, 10):
            content = good[name][: len(good[name]) * tenth // 10]
            stem, suffix = name.rsplit(".", 1)
            yield Case(f"{stem}-{tenth}-tenths.{suffix}", content, BROKEN if name.endswith(("jpg", "png")) else None)
    rng = random.Random(1)
    for name in ("baseline.jpg", "progressive.jpg", "colour.png", "palette.png", "animated.gif", "animated.webp",
                 "lzw.tif", "colour.bmp", "colour.avif", "iphone.heic", "exif-orientation-9.jpg"):  # fmt: skip
        for times in (1, 30):
            content = bytearray(good.get(name) or encode(CAR, "JPEG", exif=exif(9)))
            for _ in range(times):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            yield Case(f"{times}-bits-of-{name}", bytes(content))
    jpeg = good["baseline.jpg"]
    yield Case("second-half-of-zeros.jpg", jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2))
    yield Case("all-zeros.jpg", bytes(100_000), NO_PICTURE)
    yield Case("noise.jpg", rng.randbytes(100_000), NO_PICTURE)


def _disguises() -> Iterator[Case]:
    good = valid_files()
    yield Case("png-inside.jpg", good["colour.png"], ANSWER)
    yield Case("jpeg-inside.png", good["baseline.jpg"], ANSWER)
    yield Case("jpeg-inside.heic", good["baseline.jpg"], ANSWER)
    yield Case("heic-inside.jpg", good["iphone.heic"], ANSWER)
    yield Case("page.jpg", b"<!doctype html><script>alert(1)</script>" * 30, NO_PICTURE)
    yield Case("drawing.jpg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", NO_PICTURE)
    yield Case(
        "entities.jpg", b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "' + b"&b;" * 999 + b'">]><svg/>', NO_PICTURE
    )
    yield Case("letter.jpg", b"%PDF-1.7\n1 0 obj\n<</Type/Catalog>>\nendobj\n", NO_PICTURE)
    yield Case("film.jpg", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(3000), NO_PICTURE)
    # Pillow would run Ghostscript
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n(%pipe%touch /tmp/x) (w) file\n%%EOF\n"
    yield Case("postscript.jpg", script, NO_PICTURE)
    for kind in ("ICO", "TGA", "PCX", "PPM", "JPEG2000", "SGI", "DDS"):  # Pillow reads them; not in FORMATS
        yield Case(f"{kind.lower()}-inside.jpg", encode(CAR.resize((128, 128)), kind), NO_PICTURE)
    pickled = b"\x80\x04cposix\nsystem\n(S'touch /tmp/x'\ntR."
    yield Case("pickle.jpg", pickled, NO_PICTURE)


def _bombs() -> Iterator[Case]:
    good = valid_files()
    yield Case("declares-100000x100000.png", png(100_000, 100_000, 8, 2, bytes(1000)), MANY_PIXELS)
    yield Case("declares-65500x65500.jpg", resized(good["baseline.jpg"], 65500, 65500), MANY_PIXELS)
    at = good["colour.gif"][:6] + struct.pack("<HH", 65535, 65535) + good["colour.gif"][10:]
    yield Case("declares-65535x65535.gif", at, MANY_PIXELS)
    bmp = bytearray(good["colour.bmp"])
    bmp[18:26] = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    yield Case("declares-2147483647x2147483647.bmp", bytes(bmp), MANY_PIXELS)
    webp = bytearray(good["animated.webp"])
    webp[24:30] = b"\xff\xff\xff" * 2  # a canvas of 2^24 by 2^24
    yield Case("declares-16777216x16777216.webp", bytes(webp))
    yield Case("11000x11000-of-nothing.png", png(11_000, 11_000, 1, 0, bytes(1376 * 11_000)), MANY_PIXELS)
    # the largest allowed size, in the mode that takes most memory
    wide = chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\x80\x40")
    yield Case("9990x9990-clear-palette.png", png(9_990, 9_990, 1, 3, bytes(1250 * 9_990), wide), ANSWER)
    yield Case("text-of-100-MB.png", png(32, 32, 8, 0, bytes(33 * 32), _packed(b"zTXt", b"a\0\0")))
    yield Case("profile-of-100-MB.png", png(32, 32, 8, 0, bytes(33 * 32), _packed(b"iCCP", b"a\0\0")))
    yield Case("frames-300000.gif", gif_of_many_frames(300_000))
    yield Case("scans-2000.jpg", jpeg_of_many_scans(2000, 2000), "scans")
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as file:
        file.writestr("car.jpg", bytes(50_000_000))
    yield Case("zip-bomb.jpg", buffer.getvalue())


def _packed(kind: bytes, start: bytes, size: int = 100_000_000) -> bytes:
    packer, piece = zlib.compressobj(9), bytes(10_000_000)
    return chunk(kind, start + b"".join(packer.compress(piece) for _ in range(size // len(piece))) + packer.flush())


def _names() -> Iterator[Case]:
    jpeg = valid_files()["baseline.jpg"]
    names = (
        "two\nlines.jpg", "carriage\rreturn.jpg", "it's \"quoted\".jpg", "../../../../etc/passwd.jpg",
        "..\\..\\up.jpg", "long-" + "x" * 4096 + ".jpg", "سيارة.jpg", "🚗💨.jpg", "\u202egpj.exe.jpg",
        "[red]markup[/red].jpg", "[/].jpg", "-rf.jpg", "=cmd|' -C calc'!A0.jpg", "<img src=x onerror=alert(1)>.jpg",
        "%s%n%2e%2e%2f.jpg", "\x1b[2Jescape.jpg", "CON.jpg", ".hidden.jpg", "  spaces  .jpg", "semi;colon&amp.jpg",
        "$(touch x)`touch y`.jpg", "null\0byte.jpg",
    )  # fmt: skip
    for number, name in enumerate(names):
        yield Case(f"name-{number}", jpeg, ANSWER, name)
    yield Case("name-lines-and-no-picture", b"<html>", NO_PICTURE, "two\nbroken\x1b[31m\nlines.jpg")
    yield Case("name-markup-and-no-picture", b"<html>", NO_PICTURE, "[/bold] broken [/].jpg")


def is_sentence(text: str) -> bool:
    """Whether a text is one short sentence for a user, without decoder messages and server paths."""
    internal = ("Error", "Traceback", "errno", "Errno", "0x", "object at", "PIL", "/tmp", "decoder", "None", "b'")
    complete = text[:1].isupper() and text.endswith(".") and text.isprintable() and len(text) <= 300
    return complete and not any(word in text for word in internal)


def as_expected(case: Case, error: str | None) -> bool:
    """Whether the result of a case is as expected; `error` is None for a prediction."""
    if case.expected is None:
        return error is None or is_sentence(error)
    return error is None if case.expected == ANSWER else bool(error) and case.expected in error and is_sentence(error)


def predict_all(model: str) -> None:
    """Predict every case and, after each, a valid photo. Prints one line of JSON per case."""
    from twincar import PhotoError, Predictor

    predictor = Predictor.from_pretrained(model, device="cpu")
    before = predictor(CAR).top(1)
    corpus = cases()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)  # beyond it, MemoryError
    start = _peak()
    for case in corpus:
        spent = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + SECONDS, resource.RLIM_INFINITY))  # beyond it, killed
        try:
            answer = predictor(case.content)
            answer.overlay()
            line = {"class_name": answer.top(1)[0].class_name}
        except PhotoError as error:
            line = {"error": str(error)}
        line |= {"seconds": round(time.process_time() - spent, 2), "megabytes": (_peak() - start) // 1_000_000}
        assert predictor(CAR).top(1) == before, case.id
        print(json.dumps({"id": case.id} | line), flush=True)


def _peak() -> int:
    """Peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if sys.argv[1] == "--model":
        predict_all(sys.argv[2])
    else:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        print(*[case.put(Path(sys.argv[1])).name.encode("unicode_escape").decode() for case in cases()], sep="\n")

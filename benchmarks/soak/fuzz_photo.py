"""Coverage-guided fuzzing of the way from a stranger's bytes to a picture (`load_photo`), for as long as you like.

    pip install atheris && python benchmarks/soak/fuzz_photo.py --seconds 300

libFuzzer starts from the sound photos of `tests/hostile_files.py`, made small, and keeps what reaches new lines of Pillow's
and our Python. Whatever raises anything but a PhotoError, gives a sentence unfit for a visitor or takes over 20 seconds
or 2 GB is a finding: its input is left in `--out` as crash-…, timeout-… or oom-…, and the exit code is not 0. What was
found and mended lives on as a case of `tests/hostile_files.py`.
"""

import argparse
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout runs it without being installed
with atheris.instrument_imports(include=["PIL", "pi_heif", "twincar.features.photo"]):
    from PIL import Image

    from twincar.features.photo import MAX_PIXELS, PhotoError, load_photo

    Image.init()  # imports the plugins of all formats, which would else be imported late and not be instrumented

from tests.helpers import hostile_files

SIZE = (48, 36)  # of the seeds: small files, fast decoding


def try_one(content: bytes) -> None:
    try:
        photo = load_photo(content)
    except PhotoError as error:
        assert hostile_files.is_sentence(str(error)), str(error)
        return
    assert photo.mode == "RGB" and photo.width * photo.height <= MAX_PIXELS and not photo.info


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz load_photo.")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="where the corpus and findings go")
    words = parser.parse_args()
    corpus = words.out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    hostile_files.CAR = hostile_files.CAR.resize(SIZE, Image.Resampling.BICUBIC)
    for name, content in hostile_files.sound().items():
        (corpus / name).write_bytes(content)
    limits = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=40000", "-print_final_stats=1"]
    where = [f"-max_total_time={words.seconds}", f"-artifact_prefix={words.out}/"]
    # libFuzzer ends the process itself.
    atheris.Setup([sys.argv[0], *limits, *where, str(corpus)], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

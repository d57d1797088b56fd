"""Coverage-guided fuzzing of `load_photo`, which decodes untrusted files.

    pip install atheris && python benchmarks/soak/fuzz_photo.py --seconds 300

libFuzzer starts from small versions of the valid photos of `tests/helpers/hostile_files.py` and keeps inputs that reach
new lines of Pillow's and TwinCar's Python code. A finding is an input that raises anything but a PhotoError, gives an
unsuitable error message, or needs more than 20 seconds or 2 GB. It is stored in `--out` as crash-…, timeout-… or oom-…,
and the exit code is not 0. Fixed findings are cases in `tests/helpers/hostile_files.py`.
"""

import argparse
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))  # run from a checkout without installation
with atheris.instrument_imports(include=["PIL", "pi_heif", "twincar.features.photo"]):
    from PIL import Image

    from twincar.features.photo import MAX_PIXELS, PhotoError, load_photo

    Image.init()  # imports the plugins of all formats now, so that they are instrumented

from tests.helpers import hostile_files

SIZE = (48, 36)  # of the initial corpus: small files decode fast


def try_one(content: bytes) -> None:
    """Load one input and check the result or the error message."""
    try:
        photo = load_photo(content)
    except PhotoError as error:
        assert hostile_files.is_sentence(str(error)), str(error)
        return
    assert photo.mode == "RGB" and photo.width * photo.height <= MAX_PIXELS and not photo.info


def main() -> None:
    """Write the initial corpus and fuzz."""
    parser = argparse.ArgumentParser(description="Fuzz load_photo.")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="folder of corpus and findings")
    options = parser.parse_args()
    corpus = options.out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    hostile_files.CAR = hostile_files.CAR.resize(SIZE, Image.Resampling.BICUBIC)
    for name, content in hostile_files.valid_files().items():
        (corpus / name).write_bytes(content)
    limits = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=40000", "-print_final_stats=1"]
    where = [f"-max_total_time={options.seconds}", f"-artifact_prefix={options.out}/"]
    # libFuzzer ends the process itself.
    atheris.Setup([sys.argv[0], *limits, *where, str(corpus)], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

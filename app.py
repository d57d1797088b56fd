"""The TwinCar page: drop a photo of a car, read its make, model and year, and see what in the photo said so.

python app.py                                   # http://127.0.0.1:7860; a Hugging Face Space runs this same file
TWINCAR_MODEL=user/repo@v1 python app.py        # a model from the Hub, pinned to a tag or commit, or another folder
TWINCAR_EXAMPLES=photos/ python app.py          # offers the photos of a folder as examples
TWINCAR_DATA=data/ python app.py                # prepared data to explore; data/ beside this file is found by itself
TWINCAR_ENGINE=torch python app.py              # else the fastest for this machine
GRADIO_SERVER_PORT=8080 GRADIO_SERVER_NAME=0.0.0.0 python app.py
"""

import ctypes
import os
import sys
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: the page asks no third party
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Its queue would sum up the last 10,000 answers after each one, for a page of statistics that is not shown here.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_MCP_SERVER", "True")  # at /gradio_api/mcp/ the page answers assistants, as well

from PIL import Image

from twincar import Predictor
from twincar.config import IMAGE_SUFFIXES, TwinCarError
from twincar.modeling.engines.choose import limit_threads, release_weights
from twincar.ui import page

HERE = Path(__file__).resolve().parent
BESIDE = HERE / "models" / "twincar"  # the model that comes with a checkout
MOST_EXAMPLES = 8
ARENAS, MMAP_THRESHOLD = -8, -3  # of glibc's mallopt


def load(wanted: str | None, beside: Path = BESIDE) -> tuple[Predictor, str | None]:
    """The model to answer with, and the plain word for the page when it is not the one that was wanted.

    Raises TwinCarError, one sentence that says how to get a model, when there is none.
    """
    reason = None
    if wanted:
        try:
            return Predictor.from_pretrained(wanted), None
        except TwinCarError as error:
            reason = str(error)
    try:
        predictor = Predictor.from_pretrained(beside)
    except TwinCarError as error:
        how = (
            "name one with TWINCAR_MODEL=user/repo (or a folder), or put one into models/twincar with `twincar train`."
        )
        raise TwinCarError(f"{reason or error} There is no model to answer with: {how}") from error
    return predictor, reason and f"{reason} This page answers with the copy that came with it."


def example_photos(folder: str | None) -> list[str]:
    """The first pictures of the operator's folder, by name."""
    if not folder:
        return []
    found = sorted(p for p in Path(folder).glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        print(f"TWINCAR_EXAMPLES={folder} holds no pictures: the page goes without examples.", file=sys.stderr)
    return [str(path.resolve()) for path in found[:MOST_EXAMPLES]]


def prepared_data(folder: str | None) -> Path | None:
    """The folder of prepared data: the operator's, or the one beside this file."""
    found = Path(folder) if folder else HERE / "data"
    if (found / "cars.csv").is_file():
        return found
    if folder:
        print(f"TWINCAR_DATA={folder} holds no cars.csv: the page goes without its pictures.", file=sys.stderr)
    return None


def give_memory_back() -> None:
    """Where the C library is glibc: let the memory of photos go back to the system when they are done with.

    By itself it keeps a pool for each of the server's many threads, and ever larger blocks in them.
    """
    if hasattr(library := ctypes.CDLL(None) if os.name == "posix" else None, "mallopt"):
        library.mallopt(ARENAS, 2)
        library.mallopt(MMAP_THRESHOLD, 1 << 20)


def main() -> None:
    give_memory_back()
    try:
        predictor, notice = load(os.environ.get("TWINCAR_MODEL"))
    except TwinCarError as error:
        sys.exit(str(error))
    limit_threads(predictor.engine)
    release_weights(predictor.engine, predictor.network)
    predictor(Image.new("RGB", (640, 480), "grey")).overlay()  # the first visitor does not wait for the first run
    if notice:
        print(notice, file=sys.stderr)
    port = os.environ.get("GRADIO_SERVER_PORT") or os.environ.get("PORT")
    try:
        demo = page.build(
            predictor,
            notice=notice,
            examples=example_photos(os.environ.get("TWINCAR_EXAMPLES")),
            reports=HERE / "reports" if (HERE / "reports").is_dir() else None,
            data=prepared_data(os.environ.get("TWINCAR_DATA")),
        )
        demo.launch(**page.launch_options(), server_port=int(port) if port else None)
    except (OSError, ValueError) as error:  # a port that is taken, or is no number
        sys.exit(f"The page cannot be served: {error}")


if __name__ == "__main__":
    main()

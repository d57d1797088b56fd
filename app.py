"""The TwinCar page: car make, model and year from a photo, with the evidence.

python app.py                                   # http://127.0.0.1:7860; a Hugging Face Space runs this same file
TWINCAR_MODEL=user/repo@v1 python app.py        # a model from the Hub, pinned to a tag or commit, or another folder
TWINCAR_EXAMPLES=photos/ python app.py          # offers the photos of a folder as examples, instead of its own
TWINCAR_FEEDBACK=answers.csv python app.py      # asks visitors "Was this right?"; keeps no photos
TWINCAR_TEACH=models/mine python app.py         # keeps the cars that visitors add, and starts with those kept before
TWINCAR_DATA=data/ python app.py                # prepared data to explore; by default data/ next to this file
TWINCAR_ENGINE=torch python app.py              # by default the fastest on this machine
TWINCAR_FRAME_ANCESTORS=https://my.site python app.py   # sites that may embed the page; a list with spaces
GRADIO_SERVER_PORT=8080 GRADIO_SERVER_NAME=0.0.0.0 python app.py
"""

import ctypes
import os
import sys
from pathlib import Path

# The queue would recompute statistics of the last 10,000 answers after each one, for a page that is not shown here.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")
os.environ.setdefault("GRADIO_MCP_SERVER", "True")  # serves assistants at /gradio_api/mcp/

from PIL import Image

from twincar import Predictor
from twincar.config import TwinCarError
from twincar.modeling.engines.choose import limit_threads, release_weights
from twincar.ui import examples, page

HERE = Path(__file__).resolve().parent
SHIPPED = HERE / "models" / "twincar"  # the model of a checkout
ARENAS, MMAP_THRESHOLD = -8, -3  # of glibc's mallopt


def load(wanted: str | None, shipped: Path = SHIPPED) -> tuple[Predictor, str | None]:
    """Load the model of the page.

    Args:
        wanted: A Hub repo or folder.
        shipped: The folder of the model to use where none is wanted, or the wanted one cannot be loaded.

    Returns:
        The model, and a notice for the page where it is not the wanted one.

    Raises:
        TwinCarError: There is no model; the message says how to get one.
    """
    reason = None
    if wanted:
        try:
            return Predictor.from_pretrained(wanted), None
        except TwinCarError as error:
            reason = str(error)
    try:
        predictor = Predictor.from_pretrained(shipped)
    except TwinCarError as error:
        how = "set TWINCAR_MODEL=user/repo (or a folder), or train one into models/twincar with `twincar train`."
        raise TwinCarError(f"{reason or error} There is no model: {how}") from error
    return predictor, reason and f"{reason} This page uses the model that it was shipped with."


def prepared_data(folder: str | None) -> Path | None:
    """The folder of prepared data: `folder`, or data/ next to this file; None where it has no cars.csv."""
    found = Path(folder) if folder else HERE / "data"
    if (found / "cars.csv").is_file():
        return found
    if folder:
        print(f"TWINCAR_DATA={folder} contains no cars.csv: the page shows no pictures of the data.", file=sys.stderr)
    return None


def return_freed_memory() -> None:
    """Make glibc, where it is the C library, return the memory of photos to the system once it is freed.

    By default glibc keeps a pool for each of the server's many threads, with ever larger blocks.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if library is not None and hasattr(library, "mallopt"):
        library.mallopt(ARENAS, 2)
        library.mallopt(MMAP_THRESHOLD, 1 << 20)


def main() -> None:
    """Load the model, build the page and serve it; settings come from environment variables."""
    return_freed_memory()
    try:
        keep = Path(os.environ["TWINCAR_TEACH"]) if os.environ.get("TWINCAR_TEACH") else None
        kept = str(keep) if keep and (keep / "config.json").is_file() else None
        predictor, notice = load(kept or os.environ.get("TWINCAR_MODEL"))
    except TwinCarError as error:
        sys.exit(str(error))
    limit_threads(predictor.engine)
    release_weights(predictor.engine, predictor.network)
    predictor(
        Image.new("RGB", (640, 480), "grey")
    ).overlay()  # so that the first visitor does not wait for the first run
    if notice:
        print(notice, file=sys.stderr)
    port = os.environ.get("GRADIO_SERVER_PORT") or os.environ.get("PORT")
    try:
        folder, feedback = os.environ.get("TWINCAR_EXAMPLES"), os.environ.get("TWINCAR_FEEDBACK")
        offered = examples.from_folder(folder) if folder else examples.shipped()
        demo = page.build(
            predictor,
            notice=notice,
            examples=offered,
            reports=HERE / "reports" if (HERE / "reports").is_dir() else None,
            data=prepared_data(os.environ.get("TWINCAR_DATA")),
            feedback=Path(feedback) if feedback else None,
            keep=keep,
        )
        demo.launch(**page.launch_options(predictor, offered), server_port=int(port) if port else None)
    except (OSError, ValueError) as error:  # the port is taken or not a number, or a variable is invalid
        sys.exit(f"The page cannot be served: {error}")


if __name__ == "__main__":
    main()

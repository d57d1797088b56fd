"""What a visitor sent -> a file of this server, or a sentence. Every tab reads uploads through here."""

from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from twincar.archive import check_size
from twincar.photo import PhotoError


def stored(upload: Any) -> tuple[str, Path]:
    """(the visitor's name for it, where Gradio stored it) of one upload as the browser or a program describes it.

    Raises PhotoError for whatever is not a file in Gradio's own folder. Gradio checks and moves what says of itself
    that it is a file; a caller may leave that word out and name any path of the server.
    """
    path = upload.get("path") if isinstance(upload, dict) else None
    try:
        if not isinstance(path, str) or not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
            raise PhotoError("No photo has arrived: send the file of a picture.")
    except (OSError, ValueError) as error:  # a path that is no path: too long, a loop, a null byte
        raise PhotoError("No photo has arrived: send the file of a picture.") from error
    name = upload.get("orig_name")
    return (name if isinstance(name, str) and name else Path(path).name), Path(path)


def stored_photo(upload: Any) -> Path:
    """The file of one photo. Raises PhotoError, also for one that is too large, or gone."""
    _, path = stored(upload)
    if not path.is_file():
        raise PhotoError("The photo is not there any more: send it again.")
    check_size(path.stat().st_size)
    return path

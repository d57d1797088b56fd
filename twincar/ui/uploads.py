"""What a visitor sent -> a file of this server, or a sentence. Every tab reads uploads through here.

And it is forgotten again: `cleaner` deletes what is left of visitors' files.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from gradio.routes import App
from gradio.utils import get_upload_folder

from twincar.batch.archive import check_size
from twincar.features.photo import PhotoError


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


def cleaner(every: float, age: float) -> Callable[[App], AbstractAsyncContextManager]:
    """A lifespan for Gradio's app: every so many seconds, files of visitors that are older than `age` are deleted.

    Gradio's own `delete_cache` deletes what it has on its list: not what a visitor left who hung up half-way, nor what
    a killed server left; and it stops for good when an upload comes while it reads the list.
    """

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async def clean() -> None:
            while True:
                ours = {file for block in app.get_blocks().blocks.values() for file in block.keep_in_cache}  # examples
                await asyncio.to_thread(forget, Path(get_upload_folder()), age, ours)
                await asyncio.sleep(every)

        task = asyncio.create_task(clean())
        yield
        task.cancel()

    return lifespan


def forget(folder: Path, age: float, keep: Collection[str] = ()) -> None:
    """Delete the files in Gradio's folder that are older than `age` seconds, but those to `keep`.

    Gradio puts a file into a folder named by its SHA-256, and what is still arriving beside those, as tmp….
    """
    now = time.time()
    for pattern in ("tmp????????", f"{'[0-9a-f]' * 64}/*", "[0-9a-f]" * 64):
        for path in folder.glob(pattern):
            with suppress(OSError):  # somebody else was faster, or the folder is not empty
                if str(path) in keep or now - path.lstat().st_ctime <= age:
                    continue
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

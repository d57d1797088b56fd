"""Uploads of visitors: `stored` checks that one is a file in Gradio's folder, `cleaner` deletes old ones.

`CheckedBlocks` reports what Gradio itself refuses in one sentence.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.processing_utils import save_base64_to_cache
from gradio.routes import App
from gradio.utils import get_upload_folder

from twincar.batch.archive import check_size
from twincar.features.photo import PhotoError

NO_PHOTO = "No photo was received: send a picture file."


class CheckedBlocks(gr.Blocks):
    """Blocks that accept data URLs as files, and answer invalid arguments of a call with a sentence.

    Gradio itself prints a traceback and answers `{"error": null}`.
    """

    async def preprocess_data(self, block_fn: BlockFunction, inputs: list, *args: Any, **kwargs: Any) -> list:
        """Check the arguments of a call."""
        try:
            inputs = [
                _store_data_urls(value) if isinstance(block, (gr.Image, gr.File)) else value
                for block, value in zip(block_fn.inputs, inputs, strict=False)
            ]
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except PhotoError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:  # Gradio raises anything on malformed arguments, and on files that it must not read
            raise gr.Error(NO_PHOTO, print_exception=False) from error


def _store_data_urls(value: Any) -> Any:
    """Store a data URL, or each of a list of them, in Gradio's folder, as if its content had been uploaded."""
    if isinstance(value, list):
        return [_store_data_urls(each) for each in value]
    if not isinstance(value, str) or not value.startswith("data:"):
        return value
    check_size(len(value) * 3 // 4)  # base64
    return {"path": save_base64_to_cache(value, get_upload_folder()), "meta": {"_type": "gradio.FileData"}}


def stored(upload: Any) -> tuple[str, Path]:
    """Check one upload, as the browser or a program describes it.

    Gradio itself checks only an upload that is marked as a file: a caller can omit the mark and give any path of the
    server.

    Returns:
        The visitor's name of the file, and where Gradio stored it.

    Raises:
        PhotoError: It is not a path in Gradio's folder.
    """
    path = upload.get("path") if isinstance(upload, dict) else None
    try:
        if not isinstance(path, str) or not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
            raise PhotoError(NO_PHOTO)
    except (OSError, ValueError) as error:  # an invalid path: too long, a loop, a null byte
        raise PhotoError(NO_PHOTO) from error
    name = upload.get("orig_name")
    return (name if isinstance(name, str) and name else Path(path).name), Path(path)


def stored_photo(upload: Any) -> Path:
    """The file of one uploaded photo.

    Raises:
        PhotoError: It is not a path in Gradio's folder, the file is gone, or it is too large.
    """
    _, path = stored(upload)
    if not path.is_file():
        raise PhotoError("The photo is no longer stored here: send it again.")
    check_size(path.stat().st_size)
    return path


def cleaner(every: float, age: float) -> Callable[[App], AbstractAsyncContextManager]:
    """A lifespan for Gradio's app that deletes old files of visitors.

    Gradio's own `delete_cache` deletes only the files that it has listed: not those of an interrupted upload, nor those
    of a killed server; and it stops permanently when an upload arrives while it reads the list.

    Args:
        every: Seconds between two deletions.
        age: Files older than this many seconds are deleted.
    """

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        async def clean() -> None:
            while True:
                keep = {file for block in app.get_blocks().blocks.values() for file in block.keep_in_cache}  # examples
                await asyncio.to_thread(delete_old, Path(get_upload_folder()), age, keep)
                await asyncio.sleep(every)

        task = asyncio.create_task(clean())
        yield
        task.cancel()

    return lifespan


def delete_old(folder: Path, age: float, keep: Collection[str] = ()) -> None:
    """Delete the files in Gradio's folder that are older than `age` seconds, except those in `keep`.

    Gradio puts a file into a folder named by its SHA-256, and a file that is still arriving next to those, as tmp….
    """
    now = time.time()
    for pattern in ("tmp????????", f"{'[0-9a-f]' * 64}/*", "[0-9a-f]" * 64):
        for path in folder.glob(pattern):
            with suppress(OSError):  # deleted by another process, or the folder is not empty
                if str(path) in keep or now - path.lstat().st_ctime <= age:
                    continue
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

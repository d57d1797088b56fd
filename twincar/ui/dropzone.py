"""A drop zone for photos, zips and folders, used by the tabs Many photos and Teach it.

While its tab is open, everything that is dropped on or pasted into the window goes to it. `dropzone.js` walks folders,
leaves out and names files that are not pictures, uploads the others, and sends the event "upload" with {"files": ...},
the list that `listed` reads.
"""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from twincar.batch import archive
from twincar.config import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from twincar.features.photo import PhotoError
from twincar.ui.scripted import scripted
from twincar.ui.uploads import stored

ZONE = """<div class="dropzone" role="group" aria-label="{label}"><p class="lead"><b>{lead}</b></p>
<div class="choose"><button type="button">{choose}</button>{folder}</div>
<div class="uploading" hidden><progress aria-label="Photos uploaded"></progress><p></p>
<button type="button">Cancel</button></div><p class="note" role="status"></p>
<input type="file" multiple hidden accept="image/*,{suffixes}">{directory}</div>"""


def zone(elem_id: str, label: str, lead: str, choose: str, most: int, containers: bool = True) -> gr.HTML:
    """Draw a drop zone into the open Blocks. Its value is {"busy": whether photos are being processed}.

    Args:
        elem_id: Its id.
        label: Its name for screen readers.
        lead: What to drop here.
        choose: Label of the button that opens the dialog for files.
        most: Number of files that are uploaded at a time; a zip counts as one.
        containers: Whether zips and folders are accepted.
    """
    suffixes = [*sorted(IMAGE_SUFFIXES), *([".zip"] if containers else [])]
    markup = ZONE.format(
        label=escape(label),
        lead=escape(lead),
        choose=escape(choose),
        folder='<button type="button">Choose a folder</button>' if containers else "",
        suffixes=",".join(suffixes),
        directory='<input type="file" webkitdirectory hidden>' if containers else "",
    )
    return scripted(
        {"busy": False},
        markup,
        "dropzone.js",
        elem_id,
        limits={
            "most": most,
            "photo": archive.PHOTO_BYTES,
            "zip": archive.ZIP_BYTES,
            "pictures": [*sorted(IMAGE_SUFFIXES | OTHER_IMAGE_SUFFIXES)],
            "zips": containers,
        },
    )


def listed(sent: Any) -> list[tuple[str, Path | PhotoError]]:
    """The names and files of uploads, in order, for `archive.unpack`; anything invalid comes with a reason.

    Args:
        sent: A list of uploads, as the browser or a program describes them. A file that is too large is not uploaded:
            it comes with its `size` in bytes instead of a `path`.
    """
    files: list[tuple[str, Path | PhotoError]] = []
    for upload in sent if isinstance(sent, list) else []:
        try:
            size = upload.get("size") if isinstance(upload, dict) and "path" not in upload else None
            if isinstance(size, int):
                archive.check_size(size)
            files.append(stored(upload))
        except PhotoError as error:
            name = upload.get("orig_name") if isinstance(upload, dict) else None
            files.append((name if isinstance(name, str) and name else "?", error))
    return files

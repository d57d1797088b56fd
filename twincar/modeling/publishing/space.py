"""The page as a Hugging Face Space: the very folder that runs there, and its upload.

twincar space user/space --dry-run --out space/        # look at it, or run it: python app.py
twincar space user/space --model user/repo

A Space wants a folder with `app.py`, `requirements.txt` and a README whose front matter is its card. All of that lies
in a checkout of the project; a wheel alone has no page to serve.
"""

import shutil
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard, constants

from twincar import __version__
from twincar.config import CHECKOUT
from twincar.modeling.hub import model_folder
from twincar.modeling.publishing.push_pull import FILES, WEIGHTS, SharingError, create, writing

PAGE = (
    "app.py",
    "requirements.txt",
    "LICENSE",
    "docs/page.png",
    "twincar/**/*",
    "reports/**/*.csv",
    "reports/**/*.json",
)
BESIDE = "models/twincar"  # where app.py looks for a model of its own
VARIABLE = "TWINCAR_MODEL"  # app.py reads it
LINK = "https://huggingface.co/spaces/{space}/resolve/main/{path}"


def parcel(space: str, model: str | None = None) -> dict[str, Path | bytes]:
    """What goes to the Space, path in it -> file or content.

    model : "user/repo@commit" that the Space answers with and fetches while it is built; without it the checkout's
        models/twincar goes along. Raises SharingError where there is no checkout, or no model in it.
    """
    if not (CHECKOUT / "app.py").is_file():
        raise SharingError("There is no app.py beside the package: run `twincar space` from a checkout of TwinCar.")
    files: dict[str, Path | bytes] = {}
    for pattern in PAGE:
        for path in sorted(CHECKOUT.glob(pattern)):
            inside = path.relative_to(CHECKOUT)
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in inside.parts):
                files[inside.as_posix()] = path
    if not model:
        model_folder.load(CHECKOUT / BESIDE)  # a Space whose model does not load starts for nobody
        files |= {f"{BESIDE}/{name}": path for name in FILES if (path := CHECKOUT / BESIDE / name).is_file()}
    return files | {"README.md": card((CHECKOUT / "README.md").read_text(encoding="utf-8"), space, model).encode()}


def card(readme: str, space: str, model: str | None = None) -> str:
    """The README with its front matter made this Space's: where its picture lies, and which model it answers with."""
    made = SpaceCard(readme)
    if picture := made.data.get("thumbnail"):
        made.data.thumbnail = LINK.format(space=space, path=picture)
    if model:
        repo, commit = model_folder.split_revision(model)
        files = ",".join((constants.CONFIG_NAME, *WEIGHTS))
        made.data.models = [repo]
        made.data.preload_from_hub = [f"{repo} {files} {commit}"]
    return str(made)


def pin(model: str) -> str:
    """Turn a branch, a tag or no revision into a commit: "user/repo@main" -> "user/repo@commit".

    What the Space answers with then changes when its owner says so, not when the model's does. Raises model_folder.ModelError
    where the Hub has no such model, and SharingError for a private one, which the Space could not fetch.
    """
    repo, revision = model_folder.split_revision(model)
    with model_folder.reading(model):
        info = HfApi().model_info(repo, revision=revision)
    if info.private:
        raise SharingError(
            f"{repo} is private, so the Space could not fetch it: make it public, or send models/twincar along by "
            "leaving `--model` out."
        )
    return f"{repo}@{info.sha}"


def write(files: dict[str, Path | bytes], out: Path) -> Path:
    """Write a parcel into a folder that is new or empty. Raises SharingError for one that holds something."""
    if out.exists() and any(out.iterdir()):
        raise SharingError(f"The folder {out} is not empty: name a new one.")
    for path, content in files.items():
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, file)
        else:
            file.write_bytes(content)
    return out


def publish(space: str, *, model: str | None = None, private: bool = False, message: str | None = None) -> str:
    """Create or update the Space in one commit and give its hash; what lay there before and is not sent now is deleted.

    Raises SharingError where the Hub refuses, and model_folder.ModelError where there is no such model.
    """
    model = model and pin(model)
    files = parcel(space, model)
    with writing(space):
        api = HfApi()
        create(api, space, private=private, repo_type="space", space_sdk="gradio")
        # Before the commit, since that is what makes the Space build and start.
        if model:
            api.add_space_variable(space, VARIABLE, model)
        elif VARIABLE in api.get_space_variables(space):
            api.delete_space_variable(space, VARIABLE)
        there = set(api.list_repo_files(space, repo_type="space")) - {".gitattributes"}
        done = api.create_commit(
            space,
            [CommitOperationAdd(path, content) for path, content in files.items()]
            + [CommitOperationDelete(path) for path in sorted(there - files.keys())],
            commit_message=message or f"The page of twincar {__version__}",
            repo_type="space",
        )
    return done.oid

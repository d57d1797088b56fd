"""Publish the page as a Hugging Face Space: build its folder from a checkout, and upload it.

    twincar space user/space --dry-run --out space/        # inspect it, or run it: python app.py
    twincar space user/space --model user/repo

A Space needs `app.py`, `requirements.txt` and a README whose front matter is its card. These are in a checkout of the
project, not in an installed wheel.
"""

import shutil
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard, constants

from twincar import __version__
from twincar.config import CHECKOUT
from twincar.modeling.hub import model_folder
from twincar.modeling.publishing.push_pull import FILES, WEIGHTS, HubError, create_repo, hub_errors

PAGE = (
    "app.py",
    "requirements.txt",
    "LICENSE",
    "docs/page.png",
    "twincar/**/*",
    "reports/**/*.csv",
    "reports/**/*.json",
    "reports/*.jpg",
    "reports/*/figures/augmentation.jpg",
    "reports/*/figures/grad_cam.jpg",
)
MODEL = "models/twincar"  # where app.py finds the bundled model
VARIABLE = "TWINCAR_MODEL"  # environment variable of app.py
LINK = "https://huggingface.co/spaces/{space}/resolve/main/{path}"


def collect_files(space: str, model: str | None = None) -> dict[str, Path | bytes]:
    """Collect the files of the Space.

    Args:
        space: "user/space".
        model: "user/repo@commit" that the Space downloads while it is built; by default the checkout's models/twincar
            is included.

    Returns:
        Path in the Space -> local file, or content.

    Raises:
        HubError: This is not a checkout of the project.
        ModelError: The checkout has no model, and `model` is None.
    """
    if not (CHECKOUT / "app.py").is_file():
        raise HubError("There is no app.py next to the package: run `twincar space` from a checkout of TwinCar.")
    files: dict[str, Path | bytes] = {}
    for pattern in PAGE:
        for path in sorted(CHECKOUT.glob(pattern)):
            inside = path.relative_to(CHECKOUT)
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in inside.parts):
                files[inside.as_posix()] = path
    if not model:
        model_folder.load(CHECKOUT / MODEL)  # fail here rather than when the Space starts
        files |= {f"{MODEL}/{name}": path for name in FILES if (path := CHECKOUT / MODEL / name).is_file()}
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    return files | {"README.md": space_card(readme, space, model).encode()}


def space_card(readme: str, space: str, model: str | None = None) -> str:
    """Adapt the front matter of the README to a Space: the address of its thumbnail, and the model that it uses."""
    card = SpaceCard(readme)
    if picture := card.data.get("thumbnail"):
        card.data["thumbnail"] = LINK.format(space=space, path=picture)
    if model:
        repo, commit = model_folder.split_revision(model)
        with model_folder.model_errors(model):
            available = HfApi().list_repo_files(repo, revision=commit)
        files = ",".join(name for name in (constants.CONFIG_NAME, *WEIGHTS) if name in available)
        card.data["models"] = [repo]
        card.data["preload_from_hub"] = [f"{repo} {files} {commit}"]
    return str(card)


def pin(model: str) -> str:
    """Resolve a branch, a tag or no revision to a commit: "user/repo@main" -> "user/repo@commit".

    The Space then keeps its model until it is published again.

    Raises:
        ModelError: The Hub has no such model.
        HubError: The model is private, so that the Space could not download it.
    """
    repo, revision = model_folder.split_revision(model)
    with model_folder.model_errors(model):
        info = HfApi().model_info(repo, revision=revision)
    if info.private:
        raise HubError(
            f"{repo} is private, so the Space could not download it: make it public, or omit `--model` to include "
            "models/twincar."
        )
    return f"{repo}@{info.sha}"


def write(files: dict[str, Path | bytes], out: Path) -> Path:
    """Write collected files into a new or empty folder, and return it. Raises HubError if it is not empty."""
    if out.exists() and any(out.iterdir()):
        raise HubError(f"The folder {out} is not empty: use a new one.")
    for path, content in files.items():
        file = out / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, file)
        else:
            file.write_bytes(content)
    return out


def publish(space: str, *, model: str | None = None, private: bool = False, message: str | None = None) -> str:
    """Create or update the Space in one commit, and return its hash. Files that are not uploaded now are deleted.

    Args:
        space: "user/space".
        model: "user/repo" or "user/repo@revision" for the Space to use, pinned to its current commit; by default the
            checkout's models/twincar is included.
        private: Whether to create the Space as private.
        message: Commit message.

    Raises:
        HubError: The Hub refused, or this is not a checkout of the project.
        ModelError: There is no such model.
    """
    model = model and pin(model)
    files = collect_files(space, model)
    with hub_errors(space):
        api = HfApi()
        create_repo(api, space, private=private, repo_type="space", space_sdk="gradio")
        # Set before the commit, which makes the Space build and start.
        if model:
            api.add_space_variable(space, VARIABLE, model)
        elif VARIABLE in api.get_space_variables(space):
            api.delete_space_variable(space, VARIABLE)
        existing = set(api.list_repo_files(space, repo_type="space")) - {".gitattributes"}
        commit = api.create_commit(
            space,
            [CommitOperationAdd(path, content) for path, content in files.items()]
            + [CommitOperationDelete(path) for path in sorted(existing - files.keys())],
            commit_message=message or f"The page of twincar {__version__}",
            repo_type="space",
        )
    return commit.oid

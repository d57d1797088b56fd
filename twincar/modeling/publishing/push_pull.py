"""A published model to the Hub and back: push, pull.

twincar push models/twincar user/repo --dry-run
twincar pull user/repo@main --out models/mine
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from twincar import __version__
from twincar.config import TwinCarError
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.card import model_card
from twincar.modeling.hub.download import LEGACY_FILE, PARTS, fetch
from twincar.modeling.inference.predictor import REFERENCE, Predictor

EXAMPLE = "example.jpg"  # a picture that the Hub shows with the model's answer, where the folder holds one
WEIGHTS = (constants.SAFETENSORS_SINGLE_FILE, *PARTS.values())
FILES = (constants.CONFIG_NAME, *WEIGHTS, LEGACY_FILE, "README.md", "LICENSE", EXAMPLE)


class SharingError(TwinCarError):
    """Something that cannot go to the Hub, in one sentence."""


def parcel(folder: str | Path, repo: str) -> dict[str, Path | bytes]:
    """What of a model folder goes to the Hub, path in the repo -> file or content. The card is written anew from
    config.json, with the repo's name in it, so that no figure in it can have been typed by hand.

    Raises model_folder.ModelError where the folder is no whole model, SharingError where its card names a LICENSE it lacks.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SharingError(f"There is no folder {folder}: name one that `twincar train` or `twincar publish` wrote.")
    model = model_folder.load(folder)
    card = model_card(model.config, repo, _widget(model, folder / EXAMPLE))
    files: dict[str, Path | bytes] = {name: folder / name for name in FILES if (folder / name).is_file()}
    if ModelCard(card).data.get("license_link") == "LICENSE" and "LICENSE" not in files:
        raise SharingError(f"The card of {folder} says that its licence stands in LICENSE: put that file there first.")
    return files | {"README.md": card.encode()}


def _widget(model: model_folder.CarModel, picture: Path) -> list[dict] | None:
    if not picture.is_file():
        return None
    top = Predictor(model, "cpu", REFERENCE)(picture).top(5)
    answers = [{"label": guess.class_name, "score": round(guess.probability, 4)} for guess in top]
    return [{"src": picture.name, "example_title": "Which car is it?", "output": answers}]


def size(content: Path | bytes) -> int:
    """How many bytes a thing of a parcel has."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def results(card: str) -> list[str]:
    """The model-index of a card as the Hub's own client reads it, a line a figure."""
    return [
        f"{result.task_type} on {result.dataset_name}, {result.dataset_split}: "
        f"{result.metric_name} ({result.metric_type}) {result.metric_value}"
        for result in ModelCard(card).data.eval_results or ()
    ]


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Send a model folder to "user/repo" in one commit, and give that commit's hash: `load("user/repo@hash")` pins it.

    The repo is made when there is none, and so is the branch `revision`. Raises SharingError where the Hub refuses, and
    where `private` is asked of a repo that is public already.
    """
    files = parcel(folder, repo)
    with writing(repo):
        api = HfApi()
        create(api, repo, private=private)
        if revision and revision != constants.DEFAULT_REVISION:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.create_commit(
            repo,
            [CommitOperationAdd(path, content) for path, content in files.items()],
            commit_message=message or f"Publish the model with twincar {__version__}",
            revision=revision,
        )
    return done.oid


def create(api: HfApi, repo: str, *, private: bool, **options) -> None:
    """Make a repo unless it is there. What shall be private is never sent where everybody reads."""
    api.create_repo(repo, private=private or None, exist_ok=True, **options)
    if private and not api.repo_info(repo, repo_type=options.get("repo_type")).private:
        raise SharingError(f"{repo} is there already, and public: make it private in its settings, or name another.")


def pull(name: str, out: str | Path | None = None) -> Path:
    """Fetch the model "user/repo" or "user/repo@revision" into a folder, by default models/<repo>, and give the folder.

    Only a model's own files are fetched, and the model must load before any of them takes its place. Raises
    model_folder.ModelError, one sentence, otherwise; an older model in the folder is then as it was.
    """
    repo, revision = model_folder.split_revision(name)
    with model_folder.reading(name):
        commit = fetch(repo, revision=revision)["revision"]
        fetched = Path(snapshot_download(repo, revision=commit, allow_patterns=list(FILES)))
        model_folder.load(fetched)
    folder = Path(out or Path("models") / repo.split("/")[-1])
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        for file in fetched.iterdir():
            shutil.copyfile(file, Path(beside) / file.name)
        model_folder.put_in_place(Path(beside), folder)
    for name in FILES:  # such as the licence of another model that lay there before
        if not (fetched / name).exists():
            (folder / name).unlink(missing_ok=True)
    return folder


@contextmanager
def writing(repo: str) -> Iterator[None]:
    """What the Hub refuses while something is sent becomes a SharingError of one sentence."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status == 401:
            words = "The Hub does not know who you are (HTTP 401): log in with `hf auth login`, or set HF_TOKEN."
        elif status == 403:
            words = (
                f"The Hub does not let you write to {repo} (HTTP 403): name a repo of your own, or log in with "
                "`hf auth login` and a token that may write there."
            )
        else:
            words = f"The Hub did not take {repo} ({error.server_message or error})."
        raise SharingError(" ".join(words.split())) from error
    except HFValidationError as error:
        raise SharingError(f"{repo} is no name for a repo on the Hub: user/repo is.") from error
    except (HTTPError, OSError) as error:
        raise SharingError(f"The Hub cannot be reached ({error}): nothing was published.") from error

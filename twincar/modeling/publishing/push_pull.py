"""Upload a published model to the Hugging Face Hub, and download it into a folder.

On the command line: `twincar push models/twincar user/repo --dry-run`, `twincar pull user/repo@main --out models/mine`.
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
from twincar.modeling.hub.download import LEGACY_FILE, PARTS, fetch, part_files
from twincar.modeling.hub.timm_layout import is_timm
from twincar.modeling.inference.predictor import REFERENCE, Predictor

EXAMPLE = "example.jpg"  # an optional picture that the Hub shows with the model's predictions
WEIGHTS = (constants.SAFETENSORS_SINGLE_FILE, *PARTS.values(), LEGACY_FILE)  # all but the first are optional
FILES = (constants.CONFIG_NAME, *WEIGHTS, "README.md", "LICENSE", EXAMPLE)


class HubError(TwinCarError):
    """A failed upload to the Hub. The message is one sentence."""


def collect_files(folder: str | Path, repo: str) -> dict[str, Path | bytes]:
    """Collect the files of a model folder for upload, with a model card generated for `repo`.

    Returns:
        Path in the repo -> local file, or content.

    Raises:
        ModelError: The folder does not hold a complete model.
        HubError: There is no such folder, or its card refers to a LICENSE file that it lacks.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise HubError(f"There is no folder {folder}: use one that `twincar train` or `twincar publish` wrote.")
    model = model_folder.load(folder)
    card = model_card(model.config, repo, _widget(model, folder / EXAMPLE), is_timm(model.network))
    unused = {*WEIGHTS} - {constants.SAFETENSORS_SINGLE_FILE, *part_files(model.config).values()}
    files: dict[str, Path | bytes] = {
        name: folder / name for name in FILES if name not in unused and (folder / name).is_file()
    }
    if ModelCard(card).data.get("license_link") == "LICENSE" and "LICENSE" not in files:
        raise HubError(f"The model card of {folder} refers to a file LICENSE: put that file into the folder first.")
    return files | {"README.md": card.encode()}


def _widget(model: model_folder.CarModel, picture: Path) -> list[dict] | None:
    """The example picture with the model's top 5, as the card's metadata hold it; None without a picture."""
    if not picture.is_file():
        return None
    top = Predictor(model, "cpu", REFERENCE)(picture).top(5)
    output = [{"label": guess.class_name, "score": round(guess.probability, 4)} for guess in top]
    return [{"src": picture.name, "example_title": "Which car is it?", "output": output}]


def size(content: Path | bytes) -> int:
    """Return the size in bytes of a file or content, as `collect_files` returns them."""
    return content.stat().st_size if isinstance(content, Path) else len(content)


def model_index(card: str) -> list[str]:
    """Describe each evaluation result in a model card's metadata in one line, as the Hub client parses it."""
    results = ModelCard(card).data.get("eval_results") or ()
    return [
        f"{result.task_type} on {result.dataset_name}, {result.dataset_split}: "
        f"{result.metric_name} ({result.metric_type}) {result.metric_value}"
        for result in results
    ]


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> str:
    """Upload a model folder in one commit and return its hash, so that `load("user/repo@hash")` pins this version.

    Args:
        folder: The model folder.
        repo: "user/repo"; created if it does not exist.
        private: Whether to create the repo as private.
        revision: Branch, created if it does not exist; by default main.
        message: Commit message.

    Raises:
        ModelError: The folder does not hold a complete model.
        HubError: The Hub refused, or `private` was requested for a repo that is already public.
    """
    files = collect_files(folder, repo)
    with hub_errors(repo):
        api = HfApi()
        create_repo(api, repo, private=private)
        if revision and revision != constants.DEFAULT_REVISION:
            api.create_branch(repo, branch=revision, exist_ok=True)
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(path, content) for path, content in files.items()],
            commit_message=message or f"Publish the model with twincar {__version__}",
            revision=revision,
        )
    return commit.oid


def create_repo(api: HfApi, repo: str, *, private: bool, **options) -> None:
    """Create a repo unless it exists. Raises HubError if `private` is requested and it exists as a public repo."""
    api.create_repo(repo, private=private or None, exist_ok=True, **options)
    if private and not api.repo_info(repo, repo_type=options.get("repo_type")).private:
        raise HubError(f"{repo} already exists and is public: make it private in its settings, or use another name.")


def pull(name: str, out: str | Path | None = None) -> Path:
    """Download a model into a folder, and return the folder.

    Only the files of a model are downloaded. They replace those in the folder after the model has been loaded
    successfully; otherwise the folder is left unchanged.

    Args:
        name: "user/repo" or "user/repo@revision".
        out: The folder; by default models/<repo>.

    Raises:
        ModelError: The model cannot be downloaded or loaded.
    """
    repo, revision = model_folder.split_revision(name)
    with model_folder.model_errors(name):
        commit = fetch(repo, revision=revision)["revision"]
        snapshot = Path(snapshot_download(repo, revision=commit, allow_patterns=list(FILES)))
        model_folder.load(snapshot)
    folder = Path(out or Path("models") / repo.split("/")[-1])
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        for file in snapshot.iterdir():
            shutil.copyfile(file, Path(temporary) / file.name)
        model_folder.move_files(Path(temporary), folder)
    for file_name in FILES:  # such as the licence of a previous model
        if not (snapshot / file_name).exists():
            (folder / file_name).unlink(missing_ok=True)
    return folder


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Turn errors of the Hub client during an upload into a HubError with a one-sentence message."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status == 401:
            message = "The Hub requires authentication (HTTP 401): log in with `hf auth login`, or set HF_TOKEN."
        elif status == 403:
            message = (
                f"You have no write access to {repo} (HTTP 403): use a repo of your own, or log in with "
                "`hf auth login` and a token with write access."
            )
        else:
            message = f"The Hub refused {repo} ({error.server_message or error})."
        raise HubError(" ".join(message.split())) from error
    except HFValidationError as error:
        raise HubError(f"{repo} is not a valid repo name: use the form user/repo.") from error
    except (HTTPError, OSError) as error:
        raise HubError(f"The Hub cannot be reached ({error}): nothing was uploaded.") from error

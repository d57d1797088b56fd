"""Published models: save to and load from a folder or a Hub repo, which share one layout.

    model.safetensors     network weights in half precision, with timm's key names (`timm_layout.py`)
    detector.safetensors  car detector (optional)
    open_set.safetensors  open-set data (optional)
    class_statistics.safetensors   statistics to add classes with (optional)
    config.json           architecture, classes, input, recipe, training data, scores, SHA-256 of the weights files
    README.md             model card, generated from config.json

`load("models/twincar")` and `load("user/repo@revision")` both go through huggingface_hub's PyTorchModelHubMixin.
"""

import copy
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin, constants, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from twincar.config import PUBLISHED, STANFORD_CARS, TwinCarError
from twincar.modeling.detection.detector import Detector, OutdatedDetectorError
from twincar.modeling.hub import timm_layout
from twincar.modeling.hub.card import model_card
from twincar.modeling.hub.download import CacheError, fetch, part_files, sha256, upgrade_config
from twincar.modeling.networks import architectures, weights
from twincar.modeling.networks.architectures import Network
from twincar.modeling.networks.closed_form_head import ClassStatistics
from twincar.modeling.open_set.open_set import OpenSet

DOWNLOAD_OPTIONS = ("revision", "cache_dir", "force_download", "token", "local_files_only")
LOADERS = {"detector": Detector.load, "open_set": OpenSet.load, "class_statistics": ClassStatistics.load}
REQUIRED = {"architecture", "class_names", "input"}


class ModelError(TwinCarError):
    """A model that cannot be used. The message is one sentence."""


class Source(NamedTuple):
    """Where a model was loaded from: enough to load the same one again, in another process. It holds no token.

    Attributes:
        name: Absolute path of the folder or file, or the Hub repo.
        options: For a repo, the commit as `revision`, and `cache_dir` where it was given.
        version: `model_version` of what was loaded.
    """

    name: str
    options: dict
    version: str | None


class CarModel(nn.Module, PyTorchModelHubMixin, library_name="twincar"):
    """A network with its config, and optionally a detector and open-set data.

    Args:
        config: The content of config.json. `config["architecture"]` holds the arguments of `architectures.build` except
            the number of classes, which is the length of `config["class_names"]`.

    Raises:
        ModelError: The config lacks a required entry.
    """

    def __init__(self, config: dict):
        super().__init__()
        if not isinstance(config, dict) or not config.keys() >= REQUIRED:
            missing = sorted(REQUIRED - set(config or ()))
            raise ModelError(f"This is not a TwinCar model: its config.json lacks {missing}.")
        self.config = config
        self.source: Source | None = None
        self.detector: Detector | None = None
        self.open_set: OpenSet | None = None
        self.class_statistics: ClassStatistics | None = None
        self.network = architectures.build(num_classes=len(config["class_names"]), **config["architecture"])

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the (N, C, h, w) features of normalized (N, 3, H, W) images."""
        return self.network.forward_features(images)

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the (N, K) logits of (N, C, h, w) features."""
        return self.network.forward_head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Return the (N, K) logits of normalized (N, 3, H, W) images."""
        return self.network(images)

    def replace(
        self, config: dict, network: Network, open_set: OpenSet | None, class_statistics: ClassStatistics | None
    ) -> "CarModel":
        """A model with other parts and the same detector; nothing is copied."""
        model = copy.copy(self)
        model._modules = self._modules.copy()
        model.config, model.network = config, network
        model.open_set, model.class_statistics = open_set, class_statistics
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {
            key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for key, value in self.network.state_dict().items()
        }
        file = save_directory / constants.SAFETENSORS_SINGLE_FILE
        save_file(timm_layout.to_timm_names(self.network, state), file, metadata={"format": "pt"})
        self.config["weights_sha256"] = sha256(file)
        for name in LOADERS:
            if part := getattr(self, name):
                self.config[name] = self.config.get(name, {}) | {"sha256": sha256(part.save(save_directory))}
                self.config[name].pop("legacy", None)
        content = json.dumps(timm_layout.to_file(self.config, self.network), indent=2)
        (save_directory / constants.CONFIG_NAME).write_text(content + "\n", encoding="utf-8")
        (save_directory / "README.md").write_text(
            model_card(self.config, timm=timm_layout.is_timm(self.network)), encoding="utf-8"
        )

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: dict | None = None, **options) -> "CarModel":
        """Load safetensors only: unlike the mixin's own method, this one never falls back to a pickle."""
        folder = Path(model_id) if os.path.isdir(model_id) else None
        options = {key: options[key] for key in DOWNLOAD_OPTIONS if key in options}
        config = upgrade_config(config or {})
        model = cls(config)
        name = constants.SAFETENSORS_SINGLE_FILE
        file = folder / name if folder else Path(hf_hub_download(model_id, name, **options))
        check_weights(file, config, str(model_id))
        state = timm_layout.from_timm_names(model.network, weights.read_state_dict(file))
        weights.load_state_dict(model.network, state, source=str(model_id))
        for part, name in part_files(config).items():
            file = folder / name if folder else Path(hf_hub_download(model_id, name, **options))
            _check(file, config[part]["sha256"], f"The values in {name}", str(model_id))
            try:
                setattr(model, part, LOADERS[part](file))
            except OutdatedDetectorError as error:
                logging.getLogger(__name__).warning("%s", error)
                del config[part]
        return model.eval()


def check_weights(file: Path, config: dict, name: str) -> None:
    """Raise ModelError if the SHA-256 of `file` differs from `config["weights_sha256"]`, where the config has one."""
    expected = config.get("weights_sha256")
    if expected and file.is_file():
        _check(file, expected, "The weights", name)


def _check(file: Path, expected: str, what: str, name: str) -> None:
    if (found := sha256(file)) != expected:
        raise ModelError(
            f"{what} of {name} do not match its config.json (SHA-256 {found[:12]}… instead of {expected[:12]}…): "
            "download or publish the model again."
        )


def save(model: CarModel, folder: str | Path) -> Path:
    """Write a model folder and return its path.

    All files are written to a temporary folder first, so an interrupted save leaves the previous model intact. A model
    that was loaded from a folder keeps the text of its licence.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.{os.getpid()}.tmp.", dir=folder.parent) as temporary:
        model.save_pretrained(temporary)
        if model.source and (licence := Path(model.source.name, "LICENSE")).is_file():
            shutil.copy(licence, temporary)
        move_files(Path(temporary), folder)
    return folder


def move_files(source: Path, folder: Path) -> None:
    """Move all files of `source` into `folder`, replacing files of the same names."""
    for file in source.iterdir():
        file.chmod(0o644)  # safetensors creates files that only their owner can read; a server may be another user
        file.replace(folder / file.name)


def model_version(config: dict) -> str | None:
    """A version of a published model, 12 hexadecimal digits: another one for other weights or other data of a part.

    None for a model that was not published in a folder.
    """
    sums = [config.get("weights_sha256"), *(config.get(part, {}).get("sha256") for part in LOADERS)]
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:12] if sums[0] else None


def split_revision(name: str) -> tuple[str, str | None]:
    """Split "user/repo@revision" into repo and revision: a branch, a tag or a commit, or None if there is none."""
    repo, _, revision = name.partition("@")
    return repo, revision or None


def load(repo_or_folder: str | Path, **options) -> CarModel:
    """Load a published model, in eval mode.

    Args:
        repo_or_folder: A model folder, a Hub repo ("user/repo" or "user/repo@revision"), or a `.pth` checkpoint of the
            original TwinCar.
        **options: Passed to the Hub client: `revision`, `token`, `cache_dir`, ...

    Raises:
        ModelError: There is no such model, it cannot be read, or its weights do not match its config.json.
    """
    path = Path(repo_or_folder)
    with model_errors(repo_or_folder):
        if path.is_file() and (advice := _advice(path)):
            raise ModelError(advice)
        if path.suffix in (".pth", ".pt", ".safetensors") and not path.is_dir():
            return _loaded(load_legacy(path), str(path.resolve()))
        if path == PUBLISHED and not path.exists():
            raise ModelError(
                f"There is no model in {path}: pass a folder or a Hub repo with `--model`, or download one with "
                f"`twincar pull user/repo --out {path}`."
            )
        if path.is_dir():
            if not (path / constants.CONFIG_NAME).is_file():
                raise ModelError(_advice(path))
            return _loaded(CarModel.from_pretrained(str(path)), str(path.resolve()))
        repo, revision = split_revision(str(repo_or_folder))
        found = fetch(repo, **options | ({"revision": revision} if revision else {}))
        cache = {"cache_dir": options["cache_dir"]} if options.get("cache_dir") else {}
        return _loaded(CarModel.from_pretrained(repo, **found), repo, {"revision": found["revision"]} | cache)


def _loaded(model: CarModel, name: str, options: dict | None = None) -> CarModel:
    model.source = Source(name, options or {}, model_version(model.config))
    return model


def _advice(path: Path) -> str:
    """The sentence for a file or folder that is no published model: what it is, and what to pass instead.

    "" for a file that may be a checkpoint of an original system.
    """
    if run := next((folder for folder in (path, *path.parents) if (folder / "checkpoints").is_dir()), None):
        published = run / "model"
        return f"{path} is {'the folder' if path == run else 'part'} of a training run, not a published model: " + (
            f"pass {published}, which `twincar train` published."
            if (published / constants.CONFIG_NAME).is_file()
            else f"`twincar publish {run} --out {published}` publishes it, then pass {published}."
        )
    if path.is_file() and (path.parent / constants.CONFIG_NAME).is_file():
        return f"{path} is a file of a published model: pass its folder, {path.parent}."
    if path.suffix == ".ckpt":
        return f"{path} is a checkpoint, not a published model: pass its run's folder to `twincar publish`."
    if path.suffix in (".pth", ".pt", ".safetensors"):
        return ""
    others = "the folder of a published model, the name of a Hub repo (user/repo) or a .pth checkpoint"
    if path.is_file():
        return f"{path} is not a published model: pass {others}."
    if inside := sorted(file.parent for file in path.glob(f"*/{constants.CONFIG_NAME}")):
        return f"The folder {path} has no config.json, but contains published models: pass one, such as {inside[0]}."
    state = "has no config.json: it is not a published model" if any(path.iterdir()) else "is empty"
    return f"The folder {path} {state}; pass {others}."


def _similar_path(name: str | Path) -> str:
    """A question after a file or folder here whose path is spelled like the missing `name`; "" if there is none."""
    path = Path(split_revision(str(name))[0])
    found = Path(path.anchor)
    with suppress(OSError, ValueError):
        for part in path.parts[bool(path.anchor) :]:
            if not (found / part).exists():
                part = next(iter(get_close_matches(part, os.listdir(found), 1, 0.7)), part)
            found /= part
        if found != path and found.exists():
            return f" Did you mean {found}?"
    return ""


@contextmanager
def model_errors(name: str | Path) -> Iterator[None]:
    """Turn errors of downloading or reading the model `name` into a ModelError with a one-sentence message."""
    try:
        yield
    except ModelError:
        raise
    except CacheError as error:
        raise ModelError(str(error)) from error
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise ModelError(_refusal(name, error.__cause__)) from error
        if constants.is_offline_mode():
            how = f"unset it, or download the model while there is a connection.{_similar_path(name)}"
            raise ModelError(f"{name} is not in the local cache, and HF_HUB_OFFLINE is set: {how}") from error
        raise ModelError(
            f"The Hub cannot be reached and {name} is not in the local cache.{_similar_path(name)}"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(_refusal(name, error)) from error
    except HFValidationError as error:
        raise ModelError(
            f"{name} is neither a folder nor the name of a Hub repo (user/repo).{_similar_path(name)}"
        ) from error
    except json.JSONDecodeError as error:
        raise ModelError(f"The config.json of {name} is broken: {error}.") from error
    except HTTPError as error:
        raise ModelError(f"The Hub cannot be reached, so {name} cannot be downloaded ({error}).") from error
    except (weights.WeightsError, OSError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise ModelError(f"The model {name} cannot be loaded: {' '.join(str(error).split())}") from error


def _refusal(name: str | Path, error: HfHubHTTPError) -> str:
    """Describe the HTTP status with which the Hub refused a model, and what to do about it."""
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        advice = "there is no such revision; use an existing branch, tag or commit"
    elif status == 403:
        advice = "request access on its page, then log in with `hf auth login` or set HF_TOKEN"
    elif status in (401, 404):
        advice = "check the name; if the repo is private, log in with `hf auth login` or set HF_TOKEN"
        return f"The Hub refused {name} (HTTP {status}): {advice}.{_similar_path(name)}"
    elif status == 429:
        wait = error.response.headers.get("Retry-After")
        advice = f"too many requests; try again {f'in {wait} seconds' if wait else 'later'}"
    else:
        advice = "server error; try again later"
    return f"The Hub refused {name} (HTTP {status}): {advice}."


def load_legacy(path: Path) -> CarModel:
    """Load a checkpoint of the original TwinCar, with weights_only=True: no code in the file is run.

    It is a torchvision ResNet50 for the 196 Stanford Cars whose `fc` is one Linear or the two-layer head (`fc.0`,
    `fc.3`).

    Raises:
        ModelError: The head is neither of the two.
    """
    state = weights.read_state_dict(path)
    head = "two_layer" if "fc.3.weight" in state else "linear"
    bias = state.get("fc.3.bias", state.get("fc.bias"))
    if bias is None or len(bias) != len(STANFORD_CARS):
        raise ModelError(
            f"{path} has no head for the {len(STANFORD_CARS)} Stanford Cars: it must be a torchvision ResNet50 whose "
            "`fc` is one Linear, or Linear, ReLU, Dropout, Linear."
        )
    config = {
        "architecture": {"name": "resnet50", "head": head},
        "class_names": list(STANFORD_CARS),
        "input": {"size": 224},
    }
    model = CarModel(config)
    weights.load_state_dict(model.network, state, source=str(path))
    return model.eval()


def checkpoint_network(path: Path, network: nn.Module) -> nn.Module:
    """Load a Lightning checkpoint, read with weights_only=True, into `network`, and return that in eval mode."""
    state = torch.load(path, "cpu", weights_only=True)["state_dict"]
    state = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
    weights.load_state_dict(network, state, source=str(path))
    return network.eval()

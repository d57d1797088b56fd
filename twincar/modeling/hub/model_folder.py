"""A published model: save and load. The folder is a Hub model repo as it stands.

    model.safetensors   the network's weights in half precision, under torchvision's names
    config.json         architecture, classes, input, recipe, training data, scores, the SHA-256 of the weights
    README.md           the model card, written from config.json

`load("models/twincar")` and `load("user/repo@revision")` are one call, through huggingface_hub's own model mixin.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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
from twincar.modeling.detection.detector import Detector
from twincar.modeling.hub.card import model_card
from twincar.modeling.hub.download import CacheError, fetch, part_files, sha256, upgrade_config
from twincar.modeling.networks import architectures, weights
from twincar.modeling.open_set.open_set import OpenSet

DOWNLOAD_OPTIONS = ("revision", "cache_dir", "force_download", "token", "local_files_only")
LOADERS = {"detector": Detector.load, "open_set": OpenSet.load}
REQUIRED = {"architecture", "class_names", "input"}


class ModelError(TwinCarError):
    """A model that cannot be used, in one sentence."""


class CarModel(nn.Module, PyTorchModelHubMixin, library_name="twincar"):
    """A network with its config. `config["architecture"]` are the arguments of `architectures.build` but the number of
    classes, which is that of `config["class_names"]`."""

    def __init__(self, config: dict):
        super().__init__()
        if not isinstance(config, dict) or not config.keys() >= REQUIRED:
            raise ModelError(f"This is no TwinCar model: its config.json lacks {sorted(REQUIRED - set(config or ()))}.")
        self.config = config
        self.detector: Detector | None = None
        self.open_set: OpenSet | None = None
        self.network = architectures.build(num_classes=len(config["class_names"]), **config["architecture"])

    def forward_features(self, images: Tensor) -> Tensor:
        return self.network.forward_features(images)

    def forward_head(self, features: Tensor) -> Tensor:
        return self.network.forward_head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def _save_pretrained(self, save_directory: Path) -> None:
        state = {
            key: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for key, value in self.network.state_dict().items()
        }
        weights = save_directory / constants.SAFETENSORS_SINGLE_FILE
        save_file(state, weights, metadata={"format": "pt"})
        self.config["weights_sha256"] = sha256(weights)
        for name, part in (("detector", self.detector), ("open_set", self.open_set)):
            if part:
                self.config[name] = self.config.get(name, {}) | {"sha256": sha256(part.save(save_directory))}
                self.config[name].pop("legacy", None)
        (save_directory / constants.CONFIG_NAME).write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        (save_directory / "README.md").write_text(model_card(self.config), encoding="utf-8")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: dict | None = None, **options) -> "CarModel":
        """The mixin's, without its fallback to a pickle: a repo without model.safetensors is refused."""
        folder = Path(model_id) if os.path.isdir(model_id) else None
        options = {key: options[key] for key in DOWNLOAD_OPTIONS if key in options}
        config = upgrade_config(config or {})
        model = cls(config)
        name = constants.SAFETENSORS_SINGLE_FILE
        file = folder / name if folder else Path(hf_hub_download(model_id, name, **options))
        check_weights(file, config, str(model_id))
        state = weights.read_state_dict(file)
        weights.load_state_dict(model.network, state, source=str(model_id))
        for part, name in part_files(config).items():
            file = folder / name if folder else Path(hf_hub_download(model_id, name, **options))
            _check(file, config[part]["sha256"], f"The values in the {name}", str(model_id))
            setattr(model, part, LOADERS[part](file))
        return model.eval()


def check_weights(file: Path, config: dict, name: str) -> None:
    """Raise ModelError where `file` is not what `config["weights_sha256"]` tells; a config without it tells nothing."""
    told = config.get("weights_sha256")
    if told and file.is_file():
        _check(file, told, "The weights", name)


def _check(file: Path, told: str, what: str, name: str) -> None:
    if (found := sha256(file)) != told:
        raise ModelError(
            f"{what} of {name} are not those that its config.json was written for (SHA-256 {found[:12]}… instead "
            f"of {told[:12]}…): fetch or publish the model again."
        )


def save(model: CarModel, folder: str | Path) -> Path:
    """Write the published folder. Everything is written beside it first: a killed save leaves the old model whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.{os.getpid()}.tmp.", dir=folder.parent) as beside:
        model.save_pretrained(beside)
        put_in_place(Path(beside), folder)
    return folder


def put_in_place(beside: Path, folder: Path) -> None:
    """Move the files of `beside` into `folder`, over older ones of the same names."""
    for file in beside.iterdir():
        file.chmod(0o644)  # safetensors writes for its owner alone; a server may run as somebody else
        file.replace(folder / file.name)


def split_revision(name: str) -> tuple[str, str | None]:
    """Take "user/repo@revision" apart; the revision is a branch, a tag or a commit, None where none is named."""
    repo, _, revision = name.partition("@")
    return repo, revision or None


def load(repo_or_folder: str | Path, **options) -> CarModel:
    """A published model from a folder, a repo on the Hub ("user/repo" or "user/repo@revision"; `revision=`, `token=`
    and `cache_dir=` go to the Hub client), or the `.pth` checkpoint of the original TwinCar.

    Raises ModelError with one sentence for anything else, and for weights that are not those its config tells of.
    """
    path = Path(repo_or_folder)
    with reading(repo_or_folder):
        if path.suffix in (".pth", ".pt", ".safetensors") and not path.is_dir():
            return load_legacy(path)
        if path == PUBLISHED and not path.exists():
            raise ModelError(
                f"There is no model in {path}: name a folder or a repo on the Hub with `--model`, or fetch one with "
                f"`twincar pull user/repo --out {path}`."
            )
        if path.is_dir():
            if not (path / constants.CONFIG_NAME).is_file():
                raise ModelError(f"The folder {path} holds no config.json: it is no published model.")
            return CarModel.from_pretrained(str(path))
        repo, revision = split_revision(str(repo_or_folder))
        return CarModel.from_pretrained(repo, **fetch(repo, **options | ({"revision": revision} if revision else {})))


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """What goes wrong while a model is fetched or read becomes a ModelError of one sentence."""
    try:
        yield
    except ModelError:
        raise
    except CacheError as error:
        raise ModelError(str(error)) from error
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):
            raise ModelError(_refusal(name, error.__cause__)) from error
        raise ModelError(f"The Hub cannot be reached and {name} is not in its local cache.") from error
    except HfHubHTTPError as error:
        raise ModelError(_refusal(name, error)) from error
    except HFValidationError as error:
        raise ModelError(f"{name} is neither a folder nor the name of a Hub repo (user/repo).") from error
    except json.JSONDecodeError as error:
        raise ModelError(f"The config.json of {name} is broken: {error}.") from error
    except HTTPError as error:
        raise ModelError(f"The Hub cannot be reached, so {name} cannot be fetched ({error}).") from error
    except (weights.WeightsError, OSError, RuntimeError, TypeError, KeyError, ValueError) as error:
        raise ModelError(f"The model {name} cannot be loaded: {' '.join(str(error).split())}") from error


def _refusal(name: str | Path, error: HfHubHTTPError) -> str:
    """What the Hub answered instead of a model, and what can be done."""
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        advice = "it has no such revision, name a branch, a tag or a commit that is there"
    elif status == 403:
        advice = "ask for access on its page, then log in with `hf auth login` or set HF_TOKEN"
    elif status in (401, 404):
        advice = "check the name; if it is private, log in with `hf auth login` or set HF_TOKEN"
    elif status == 429:
        wait = error.response.headers.get("Retry-After")
        advice = f"it was asked too often, try again {f'in {wait} seconds' if wait else 'later'}"
    else:
        advice = "that is trouble of its own, try again later"
    return f"The Hub did not give {name} (HTTP {status}): {advice}."


def load_legacy(path: Path) -> CarModel:
    """A checkpoint of the original TwinCar: a torchvision ResNet50 whose `fc` is one Linear or the two-layer head
    (`fc.0`, `fc.3`), for the 196 Stanford Cars. Read with weights_only=True: nothing in the file is run."""
    state = weights.read_state_dict(path)
    head = "two_layer" if "fc.3.weight" in state else "linear"
    bias = state.get("fc.3.bias", state.get("fc.bias"))
    if bias is None or len(bias) != len(STANFORD_CARS):
        raise ModelError(
            f"{path} has no head for the {len(STANFORD_CARS)} Stanford Cars: a torchvision ResNet50 with `fc` as one "
            "Linear or as Linear, ReLU, Dropout, Linear is expected."
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
    """Put the weights of a training checkpoint (Lightning's, read with weights_only=True) into `network`."""
    state = torch.load(path, "cpu", weights_only=True)["state_dict"]
    state = {key.removeprefix("network."): value for key, value in state.items() if key.startswith("network.")}
    weights.load_state_dict(network, state, source=str(path))
    return network.eval()

"""Distributed prediction: the Predictor mapped over photos by Ray Data.

    pip install 'twincar[ray]'
    twincar predict s3://bucket/photos --engine ray --out results.jsonl --resume
    RAY_ADDRESS=ray://head:10001 twincar predict /shared/photos --engine ray --out results.csv

Ray reads the files from any file system that pyarrow supports (a shared folder, s3://, gs://), runs as many Predictors
as the cluster has cores for, and returns the results in order. The model is sent to the workers: only the machine that
starts the job needs the model folder or access to the Hub.
"""

import json
import logging
from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twincar.config import TwinCarError
from twincar.files import is_picture, is_system_name

if TYPE_CHECKING:
    from twincar.modeling.hub.model_folder import CarModel

CORES = 2  # per Predictor; Ray reserves one of them, which leaves some for reading files
BATCH_SIZE = 16


def predict_files(photos: list[str], model: str, top: int, done: Container[str] = ()) -> Iterator[tuple[str, Any]]:
    """Predict photos on a Ray cluster.

    Args:
        photos: Files, folders, or addresses that pyarrow can read. Ray finds the cluster (RAY_ADDRESS); without one,
            this machine is used.
        model: A model folder or Hub repo.
        top: Number of classes per answer.
        done: Files to skip.

    Yields:
        The file, and its answer as `describe.as_dict` returns it, or the reason why there is none.

    Raises:
        TwinCarError: Ray is not installed, or there are no pictures.
        ModelError: The model cannot be loaded.
    """
    try:
        import ray
    except ImportError as error:
        raise TwinCarError("Ray is not installed: pip install 'twincar[ray]'.") from error
    from twincar.modeling.hub import model_folder

    scheme, filesystem, files = _listed(photos)
    files = [file for file in files if scheme + file not in done]
    if not files:
        return
    published = model_folder.load(model)
    ray.init(ignore_reinit_error=True, logging_level=logging.WARNING, log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), resources.get("CPU", 1)
    contents = ray.data.read_binary_files(
        files, filesystem=filesystem, include_paths=True, num_cpus=min(0.25, cpus / 4)
    )
    answers = contents.map_batches(
        BatchPredictor,
        fn_constructor_args=(published, top),
        batch_size=BATCH_SIZE,
        compute=ray.data.ActorPoolStrategy(size=gpus or max(int(cpus // CORES), 1)),
        **({"num_gpus": 1} if gpus else {"num_cpus": min(1, cpus / 2)}),
    )
    for row in answers.iter_rows():
        yield scheme + row["file"], json.loads(row["answer"])


def _listed(photos: list[str]) -> tuple[str, Any, list[str]]:
    """Return the scheme ("s3://", or "" for local files), pyarrow's file system, and the pictures, sorted by name."""
    from pyarrow import ArrowInvalid, fs

    schemes = {photo[: photo.find("://") + 3] if "://" in photo else "" for photo in photos}
    if len(schemes) > 1:
        raise TwinCarError("The photos are on several file systems: process one file system at a time.")
    files: list[str] = []
    for photo in photos:
        try:
            filesystem, path = fs.FileSystem.from_uri(photo if "://" in photo else str(Path(photo).resolve()))
            info = filesystem.get_file_info(path)
            inside = [info] if info.is_file else filesystem.get_file_info(fs.FileSelector(path, recursive=True))
        except (ArrowInvalid, OSError) as error:
            raise TwinCarError(f"{photo} cannot be listed: {error}") from error
        below = len(path.rstrip("/")) + 1
        found = sorted(file.path for file in inside if file.is_file and (info.is_file or _is_photo(file.path[below:])))
        if not found:
            raise TwinCarError(f"There are no pictures in {photo}.")
        files += found
    return schemes.pop(), filesystem, files


def _is_photo(path: str) -> bool:
    *folders, name = path.split("/")
    return is_picture(name) and not any(map(is_system_name, folders))


class BatchPredictor:
    """The callable of a Ray worker: a batch of file contents -> files and their answers as JSON.

    Args:
        model: A `CarModel`.
        top: Number of classes per answer.
    """

    def __init__(self, model: "CarModel", top: int):
        from twincar import Predictor
        from twincar.modeling.engines.choose import limit_threads

        self.predictor, self.top = Predictor(model), top
        limit_threads(self.predictor.engine)

    def __call__(self, batch: dict) -> dict:
        """Predict a batch with the columns "path" and "bytes"."""
        from twincar import PhotoError
        from twincar.modeling.inference.describe import as_dict

        answers = self.predictor.stream(batch["bytes"], BATCH_SIZE, full_size=False)
        results = [str(answer) if isinstance(answer, PhotoError) else as_dict(answer, self.top) for answer in answers]
        return {"file": list(batch["path"]), "answer": [json.dumps(result) for result in results]}

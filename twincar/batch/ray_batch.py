"""Many photos on many machines: the same Predictor, mapped over a Ray Data cluster.

    pip install 'twincar[ray]'
    twincar predict s3://bucket/photos --engine ray --out answers.jsonl --resume
    RAY_ADDRESS=ray://head:10001 twincar predict /shared/photos --engine ray --out answers.csv

Ray reads the files, wherever pyarrow can (a folder that all machines see, s3://, gs://), keeps as many Predictors busy
as the cluster has cores for, and brings the answers back in order. The model travels with the work: only the machine
that starts it needs the model's folder or the Hub.
"""

import json
import logging
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from twincar.config import IMAGE_SUFFIXES, TwinCarError

CORES = 2  # a Predictor for so many; Ray counts one for it, so that some are left for those that read
AT_ONCE = 16  # photos in the network together


def answer(photos: list[str], model: str, top: int, done: Container[str] = ()) -> Iterator[tuple[str, Any]]:
    """(file, its answer as of `saying.as_dict` or the reason why there is none) of each photo that is not `done`.

    photos : files, folders, or addresses that pyarrow can read. A cluster is found as Ray finds it (RAY_ADDRESS);
        without one, this machine is one.

    Raises TwinCarError where Ray is not installed or there are no pictures, and model_folder.ModelError for the model.
    """
    try:
        import ray
    except ImportError as error:
        raise TwinCarError("The engine ray is not installed: pip install 'twincar[ray]'.") from error
    from twincar.modeling.hub import model_folder

    scheme, filesystem, files = _listed(photos)
    files = [file for file in files if scheme + file not in done]
    if not files:
        return
    network = model_folder.load(model)
    ray.init(ignore_reinit_error=True, logging_level="warning", log_to_driver=False)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    has = ray.cluster_resources()
    gpus, cpus = int(has.get("GPU", 0)), has.get("CPU", 1)
    reading = ray.data.read_binary_files(files, filesystem=filesystem, include_paths=True, num_cpus=min(0.25, cpus / 4))
    answers = reading.map_batches(
        Answering,
        fn_constructor_args=(network, top),
        batch_size=AT_ONCE,
        compute=ray.data.ActorPoolStrategy(size=gpus or max(int(cpus // CORES), 1)),
        **({"num_gpus": 1} if gpus else {"num_cpus": min(1, cpus / 2)}),
    )
    for row in answers.iter_rows():
        yield scheme + row["file"], json.loads(row["answer"])


def _listed(photos: list[str]) -> tuple[str, Any, list[str]]:
    """The scheme ("s3://", or "" of a folder), pyarrow's file system, and the pictures in it, by name."""
    from pyarrow import ArrowInvalid, fs

    schemes = {photo[: photo.find("://") + 3] if "://" in photo else "" for photo in photos}
    if len(schemes) > 1:
        raise TwinCarError("Photos of several file systems are answered one after the other: name one at a time.")
    files: list[str] = []
    for photo in photos:
        try:
            filesystem, path = fs.FileSystem.from_uri(photo if "://" in photo else str(Path(photo).resolve()))
            info = filesystem.get_file_info(path)
            inside = [info] if info.is_file else filesystem.get_file_info(fs.FileSelector(path, recursive=True))
        except (ArrowInvalid, OSError) as error:
            raise TwinCarError(f"{photo} cannot be listed: {error}") from error
        found = sorted(
            file.path for file in inside if file.is_file and Path(file.path).suffix.lower() in IMAGE_SUFFIXES
        )
        if not found:
            raise TwinCarError(f"There are no pictures in {photo}.")
        files += found
    return schemes.pop(), filesystem, files


class Answering:
    """What a worker runs: the rows of a batch of files -> rows of file and answer."""

    def __init__(self, model, top: int):
        from twincar import Predictor
        from twincar.modeling.engines.choose import limit_threads

        self.predictor, self.top = Predictor(model), top
        limit_threads(self.predictor.engine)

    def __call__(self, batch: dict) -> dict:
        from twincar import PhotoError
        from twincar.modeling.inference.describe import as_dict

        answers = self.predictor.stream(batch["bytes"], AT_ONCE, full_size=False)
        told = [str(answer) if isinstance(answer, PhotoError) else as_dict(answer, self.top) for answer in answers]
        return {"file": list(batch["path"]), "answer": [json.dumps(one) for one in told]}

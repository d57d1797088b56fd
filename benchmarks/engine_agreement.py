"""Agreement of the engines.

python -m benchmarks.engine_agreement --data data

All val pictures, cropped as `twincar evaluate` does, are predicted with each engine and compared with torch in single
precision, the engine of all published scores.
"""

import numpy as np

from benchmarks import common
from twincar import PhotoError, Predictor
from twincar.modeling.engines.base import EngineError
from twincar.modeling.evaluation.evaluate import load_crops
from twincar.modeling.inference.predictor import REFERENCE

ENGINES = ("openvino:f32", "openvino:bf16", "openvino:int8", "torch:bf16", None)
THRESHOLD = 0.995  # minimum fraction of equal top classes


def main(options: common.Options) -> str:
    """Compare the engines on the val pictures."""
    rows = common.val_rows(options, 200 if options.quick else 10**9)
    truth = rows["class_name"].to_numpy()

    def probabilities(predictor: Predictor) -> np.ndarray:
        answers = list(predictor.stream(load_crops(rows), refine=False))
        return np.stack([p.probabilities if not isinstance(p, PhotoError) else np.zeros(names.size) for p in answers])

    reference = Predictor.from_pretrained(options.model, device="cpu", engine=REFERENCE)
    names = np.array(reference.class_names)
    expected = probabilities(reference)
    lines = [
        [f"{reference.engine.name} (the reference)", f"{(names[expected.argmax(1)] == truth).mean():.2%}", "", "", ""]
    ]
    for engine in ENGINES:
        try:
            predictor = Predictor.from_pretrained(options.model, engine=engine)
        except EngineError as error:
            lines.append([engine, "", "", "", str(error)])
            continue
        found = probabilities(predictor)
        same = (found.argmax(1) == expected.argmax(1)).mean()
        lines.append(
            [
                predictor.engine.name + ("" if engine else " (default here)"),
                f"{(names[found.argmax(1)] == truth).mean():.2%}",
                f"{same:.2%}",
                f"{np.abs(found - expected).max():.4f}",
                "yes" if same >= THRESHOLD else "NO",
            ]
        )
    columns = ["engine", "top-1", "same top class", "largest difference of a probability", f"at least {THRESHOLD:.1%}"]
    return common.table(columns, lines) + f"\n\n{len(rows)} pictures."


if __name__ == "__main__":
    common.run(main)

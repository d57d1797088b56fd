"""Does every engine give the same answers?

python -m benchmarks.engine_agreement --data data

All val pictures, cut to their boxes as `twincar evaluate` cuts them, asked of each engine and compared with torch in
single precision, in which whatever is published is measured.
"""

import numpy as np

from benchmarks import common
from twincar import PhotoError, Predictor
from twincar.modeling.engines.base import EngineError
from twincar.modeling.evaluation.evaluate import boxed
from twincar.modeling.inference.predictor import REFERENCE

ENGINES = ("openvino:f32", "openvino:bf16", "openvino:int8", "torch:bf16", None)
ENOUGH = 0.995  # of the best classes are to be the same


def main(options: common.Options) -> str:
    rows = common.val_rows(options, 200 if options.quick else 10**9)
    truth = rows["class_name"].to_numpy()

    def answers(predictor: Predictor) -> np.ndarray:
        told = list(predictor.stream(boxed(rows), refine=False))
        return np.stack([p.probabilities if not isinstance(p, PhotoError) else np.zeros(names.size) for p in told])

    reference = Predictor.from_pretrained(options.model, device="cpu", engine=REFERENCE)
    names = np.array(reference.class_names)
    expected = answers(reference)
    lines = [
        [f"{reference.engine.name} (the reference)", f"{(names[expected.argmax(1)] == truth).mean():.2%}", "", "", ""]
    ]
    for engine in ENGINES:
        try:
            predictor = Predictor.from_pretrained(options.model, engine=engine)
        except EngineError as error:
            lines.append([engine, "", "", "", str(error)])
            continue
        found = answers(predictor)
        same = (found.argmax(1) == expected.argmax(1)).mean()
        lines.append(
            [
                predictor.engine.name + ("" if engine else " (chosen here)"),
                f"{(names[found.argmax(1)] == truth).mean():.2%}",
                f"{same:.2%}",
                f"{np.abs(found - expected).max():.4f}",
                "enough" if same >= ENOUGH else "TOO FEW",
            ]
        )
    columns = ["engine", "top-1", "the same best class", "largest difference of a probability", f"of {ENOUGH:.1%}"]
    return common.table(columns, lines) + f"\n\n{len(rows)} pictures."


if __name__ == "__main__":
    common.run(main)

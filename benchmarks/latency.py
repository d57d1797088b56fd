"""Latency of a prediction with its heatmap.

python -m benchmarks.latency --data data [--photos whole_photos]

One decoded photo; and a whole photo with one car, for which a second pass reads the car. The original systems run torch
in single precision, then pytorch-grad-cam over the whole network. The lower bound is the number of operations at the
rate of a large matrix product in the engine's precision.
"""

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from benchmarks import common
from twincar import Predictor
from twincar.features.photo import load_photo
from twincar.features.transforms import squash
from twincar.modeling.engines.choose import limit_threads

ONE_PASS, TWO_PASSES = "TwinCar: whole photo, one pass", "TwinCar: whole photo, two passes, heatmap and overlay"


class WithTargetLayer(nn.Module):
    """A network with an identity layer between features and head, as target layer of pytorch-grad-cam."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.features = network, nn.Identity()

    def forward(self, images):
        """Compute logits: (N, 3, H, W) -> (N, K)."""
        return self.network.forward_head(self.features(self.network.forward_features(images)))


def original_answer(network: nn.Module, photo: Image.Image, size: int):
    """Return a function that computes probabilities and overlay as the original systems do."""
    model = WithTargetLayer(network.eval())

    def answer() -> None:
        images = common.original_batch([photo], size)
        with torch.no_grad():
            best = int(model(images).softmax(1).argmax())
        with GradCAMPlusPlus(model=model, target_layers=[model.features]) as cam:
            heat = cam(input_tensor=images.requires_grad_(True), targets=[ClassifierOutputTarget(best)])[0]
        show_cam_on_image(np.asarray(photo.resize((size, size))) / 255, heat, use_rgb=True)

    return answer


def main(options: common.Options) -> str:
    """Time TwinCar and the original systems on one photo."""
    photo = load_photo(common.val_rows(options, 1)["path"].iloc[0])
    threads = torch.get_num_threads()
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    same = Predictor.from_pretrained(options.model, device="cpu", engine="torch:f32").network
    picture = torch.from_numpy(squash(photo, predictor.size).copy())[None]
    bare = predictor.engine.run
    original = original_answer(common.original_network(), photo, common.ORIGINAL_SIZE)
    same_network = original_answer(same.requires_grad_(True), photo, predictor.size)

    def with_threads(count: int, work):
        def timed():
            torch.set_num_threads(count)
            work()

        return timed

    limit_threads(predictor.engine)
    own = torch.get_num_threads()
    bare_name = f"the bare network ({predictor.engine.name})"
    variants = {
        "original: ResNet50 at 224 px, torch and pytorch-grad-cam": with_threads(threads, original),
        f"original code, TwinCar's network at {predictor.size} px": with_threads(threads, same_network),
        "TwinCar: prediction": with_threads(own, lambda: predictor(photo)),
        "TwinCar: prediction and heatmap": with_threads(own, lambda: predictor(photo).heatmap()),
        "TwinCar: prediction, heatmap and overlay": with_threads(own, lambda: predictor(photo).overlay()),
        bare_name: with_threads(own, lambda: bare(picture)),
    }
    answers = (predictor(load_photo(file)) for file in common.whole_photos(options, 20))
    whole = next((answer.photo for answer in answers if len(answer.cars) == 1 and answer.refined), None)
    if whole:
        variants |= {
            ONE_PASS: with_threads(own, lambda: predictor(whole, refine=False)),
            TWO_PASSES: with_threads(own, lambda: predictor(whole).overlay()),
        }
    seconds = common.interleaved_medians(variants, options.rounds(40), warm_up=3)
    torch.set_num_threads(threads)
    names = list(variants)
    precision = predictor.engine.name.split(":")[1]
    rate, counted = common.matmul_rate(precision), common.operations(predictor.network, predictor.size)
    bound = counted / rate
    rows = [
        [
            name,
            common.ms(taken),
            f"{seconds[names[0]] / taken:.1f}",
            f"{seconds[names[1]] / taken:.1f}",
            f"{taken / seconds[bare_name]:.2f}",
            f"{taken / bound:.1f}",
        ]
        for name, taken in seconds.items()
    ]
    columns = ["variant", "median", "speedup", "speedup, same network", "× bare network", "× lower bound"]
    return common.table(columns, rows) + (
        f"\n\nA photo of {photo.width} by {photo.height} pixels. The lower bound is {common.ms(bound)}: "
        f"{counted / 1e9:.1f} billion operations at {rate / 1e9:.0f} billion per second, the rate of a large matrix "
        f"product in {precision}."
        + (
            f"\n\n{TWO_PASSES} takes {seconds[TWO_PASSES] / seconds[ONE_PASS]:.2f} times as long as one pass over it "
            f"({whole.width} by {whole.height} pixels)."
            if whole
            else ""
        )
    )


if __name__ == "__main__":
    common.run(main)

"""How long does one answer with its evidence take?

python -m benchmarks.latency --data data

One decoded photo. The seeds ran torch in single precision and then pytorch-grad-cam over the whole network. The floor
is the network's operations at the rate of a large matrix product in the engine's precision; nothing can be below it.
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


class Whole(nn.Module):
    """A network with a place between features and head for pytorch-grad-cam to listen at."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.features = network, nn.Identity()

    def forward(self, images):
        return self.network.forward_head(self.features(self.network.forward_features(images)))


def seeds_way(network: nn.Module, photo: Image.Image, size: int):
    """The probabilities, then the overlay, as the seeds make them."""
    whole = Whole(network.eval())

    def answer() -> None:
        images = common.seed_batch([photo], size)
        with torch.no_grad():
            best = int(whole(images).softmax(1).argmax())
        with GradCAMPlusPlus(model=whole, target_layers=[whole.features]) as cam:
            heat = cam(input_tensor=images.requires_grad_(True), targets=[ClassifierOutputTarget(best)])[0]
        show_cam_on_image(np.asarray(photo.resize((size, size))) / 255, heat, use_rgb=True)

    return answer


def main(options: common.Options) -> str:
    photo = load_photo(common.val_rows(options, 1)["path"].iloc[0])
    threads = torch.get_num_threads()
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    same = Predictor.from_pretrained(options.model, device="cpu", engine="torch:f32").network
    picture = torch.from_numpy(squash(photo, predictor.size).copy())[None]
    bare = predictor.engine.run
    seed = seeds_way(common.seed_network(), photo, common.SEED_SIZE)
    again = seeds_way(same.requires_grad_(True), photo, predictor.size)

    def with_threads(count: int, work):
        def timed():
            torch.set_num_threads(count)
            work()

        return timed

    limit_threads(predictor.engine)
    own = torch.get_num_threads()
    ways = {
        "the seeds' ResNet50 at 224 px: torch, then pytorch-grad-cam": with_threads(threads, seed),
        f"this network at {predictor.size} px in their way": with_threads(threads, again),
        "TwinCar: answer": with_threads(own, lambda: predictor(photo)),
        "TwinCar: answer and evidence": with_threads(own, lambda: predictor(photo).heatmap()),
        "TwinCar: answer, evidence and overlay": with_threads(own, lambda: predictor(photo).overlay()),
        f"the bare network ({predictor.engine.name})": with_threads(own, lambda: bare(picture)),
    }
    seconds = common.in_turns(ways, options.rounds(40), warm_up=3)
    torch.set_num_threads(threads)
    names = list(ways)
    precision = predictor.engine.name.split(":")[1]
    rate, counted = common.matmul_rate(precision), common.operations(predictor.network, predictor.size)
    floor = counted / rate
    rows = [
        [
            name,
            common.ms(taken),
            f"{seconds[names[0]] / taken:.1f}",
            f"{seconds[names[1]] / taken:.1f}",
            f"{taken / seconds[names[-1]]:.2f}",
            f"{taken / floor:.1f}",
        ]
        for name, taken in seconds.items()
    ]
    columns = ["way", "median", "times the seeds'", "times theirs, this network", "bare networks", "floors"]
    return common.table(columns, rows) + (
        f"\n\nA photo of {photo.width} by {photo.height} pixels. The floor is {common.ms(floor)}: {counted / 1e9:.1f} "
        f"billion operations at {rate / 1e9:.0f} billion a second, which a large matrix product in {precision} reaches."
    )


if __name__ == "__main__":
    common.run(main)

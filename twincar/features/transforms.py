"""Photo -> tensor: one evaluation transform for training, serving and tests, and the recipes' augmentations."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from twincar.config import IMAGENET_MEAN, IMAGENET_STD


def squash(image: Image.Image, size: int) -> np.ndarray:
    """An RGB PIL image -> (size, size, 3) uint8, its aspect ratio given up, as all training pictures were.

    PIL's bicubic filter widens with the scale, so shrinking does not alias; what is more than six times too large is
    averaged to thrice the size first, which is several times as fast and hardly to be told from the filter alone.
    """
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0))


def to_batch(pictures: list[np.ndarray], mean=IMAGENET_MEAN, std=IMAGENET_STD) -> Tensor:
    """A list of (H, W, 3) uint8 arrays of one size -> (N, 3, H, W) float32, normalised."""
    return normalize(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), mean, std)


def normalize(images: Tensor, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> Tensor:
    """(N, 3, H, W) uint8 in 0-255 -> float32 with mean and deviation, in 0-1, taken out; channels_last in memory."""
    mean, std = (torch.as_tensor(values, device=images.device).view(1, 3, 1, 1) * 255 for values in (mean, std))
    return images.to(torch.float32, memory_format=torch.channels_last, copy=True).sub_(mean).div_(std)


def augmentation(recipe, size: int) -> v2.Transform:
    """The recipe's training transform: (3, H, W) uint8 -> (3, size, size) uint8. Cropped first, to work on less."""
    steps: list = [v2.RandomResizedCrop(size, recipe.crop_scale, recipe.crop_ratio, antialias=True)]
    steps.append(v2.RandomHorizontalFlip())
    if recipe.shift or recipe.zoom or recipe.shear:
        steps.append(
            v2.RandomAffine(
                recipe.rotation,
                translate=(recipe.shift, recipe.shift),
                scale=(1 - recipe.zoom, 1 + recipe.zoom),
                shear=recipe.shear or None,
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    elif recipe.rotation:
        steps.append(Rotation(recipe.rotation))
    *light, hue = recipe.jitter
    if any(light):
        steps.append(Light(*light))
    if hue:
        steps.append(Hue(hue))
    if recipe.clahe:
        steps.append(v2.RandomApply([CLAHE()], recipe.clahe))
    if recipe.blur:
        steps.append(v2.RandomApply([Blur(5, (0.1, 1.5))], recipe.blur))
    if recipe.grey:
        steps.append(v2.RandomGrayscale(recipe.grey))
    if recipe.erasing:
        steps.append(v2.RandomErasing(recipe.erasing))
    if recipe.hole:  # coarse dropout: one black square
        share = recipe.hole_side**2
        steps.append(v2.RandomErasing(recipe.hole, scale=(share, share), ratio=(1, 1)))
    return v2.Compose(steps)


GREY = np.array([0.2989, 0.587, 0.114])  # what torchvision, too, takes for the lightness of RGB (ITU-R BT.601)

# Five steps by OpenCV, on (3, H, W) uint8 RGB: torchvision's take five to fifty times as long on bytes.


def _opencv(picture: Tensor, work: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """work, of an (H, W, 3) array, done to a (3, H, W) tensor."""
    return torch.from_numpy(work(picture.permute(1, 2, 0).contiguous().numpy())).permute(2, 0, 1)


class Rotation(v2.RandomRotation):
    """torchvision's random rotation, bilinear; what comes in from outside is black."""

    def transform(self, inpt: Tensor, params: dict) -> Tensor:
        height, width = inpt.shape[1:]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), params["angle"], 1)
        return _opencv(inpt, lambda picture: cv2.warpAffine(picture, matrix, (width, height)))


class Blur(v2.GaussianBlur):
    """torchvision's Gaussian blur."""

    def transform(self, inpt: Tensor, params: dict) -> Tensor:
        return _opencv(inpt, lambda picture: cv2.GaussianBlur(picture, self.kernel_size, params["sigma"][0]))


class Hue(v2.Transform):
    """Turns all hues by up to `share` of the circle to either side, as torchvision's colour jitter does to PIL's
    pictures: in 256 steps."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def make_params(self, flat_inputs) -> dict:
        return {"turn": float(torch.empty(1).uniform_(-self.share, self.share))}

    def transform(self, inpt: Tensor, params: dict) -> Tensor:
        def turned(picture: np.ndarray) -> np.ndarray:
            hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
            hsv[..., 0] += np.uint8(round(256 * params["turn"]) % 256)  # round the circle
            return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)

        return _opencv(inpt, turned)


class Light(v2.ColorJitter):
    """torchvision's jitter of brightness, contrast and saturation, each of which is linear in the colours once the
    picture's mean is known: all three, in the drawn order, are one matrix. What leaves 0-255 on the way comes back if a
    later step brings it back; torchvision cuts it off after every step."""

    def transform(self, inpt: Tensor, params: dict) -> Tensor:
        factors = [params[f"{name}_factor"] for name in ("brightness", "contrast", "saturation")]

        def lit(picture: np.ndarray) -> np.ndarray:
            colours, shift, mean = np.eye(3), np.zeros(3), np.array(cv2.mean(picture)[:3])
            for step in params["fn_idx"].tolist():
                if step > 2 or (factor := factors[step]) is None:
                    continue
                if step == 1:  # contrast: blended with the mean grey
                    shift = factor * shift + (1 - factor) * (GREY @ (colours @ mean + shift))
                    colours = factor * colours
                else:  # brightness: blended with black; saturation: with each pixel's own grey
                    blend = factor * np.eye(3) + (1 - factor) * GREY * (step == 2)
                    shift, colours = blend @ shift, blend @ colours
            return cv2.transform(picture, np.column_stack([colours, shift]))

        return _opencv(inpt, lit)


class CLAHE(v2.Transform):
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994) of the lightness, in 8 by 8
    tiles; the clip limit is drawn from 1 to 4."""

    def make_params(self, flat_inputs) -> dict:
        return {"clip_limit": float(torch.empty(1).uniform_(1, 4))}

    def transform(self, inpt: Tensor, params: dict) -> Tensor:
        def equalised(picture: np.ndarray) -> np.ndarray:
            lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
            lab[..., 0] = cv2.createCLAHE(params["clip_limit"], (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
            return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)

        return _opencv(inpt, equalised)

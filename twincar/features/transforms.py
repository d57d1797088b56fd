"""Photo to tensor: the evaluation transform of training and inference, and the recipes' augmentations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import resize

from twincar.config import IMAGENET_MEAN, IMAGENET_STD
from twincar.features.copy_paste import ASPECT, ASPECT_SPREAD, INSET, Car, copy_paste
from twincar.features.corruptions import RandomCorruption

if TYPE_CHECKING:
    from twincar.modeling.training.recipes import Recipe

Values = Sequence[float] | Tensor  # one per channel
GAP = 3.0  # how many times too large an image remains after box-averaging


def squash(image: Image.Image, size: int) -> np.ndarray:
    """Resize an RGB image to a square, without keeping its aspect ratio (timm's crop mode "squash").

    Bicubic, antialiased: Pillow's filter in torchvision's implementation, which differs by at most two gray levels and
    takes a third of the time. An image more than six times too large is left to Pillow, which first box-averages it to
    three times the size; that is several times faster and hardly changes the result.

    Args:
        image: The image, in RGB.
        size: Side of the square, in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    if max(image.size) >= 2 * GAP * size:
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=GAP))
    pixels = torch.from_numpy(np.array(image))
    resized = resize(pixels.permute(2, 0, 1), [size, size], v2.InterpolationMode.BICUBIC, antialias=True)
    return resized.permute(1, 2, 0).contiguous().numpy()


def to_batch(pictures: list[np.ndarray], mean: Values = IMAGENET_MEAN, std: Values = IMAGENET_STD) -> Tensor:
    """Stack N pictures, (H, W, 3) uint8 of one size, into a normalized (N, 3, H, W) float32 tensor."""
    return normalize(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), mean, std)


def normalize(images: Tensor, mean: Values = IMAGENET_MEAN, std: Values = IMAGENET_STD) -> Tensor:
    """Normalize images by mean and standard deviation.

    Args:
        images: (N, 3, H, W) uint8.
        mean: Mean of each channel, of values in 0-1.
        std: Standard deviation of each channel, of values in 0-1.

    Returns:
        (N, 3, H, W) float32, channels_last in memory.
    """
    mean, std = (torch.as_tensor(values, device=images.device).view(1, 3, 1, 1) * 255 for values in (mean, std))
    return images.to(torch.float32, memory_format=torch.channels_last, copy=True).sub_(mean).div_(std)


def augmentation(recipe: Recipe, size: int, backgrounds: Sequence[np.ndarray] = ()) -> v2.Transform:
    """Build a recipe's training transform: (3, H, W) uint8 -> (3, size, size) uint8.

    The crop comes first, so that the other steps work on fewer pixels; corruptions come last, as in a camera.

    Args:
        recipe: The recipe.
        size: Side of the pictures, in pixels.
        backgrounds: Photos without cars, (H, W, 3) uint8, for a recipe that pastes pictures onto them.
    """
    steps: list[v2.Transform] = [v2.RandomResizedCrop(size, recipe.crop_scale, recipe.crop_ratio, antialias=True)]
    if recipe.paste:
        pasted = RandomCopyPaste(backgrounds, size)
        steps = [v2.RandomChoice([steps[0], pasted], [1 - recipe.paste, recipe.paste])]
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
        steps.append(RandomRotation(recipe.rotation))
    *strengths, hue = recipe.jitter
    if any(strengths):
        steps.append(ColorJitter(*strengths))
    if hue:
        steps.append(RandomHue(hue))
    if recipe.clahe:
        steps.append(v2.RandomApply([CLAHE()], recipe.clahe))
    if recipe.blur:
        steps.append(v2.RandomApply([GaussianBlur(5, (0.1, 1.5))], recipe.blur))
    if recipe.grey:
        steps.append(v2.RandomGrayscale(recipe.grey))
    if recipe.erasing:
        steps.append(v2.RandomErasing(recipe.erasing))
    if recipe.hole:  # coarse dropout: one black square
        area = recipe.hole_side**2
        steps.append(v2.RandomErasing(recipe.hole, scale=(area, area), ratio=(1, 1)))
    if recipe.corruption:
        steps.append(v2.RandomApply([RandomCorruption()], recipe.corruption))
    return v2.Compose(steps)


class RandomCopyPaste(v2.Transform):
    """Paste a picture of one car, smaller and off center, onto a random photo; see `copy_paste.py`.

    Args:
        backgrounds: Photos without cars, (H, W, 3) uint8.
        size: Side of the result, in pixels.
    """

    def __init__(self, backgrounds: Sequence[np.ndarray], size: int):
        super().__init__()
        self.backgrounds, self.size = backgrounds, size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the background and the seed of the random numbers."""
        return {"index": int(torch.randint(len(self.backgrounds), ())), "seed": int(torch.randint(2**31, ()))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Paste a (3, H, W) uint8 image of a car, squashed to a square, and return (3, size, size)."""
        rng = np.random.default_rng(params["seed"])
        car = Car(inpt.permute(1, 2, 0).numpy(), INSET * 2, float(ASPECT * np.exp(rng.normal(0, ASPECT_SPREAD))))
        scene, _ = copy_paste(car, self.backgrounds[params["index"]], self.size, rng)
        return torch.from_numpy(scene).permute(2, 0, 1)


LUMA = np.array([0.2989, 0.587, 0.114])  # weights of RGB in gray (ITU-R BT.601), as in torchvision

# The following transforms use OpenCV, on (3, H, W) uint8 RGB: torchvision's take 5 to 50 times as long on uint8.


def _with_opencv(image: Tensor, function: Callable[[np.ndarray], Any]) -> Tensor:
    """Apply a function of (H, W, 3) arrays to a (3, H, W) tensor."""
    return torch.from_numpy(function(image.permute(1, 2, 0).contiguous().numpy())).permute(2, 0, 1)


class RandomRotation(v2.RandomRotation):
    """torchvision's `RandomRotation`, bilinear; pixels from outside the image are black."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Rotate a (3, H, W) uint8 image by `params["angle"]` degrees."""
        height, width = inpt.shape[1:]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), params["angle"], 1)
        return _with_opencv(inpt, lambda image: cv2.warpAffine(image, matrix, (width, height)))


class GaussianBlur(v2.GaussianBlur):
    """torchvision's `GaussianBlur`."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Blur a (3, H, W) uint8 image with the standard deviation `params["sigma"][0]`, in pixels."""
        return _with_opencv(inpt, lambda image: cv2.GaussianBlur(image, self.kernel_size, params["sigma"][0]))


class RandomHue(v2.Transform):
    """Shift the hue at random, in 256 steps, as torchvision's `ColorJitter` does for PIL images.

    Args:
        limit: Largest shift to either side, as a fraction of the hue circle.
    """

    def __init__(self, limit: float):
        super().__init__()
        self.limit = limit

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the shift from -limit to limit."""
        return {"shift": float(torch.empty(1).uniform_(-self.limit, self.limit))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Shift the hue of a (3, H, W) uint8 image by `params["shift"]` of the hue circle."""

        def shift(image: np.ndarray) -> np.ndarray:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
            hsv[..., 0] += np.uint8(round(256 * params["shift"]) % 256)  # uint8 wraps around, as the hue circle does
            return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)

        return _with_opencv(inpt, shift)


class ColorJitter(v2.ColorJitter):
    """torchvision's `ColorJitter` of brightness, contrast and saturation, as one matrix.

    Each step is linear in the colors once the image's mean is known, so the steps, in the drawn order, are combined.
    Values are clipped to 0-255 only at the end; torchvision clips after every step.
    """

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Apply the drawn factors to a (3, H, W) uint8 image; a factor of None leaves its step out."""
        factors = [params[f"{name}_factor"] for name in ("brightness", "contrast", "saturation")]

        def jitter(image: np.ndarray) -> np.ndarray:
            matrix, offset, mean = np.eye(3), np.zeros(3), np.array(cv2.mean(image)[:3])
            for step in params["fn_idx"].tolist():
                if step > 2 or (factor := factors[step]) is None:
                    continue
                if step == 1:  # contrast: blended with the image's mean gray
                    offset = factor * offset + (1 - factor) * (LUMA @ (matrix @ mean + offset))
                    matrix = factor * matrix
                else:  # brightness: blended with black; saturation: blended with each pixel's gray
                    blend = factor * np.eye(3) + (1 - factor) * LUMA * (step == 2)
                    offset, matrix = blend @ offset, blend @ matrix
            return cv2.transform(image, np.column_stack([matrix, offset]))

        return _with_opencv(inpt, jitter)


class CLAHE(v2.Transform):
    """Contrast-limited adaptive histogram equalization of the lightness, in 8 by 8 tiles.

    The clip limit is drawn from 1 to 4. Reference: Zuiderveld, Graphics Gems IV, 1994.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the clip limit."""
        return {"clip_limit": float(torch.empty(1).uniform_(1, 4))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Equalize a (3, H, W) uint8 image with the clip limit `params["clip_limit"]`."""

        def equalize(image: np.ndarray) -> np.ndarray:
            lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
            lab[..., 0] = cv2.createCLAHE(params["clip_limit"], (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
            return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)

        return _with_opencv(inpt, equalize)

"""Image corruptions in five severities, for `corruption_robustness.py`: (H, W, 3) uint8 -> (H, W, 3) uint8.

After Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR
2019, arXiv:1903.12261), with their severities of noise, blur and JPEG where these fit pictures of about 200 px. All are
deterministic given the random generator.
"""

from collections.abc import Callable

import cv2
import numpy as np

SEVERITIES = 5
Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]  # picture, severity 1 to 5, rng


def blur(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur with a standard deviation of 0.5 to 3 pixels."""
    return cv2.GaussianBlur(picture, (0, 0), (0.5, 1, 1.5, 2, 3)[severity - 1])


def motion(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Motion blur over 5 to 21 pixels, within 20 degrees of the horizontal."""
    length = (5, 9, 13, 17, 21)[severity - 1]
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    turn = cv2.getRotationMatrix2D((length // 2, length // 2), rng.uniform(-20, 20), 1)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return cv2.filter2D(picture, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def noise(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, independent by channel, with a standard deviation of 0.04 to 0.26 of the range."""
    return _bytes(picture + 255 * (0.04, 0.08, 0.12, 0.18, 0.26)[severity - 1] * rng.standard_normal(picture.shape))


def jpeg(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """JPEG compression with quality 25 to 5."""
    _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, (25, 18, 12, 8, 5)[severity - 1]])
    return cv2.imdecode(code, cv2.IMREAD_COLOR)


def darkness(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A half to a twentieth of the light, with photon noise (Poisson, 400 photons at full white)."""
    light = picture / 255 * (0.5, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    return _bytes(255 * rng.poisson(light * 400) / 400)


def glare(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A bright light at a random position: a Gaussian halo of a quarter of the width, and a uniform veil."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    at_x, at_y = rng.uniform(0.2, 0.8, 2) * (width, height)
    halo = np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * (0.25 * width) ** 2))
    strength = (0.4, 0.6, 0.8, 1.0, 1.2)[severity - 1]
    white = np.minimum(strength * (0.25 + halo), 1)[..., None]
    return _bytes(picture * (1 - white) + 255 * white)


def rain(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Parallel bright streaks, a tenth of the height long, 100 to 900 on a picture of 208 px."""
    height, width = picture.shape[:2]
    drops, slant = (100, 250, 400, 600, 900)[severity - 1] * width * height // 208**2, rng.uniform(-0.4, 0.4)
    streaks = np.zeros((height, width), np.uint8)
    length = height / 10 * rng.uniform(0.6, 1.4, drops)
    starts = np.column_stack([rng.uniform(0, width, drops), rng.uniform(-0.1, 1, drops) * height])
    for (x, y), long in zip(starts, length, strict=True):
        end = int(x + slant * long), int(y + long)
        cv2.line(streaks, (int(x), int(y)), end, int(rng.integers(90, 200)), 1, cv2.LINE_AA)
    veil = cv2.GaussianBlur(streaks, (0, 0), 0.6)[..., None] / 255
    return _bytes(picture * (1 - veil) + 215 * veil)


def rotation(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Rotation by 4 to 20 degrees to either side, with mirrored borders."""
    angle = (4, 8, 12, 16, 20)[severity - 1] * rng.choice([-1, 1])
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
    return cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REFLECT)


def low_resolution(picture: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Downsampling to a width of 96 to 24 pixels and back."""
    height, width = picture.shape[:2]
    small = (96, 72, 56, 40, 24)[severity - 1]
    shrunk = cv2.resize(picture, (small, max(round(height / width * small), 1)), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC)


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    "blur": blur,
    "motion": motion,
    "noise": noise,
    "JPEG": jpeg,
    "darkness": darkness,
    "glare": glare,
    "rain": rain,
    "rotation": rotation,
    "low resolution": low_resolution,
}

"""A linear head in closed form, or rows of one, from class means and one covariance; new classes need no training.

Linear discriminant analysis on frozen features (its streaming form: Hayes & Kanan, CVPR Workshops 2020,
arXiv:1909.01520). Features of a class are normal around its mean, with one covariance for all classes; the means
themselves are normal around a center. A class mean from a few photos is therefore not their plain mean: its posterior
expectation lies closer to the center, in every direction as far as the photos are few and classes differ little (the
two-covariance model: Brümmer & de Villiers, "The speaker partitioning problem", Odyssey 2010, section 2.2). A mean that
has been moved is shorter than the means of other classes, which would make its class likely for every picture: the
class of a new mean is treated as being as far from the center as its prior says.

Everything is computed from `ClassStatistics`, which a model folder holds in `class_statistics.safetensors`. Weights
and bias of a class depend on its own mean and on the trained classes only, so that adding a class leaves the logits of
all others as they are.
"""

import json
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from twincar.config import TwinCarError
from twincar.modeling.networks.weights import load_tensors, save_tensors

FILE = "class_statistics.safetensors"
# Fraction of a new mean's posterior variance that its bias takes into account, chosen among 0.25, 0.5, 0.75 and 1 with
# the pictures of reports/teaching.md: with 0.5 more of those of new classes are right, with 1 more of the others.
VARIANCE_IN_BIAS = 0.75


@dataclass(frozen=True)
class ClassStatistics:
    """Statistics of pooled features, by class.

    Attributes:
        means: (K, D) mean of each class.
        counts: (K,) pictures behind each mean.
        trained: (K,) whether the network was trained on the class.
        covariance: (D, D) covariance within the classes, the same for all.
        center: (D,) where the means are centered.
        shrinkage: How far the covariance is moved towards a multiple of the identity, 0 to 1.
        scale: Factor of the logits, so that their softmax is calibrated.
    """

    means: Tensor
    counts: Tensor
    trained: Tensor
    covariance: Tensor
    center: Tensor
    shrinkage: float
    scale: float = 1.0

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, num_classes: int, shrinkage: float = 0.5) -> "ClassStatistics":
        """Compute the statistics of training pictures.

        Args:
            features: (N, D) pooled features.
            labels: (N,) classes, 0 to num_classes - 1.
            num_classes: Number of classes K.
            shrinkage: As in the attributes.

        Raises:
            TwinCarError: A class has no pictures, or no class has two.
        """
        counts = torch.bincount(labels, minlength=num_classes)
        if not counts.all() or len(labels) <= num_classes:
            raise TwinCarError(
                f"{len(labels)} training pictures of {num_classes} classes are too few for class statistics: every "
                "class needs one, and some need several."
            )
        x = features.double()
        means = torch.zeros(num_classes, x.shape[1], dtype=x.dtype).index_add_(0, labels, x) / counts[:, None]
        apart = x - means[labels]
        covariance = apart.T @ apart / (len(labels) - num_classes)
        trained = torch.ones(num_classes, dtype=torch.bool)
        return cls(means.float(), counts, trained, covariance.float(), means.mean(0).float(), shrinkage)

    def head(self) -> tuple[Tensor, Tensor]:
        """Compute the linear head.

        Returns:
            (K, D) weights and (K,) biases. A logit is, up to `scale`, the log-likelihood of the features in the class
            relative to that at the center, with the class mean at its posterior expectation. For classes that the
            network was not trained on, the mean is as long as expected: its square is that of the expectation plus
            the posterior variance.
        """
        directions, spread, rest = self._prior
        z = self._whitened(self.means)
        noise = 1 / self.counts.double()[:, None]
        along = z @ directions
        aside = z - along @ directions.T
        keep, keep_rest = spread / (spread + noise), rest / (rest + noise)
        z = (keep * along) @ directions.T + keep_rest * aside
        variance = ((1 - keep) * spread).sum(1) + (1 - keep_rest[:, 0]) * rest * (len(directions) - len(spread))
        variance[self.trained | (len(spread) == 0)] = 0  # without a prior no mean is moved
        square = z.square().sum(1)
        z = z * (1 + variance / square.clamp(min=1e-12)).sqrt()[:, None]
        weights = torch.linalg.solve_triangular(self._cholesky.T, z.T, upper=True).T
        bias = -(square + VARIANCE_IN_BIAS * variance) / 2 - weights @ self.center.double()
        return (self.scale * weights).float(), (self.scale * bias).float()

    def extend(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Append rows to a linear head that lacks the last of the classes.

        The head may be a trained one. The mean of the logits over the trained classes, which a softmax ignores, differs
        between it and the head in closed form, so the new rows are moved by this difference: a new class lies as far
        above the mean of the trained classes as in the head in closed form.

        Args:
            weight: (M, D) weights of the first M classes.
            bias: (M,) biases of them.

        Returns:
            (K, D) weights and (K,) biases; the first M are the given ones.
        """
        given, count = (weight.float().cpu(), bias.float().cpu()), len(weight)
        trained = self.trained[:count]
        rows = []
        for old, own in zip(given, self.head(), strict=True):
            shift = old[trained].mean(0) - own[:count][trained].mean(0) if trained.any() else 0.0
            rows.append(torch.cat([old, own[count:] + shift]))
        return rows[0], rows[1]

    def prepare(self) -> None:
        """Compute now what `head` needs and all statistics with more classes share: a second at 2,048 features."""
        _ = self._cholesky, self._prior

    def with_classes(self, means: Tensor, counts: Tensor) -> "ClassStatistics":
        """Append classes that the network was not trained on, given the (M, D) means and (M,) counts of photos."""
        wider = replace(
            self,
            means=torch.cat([self.means, means.float()]),
            counts=torch.cat([self.counts, counts.to(self.counts.dtype)]),
            trained=torch.cat([self.trained, torch.zeros(len(counts), dtype=torch.bool)]),
        )
        self.prepare()  # these depend on the trained classes only
        wider.__dict__.update(_cholesky=self._cholesky, _prior=self._prior)
        return wider

    def without(self, label: int) -> "ClassStatistics":
        """Remove a class."""
        kept = torch.arange(len(self.means)) != label
        return replace(self, means=self.means[kept], counts=self.counts[kept], trained=self.trained[kept])

    @cached_property
    def _cholesky(self) -> Tensor:
        """Lower triangular L of the shrunk covariance L L', in double precision."""
        covariance = self.covariance.double()
        identity = torch.eye(len(covariance), dtype=torch.float64) * covariance.diagonal().mean()
        shrunk = (1 - self.shrinkage) * covariance + self.shrinkage * identity
        # Half precision of the file, or features that never vary, may leave it short of positive definite.
        return torch.linalg.cholesky(shrunk + 1e-6 * identity)

    def _whitened(self, means: Tensor) -> Tensor:
        """(M, D) means -> around the center, in units of the covariance within classes."""
        return torch.linalg.solve_triangular(self._cholesky, (means - self.center).double().T, upper=False).T

    @cached_property
    def _prior(self) -> tuple[Tensor, Tensor, float]:
        """How the means of the trained classes are spread around the center, in whitened coordinates.

        Returns:
            (D, R) orthonormal directions in which they differ, (R,) their variances in these, and the variance in all
            others. That one is estimated from how far each class lies from the plane through all others.
        """
        z, counts = self._whitened(self.means[self.trained]), self.counts[self.trained].double()
        known, size = z.shape
        if known < 3:  # nothing to estimate a spread from: keep every mean as it is
            return z.new_zeros(size, 0), z.new_zeros(0), 1e6
        z = z - z.mean(0)
        _, singular, directions = torch.linalg.svd(z, full_matrices=False)
        rank = min(known - 1, size)
        noise = (1 / counts).mean()
        spread = singular[:rank].square() / (known - 1) - noise
        altitudes = 1 / torch.linalg.pinv(z @ z.T, hermitian=True).diagonal()  # squared distance to the plane
        outside = max(size - rank + 1, 1)
        rest = float((altitudes / outside - 1 / counts).mean().clamp(min=1e-3)) if size >= known else 1e-3
        return directions[:rank].T, spread.clamp(min=rest), rest

    def save(self, folder: str | Path) -> Path:
        """Write `class_statistics.safetensors` into a model folder, in half precision, and return its path."""
        unit, mean_unit = _power_of_two(self.covariance.diagonal().mean()), _power_of_two(self.means.abs().amax())
        rows, columns = torch.triu_indices(*self.covariance.shape)
        tensors = {
            "means": (self.means / mean_unit).half(),
            "counts": self.counts.to(torch.int32),
            "trained": self.trained.to(torch.uint8),
            "center": (self.center / mean_unit).half(),
            "covariance": (self.covariance / unit)[rows, columns].half(),  # symmetric: one triangle
        }
        facts = {"shrinkage": self.shrinkage, "scale": self.scale, "covariance_unit": unit, "mean_unit": mean_unit}
        return save_tensors(tensors, Path(folder) / FILE, {key: json.dumps(value) for key, value in facts.items()})

    @classmethod
    def load(cls, path: str | Path) -> "ClassStatistics":
        """Read `class_statistics.safetensors`.

        Raises:
            TwinCarError: The file cannot be read or lacks an entry.
        """
        try:
            tensors, facts = load_tensors(path)
            size = tensors["means"].shape[1]
            rows, columns = torch.triu_indices(size, size)
            covariance = torch.zeros(size, size)
            covariance[rows, columns] = tensors["covariance"].float() * facts["covariance_unit"]
            return cls(
                tensors["means"].float() * facts["mean_unit"],
                tensors["counts"].long(),
                tensors["trained"].bool(),
                covariance + covariance.triu(1).T,
                tensors["center"].float() * facts["mean_unit"],
                float(facts["shrinkage"]),
                float(facts["scale"]),
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TwinCarError(
                f"{path} cannot be read: run `twincar fit-head` again, or delete the file and the entry "
                f"`class_statistics` of config.json to use the model as it is ({error})."
            ) from error


def _power_of_two(value: Tensor) -> float:
    """The nearest power of two: values divided by it fit half precision, and a second rounding changes nothing."""
    return 2.0 ** round(math.log2(float(value.clamp(min=1e-12))))

"""The metrics equal scikit-learn's on random labels and logits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from twincar.modeling.evaluation.metrics import bootstrap_intervals, metrics


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(1, 60), st.integers(0, 2**31), st.floats(0, 6))
def test_equal_scikit_learn(classes, count, seed, skill):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), labels] += skill
    ours, guess, truth = metrics(logits, labels), logits.argmax(1).numpy(), labels.numpy()
    expected = {
        "top1": sklearn.accuracy_score(truth, guess),
        "hamming_loss": sklearn.hamming_loss(truth, guess),
        "f1_macro": sklearn.f1_score(truth, guess, average="macro", zero_division=0),
        "f1_weighted": sklearn.f1_score(truth, guess, average="weighted", zero_division=0),
        "precision_macro": sklearn.precision_score(truth, guess, average="macro", zero_division=0),
        "recall_weighted": sklearn.recall_score(truth, guess, average="weighted", zero_division=0),
        "jaccard_macro": sklearn.jaccard_score(truth, guess, average="macro", zero_division=0),
        "mcc": sklearn.matthews_corrcoef(truth, guess),
    }
    present = np.unique(truth)
    expected["balanced_accuracy"] = np.mean([(guess[truth == label] == label).mean() for label in present])
    for k in (3, 5):
        order = logits.topk(min(k, classes)).indices.numpy()
        expected[f"top{k}"] = (order == truth[:, None]).any(1).mean()
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-5), name


def test_kappa_equals_scikit_learn():
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(7, (200,), generator=generator)
    logits = torch.randn(200, 7, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 7)
    expected = sklearn.cohen_kappa_score(labels.numpy(), logits.argmax(1).numpy())
    assert metrics(logits, labels)["kappa"] == pytest.approx(expected, abs=1e-6)


def test_interval_of_accuracy_is_the_binomial_one():
    labels = torch.arange(100) % 2
    logits = torch.nn.functional.one_hot(labels, 2).float()
    logits[:10] = logits[:10].flip(1)  # ten of a hundred are wrong
    low, high = bootstrap_intervals(logits, labels, draws=4000)["top1"]
    deviation = 1.96 * np.sqrt(0.9 * 0.1 / 100)
    assert low == pytest.approx(0.9 - deviation, abs=0.012)
    assert high == pytest.approx(0.9 + deviation, abs=0.012)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(2, 50), st.integers(0, 2**31))
def test_intervals_are_the_percentiles_of_resampled_metrics(classes, count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    intervals = bootstrap_intervals(logits, labels, draws=20, seed=seed)
    drawn = torch.randint(count, (20, count), generator=torch.Generator().manual_seed(seed))
    resampled = [metrics(logits[rows], labels[rows]) for rows in drawn]
    for name, interval in intervals.items():
        expected = np.percentile([values[name] for values in resampled], [2.5, 97.5])
        np.testing.assert_allclose(interval, expected, atol=1e-5)

"""The model card of a published model, written from its config alone: no figure in it is typed by hand."""

from huggingface_hub import EvalResult, ModelCard, ModelCardData

SHOWN = (  # score in config["scores"] -> its words in the card's table
    ("top1", "Top-1 accuracy"),
    ("top3", "Top-3 accuracy"),
    ("top5", "Top-5 accuracy"),
    ("f1_macro", "Macro F1"),
    ("balanced_accuracy", "Balanced accuracy"),
)

LIMITS = (
    "It knows the cars it was trained on and no others; any other car, or no car at all, gets the nearest look. "
    "Cars that differ by trim or year alone are often taken for one another."
)


def model_card(config: dict) -> str:
    """Markdown with the Hub's metadata in front. Works for any config; what the config does not tell is left out."""
    scores, training = config.get("scores", {}), config.get("training", {})
    data = ModelCardData(
        library_name="twincar",
        pipeline_tag="image-classification",
        license="other",
        license_name=config.get("license_name", "non-commercial"),
        license_link="LICENSE" if config.get("license_name") else None,
        tags=["image-classification", "cars", "grad-cam", config["architecture"]["name"]],
        datasets=[training["dataset_repo"]] if "dataset_repo" in training else None,
        model_name=config.get("name", "twincar"),
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=training.get("dataset_repo", "imagefolder"),
                dataset_name=training.get("dataset", "the prepared data"),
                dataset_split=scores["split"],
                metric_type="accuracy" if key.startswith("top") else key,
                metric_name=words,
                metric_value=round(scores[key], 4),
            )
            for key, words in SHOWN
            if key in scores
        ]
        or None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(config, scores, training)}"))


def _text(config: dict, scores: dict, training: dict) -> str:
    names = config["class_names"]
    size = config["input"]["size"]
    parts = [
        f"# {config.get('name', 'twincar')}",
        f"Names the make, model and year of a car in a photo: {len(names)} classes, from {names[0]} to {names[-1]}. "
        f"A {config['architecture']['name']} with features and logits in one pass, so that Grad-CAM++ shows at once "
        "what in the picture made it say so.",
        "```python\nfrom twincar import Predictor\n\n"
        'answer = Predictor.from_pretrained("user/repo")("photo.jpg")  # or this folder\n'
        'print(answer.top(5))\nanswer.overlay().save("why.png")\n```',
    ]
    if scores:
        rows = [f"| {words} | {_with_interval(scores, key)} |" for key, words in SHOWN if key in scores]
        parts += [
            "## How good it is",
            f"On {scores['pictures']} {scores['split']} pictures that no training step saw"
            + (", with 95 % bootstrap intervals:" if any(f"{key}_interval" in scores for key, _ in SHOWN) else ":"),
            "\n".join(["| measure | value |", "| --- | --- |", *rows]),
        ]
        if scores.get("command"):
            parts.append(f"Measured with `{scores['command']}`.")
        if scores.get("remark"):
            parts.append(scores["remark"])
    if training:
        parts.append("## How it was trained")
        parts.append(" ".join(training[key] for key in ("how", "start", "left_out") if training.get(key)))
    parts += [
        "## Input",
        f"An upright RGB photo of a car, squashed to {size} by {size} pixels"
        + (", read together with its mirror image" if config["input"].get("flip") else "")
        + ", ImageNet mean and deviation taken out. It was trained on cars cut out with 16 pixels of context: a photo "
        "that the car fills is answered best.",
        "## Limits",
        LIMITS + _calibration(config),
    ]
    if config.get("notice"):
        parts += ["## Licence", config["notice"]]
    return "\n\n".join(parts) + "\n"


def _calibration(config: dict) -> str:
    if "temperature" not in config:
        return " Its probabilities are the network's own and not calibrated."
    return (
        f" Its probabilities are scaled by one temperature, {config['temperature']:.2f}, fitted on the val pictures "
        "(arXiv:1706.04599); on photos unlike those they may promise too much."
    )


def _with_interval(scores: dict, key: str) -> str:
    if f"{key}_interval" not in scores:
        return f"{scores[key]:.1%}"
    low, high = scores[f"{key}_interval"]
    return f"{scores[key]:.1%} ({low:.1%} to {high:.1%})"

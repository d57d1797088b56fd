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
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(config)}"))


def figures(config: dict) -> list[tuple[str, str, str]]:
    """The headline figures as (measure, value, 95 % interval or ""), for the card and for pages that show them."""
    scores = config.get("scores", {})
    return [(words, f"{scores[key]:.1%}", _interval(scores, key)) for key, words in SHOWN if key in scores]


def sections(config: dict) -> dict[str, str]:
    """Title -> Markdown of what the card says under it, in order; sections that the config tells nothing for are
    left out."""
    scores, training = config.get("scores", {}), config.get("training", {})
    size = config["input"]["size"]
    found = {}
    if scores:
        measured = figures(config)
        rows = [f"| {words} | {value} ({interval}) |" if interval else f"| {words} | {value} |"
                for words, value, interval in measured]  # fmt: skip
        parts = [measured_on(config), "\n".join(["| measure | value |", "| --- | --- |", *rows])]
        if scores.get("command"):
            parts.append(f"Measured with `{scores['command']}`.")
        if scores.get("remark"):
            parts.append(scores["remark"])
        found["How good it is"] = "\n\n".join(parts)
    if training:
        found["How it was trained"] = " ".join(
            training[key] for key in ("how", "start", "left_out") if training.get(key)
        )
    found["Input"] = (
        f"An upright RGB photo of a car, squashed to {size} by {size} pixels"
        + (", read together with its mirror image" if config["input"].get("flip") else "")
        + ", ImageNet mean and deviation taken out. It was trained on cars cut out with 16 pixels of context: a photo "
        "that the car fills is answered best."
    )
    found["Limits"] = LIMITS + _calibration(config)
    if config.get("notice"):
        found["Licence"] = config["notice"]
    return found


def measured_on(config: dict) -> str:
    """The sentence in front of the figures: on how many pictures of which split."""
    scores = config["scores"]
    return f"On {scores['pictures']} {scores['split']} pictures that no training step saw" + (
        ", with 95 % bootstrap intervals:" if any(interval for *_, interval in figures(config)) else ":"
    )


def _text(config: dict) -> str:
    names = config["class_names"]
    parts = [
        f"# {config.get('name', 'twincar')}",
        f"Names the make, model and year of a car in a photo: {len(names)} classes, from {names[0]} to {names[-1]}. "
        f"A {config['architecture']['name']} with features and logits in one pass, so that Grad-CAM++ shows at once "
        "what in the picture made it say so.",
        "```python\nfrom twincar import Predictor\n\n"
        'answer = Predictor.from_pretrained("user/repo")("photo.jpg")  # or this folder\n'
        'print(answer.top(5))\nanswer.overlay().save("why.png")\n```',
    ]
    for title, text in sections(config).items():
        parts += [f"## {title}", text]
    return "\n\n".join(parts) + "\n"


def _calibration(config: dict) -> str:
    if "temperature" not in config:
        return " Its probabilities are the network's own and not calibrated."
    return (
        f" Its probabilities are scaled by one temperature, {config['temperature']:.2f}, fitted on the val pictures "
        "(arXiv:1706.04599); on photos unlike those they may promise too much."
    )


def _interval(scores: dict, key: str) -> str:
    if f"{key}_interval" not in scores:
        return ""
    low, high = scores[f"{key}_interval"]
    return f"{low:.1%} to {high:.1%}"

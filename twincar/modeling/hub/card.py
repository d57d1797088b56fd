"""The model card of a published model, written from its config alone: no figure in it is typed by hand."""

from huggingface_hub import EvalResult, ModelCard, ModelCardData

METRICS = {  # score -> its type and words in the model-index, as the Hub's metrics are called, and their arguments
    "top1": ("accuracy", "Top-1 accuracy", None),
    "top3": ("accuracy", "Top-3 accuracy", {"top_k": 3}),
    "top5": ("accuracy", "Top-5 accuracy", {"top_k": 5}),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy", None),
    "f1_macro": ("f1", "Macro F1", {"average": "macro"}),
    "f1_weighted": ("f1", "Weighted F1", {"average": "weighted"}),
    "precision_macro": ("precision", "Macro precision", {"average": "macro"}),
    "precision_weighted": ("precision", "Weighted precision", {"average": "weighted"}),
    "recall_macro": ("recall", "Macro recall", {"average": "macro"}),
    "recall_weighted": ("recall", "Weighted recall", {"average": "weighted"}),
    "jaccard_macro": ("jaccard", "Macro Jaccard index", {"average": "macro"}),
    "mcc": ("matthews_correlation", "Matthews correlation coefficient", None),
    "kappa": ("cohen_kappa", "Cohen's kappa", None),
    "hamming_loss": ("hamming_loss", "Hamming loss", None),
}

SHOWN = ("top1", "top3", "top5", "f1_macro", "balanced_accuracy")  # in the card's table

# torchvision's ImageNet weights that `--init imagenet` starts from, by the name under which timm keeps them on the Hub.
BASE_MODELS = {
    "resnet18": "timm/resnet18.tv_in1k",
    "resnet34": "timm/resnet34.tv_in1k",
    "resnet50": "timm/resnet50.tv2_in1k",
}

LIMITS = (
    "It knows the cars it was trained on and no others; any other car, or no car at all, gets the nearest look. "
    "Cars that differ by trim or year alone are often taken for one another."
)


def model_card(config: dict, repo: str = "user/repo", widget: list[dict] | None = None) -> str:
    """Markdown with the Hub's metadata in front. Works for any config; what the config does not tell is left out.

    repo : the name under which it will lie on the Hub, for the example in it.
    widget : example pictures of the repo with the model's answers, for the Hub to show: {"src", "output"} each.
    """
    scores, training = config.get("scores", {}), config.get("training", {})
    data = ModelCardData(
        library_name="twincar",
        pipeline_tag="image-classification",
        **_licence(config),
        tags=["image-classification", "cars", "grad-cam", config["architecture"]["name"]],
        base_model=_base_model(config["architecture"]["name"], training),
        widget=widget,
        datasets=[training["dataset_repo"]] if "dataset_repo" in training else None,
        model_name=config.get("name", "twincar"),
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=training.get("dataset_repo", "imagefolder"),
                dataset_name=training.get("dataset", "the prepared data"),
                dataset_split=scores["split"],
                metric_type=kind,
                metric_name=words,
                metric_args=arguments,
                metric_value=round(scores[key], 4),
            )
            for key, (kind, words, arguments) in METRICS.items()
            if key in scores
        ]
        or None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(config, repo)}"))


def _licence(config: dict) -> dict[str, str]:
    """A config's `license` is one that the Hub has a name for; `license_name` is another, whose text is in LICENSE."""
    if config.get("license_name"):
        return {"license": "other", "license_name": config["license_name"], "license_link": "LICENSE"}
    return {"license": config["license"]} if config.get("license") else {}


def _base_model(architecture: str, training: dict) -> str | None:
    """The model on the Hub that training started from, where there is one; a file of weights has no name there."""
    return training.get("base_model") or (BASE_MODELS.get(architecture) if training.get("init") == "imagenet" else None)


def figures(scores: dict) -> list[tuple[str, str, str]]:
    """The headline figures as (measure, value, 95 % interval or ""), for the card and for pages that show them."""
    return [(METRICS[key][1], f"{scores[key]:.1%}", _interval(scores, key)) for key in SHOWN if key in scores]


def figures_table(scores: dict) -> str:
    """The headline figures as a table in Markdown."""
    rows = [f"| {words} | {value} ({interval}) |" if interval else f"| {words} | {value} |"
            for words, value, interval in figures(scores)]  # fmt: skip
    return "\n".join(["| measure | value |", "| --- | --- |", *rows])


def sections(config: dict) -> dict[str, str]:
    """Title -> Markdown of what the card says under it, in order; sections that the config tells nothing for are
    left out."""
    scores, training = config.get("scores", {}), config.get("training", {})
    size = config["input"]["size"]
    found = {}
    if scores:
        parts = [measured_on(config), figures_table(scores)]
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
        + ", less the mean and over the deviation in `config.json`. It was trained on cars cut out with 16 pixels of "
        "context: a photo that the car fills is answered best."
    )
    found["Limits"] = LIMITS + _calibration(config)
    if rounded := config.get("int8"):
        found["In 8 bits"] = (
            "Where OpenVINO is faster with them, the network's convolutions are computed in 8-bit integers, in the "
            f"ranges that `config.json` tells: top-1 is then {rounded['top1']:.1%} instead of "
            f"{rounded['top1_before']:.1%} on {rounded['pictures']} val pictures, and the best class is the same for "
            f"{rounded['same']:.1%} of them. "
            "`TWINCAR_ENGINE=openvino:f32` computes as the figures above were measured."
        )
    if learnt := config.get("knowledge"):
        found["What it knows beside its cars"] = (
            "`knowledge.safetensors`, learnt from the same features, tells where in a photo the car is, whether there "
            "is one at all, and whether it may be one of these: thresholds on two scores, set so that "
            f"{learnt['false_alarms']:.0%} of the val pictures fall below each.\n\n" + _doubts(learnt)
        )
    if config.get("notice"):
        found["Licence"] = config["notice"]
    return found


def _doubts(learnt: dict) -> str:
    """Scores from which the two doubts could be raised, as tables in Markdown; the first of each is what is used."""
    titles = {
        "not_a_car": f"Told from the val pictures: {learnt['not_cars']} photos without a car",
        "left_out_class": "Told from the val pictures: those of classes taken from it, though not from its training",
    }
    parts = []
    for key, title in titles.items():
        rows = [f"| {row['score']} | {row['auroc']:.3f} | {row['fpr95']:.1%} |" for row in learnt.get(key, ())]
        if rows:
            heads = [f"| {title} | AUROC | false positives at 95 % true positives |", "| --- | --- | --- |"]
            parts.append("\n".join(heads + rows))
    return "\n\n".join(parts)


def measured_on(config: dict) -> str:
    """The sentence in front of the figures: on how many pictures of which split."""
    scores = config["scores"]
    return f"On {scores['pictures']} {scores['split']} pictures that no training step saw" + (
        ", with 95 % bootstrap intervals:" if any(interval for *_, interval in figures(scores)) else ":"
    )


def _text(config: dict, repo: str) -> str:
    names = config["class_names"]
    parts = [
        f"# {config.get('name', 'twincar')}",
        f"Names the make, model and year of a car in a photo: {len(names)} classes, from {names[0]} to {names[-1]}. "
        f"A {config['architecture']['name']} with features and logits in one pass, so that Grad-CAM++ shows at once "
        "what in the picture made it say so.",
        "```python\nfrom twincar import Predictor\n\n"
        f'answer = Predictor.from_pretrained("{repo}")("photo.jpg")  # or this folder\n'
        'print(answer.top(5))\nanswer.overlay().save("why.png")\n```',
    ]
    for title, text in sections(config).items():
        parts += [f"## {title}", text]
    return "\n\n".join(parts) + "\n"


def _calibration(config: dict) -> str:
    if "calibration" not in config:
        return " Its probabilities are the network's own and not calibrated."
    temperature = config["calibration"]["temperature"]
    return (
        f" Its probabilities are scaled by one temperature, {temperature:.2f} (arXiv:1706.04599), "
        "and the first guess's by Platt's two parameters (arXiv:2107.08353), all fitted on the val pictures; on photos "
        "unlike those they may promise too much."
    )


def _interval(scores: dict, key: str) -> str:
    if f"{key}_interval" not in scores:
        return ""
    low, high = scores[f"{key}_interval"]
    return f"{low:.1%} to {high:.1%}"

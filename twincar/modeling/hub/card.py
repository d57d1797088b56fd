"""Model card of a published model, generated only from its config.json, so that no number is typed by hand."""

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from twincar.modeling.hub.download import part_files
from twincar.text import percent

METRICS = {  # score -> type on the Hub, name and arguments of the metric in the card's model-index
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

HEADLINES = ("top1", "top3", "top5", "f1_macro", "balanced_accuracy")  # scores of the card's table

# Hub names of the torchvision ImageNet weights that `--init imagenet` starts from.
BASE_MODELS = {
    "resnet18": "timm/resnet18.tv_in1k",
    "resnet34": "timm/resnet34.tv_in1k",
    "resnet50": "timm/resnet50.tv2_in1k",
}


def model_card(config: dict, repo: str = "user/repo", widget: list[dict] | None = None, timm: bool = False) -> str:
    """Generate a model card: Markdown with the Hub's metadata as front matter.

    Args:
        config: Content of config.json. Sections for which it has no data are left out.
        repo: Name of the repo on the Hub, for the usage example.
        widget: Example pictures of the repo with the model's predictions, for the Hub to display: a dict with the keys
            "src" and "output" for each.
        timm: Whether timm and transformers can load the model, see `timm_layout.is_timm`.
    """
    scores, training = config.get("scores", {}), config.get("training", {})
    other_licence = config.get("license_name")  # one that the Hub has no name for; its text is in LICENSE
    data = ModelCardData(
        library_name="timm" if timm else "twincar",
        pipeline_tag="image-classification",
        license="other" if other_licence else config.get("license") or None,
        license_name=other_licence or None,
        license_link="LICENSE" if other_licence else None,
        tags=["image-classification", "cars", "grad-cam", "twincar", config["architecture"]["name"]],
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
                metric_name=name,
                metric_args=arguments,
                metric_value=round(scores[key], 4),
            )
            for key, (kind, name, arguments) in METRICS.items()
            if key in scores
        ]
        or None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(config, repo, timm)}"))


def _base_model(architecture: str, training: dict) -> str | None:
    """Hub name of the model that training started from, or None if it is not on the Hub."""
    return training.get("base_model") or (BASE_MODELS.get(architecture) if training.get("init") == "imagenet" else None)


def headline_scores(scores: dict) -> list[tuple[str, str, str]]:
    """Return (name, value, 95 % interval or "") of each of the HEADLINES in `scores`, formatted."""
    return [(METRICS[key][1], percent(scores[key]), _interval(scores, key)) for key in HEADLINES if key in scores]


def scores_table(scores: dict) -> str:
    """Return the headline scores as a Markdown table."""
    rows = [f"| {name} | {value} ({interval}) |" if interval else f"| {name} | {value} |"
            for name, value, interval in headline_scores(scores)]  # fmt: skip
    return "\n".join(["| measure | value |", "| --- | --- |", *rows])


def sections(config: dict) -> dict[str, str]:
    """Return the sections of the card in order, as title -> Markdown, without those the config has no data for."""
    texts = {
        "Results": _results(config),
        "Training": _training(config.get("training", {})),
        "Input": _input(config),
        "Limitations": _limitations(config),
        "8-bit inference": _int8(config.get("int8")),
        "Detector and open-set data": _parts(config),
        "Licence": config.get("notice"),
    }
    return {title: text for title, text in texts.items() if text}


def measured_on(config: dict) -> str:
    """Return the sentence that introduces the scores: how many pictures, of which split."""
    scores = config["scores"]
    split = {"val": "validation", "holdout": "held-out"}.get(scores["split"], scores["split"])
    return f"On {scores['pictures']:,} {split} pictures never used in training, cropped to the car" + (
        ", with 95\N{NO-BREAK SPACE}% bootstrap intervals:"
        if any(interval for *_, interval in headline_scores(scores))
        else ":"
    )


def _body(config: dict, repo: str, timm: bool) -> str:
    names = config["class_names"]
    parts = [
        f"# {config.get('name', 'twincar')}",
        f"Predicts the make, model and year of the car in a photo: {len(names)} classes, from {names[0]} to "
        f"{names[-1]}. The network, a {config['architecture']['name']}, returns features and logits in one pass, from "
        "which Grad-CAM++ shows the evidence for each prediction.",
        "```python\nfrom twincar import Predictor\n\n"
        f'answer = Predictor.from_pretrained("{repo}")("photo.jpg")  # or the path of this folder\n'
        'print(answer.top(5))\nanswer.overlay().save("overlay.png")\n```',
    ]
    if timm:
        parts.append(
            f"timm loads the network as `hf-hub:{repo}` and transformers as an `image-classification` pipeline; both "
            "return the classes only, for a photo that the car fills, with probabilities "
            + ("before Platt scaling." if _is_scaled(config) else "before calibration.")
        )
    else:
        parts.append("timm and transformers cannot load this network: its last layers are TwinCar's own.")
    for title, text in sections(config).items():
        parts += [f"## {title}", text]
    return "\n\n".join(parts) + "\n"


def _is_scaled(config: dict) -> bool:
    """Whether the temperature of the calibration is part of the last layer."""
    return abs(config.get("calibration", {}).get("temperature", 1.0) - 1) < 0.01


def _results(config: dict) -> str:
    scores, parts = config.get("scores"), []
    if scores:
        parts += [measured_on(config), scores_table(scores)]
        parts += [f"Measured with `{scores['command']}`."] if scores.get("command") else []
        parts += [scores["remark"]] if scores.get("remark") else []
    parts += [f"Measured elsewhere: {line}." for line in config.get("scores_elsewhere", ())]
    return "\n\n".join(parts)


def _training(training: dict) -> str:
    return " ".join(training[key] for key in ("how", "start", "left_out") if training.get(key))


def _input(config: dict) -> str:
    size = config["input"]["size"]
    return (
        f"An upright RGB photo of a car, resized to {size}×{size} pixels without keeping its aspect ratio"
        + (", and its mirror image," if config["input"].get("flip") else "")
        + " and normalized (see `config.json`). The training pictures were cropped to "
        "the car with 16 pixels of context, so photos that the car fills give the best results."
    )


def _limitations(config: dict) -> str:
    count = len(config["class_names"])
    if "open_set" in config:
        others = (
            f"The model has {count} classes and cannot name any other car. `is_known` rejects cars of other classes, "
            "`is_car` photos without a car, both with errors; cars unlike all training pictures may be harder to "
            "reject than those measured. `top` always returns the closest matches among the classes."
        )
    else:
        others = (
            f"The model has {count} classes and does not detect other cars or photos without a car: these get the "
            "closest match among its classes."
        )
    return f"{others} Classes that differ only in trim or year are often confused. {_calibration(config)}"


def _calibration(config: dict) -> str:
    if "calibration" not in config:
        return "The probabilities are those of the network, without calibration."
    return (
        f"Probabilities are calibrated with a temperature of {config['calibration']['temperature']:.2f} "
        "(arXiv:1706.04599), the highest one also with Platt scaling (arXiv:2107.08353), both fitted on the val "
        "pictures; for other kinds of photos they may be too high."
    )


def _int8(int8: dict | None) -> str:
    if not int8:
        return ""
    return (
        "Where it is faster, OpenVINO computes the network's convolutions in 8-bit integers, with the activation "
        f"ranges in `config.json`. Top-1 accuracy is then {percent(int8['top1'])} instead of "
        f"{percent(int8['top1_before'])} on {int8['pictures']} val pictures, and the predicted class is the same for "
        f"{percent(int8['same'])} of them. Set `TWINCAR_ENGINE=openvino:f32` for single precision, in which the "
        "results above were measured."
    )


def _parts(config: dict) -> str:
    """Describe the detector and the open-set data, and list the AUROC of the OOD scores."""
    files, parts = part_files(config), []
    if "detector" in files:
        figures = config["detector"]
        text = f"`{files['detector']}` finds the cars in a photo from the network's features."
        if "found" in figures:
            text += (
                f" Of {figures['cars']} cars of val pictures, none to six of them pasted onto photos without cars in "
                f"{figures['val_scenes']} scenes, it finds {percent(figures['found'])} (IoU above 0.5), with a mean "
                f"IoU of {figures['mean_iou']:.3f}; many of them are small or partly hidden. It finds a box in "
                f"{percent(figures['false_alarms'])} of the held-out pictures without cars; the open-set data reject "
                "most of these boxes. Only its threshold was set on these pictures."
            )
        parts.append(text)
    if "open_set" in files:
        figures = config["open_set"]
        text = (
            f"`{files['open_set']}` holds the class means and the thresholds of `is_car`, on a linear score of the "
            "mean features, scaled to unit length, and of `is_known`, on the energy of the logits."
        )
        if "not_cars_accepted" in figures:
            text += (
                f" `is_car` rejects {percent(figures['cars_rejected'])} of the val pictures and accepts "
                f"{percent(figures['not_cars_accepted'])} of the photos without cars; `is_known` rejects "
                f"{percent(figures['false_alarms'], 0)} of the val pictures."
            )
        elif "false_alarms" in figures:
            text += f" Each threshold rejects {percent(figures['false_alarms'], 0)} of the val pictures."
        parts.append(text)
        titles = {
            "not_a_car": f"No-car detection: {figures.get('not_cars')} photos without a car against the val pictures",
            "left_out_class": "Unknown-class detection: classes removed from the head only "
            "(the network was trained on them)",
        }
        for key, title in titles.items():
            if rows := figures.get(key):
                parts += [f"{title}:", _auroc_table(rows)]
    if "class_statistics" in files:
        parts.append(_classes(config, files["class_statistics"]))
    return "\n\n".join(parts)


def _classes(config: dict, file: str) -> str:
    """Describe the class statistics, and list the classes that were added or removed."""
    figures = config["class_statistics"]
    text = (
        f"`{file}` holds class means and the covariance of the features of {figures['pictures']:,} training pictures, "
        "with which `twincar add-classes` adds classes from a few photos each, without training."
    )
    if figures.get("replaced", True):
        text += " The last layer is computed from them in closed form (linear discriminant analysis)."
    if added := config.get("added_classes"):
        listed = "; ".join(f"{name} ({facts['photos']} photos, {facts['date']})" for name, facts in added.items())
        text += f" Added in this way, and not part of the scores above: {listed}."
    if removed := config.get("removed_classes"):
        text += f" Removed, though the network was trained on them: {'; '.join(removed)}."
    return text


def _auroc_table(rows: list[dict]) -> str:
    lines = [f"| {row['score']} | {row['auroc']:.3f} | {percent(row['fpr95'])} |" for row in rows]
    return "\n".join(
        ["| score | AUROC | false positives at 95\N{NO-BREAK SPACE}% true positives |", "| --- | --- | --- |", *lines]
    )


def _interval(scores: dict, key: str) -> str:
    if f"{key}_interval" not in scores:
        return ""
    low, high = scores[f"{key}_interval"]
    return f"{percent(low)} to {percent(high)}"

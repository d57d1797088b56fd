"""Read the config of a model folder."""

import json
from pathlib import Path

from twincar.modeling.hub.download import upgrade_config


def config_of(folder: Path) -> dict:
    return upgrade_config(json.loads((folder / "config.json").read_text()))

"""The JSON schema of an answer, as `describe.as_dict` returns it; `docs/answer.schema.json` is a copy.

python -m twincar.ui.api_schema > docs/answer.schema.json
"""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from twincar.modeling.inference.describe import STATES

Pixels = Annotated[
    tuple[int, int, int, int], Field(description="left, top, right, bottom, in pixels of the upright photo")
]
Probability = Annotated[float, Field(ge=0, le=1)]
State = Literal["car", "model", "make", "unsure", "unknown_car", "no_car"]


class Guess(BaseModel):
    """One class of the model, and the parts of its name."""

    class_name: str
    make: str
    model: str
    body: Annotated[str, Field(description="the body style; empty if the name has none")]
    year: int | None
    probability: Probability


class Make(BaseModel):
    """One make, with the probability summed over its classes."""

    make: str
    probability: Probability


class Car(BaseModel):
    """The answer for one car."""

    said: Annotated[str, Field(description="the answer in one or two sentences")]
    state: Annotated[State, Field(description="; ".join(f"{name}: {meaning}" for name, meaning in STATES.items()))]
    top: Annotated[list[Guess], Field(description="the most probable classes, best first")]
    makes: Annotated[list[Make], Field(description="the three most probable makes, best first")]
    is_known: Annotated[
        bool | None, Field(description="false if it is probably none of the classes; null without open-set data")
    ]
    box: Annotated[Pixels | None, Field(description="the car; null where the whole photo was read")]


class Model(BaseModel):
    """The model that answered."""

    name: str
    version: Annotated[
        str | None, Field(description="changes with the model's weights; null from an unpublished model")
    ]


class Answer(Car):
    """The answer for a photo: for its largest car, and under `cars` for each of them."""

    is_car: Annotated[bool | None, Field(description="false if there is no car; null without open-set data")]
    others: Annotated[list[Pixels], Field(description="boxes of the other cars")]
    cars: Annotated[list[Car], Field(description="every car, largest first; empty if there is none")]
    model: Model
    version: Annotated[str, Field(description="semantic version of twincar")]
    overlay: Annotated[
        str, Field(description="with `overlay=jpeg`: the evidence for the first class, as a data URL")
    ] = ""


def schema() -> dict:
    """The schema as a JSON document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Answer.model_json_schema()}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))

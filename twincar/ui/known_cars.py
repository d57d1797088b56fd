"""The list of the cars that a model can name, grouped by make, with a search box; page.js filters it."""

from collections.abc import Sequence
from html import escape
from itertools import groupby

from twincar.config import parse_class_name
from twincar.text import count


def known_cars(class_names: Sequence[str]) -> str:
    """The classes as HTML, closed at first."""
    cars = sorted((parse_class_name(name) for name in class_names), key=lambda car: (car.make, car.class_name))
    groups = []
    for make, members in groupby(cars, key=lambda car: car.make):
        rows = "".join(
            f"<li>{escape(car.class_name.removeprefix(make).strip() or car.class_name)}</li>" for car in members
        )
        groups.append(f'<section data-make="{escape(make.lower())}"><h3>{escape(make)}</h3><ul>{rows}</ul></section>')
    return (
        f"<details><summary>{count(len(cars), 'car')} it can name</summary>"
        '<label>Search <input type="search" placeholder="make, model, body or year"></label>'
        f'<p class="count" role="status">{count(len(cars), "car")}</p><div>{"".join(groups)}</div></details>'
    )

"""Class names and their parsing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twincar.config import BODIES, STANFORD_CARS, canonical_class_name, parse_class_name, stanford_name


def test_stanford_cars_has_196_distinct_names_also_as_folders():
    assert len(STANFORD_CARS) == 196
    assert len({canonical_class_name(name) for name in STANFORD_CARS}) == 196
    assert not any("/" in canonical_class_name(name) for name in STANFORD_CARS)


@pytest.mark.parametrize("name", STANFORD_CARS)
def test_every_name_equals_its_joined_parts(name):
    car = parse_class_name(name)
    assert car.class_name == name
    assert car.make and car.model and 1990 <= car.year <= 2013
    with_body = f"{car.make} {car.model} {car.body} {car.year}"
    body_in_model = f"{car.make} {car.model} {car.year}"  # "Infiniti G Coupe IPL 2012", and names without a body
    assert name == with_body or (name == body_in_model and (not car.body or car.body in car.model))


@pytest.mark.parametrize(
    ("name", "make", "model", "body", "year"),
    [
        ("AM General Hummer SUV 2000", "AM General", "Hummer", "SUV", 2000),
        ("Ram C/V Cargo Van Minivan 2012", "Ram", "C/V Cargo Van", "Minivan", 2012),
        ("smart fortwo Convertible 2012", "smart", "fortwo", "Convertible", 2012),
        ("Infiniti G Coupe IPL 2012", "Infiniti", "G Coupe IPL", "Coupe", 2012),
        ("Aston Martin V8 Vantage", "Aston Martin", "V8 Vantage", "", None),
        ("beetle", "beetle", "", "", None),
        ("2012 Acura RL Sedan", "Acura", "RL", "Sedan", 2012),
        ("0001 AM General Hummer SUV 2000", "AM General", "Hummer", "SUV", 2000),
        ("acura_rl_sedan_2012", "Acura", "RL", "Sedan", 2012),
        ("Acura-RL-Sedan-2012", "Acura", "RL", "Sedan", 2012),
        ("BMW$$M3$$2012", "BMW", "M3", "", 2012),
        ("0007 2013 Lada Niva SUV", "Lada", "Niva", "SUV", 2013),
        ("12. Lada Niva", "Lada", "Niva", "", None),
        ("mercedes_benz_a_class_2015", "Mercedes-Benz", "a class", "", 2015),
        ("Mercedes-Benz A-Class 2015", "Mercedes-Benz", "A-Class", "", 2015),
        ("Citroe\u0308n 2CV 1948", "Citro\u00ebn", "2CV", "", 1948),
        ("Peugeot 2008 2013", "Peugeot", "2008", "", 2013),
        ("9ff GT9 2008", "9ff", "GT9", "", 2008),
        ("", "", "", "", None),
    ],
)
def test_examples(name, make, model, body, year):
    assert parse_class_name(name).as_dict() == {
        "class_name": name, "make": make, "model": model, "body": body, "year": year,
    }  # fmt: skip


@pytest.mark.parametrize("name", STANFORD_CARS)
def test_the_196_are_recognized_in_every_spelling(name):
    first, last = name[:-5], name[-4:]
    for text in (f"{last} {first}", f"0001 {name}", f"196.{name}", name.replace(" ", "$$"), f"{last}_{first}".lower()):
        for spelling in (text, text.replace(" ", "_"), text.replace(" ", "-"), text.replace("/", "-"), text.upper()):
            assert stanford_name(spelling) == name
            assert canonical_class_name(spelling) == canonical_class_name(name)
            assert parse_class_name(spelling).make == parse_class_name(name).make


@given(st.text())
def test_any_text_can_be_parsed(text):
    car = parse_class_name(text)
    assert car.class_name == text
    assert car.body in ("", *BODIES)
    assert car.year is None or 1900 <= car.year <= 2099


@given(st.text())
def test_canonical_names_are_idempotent(text):
    once = canonical_class_name(text)
    assert "/" not in once
    assert canonical_class_name(once) == once

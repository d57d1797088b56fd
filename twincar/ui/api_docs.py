"""Descriptions for programs: the page /api/docs, and those of the tools for assistants (MCP).

The page is the OpenAPI description of the REST API as plain HTML, which loads nothing.
"""

import inspect
import json
from collections.abc import Callable, Iterable
from html import escape
from typing import Any

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#271e36;
background:#faf8fc}h1 small{font-size:1rem;font-weight:400}h2{margin-top:2.5rem}a{color:#5f2f96}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}table{border-collapse:collapse}
pre{background:#f3f0f7;padding:.75rem;overflow-x:auto;border-radius:.5rem}
td,th{text-align:left;padding:.25rem 1rem .25rem 0;vertical-align:top;border-bottom:1px solid #e5e0ec}
@media(prefers-color-scheme:dark){body{color:#ece4f6;background:#120c1c}pre{background:#221830}a{color:#d0b4f5}
td,th{border-color:#3f3550}}"""


def tool_description(function: Callable) -> str:
    """The docstring of a function as one paragraph, without its arguments, which are described one by one.

    Gradio itself puts a comma between any two lines of what the function returns.
    """
    summary, _, rest = (inspect.getdoc(function) or "").partition("\n\nArgs:")
    returns = rest.partition("Returns:\n")[2]
    return f"{' '.join(summary.split())} Returns: {' '.join(returns.split())}"


def docs_page(openapi: dict[str, Any]) -> str:
    """Render an OpenAPI description."""
    info = openapi["info"]
    calls = [
        _call(path, method.upper(), call)
        for path, methods in openapi["paths"].items()
        for method, call in methods.items()
    ]
    schemas = openapi["components"]["schemas"].items()
    objects = "".join(
        f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{_code(schema.get("description", ""))}</p>{_fields(schema)}'
        for name, schema in schemas
        if "properties" in schema
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])}</p>"
        "<pre>curl -F photo=@photo.jpg HOST/api/identify</pre>"
        '<p>The same as <a href="openapi.json">OpenAPI</a>, for programs.</p>'
        f"{''.join(calls)}<h2>Objects</h2>{objects}</html>"
    )


def _call(path: str, method: str, call: dict[str, Any]) -> str:
    parameters = _table(
        (parameter["name"], _type(parameter["schema"]), _default(parameter), _code(parameter.get("description", "")))
        for parameter in call.get("parameters", [])
    )
    bodies = ", ".join(f"<code>{escape(kind)}</code>" for kind in call.get("requestBody", {}).get("content", {}))
    responses = _table(
        (status, _type(response.get("content", {}).get("application/json", {}).get("schema", {})))
        for status, response in call["responses"].items()
    )
    return (
        f"<h2>{method} /api{escape(path)}</h2><p>{_code(call['description'])}</p>"
        + (f"<p>Body: {bodies}</p>" if bodies else "")
        + (f"<h3>Parameters</h3>{parameters}" if parameters else "")
        + f"<h3>Responses</h3>{responses}"
    )


def _fields(schema: dict[str, Any]) -> str:
    return _table(
        (name, _type(field), _code(field.get("description", ""))) for name, field in schema["properties"].items()
    )


def _type(schema: dict[str, Any]) -> str:
    """A type as HTML, with a link to the object that it names."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(
            f"<code>{escape(json.dumps(value))}</code>" for value in schema.get("enum", [schema.get("const")])
        )
    if schema.get("type") == "array":
        inner = _type(schema.get("items") or schema.get("prefixItems", [{}])[0])
        return f"list of {schema['minItems']} {inner}" if "minItems" in schema else f"list of {inner}"
    return escape(schema.get("type", ""))


def _default(parameter: dict[str, Any]) -> str:
    default = parameter["schema"].get("default")
    return "" if default is None else f"by default {escape(str(default))}"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    """A table of rows of a name and HTML; "" without rows."""
    body = "".join(
        f"<tr><th><code>{escape(name)}</code></th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return f"<table>{body}</table>" if body else ""


def _code(text: str) -> str:
    """Text as HTML, with the parts in backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))

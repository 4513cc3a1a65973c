"""Draw the page: one self-contained HTML file from the facts of report.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from diglot.steps.report_page.charts import duration
from diglot.steps.report_page.language_names import language_name
from diglot.steps.report_page.view import build_view

CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


def render(facts: Mapping[str, Any]) -> str:
    """HTML without any reference to other files, scripts or hosts. Texts of documents and models are escaped."""
    environment = Environment(
        loader=PackageLoader("diglot.steps", "report_page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
    )
    environment.filters |= {
        "num": lambda value: f"{value:,}",
        "dec": lambda value, digits=3: "" if value is None else f"{value:.{digits}f}",
        "pct": lambda value, digits=1: "" if value is None else f"{100 * value:.{digits}f} %",
        "bytes": bytes_text,
        "duration": duration,
        "language": language_name,
        "is_link": is_link,
        "spaced": lambda text: text.replace("_", " "),
    }
    source = environment.loader.get_source(environment, "style.css")[0] if environment.loader else ""
    return environment.get_template("page.html.j2").render(r=build_view(facts), style=Markup(source))


def is_link(address: str | None) -> bool:
    """Whether an address may be followed from the page: crawled ones can be anything, also scripts."""
    return (address or "").startswith(("https://", "http://", "file:///"))


def _visible(value: Any) -> Any:
    """Control characters, which a model may write and HTML forbids, as their pictures."""
    return value.translate(CONTROL_PICTURES) if isinstance(value, str) and not isinstance(value, Markup) else value


def bytes_text(count: float) -> str:
    """Bytes for people, in powers of 1000: 0 B, 12 kB, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if count >= 99.5 or unit == "B" else f"{count:.2g} {unit}"
        count /= 1000
    raise AssertionError("the loop returns at GB")

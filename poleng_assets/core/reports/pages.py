"""Templates of the HTML pages, which open without a network.

The content of each page is in its own module (``core/reports/drift_report.py``, ``core/reports/overview.py``,
``core/reports/model_card.py``), its layout in ``templates/``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from poleng_assets.text.plain_text import visible

if TYPE_CHECKING:
    import jinja2


@cache
def template(name: str) -> jinja2.Template:
    """Return the template of a page, compiled once for each process; values are escaped.

    Raises:
        jinja2.TemplateNotFound: there is no such file in ``templates/``.
    """
    return _templates().get_template(name)


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("poleng_assets.core.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )


def _shown(value: object) -> object:
    """Return a value with invisible and bidirectional control characters made visible."""
    return visible(value) if type(value) is str else value  # what is markup already is another type

"""Describes the parameters of generation for the page's form: groups, help texts, types and bounds."""

from __future__ import annotations

from typing import Any

from decodery.decoding.processors.pipeline import PROCESSORS
from decodery.decoding.request.panels import PANELS
from decodery.decoding.request.plain import FORMS
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.serving.schemas.values import objects, parameters

# The headings of the fields that hold objects.
HEADINGS = {
    "strategy": "Strategy",
    "grammar": "Grammar",
    "speculate": "Speculation",
    "watermark": "Watermark",
}


def parameter_form() -> dict[str, Any]:
    """Returns the `panels` with the names of their fields, JSON schemas, and the names of the `processors`.

    `parameters` has the schema of each field, and `objects` those of the objects that a field may hold, by
    field and type. `processors` has the `order` in which they run, and those `shaping` what is sampled.
    """
    schemas, of_classes = parameters(), objects()
    of_fields = {
        name: {kind_name: of_classes[kind.__name__] for kind_name, kind in form.kinds.items()}
        for name, form in FORMS.items()
    }
    panels = {**{HEADINGS[name]: [name] for name in FORMS}, **PANELS}
    shaping = [name for name in DEFAULT_ORDER if PROCESSORS[name].shapes]
    processors = {"order": list(DEFAULT_ORDER), "shaping": shaping}
    return {"panels": panels, "parameters": schemas, "objects": of_fields, "processors": processors}

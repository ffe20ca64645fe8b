"""`python -m tests.renders`: today's table of figures by group, into docs/observations.md."""

from __future__ import annotations

from appliance.inference.inspect import report_on
from appliance.inference.models import load_models
from tests.renders.table import DOCS, FOLDER, write

write(report_on(FOLDER, load_models()))
print(f"{DOCS}: written")

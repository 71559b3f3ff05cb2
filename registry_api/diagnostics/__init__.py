"""What `doctor` and `metrics` report."""

from registry_api.diagnostics.doctor import RECOUNT, Diagnosis, examine
from registry_api.diagnostics.prometheus import metrics

__all__ = ["RECOUNT", "Diagnosis", "examine", "metrics"]

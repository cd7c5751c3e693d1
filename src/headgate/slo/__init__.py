"""Availability: objectives with error budgets, burn rates and alerts; nines, downtime and redundancy."""

from headgate._base.backend import backend
from headgate.slo._alerts import Alert
from headgate.slo._numbers import downtime, k_of_n, nines, parallel, replicas, series
from headgate.slo._terms import AlertRule

TYPE_CHECKING = False
if TYPE_CHECKING or backend == "compiled":
    from headgate.slo._compiled import SLO
else:
    from headgate.slo._pure import SLO

__all__ = ["SLO", "Alert", "AlertRule", "downtime", "k_of_n", "nines", "parallel", "replicas", "series"]

"""The one description of a document: all sections and their fields."""

from headgate.config.fields._caching import CACHES, HOTKEYS, HTTP_CACHES, NEAR
from headgate.config.fields._field import REQUIRED, Field, Record, Section
from headgate.config.fields._http import HTTP
from headgate.config.fields._limiting import (
    BUCKETS,
    CONCURRENCY,
    LEVELS,
    LIMITS,
    OBJECTIVES,
    RETRY_BUDGETS,
    STORES,
    THROTTLES,
)
from headgate.config.fields._placing import BALANCERS, PLACEMENTS

__all__ = ["HTTP", "REQUIRED", "SECTIONS", "Field", "Record", "Section"]

SECTIONS: dict[str, Section] = {
    section.name: section
    for section in (
        CACHES, NEAR, LIMITS, LEVELS, BUCKETS, THROTTLES, PLACEMENTS, BALANCERS, RETRY_BUDGETS, CONCURRENCY,
        OBJECTIVES, HOTKEYS, HTTP_CACHES, STORES,
    )
}
"""The sections of named objects, in the order of the documentation."""

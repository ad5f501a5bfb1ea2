"""What a model consists of and does."""

from __future__ import annotations

from .counts import Count, counts, table

__all__ = ["Count", "counts", "table"]

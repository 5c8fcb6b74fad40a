"""One search: its objective, its schedule, its solvers, and the images that judge its masks."""

from captum_classpattern.optimization.search import SearchResult, search_masks

__all__ = ["SearchResult", "search_masks"]

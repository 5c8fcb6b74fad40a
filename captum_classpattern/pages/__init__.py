"""Results as HTML: notebooks, single pages, the report of a comparison, and the gallery."""

"""Results as HTML: notebooks, single pages, sites, and the report of a comparison."""

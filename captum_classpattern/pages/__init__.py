"""Results as HTML: notebooks, single pages and sites."""

"""Reports: pages that open anywhere, with their pictures inside."""

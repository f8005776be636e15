"""Reports: figures, tables and pages that compare trials."""

"""A ServiceAccount in every namespace."""

"""The steps, by the schema version that each leads to."""

"""One folder a controller (or a few that share their plans)."""

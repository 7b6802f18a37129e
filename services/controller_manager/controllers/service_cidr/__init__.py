"""Says of each ServiceCIDR that it may be used, and keeps one that is deleted for as long as addresses need it."""

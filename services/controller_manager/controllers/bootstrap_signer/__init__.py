"""Signs the public cluster-info with every bootstrap token, so that whoever holds one can trust it."""

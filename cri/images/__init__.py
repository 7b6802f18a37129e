"""Images: references, what containerd has of them, pulling, unpacking, loading archives, building from a directory."""

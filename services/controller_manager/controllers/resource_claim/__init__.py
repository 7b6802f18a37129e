"""Claims to devices: made from templates for pods, given back when the last pod that used them has ended."""

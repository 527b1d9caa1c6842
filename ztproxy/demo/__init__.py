"""Everything at once on loopback, for trying it out."""

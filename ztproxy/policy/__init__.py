"""Decisions: Cedar policy sets loaded, linted, compiled to closures and evaluated; the route
table. Pure, synchronous, total."""

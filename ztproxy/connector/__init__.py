"""The connector: a small program beside applications that dials out and carries what its own list allows."""

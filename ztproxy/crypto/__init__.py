"""Formats and rules of cryptography: JOSE, SPIFFE ids, X.509 templates and checks, opaque ids. No I/O."""

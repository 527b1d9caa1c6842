"""Tamper-evident evidence: journals, the sealed log, verification, reading."""

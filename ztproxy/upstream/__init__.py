"""Reaching resources. Every dial demands a Permit."""

"""Protocols as pure readers and writers of bytes. No sockets, no clock, no randomness."""

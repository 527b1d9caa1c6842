"""The only sockets, TLS contexts, dialling, clocks and entropy."""

"""JOSE rules, SPIFFE ids, X.509 (template, signing, separate checker), opaque ids.

Pure and synchronous: time and entropy are arguments, nothing here reads a file, a clock or a socket.
"""

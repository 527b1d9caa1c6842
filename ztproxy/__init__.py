"""ztproxy: a zero trust remote access reverse proxy.

The map, lowest floor first; a room imports only rooms on lower floors:

    model          the words everybody uses: frozen values, nothing else
    policy         Cedar: load, lint, compile, decide, explain; the route table
    wire           HTTP/1.1 head and body rules, WebSocket handshakes: pure readers of bytes
    crypto         JOSE rules, SPIFFE ids, X.509 template and checker, opaque ids, hash chain
    net            the only sockets: listener, TLS, dialling, clock, control channel
    store          Records and Feed: SQLite, Redis
    telemetry      metric names, structured log
    trust          who asks and in what state: identity/, posture/, the worker's memory of both
    upstream       reaching resources; nothing is dialled without a Permit
    recording      journals, the sealed log, verify
    administrator  the one door (access), live paths, sessions, devices, issuing, audit
    gateway        the data plane: connection -> http -> relay; refusals
    portal, api    pages for people; JSON for agents and programs (in the control process)
    config         file -> strict, frozen settings -> checked
    service        supervisor, control and workers and their wiring
    agent          the device agent
    connector      the program beside applications that dials out and carries
    demo           everything at once on loopback
    cli            one command, many verbs
"""

__version__ = "0.1.0"

"""Measurements: what a request, a handshake, a stream and an idle connection cost, beside what others cost.

    run        everything, or ONLY=one part; writes results.json and a table     python -m bench.run
    quick      requests a second against nginx and Caddy, in under 50 seconds     python -m bench.quick
    connector  the same application through a connector and directly             python -m bench.connector
    throughput requests/s against everybody, with 64 and with 1,000 connections
    requests   proxies taking turns under the same load; CPU per request, latency
    handshakes, streams, websockets, memory, workers, scale   one part each
    ground     what all proxies stand on: application, auth services, certificate, processes
    products   one file for each proxy: its configuration and how it starts
    load       wrk; `clients` and `upstream` do what wrk and nginx can not
    ciphertext a download that is not decrypted
    machine    asks /proc; `pairs` is the arithmetic; `report` makes the table
    journal, policy   micro benchmarks by themselves
    autobahn, slow    not about speed: WebSocket verdicts, other people's latency under slow attacks

The proxy under test has core 0 to itself; load, application and this program have core 1.
How to read the figures: docs/performance.md.
"""

"""Everything at once on loopback: provider, applications, proxy, device. Started by `ztproxy demo`.

The story is `demo.run`; what it starts are ordinary programs, so nothing here is needed to run ztproxy,
and nothing of ztproxy behaves differently because the demo started it.
"""

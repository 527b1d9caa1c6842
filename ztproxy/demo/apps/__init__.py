"""Internal applications of a small company: a support desk, an operations wiki, a deployment API.

They know nothing of ztproxy but its identity assertion, which they verify as any application would:
with a JOSE library and the published keys. Only the proxy can reach them.
"""

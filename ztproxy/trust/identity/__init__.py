"""Turning credentials into principals: OpenID Connect sign-in, sessions, client certificates."""

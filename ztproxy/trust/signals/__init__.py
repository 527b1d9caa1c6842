"""What others tell us about people, sessions and devices: OpenID Shared Signals and back-channel logout."""

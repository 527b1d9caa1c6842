"""Device posture: documents signed by devices, checked, aged."""

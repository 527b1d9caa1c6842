"""One strict YAML file into frozen, checked settings."""

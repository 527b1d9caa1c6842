"""The policy enforcement point (NIST SP 800-207 PEP): the data plane."""

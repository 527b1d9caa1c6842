"""The policy administrator (NIST SP 800-207 PA): opens and cuts paths, holds
sessions and devices, writes the audit."""

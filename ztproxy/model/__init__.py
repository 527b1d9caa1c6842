"""The words: frozen values shared by every floor. Imports nothing of ours, does nothing."""

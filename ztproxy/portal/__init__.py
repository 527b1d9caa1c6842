"""Pages for people: sign-in, app list, device check, sign-out."""

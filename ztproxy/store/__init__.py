"""Where state lives: Records (versioned values) and Feed (ordered changes), one file per back end."""

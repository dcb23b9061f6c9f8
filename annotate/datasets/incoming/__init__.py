"""Files of conversations in: opened, recognised and turned into dialogue. Nothing here knows the database."""

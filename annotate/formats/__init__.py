"""How the admin site writes times: Django's own way leaves out in which zone they are."""

"""In English, as Django looks for it."""

DATETIME_FORMAT = "j M Y, H:i T"

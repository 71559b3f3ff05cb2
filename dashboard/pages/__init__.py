"""The HTML pages: views, charts, templates, static files."""
